//! Traits of a kind of registry. Quirks apply to the whole registry, faults to single requests.

use std::time::Duration;

/// The differences from a correct registry. [`Quirks::default`] has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// The referrers API.
    pub referrers: Referrers,
    /// The `OCI-Subject` header in the answer to a manifest PUT with a subject.
    pub oci_subject: OciSubject,
    /// The effect of `?artifactType=` on a listing.
    pub filtering: Filtering,
    /// The pages of a listing of referrers.
    pub paging: Paging,
    /// The form of a `Link`, for referrers and for tags.
    pub link: LinkForm,
    /// The delay after which a pushed referrer appears in the listing.
    pub listing_lag: Lag,
    /// The `artifactType` of an entry in a listing.
    pub entry_type: EntryType,
    /// True if entries of a listing have the manifest's annotations.
    pub entry_annotations: bool,
    /// A listing or an index without entries has `"manifests": null`.
    pub null_for_none: bool,
    /// Number of invented entries in the listing of every subject.
    pub made_up_entries: usize,
    /// The delay after which a moved tag is read as its new value.
    pub tag_lag: Lag,
    /// A tag of the form `sha256-<hex>` is read as that digest, where there is such a manifest (GitLab).
    pub reads_fallback_tag_as_digest: bool,
    /// Tags that cannot be moved.
    pub immutable_tags: Option<ImmutableTags>,
    /// At most so many tags a page, also where the client asks for more.
    pub tags_per_page: Option<usize>,
    /// The `Location` in the answer to a manifest PUT.
    pub manifest_location: Location,
    /// The `Location` in the answers of an upload.
    pub upload_location: Location,
    /// `POST …/uploads/?digest=` answers 202 and keeps nothing (distribution).
    pub ignores_monolithic_post: bool,
    /// An index may name manifests that are not there. Without this: 400 `MANIFEST_BLOB_UNKNOWN`, its detail the digest (distribution).
    pub accepts_missing_children: bool,
    /// An image manifest may name blobs that are not there. Without this: 400 `MANIFEST_BLOB_UNKNOWN`, its detail the digest.
    pub accepts_missing_blobs: bool,
    /// A manifest is only found where `Accept` names its media type (distribution, for OCI types).
    pub needs_accept: bool,
    /// The manifests that can be deleted.
    pub deletion: Deletion,
    /// A push to a repository that [`Store::create`](super::Store::create) did not make is refused with 404 `NAME_UNKNOWN` (ECR).
    pub repositories_must_exist: bool,
    /// True if answers have `Docker-Content-Digest`.
    pub digest_header: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            referrers: Referrers::Api,
            oci_subject: OciSubject::WithApi,
            filtering: Filtering::Applied,
            paging: Paging::None,
            link: LinkForm::Relative,
            listing_lag: Lag::default(),
            entry_type: EntryType::Resolved,
            entry_annotations: true,
            null_for_none: false,
            made_up_entries: 0,
            tag_lag: Lag::default(),
            reads_fallback_tag_as_digest: false,
            immutable_tags: None,
            tags_per_page: None,
            manifest_location: Location::Relative,
            upload_location: Location::Relative,
            ignores_monolithic_post: false,
            accepts_missing_children: true,
            accepts_missing_blobs: false,
            needs_accept: false,
            deletion: Deletion::Allowed,
            repositories_must_exist: false,
            digest_header: true,
        }
    }
}

impl Quirks {
    /// distribution 2 and 3: no referrers API, refuses an index with a missing child, keeps nothing of a monolithic POST, no DELETE.
    #[must_use]
    pub fn distribution() -> Self {
        Self {
            referrers: Referrers::Unsupported(Unsupported::NotFoundText),
            ignores_monolithic_post: true,
            accepts_missing_children: false,
            needs_accept: true,
            upload_location: Location::Absolute,
            manifest_location: Location::Absolute,
            deletion: Deletion::Disabled,
            ..Self::default()
        }
    }

    /// GHCR: no referrers API, asking for it leads to an HTML page under `elsewhere`.
    #[must_use]
    pub fn ghcr(elsewhere: impl Into<String>) -> Self {
        Self {
            referrers: Referrers::Unsupported(Unsupported::SeeOther(elsewhere.into())),
            ..Self::default()
        }
    }

    /// GitLab: no referrers API, and a fallback tag is read as the subject itself.
    #[must_use]
    pub fn gitlab() -> Self {
        Self {
            reads_fallback_tag_as_digest: true,
            ..Self::distribution()
        }
    }

    /// ECR: no `Location` on a manifest PUT, no deletion of manifests that an index references,
    /// repositories must exist.
    #[must_use]
    pub fn ecr() -> Self {
        Self {
            manifest_location: Location::None,
            deletion: Deletion::RefusedWhereReferenced,
            repositories_must_exist: true,
            ..Self::default()
        }
    }

    /// ECR and Docker Hub as they once were: `OCI-Subject` without a listing.
    #[must_use]
    pub fn subject_without_listing() -> Self {
        Self {
            referrers: Referrers::Unsupported(Unsupported::NotFoundText),
            oci_subject: OciSubject::Always,
            ..Self::default()
        }
    }

    /// go-containerregistry's registry: a listing that ignores the filter, lists config.mediaType, never answers `OCI-Subject`.
    #[must_use]
    pub fn go_containerregistry() -> Self {
        Self {
            oci_subject: OciSubject::Never,
            filtering: Filtering::Ignored,
            entry_type: EntryType::ConfigMediaType,
            ..Self::default()
        }
    }
}

/// The referrers API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Referrers {
    /// There is one.
    Api,
    /// There is none; asking for it gets this.
    Unsupported(Unsupported),
}

/// The answer of a registry without a referrers API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// 404 and plain text.
    NotFoundText,
    /// 404 with the code `METHOD_UNKNOWN`.
    MethodUnknown,
    /// 404 with the code `NAME_UNKNOWN`, which says that the *repository* is missing.
    NameUnknown,
    /// This status (400, 405, 406, 501, …) with the code `UNSUPPORTED`.
    Status(u16),
    /// 303 to a page under this base, which is another server's and an HTML 404 there.
    SeeOther(String),
    /// 200 with a body of this media type that is no index.
    OtherMediaType(String),
}

/// `OCI-Subject` in the answer to a manifest PUT with a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OciSubject {
    /// If there is a referrers API.
    WithApi,
    /// Also where there is none.
    Always,
    /// Nowhere.
    Never,
    /// Always, and always this digest.
    Lie(String),
}

/// The effect of the filter of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// It filters, and `OCI-Filters-Applied` says so.
    Applied,
    /// Nothing, and no header.
    Ignored,
    /// It filters, and no header says so.
    Silent,
    /// Nothing, but the header says that it filtered.
    Claimed,
    /// It filters by this type instead, and the header says that it filtered.
    Wrong(String),
}

/// The pages of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// One page.
    None,
    /// So many entries a page.
    Of(usize),
    /// The true entries first; then page after page without an entry, each with another `Link`, for ever.
    EndlessEmpty,
    /// So many made-up entries a page, each with another `Link`, for ever.
    EndlessFull(usize),
    /// Every page is the first one again after so many pages of one entry each: the `Link`s make a circle.
    Circle(usize),
}

/// The form of a `Link`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkForm {
    /// Path and query.
    Relative,
    /// Only the query: `<?last=1>`.
    QueryOnly,
    /// A whole URL of this server.
    Absolute,
    /// A whole URL under this base, such as `http://other:5000`.
    Under(String),
    /// `//host:port/…`: the scheme of the page, this host and port.
    SchemeRelative(String),
    /// Several relations, other parameters, no blank, within the grammar.
    Verbose,
    /// Text that is no link at all.
    Malformed,
}

/// The delay until something new is visible: by a number of reads and by a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Reads that do not see it.
    pub reads: u32,
    /// Time for which it is not seen.
    pub time: Duration,
}

impl Lag {
    /// Unseen by the next `reads` reads.
    #[must_use]
    pub fn reads(reads: u32) -> Self {
        Self {
            reads,
            time: Duration::ZERO,
        }
    }

    /// Unseen for `time`.
    #[must_use]
    pub fn time(time: Duration) -> Self {
        Self { reads: 0, time }
    }
}

/// `artifactType` of an entry in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// The manifest's, or its config's media type where that is empty.
    Resolved,
    /// The empty text (ACR).
    Empty,
    /// No such field.
    Absent,
    /// Always the config's media type.
    ConfigMediaType,
}

/// The tags that cannot be moved, and the refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImmutableTags {
    /// The tags, `*` standing for anything.
    pub pattern: String,
    /// The answer.
    pub refusal: Refusal,
}

/// The refusal of a write to an immutable tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400 `TAG_INVALID` (ECR).
    TagInvalid,
    /// 412 `PRECONDITION` (Harbor).
    Precondition,
    /// 409 `CONFLICT` (ACR and others).
    Conflict,
    /// 403 `DENIED` (Quay, GitLab).
    Forbidden,
}

/// `Location` in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A path.
    Relative,
    /// A whole URL of this server.
    Absolute,
    /// A whole URL under this base. The server there must share this one's store to be of use.
    Under(String),
    /// This text as it stands.
    Raw(String),
    /// No such header.
    None,
}

/// The effect of a DELETE of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Deletes.
    Allowed,
    /// 405 `UNSUPPORTED`.
    Disabled,
    /// 403 `DENIED` where an index names the manifest (ECR says `ImageReferencedByManifestList`).
    RefusedWhereReferenced,
}
