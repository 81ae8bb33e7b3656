//! Tags (distribution-spec, "Listing Tags").

use serde::Deserialize;

use crate::client::session::Session;
use crate::error::{Object, RegistryError};
use crate::oci::{Tag, cut, without_bom};
use crate::protocol::pages::Pages;

/// Page size of the request. Some registries reject more.
const PAGE_SIZE: usize = 1000;

#[derive(Deserialize)]
struct TagList {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Session {
    /// Lists the tags for which `wanted` returns true (distribution-spec, "Listing Tags"). Other
    /// tags do not count towards `cap`. [`Limits`](crate::Limits) bounds the pages and bytes.
    ///
    /// A full page without a `Link` is followed by a request with `last`, because some registries
    /// truncate listings without notice.
    ///
    /// # Errors
    /// `LimitExceeded` for more than `cap` wanted tags, because a partial list must not pass for
    /// the whole. The errors of every request.
    pub async fn list_tags(
        &self,
        cap: usize,
        wanted: impl Fn(&Tag) -> bool,
    ) -> Result<Vec<Tag>, RegistryError> {
        let operation = self.operation("GET", Object::Tags, "");
        let mut pages = Pages::new(&operation);
        let mut url = self.url("tags/list");
        url.query_pairs_mut()
            .append_pair("n", &PAGE_SIZE.to_string());
        let (first, mut next, mut found) = (url.clone(), Some(url), Vec::new());
        while let Some(url) = next {
            let answer = pages.get(self, url, "application/json").await?;
            if !answer.is_success() {
                return Err(self.refusal(&operation, &answer));
            }
            let list: TagList =
                serde_json::from_slice(without_bom(&answer.body)).map_err(|error| {
                    self.protocol(
                        &operation,
                        &format!("the list of tags is malformed: {error}"),
                    )
                })?;
            let tags = list.tags.unwrap_or_default();
            let (count, last) = (tags.len(), tags.last().cloned());
            for tag in tags {
                let malformed = |_| {
                    self.protocol(
                        &operation,
                        &format!(
                            "the list of tags contains {:?}, which is not a valid tag",
                            cut(&tag)
                        ),
                    )
                };
                found.extend(Some(tag.parse::<Tag>().map_err(malformed)?).filter(&wanted));
            }
            if found.len() > cap {
                let what = "the repository has too many tags".to_owned();
                return Err(RegistryError::LimitExceeded {
                    operation,
                    what,
                    limit: cap as u64,
                });
            }
            next = match (pages.next(self, &answer)?, last) {
                (None, Some(last)) if count >= PAGE_SIZE => {
                    let mut url = first.clone();
                    url.query_pairs_mut().append_pair("last", &last);
                    Some(url)
                }
                (next, _) => next,
            };
        }
        Ok(found)
    }
}
