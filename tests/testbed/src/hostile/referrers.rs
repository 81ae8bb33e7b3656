//! `GET /v2/<name>/referrers/<digest>`: the listing, its filter and its pages, and the ways of not having one.

use http::StatusCode;
use http::header::{CONTENT_TYPE, LINK, LOCATION};
use serde_json::{Value, json};

use super::answer::Answer;
use super::digest::{Algorithm, digest};
use super::query::{Query, encode};
use super::quirk::{EntryType, Filtering, LinkForm, Paging, Referrers, Unsupported};
use super::record::Request;
use super::service::Context;
use super::store::Manifest;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Artifact type of invented entries.
const MADE_UP: &str = "application/vnd.example.made-up";

pub(super) fn list(
    context: &Context<'_>,
    request: &Request,
    repository: &str,
    subject: &str,
) -> Answer {
    if let Referrers::Unsupported(how) = &context.quirks.referrers {
        return unsupported(how, request);
    }
    if Algorithm::of(subject).is_none() {
        return Answer::error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "the subject is not a digest",
        );
    }
    let manifests = {
        let mut data = context.store.data();
        let Some(repository) = data.repository(repository) else {
            return context.name_unknown();
        };
        repository.read_referrers(subject)
    };
    let mut entries: Vec<Value> = manifests
        .iter()
        .map(|manifest| entry(context, manifest))
        .collect();
    entries.extend((0..context.quirks.made_up_entries).map(made_up));
    let query = Query::parse(&request.query);
    let wanted = query
        .get("artifactType")
        .filter(|wanted| !wanted.is_empty());
    if let Some(wanted) = wanted {
        match &context.quirks.filtering {
            Filtering::Applied | Filtering::Silent => {
                entries.retain(|entry| has_type(entry, wanted));
            }
            Filtering::Wrong(other) => entries.retain(|entry| has_type(entry, other)),
            Filtering::Ignored | Filtering::Claimed => {}
        }
    }
    let at = query
        .get("last")
        .and_then(|last| last.parse().ok())
        .unwrap_or(0);
    let (page, next) = page(context.quirks.paging, entries, at);
    let page = if page.is_empty() && context.quirks.null_for_none {
        Value::Null
    } else {
        Value::from(page)
    };
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": page});
    let mut answer = Answer::new(StatusCode::OK)
        .header(CONTENT_TYPE, INDEX)
        .bytes(body.to_string());
    let says_filtered = !matches!(
        context.quirks.filtering,
        Filtering::Ignored | Filtering::Silent
    );
    if wanted.is_some() && says_filtered {
        answer = answer.named("oci-filters-applied", "artifactType");
    }
    match next {
        Some(next) => {
            let filter = wanted
                .map(|wanted| format!("artifactType={}&", encode(wanted)))
                .unwrap_or_default();
            link(
                context,
                answer,
                &request.path,
                &format!("{filter}last={next}"),
            )
        }
        None => answer,
    }
}

/// The entries of the page that starts at `at`, and where the next one starts.
fn page(paging: Paging, entries: Vec<Value>, at: usize) -> (Vec<Value>, Option<usize>) {
    let cut = |entries: Vec<Value>, size: usize| {
        let more = entries.len().saturating_sub(at) > size;
        (
            entries.into_iter().skip(at).take(size).collect::<Vec<_>>(),
            more.then(|| at.saturating_add(size)),
        )
    };
    match paging {
        Paging::None => (entries, None),
        Paging::Of(size) => cut(entries, size.max(1)),
        Paging::EndlessEmpty if at == 0 => (entries, Some(1)),
        Paging::EndlessEmpty => (Vec::new(), Some(at.saturating_add(1))),
        Paging::EndlessFull(size) => (
            (at..at.saturating_add(size)).map(made_up).collect(),
            Some(at.saturating_add(size.max(1))),
        ),
        Paging::Circle(pages) => {
            let (page, _) = cut(entries, 1);
            (page, Some((at + 1) % pages.max(1)))
        }
    }
}

/// Adds the `Link` to the next page, in the form that the registry has.
pub(super) fn link(context: &Context<'_>, answer: Answer, path: &str, query: &str) -> Answer {
    let next = |url: String| format!("<{url}>; rel=\"next\"");
    let value = match &context.quirks.link {
        LinkForm::Relative => next(format!("{path}?{query}")),
        LinkForm::QueryOnly => next(format!("?{query}")),
        LinkForm::Absolute => next(format!("{}{path}?{query}", context.origin)),
        LinkForm::Under(base) => next(format!("{base}{path}?{query}")),
        LinkForm::SchemeRelative(host) => next(format!("//{host}{path}?{query}")),
        LinkForm::Verbose => {
            format!(
                "<{path}?first,one>;rel=first;title=\"a, b; rel=next\",<{path}?{query}>;x=y;REL=\"last next\""
            )
        }
        LinkForm::Malformed => "next page, please".to_owned(),
    };
    answer.header(LINK, &value)
}

/// The entry of a listing for a manifest ("Listing Referrers").
fn entry(context: &Context<'_>, manifest: &Manifest) -> Value {
    let json = manifest.json();
    let text = |pointer: &str| {
        json.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let config = text("/config/mediaType");
    let resolved = Some(text("/artifactType"))
        .filter(|own| !own.is_empty())
        .unwrap_or_else(|| config.clone());
    let mut entry = manifest.descriptor();
    let artifact_type = match context.quirks.entry_type {
        EntryType::Resolved => Some(resolved),
        EntryType::ConfigMediaType => Some(config),
        EntryType::Empty => Some(String::new()),
        EntryType::Absent => None,
    };
    if let Some(fields) = entry.as_object_mut() {
        if let Some(artifact_type) = artifact_type {
            fields.insert("artifactType".to_owned(), Value::from(artifact_type));
        }
        if let Some(annotations) = json
            .get("annotations")
            .filter(|_| context.quirks.entry_annotations)
        {
            fields.insert("annotations".to_owned(), annotations.clone());
        }
    }
    entry
}

fn made_up(number: usize) -> Value {
    let digest = digest(format!("made up {number}").as_bytes());
    json!({"mediaType": MANIFEST, "digest": digest, "size": 700, "artifactType": MADE_UP})
}

fn has_type(entry: &Value, wanted: &str) -> bool {
    entry.get("artifactType").and_then(Value::as_str) == Some(wanted)
}

fn unsupported(how: &Unsupported, request: &Request) -> Answer {
    match how {
        Unsupported::NotFoundText => Answer::new(StatusCode::NOT_FOUND)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .bytes("404 page not found\n"),
        Unsupported::MethodUnknown => Answer::error(
            StatusCode::NOT_FOUND,
            "METHOD_UNKNOWN",
            "the method is not known",
        ),
        Unsupported::NameUnknown => Answer::error(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "repository name not known to registry",
        ),
        Unsupported::Status(status) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_IMPLEMENTED);
            Answer::error(status, "UNSUPPORTED", "the operation is unsupported")
        }
        Unsupported::SeeOther(base) => {
            let path = request.path.trim_start_matches('/');
            Answer::new(StatusCode::SEE_OTHER).header(LOCATION, &format!("{base}/-/{path}"))
        }
        Unsupported::OtherMediaType(media_type) => Answer::new(StatusCode::OK)
            .header(CONTENT_TYPE, media_type)
            .bytes("<!DOCTYPE html><title>Welcome</title><p>Sign in to see your images.</p>"),
    }
}
