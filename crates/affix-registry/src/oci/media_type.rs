//! Media types of manifests and configs, and their classification.
//!
//! The well-known ones are the constants of oci-client. It lacks the others.

use oci_client::manifest;

/// OCI image manifest (image-spec, manifest.md).
pub const OCI_MANIFEST: &str = manifest::OCI_IMAGE_MEDIA_TYPE;
/// OCI image index (image-spec, image-index.md).
pub const OCI_INDEX: &str = manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
/// Docker image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = manifest::IMAGE_MANIFEST_MEDIA_TYPE;
/// Docker manifest list.
pub const DOCKER_LIST: &str = manifest::IMAGE_MANIFEST_LIST_MEDIA_TYPE;
/// Docker image manifest, version 2, schema 1. It is recognised so that errors can name it.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Signed form of [`DOCKER_SCHEMA1`].
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// The empty JSON object `{}` (image-spec, manifest.md, "Guidance for an Empty Descriptor").
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// OCI image configuration (image-spec, config.md).
pub const OCI_CONFIG: &str = manifest::IMAGE_CONFIG_MEDIA_TYPE;
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = manifest::IMAGE_DOCKER_CONFIG_MEDIA_TYPE;
/// A Sigstore bundle: artifact type and layer of the signatures that cosign creates.
pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A layer of a signature tag of cosign: the signed text of one signature (containers/image, "Simple signing").
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Config of the signatures that notation creates. Listings state it as their artifact type.
pub const NOTARY_SIGNATURE: &str = "application/vnd.cncf.notary.signature";
/// Bytes of unspecified type. The default for attached files.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The kind of document that a manifest's media type announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An OCI index or a Docker manifest list.
    Index,
    /// An OCI manifest or a Docker schema 2 manifest.
    Image,
    /// Any other document.
    Other,
}

/// Classifies a media type. Parameters, for example `; charset=utf-8`, are ignored.
#[must_use]
pub fn kind(media_type: &str) -> Kind {
    match essence(media_type) {
        OCI_INDEX | DOCKER_LIST => Kind::Index,
        OCI_MANIFEST | DOCKER_MANIFEST => Kind::Image,
        _ => Kind::Other,
    }
}

/// Returns the media type without its parameters and without surrounding spaces.
#[must_use]
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Returns true for the media types of image configurations, which state a platform.
#[must_use]
pub fn is_image_config(media_type: &str) -> bool {
    matches!(essence(media_type), OCI_CONFIG | DOCKER_CONFIG)
}

/// The `Accept` header of manifest requests: all supported kinds, OCI first.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_have_the_values_of_the_specifications() {
        for (constant, value) in [
            (OCI_MANIFEST, "application/vnd.oci.image.manifest.v1+json"),
            (OCI_INDEX, "application/vnd.oci.image.index.v1+json"),
            (
                DOCKER_MANIFEST,
                "application/vnd.docker.distribution.manifest.v2+json",
            ),
            (
                DOCKER_LIST,
                "application/vnd.docker.distribution.manifest.list.v2+json",
            ),
            (OCI_CONFIG, "application/vnd.oci.image.config.v1+json"),
            (
                DOCKER_CONFIG,
                "application/vnd.docker.container.image.v1+json",
            ),
        ] {
            assert_eq!(constant, value);
        }
        assert_eq!(
            ACCEPT_MANIFESTS,
            [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ")
        );
    }
}
