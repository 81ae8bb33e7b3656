//! The operation of a request, derived from its method and path.

use http::Method;

use super::query::Query;

/// The operations of the distribution protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// `GET /v2/`.
    Ping,
    /// `GET` or `POST /token`.
    Token,
    /// `GET /v2/<name>/manifests/<reference>`.
    ManifestGet,
    /// `HEAD /v2/<name>/manifests/<reference>`.
    ManifestHead,
    /// `PUT /v2/<name>/manifests/<reference>`.
    ManifestPut,
    /// `DELETE /v2/<name>/manifests/<reference>`.
    ManifestDelete,
    /// `GET /v2/<name>/blobs/<digest>`.
    BlobGet,
    /// `HEAD /v2/<name>/blobs/<digest>`.
    BlobHead,
    /// `DELETE /v2/<name>/blobs/<digest>`.
    BlobDelete,
    /// `POST /v2/<name>/blobs/uploads/`.
    UploadStart,
    /// `GET /v2/<name>/blobs/uploads/<id>`.
    UploadStatus,
    /// `PATCH /v2/<name>/blobs/uploads/<id>`.
    UploadPatch,
    /// `PUT /v2/<name>/blobs/uploads/<id>`.
    UploadPut,
    /// `DELETE /v2/<name>/blobs/uploads/<id>`.
    UploadCancel,
    /// `GET /v2/<name>/referrers/<digest>`.
    ReferrersList,
    /// `GET /v2/<name>/tags/list`.
    TagList,
    /// Anything else.
    Other,
}

impl Op {
    /// Returns true if the operation changes the content of the registry.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::ManifestPut
                | Self::ManifestDelete
                | Self::BlobDelete
                | Self::UploadStart
                | Self::UploadPatch
                | Self::UploadPut
                | Self::UploadCancel
        )
    }
}

/// The target of a request: the operation, the repository, and the tag, digest or upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) op: Op,
    pub(super) repository: Option<String>,
    pub(super) reference: Option<String>,
}

impl Route {
    /// The route of a request; [`Op::Other`] where the protocol has none.
    pub(super) fn parse(method: &Method, path: &str) -> Self {
        let other = Self {
            op: Op::Other,
            repository: None,
            reference: None,
        };
        if path == "/token" {
            return Self {
                op: Op::Token,
                ..other
            };
        }
        let Some(rest) = path.strip_prefix("/v2") else {
            return other;
        };
        if rest.trim_matches('/').is_empty() {
            return Self {
                op: Op::Ping,
                ..other
            };
        }
        Self::in_repository(method, rest.trim_start_matches('/')).unwrap_or(other)
    }

    fn in_repository(method: &Method, path: &str) -> Option<Self> {
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return Self::to(method, repository, "", &[(Method::GET, Op::TagList)]);
        }
        if let Some((repository, reference)) = path.rsplit_once("/manifests/") {
            let ops = [
                (Method::GET, Op::ManifestGet),
                (Method::HEAD, Op::ManifestHead),
                (Method::PUT, Op::ManifestPut),
                (Method::DELETE, Op::ManifestDelete),
            ];
            return Self::to(method, repository, reference, &ops);
        }
        if let Some((repository, upload)) = path.rsplit_once("/blobs/uploads") {
            let ops = [
                (Method::POST, Op::UploadStart),
                (Method::GET, Op::UploadStatus),
                (Method::PATCH, Op::UploadPatch),
                (Method::PUT, Op::UploadPut),
                (Method::DELETE, Op::UploadCancel),
            ];
            return Self::to(method, repository, upload.trim_matches('/'), &ops);
        }
        if let Some((repository, digest)) = path.rsplit_once("/blobs/") {
            let ops = [
                (Method::GET, Op::BlobGet),
                (Method::HEAD, Op::BlobHead),
                (Method::DELETE, Op::BlobDelete),
            ];
            return Self::to(method, repository, digest, &ops);
        }
        let (repository, digest) = path.rsplit_once("/referrers/")?;
        Self::to(
            method,
            repository,
            digest,
            &[(Method::GET, Op::ReferrersList)],
        )
    }

    fn to(
        method: &Method,
        repository: &str,
        reference: &str,
        ops: &[(Method, Op)],
    ) -> Option<Self> {
        let (_, op) = ops.iter().find(|(candidate, _)| candidate == method)?;
        // A tag or digest may arrive percent-encoded (`sha256%3A…`).
        let reference = Query::parse(&format!("r={}", reference.replace('+', "%2B")))
            .get("r")
            .unwrap_or_default()
            .to_owned();
        Some(Self {
            op: *op,
            repository: Some(repository.to_owned()),
            reference: (!reference.is_empty()).then_some(reference),
        })
    }
}
