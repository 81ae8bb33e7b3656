//! Listing of referrers (distribution-spec, "Listing Referrers" and "Unavailable Referrers API").
//!
//! The client asks for the listing first and does not rely on `OCI-Subject`. Few answers mean that
//! there is no referrers API. All other failures are errors, because callers write on the basis of
//! an empty listing.

use http::header;
use oci_client::errors::OciErrorCode;
use tokio::time::Instant;

use crate::client::options::{ListingSource, ReferrersMode};
use crate::client::session::{Locator, Session};
use crate::error::{Object, Operation, RegistryError};
use crate::http::transport::Answer;
use crate::oci::{
    ArtifactType, Descriptor, Digest, RawDocument, RawEntry, ReferrersPage, Tag, media_type,
};
use crate::protocol::pages::Pages;
use crate::protocol::tag_document::{TagContent, TagRead};

/// The referrers of one subject.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The entries that are valid descriptors, in the registry's order, without embedded content.
    pub entries: Vec<Descriptor>,
    /// The number of all entries before filtering, including those that are not valid descriptors.
    pub total: usize,
    /// The source of the listing.
    pub source: ListingSource,
    /// True if the registry reported the filter as applied on every page (`OCI-Filters-Applied`).
    /// The client filters in any case.
    pub filtered: bool,
    /// The digest of the fallback tag. `None` if the tag does not exist or the source is the API.
    pub tag: Option<Digest>,
}

impl Session {
    /// Lists the referrers of `subject`, optionally of one type. Entries without a stated type pass
    /// the filter. Only their manifests prove their type.
    ///
    /// # Errors
    /// A listing that cannot be read is an error and never empty. `FallbackTagConflict` if the
    /// fallback tag does not hold a list of referrers. `LimitExceeded` for too many pages or
    /// entries. The errors of every request.
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&ArtifactType>,
    ) -> Result<Listing, RegistryError> {
        if self.referrers_mode().is_none() {
            self.inner
                .client
                .support
                .wait_for_probe(self.repository())
                .await;
        }
        self.uncounted().listing(subject, artifact_type).await
    }

    /// Behaves like [`referrers`](Self::referrers), for the first of several concurrent listings.
    /// While it is unknown if the repository has the referrers API, the other listings wait for the
    /// result of this one.
    ///
    /// # Errors
    /// Those of [`referrers`](Self::referrers).
    pub async fn first_referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&ArtifactType>,
    ) -> Result<Listing, RegistryError> {
        let finding_out = self
            .referrers_mode()
            .is_none()
            .then(|| self.inner.client.support.begin_probe(self.repository()))
            .flatten();
        if finding_out.is_none() {
            return self.referrers(subject, artifact_type).await;
        }
        self.uncounted().listing(subject, artifact_type).await
    }

    async fn listing(
        &self,
        subject: &Digest,
        artifact_type: Option<&ArtifactType>,
    ) -> Result<Listing, RegistryError> {
        let (mode, support) = (self.inner.mode, &self.inner.client.support);
        if self.referrers_mode() != Some(ListingSource::FallbackTag) {
            let known = support.of(self.repository(), Instant::now());
            match self.api_listing(subject, artifact_type).await? {
                Ok(listing) => {
                    support.has_api(self.repository(), Instant::now());
                    return Ok(listing);
                }
                Err((operation, answer)) if mode == ReferrersMode::Api => {
                    return Err(RegistryError::ReferrersUnsupported(
                        self.answered(&operation, &answer),
                    ));
                }
                Err((operation, answer)) if known == Some(ListingSource::Api) => {
                    let what = format!(
                        "HTTP {}, although the registry answered such listings before",
                        answer.status
                    );
                    return Err(self.protocol(&operation, &what));
                }
                Err(_) => support.lacks_api(self.repository(), Instant::now()),
            }
        }
        let (source, filtered) = (ListingSource::FallbackTag, false);
        let Some(tag) = self.fallback_tag(subject).await?.tag else {
            return Ok(Listing {
                entries: Vec::new(),
                total: 0,
                source,
                filtered,
                tag: None,
            });
        };
        let entries = filtered_entries(
            tag.document.entries.iter().filter_map(RawEntry::descriptor),
            artifact_type,
        )
        .collect();
        Ok(Listing {
            entries,
            total: tag.document.entries.len(),
            source,
            filtered,
            tag: Some(tag.digest),
        })
    }

    /// Returns the listing of the API, or the answer that proves that there is no API.
    async fn api_listing(
        &self,
        subject: &Digest,
        artifact_type: Option<&ArtifactType>,
    ) -> Result<Result<Listing, (Operation, Answer)>, RegistryError> {
        let operation = self.operation("GET", Object::Referrers, format_args!("of {subject}"));
        let mut url = self.url(&format!("referrers/{subject}"));
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut()
                .append_pair("artifactType", artifact_type.as_str());
        }
        let max = self.options().limits.referrers;
        let mut pages = Pages::new(&operation);
        let (mut next, mut entries, mut total, mut filtered) =
            (Some(url), Vec::new(), 0, artifact_type.is_some());
        let mut first = true;
        while let Some(url) = next {
            let answer = pages.get(self, url, media_type::OCI_INDEX).await?;
            let read = ReferrersPage::parse(if answer.is_success() {
                &answer.body
            } else {
                b""
            });
            let is_listing = is_listing(&answer, read.as_ref().ok());
            if first && self.is_unsupported(&operation, &answer, is_listing) {
                return Ok(Err((operation, answer)));
            }
            first = false;
            if !answer.is_success() {
                return Err(self.refusal(&operation, &answer));
            }
            let page = read.map_err(|error| {
                self.protocol(&operation, &format!("the listing is malformed: {error}"))
            })?;
            if !is_listing {
                return Err(
                    self.protocol(&operation, "a page of the listing is not an image index")
                );
            }
            total += page.raw().len();
            if total > max {
                return Err(RegistryError::LimitExceeded {
                    operation,
                    what: "the subject has too many referrers".to_owned(),
                    limit: max as u64,
                });
            }
            // Registries that report the filter as applied are known to return other types, so the
            // client filters, too.
            entries.extend(filtered_entries(page.descriptors(), artifact_type));
            filtered &= applied_filter(&answer);
            next = pages.next(self, &answer)?;
        }
        Ok(Ok(Listing {
            entries,
            total,
            source: ListingSource::Api,
            filtered,
            tag: None,
        }))
    }

    /// Returns true if an answer means that there is no referrers API. `NAME_UNKNOWN` proves
    /// nothing about the API.
    fn is_unsupported(&self, operation: &Operation, answer: &Answer, is_listing: bool) -> bool {
        match answer.status {
            404 => !self
                .answered(operation, answer)
                .has_code(&OciErrorCode::NameUnknown),
            400 | 405 | 406 | 501 => true,
            // Redirects within the origin were followed. This one leads elsewhere or is a 303.
            300..=399 => true,
            200..=299 => !is_listing,
            _ => false,
        }
    }

    /// Returns true if the repository lists a tag. `cosign copy` leaves tags `sha256-<hex>` that name
    /// the very manifest. A registry that reads such a tag as the digest does not list it.
    async fn lists_tag(&self, at: &Locator) -> Result<bool, RegistryError> {
        let Locator::Tag(tag) = at else {
            return Ok(false);
        };
        let tags = self
            .inner
            .referrers_tags
            .get_or_try_init(|| async { self.list_tags(usize::MAX, Tag::is_referrers_tag).await });
        Ok(tags.await?.contains(tag))
    }

    /// Reads the fallback tag of a subject.
    pub(crate) async fn fallback_tag(&self, subject: &Digest) -> Result<TagRead, RegistryError> {
        let operation = self.operation("GET", Object::FallbackTag, subject.fallback_tag());
        let conflict = |what: String| RegistryError::FallbackTagConflict {
            operation: operation.clone(),
            what,
        };
        let tag: Tag = subject
            .fallback_tag()
            .parse()
            .map_err(|_| conflict("it is not a valid tag".to_owned()))?;
        let at = Locator::Tag(tag.clone());
        let answer = self.uncounted().ask_manifest(&operation, &at).await?;
        let sent = answer.sent;
        let raw = match answer.status {
            404 => {
                return Ok(TagRead {
                    sent,
                    tag: None,
                    names_subject: false,
                });
            }
            200..=299 => self.checked(&operation, &at, answer)?,
            _ => return Err(self.refusal(&operation, &answer)),
        };
        if raw.digest == *subject || subject.matches(&raw.bytes) {
            let is_listed = self.lists_tag(&at).await;
            return match is_listed {
                Ok(true) => Ok(TagRead {
                    sent,
                    tag: None,
                    names_subject: true,
                }),
                Err(error) if error.is_transient() => Err(error),
                Ok(false) => Err(conflict(READS_TAG_AS_DIGEST.to_owned())),
                Err(error) => Err(conflict(format!(
                    "the fallback tag names the image itself, and the tags cannot be listed to tell a copy of \
                     the image from a registry that reads the tag as the digest: {error}"
                ))),
            };
        }
        let content_type = raw.content_type.as_deref().map(media_type::essence);
        let read = RawDocument::parse(&raw.bytes, RawDocument::MANIFESTS);
        let index = read.map_err(|error| {
            conflict(self.redact(&format!(
                "the tag does not hold a list of referrers: {error}"
            )))
        })?;
        let stated = index
            .media_type()
            .filter(|stated| !stated.is_empty())
            .or_else(|| content_type.map(str::to_owned))
            .unwrap_or_default();
        if stated != media_type::OCI_INDEX {
            let what = format!("the tag does not hold a list of referrers but {stated:?}");
            return Err(conflict(self.redact(&what)));
        }
        let max = self.options().limits.referrers;
        if index.entries.len() > max {
            let what = format!("the subject has {} referrers", index.entries.len());
            return Err(RegistryError::LimitExceeded {
                operation,
                what,
                limit: max as u64,
            });
        }
        self.inner.saw_tag(&tag);
        Ok(TagRead {
            sent,
            tag: Some(TagContent {
                digest: raw.digest,
                document: index,
            }),
            names_subject: false,
        })
    }
}

/// The conflict of a registry that reads a fallback tag as the digest.
pub(super) const READS_TAG_AS_DIGEST: &str = "the registry resolves the fallback tag to the image itself, as GitLab does: \
                        writing the tag would overwrite the image";

/// Returns true if an answer is an image index, by its header or by its content.
fn is_listing(answer: &Answer, read: Option<&ReferrersPage<'_>>) -> bool {
    let served = answer.header(header::CONTENT_TYPE).map(media_type::essence);
    served == Some(media_type::OCI_INDEX)
        || read.is_some_and(|page| page.media_type().as_deref() == Some(media_type::OCI_INDEX))
}

/// Returns true if `OCI-Filters-Applied` contains the type filter. The value is a list.
fn applied_filter(answer: &Answer) -> bool {
    let mut applied = answer
        .header_lines("oci-filters-applied")
        .flat_map(|line| line.split(','));
    applied.any(|filter| filter.trim().eq_ignore_ascii_case("artifactType"))
}

/// Returns the entries that pass the type filter, without their embedded content.
fn filtered_entries(
    entries: impl Iterator<Item = Descriptor>,
    artifact_type: Option<&ArtifactType>,
) -> impl Iterator<Item = Descriptor> {
    let passes = move |entry: &Descriptor| {
        artifact_type.is_none_or(|wanted| entry.may_have_type(wanted.as_str()))
    };
    entries.filter(passes).map(|entry| Descriptor {
        data: None,
        ..entry
    })
}
