//! Tags (distribution-spec, "Listing Tags").

use serde::Deserialize;

use crate::client::session::Session;
use crate::error::{Object, RegistryError};
use crate::oci::{Tag, cut};
use crate::protocol::pages::Pages;

/// How many tags a page is asked for; some registries refuse more.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct TagList {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Session {
    /// The tags of the repository that are `wanted`. The others cost nothing but their pages, which are bounded as those of every
    /// listing are, by number and by bytes.
    ///
    /// A full page without a `Link` is not believed to be the last: registries are known to cut there in silence.
    ///
    /// # Errors
    /// `LimitExceeded` where more than `cap` are wanted: a part of the tags is never taken for all of them. And what every
    /// request can end in.
    pub async fn list_tags(
        &self,
        cap: usize,
        wanted: impl Fn(&Tag) -> bool,
    ) -> Result<Vec<Tag>, RegistryError> {
        let operation = self.operation("GET", Object::Tags, "");
        let mut pages = Pages::new(&operation);
        let mut url = self.url("tags/list");
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        let (first, mut next, mut found) = (url.clone(), Some(url), Vec::new());
        while let Some(url) = next {
            let answer = pages.get(self, url, "application/json").await?;
            if !answer.is_success() {
                return Err(self.refusal(&operation, &answer));
            }
            let list: TagList = serde_json::from_slice(&answer.body).map_err(|error| {
                self.protocol(
                    &operation,
                    &format!("the list of tags is malformed: {error}"),
                )
            })?;
            let tags = list.tags.unwrap_or_default();
            let (many, last) = (tags.len(), tags.last().cloned());
            for tag in tags {
                let malformed = |_| {
                    self.protocol(
                        &operation,
                        &format!("the list of tags holds {:?}, which is no tag", cut(&tag)),
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
                (None, Some(last)) if many >= PAGE => {
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
