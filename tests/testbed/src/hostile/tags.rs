//! `GET /v2/<name>/tags/list`, with paging by `n` and `last`.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::answer::Answer;
use super::query::{Query, encode};
use super::record::Request;
use super::referrers::link;
use super::service::Context;

pub(super) fn list(context: &Context<'_>, request: &Request, repository: &str) -> Answer {
    let tags = {
        let mut data = context.store.data();
        let Some(repository) = data.repository(repository) else {
            return context.name_unknown();
        };
        repository.tags.keys().cloned().collect::<Vec<_>>()
    };
    let query = Query::parse(&request.query);
    let last = query.get("last").unwrap_or_default();
    let asked = query.get("n").and_then(|n| n.parse::<usize>().ok());
    let size = asked
        .into_iter()
        .chain(context.quirks.tags_per_page)
        .min()
        .unwrap_or(usize::MAX);
    let mut after = tags.into_iter().filter(|tag| tag.as_str() > last);
    let page: Vec<String> = after.by_ref().take(size).collect();
    let more = after.next().is_some();
    let answer = Answer::new(StatusCode::OK)
        .header(CONTENT_TYPE, "application/json")
        .bytes(json!({"name": repository, "tags": page}).to_string());
    match page.last() {
        Some(tag) if more => {
            let n = asked.map(|n| format!("n={n}&")).unwrap_or_default();
            link(
                context,
                answer,
                &request.path,
                &format!("{n}last={}", encode(tag)),
            )
        }
        _ => answer,
    }
}
