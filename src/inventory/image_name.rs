//! Image names of pods, parsed as container runtimes do: Docker Hub and `latest` are the defaults.

use affix_registry::oci::{Reference, ReferenceError};

/// Parses an image name with the defaults of container runtimes.
pub(crate) fn reference(image: &str) -> Result<Reference, ReferenceError> {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (first, rest) = name
        .split_once('/')
        .map_or((None, name), |(first, rest)| (Some(first), rest));
    let is_host = |part: &str| {
        part.contains(['.', ':'])
            || part == "localhost"
            || part.bytes().any(|b| b.is_ascii_uppercase())
    };
    let mut full = match first {
        Some(host) if is_host(host) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    if digest.is_none() && !rest.contains(':') {
        full.push_str(":latest");
    }
    if let Some(digest) = digest {
        full.push('@');
        full.push_str(digest);
    }
    full.parse()
}

/// Returns the image name with its digest, or `None` if it already has one.
pub(crate) fn pinned(image: &str, digest: &affix_registry::oci::Digest) -> Option<String> {
    if image.contains('@') {
        return None;
    }
    let last = image.rsplit_once('/').map_or(image, |(_, last)| last);
    let tag = if last.contains(':') { "" } else { ":latest" };
    Some(format!("{image}{tag}@{digest}"))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn images_are_parsed_as_container_runtimes_do() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.29", "docker.io/library/nginx:1.29".to_owned()),
            ("team/app", "docker.io/team/app:latest".to_owned()),
            ("quay.io/team/app:v1", "quay.io/team/app:v1".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("registry:5000/app", "registry:5000/app:latest".to_owned()),
            (
                &format!("nginx@{digest}"),
                format!("docker.io/library/nginx@{digest}"),
            ),
            (
                &format!("quay.io/app:v1@{digest}"),
                format!("quay.io/app:v1@{digest}"),
            ),
        ] {
            assert_eq!(reference(image).unwrap().to_string(), full, "{image}");
        }
        for image in ["", "UPPER/case", "a b", "app:", "app@sha256:1"] {
            assert!(reference(image).is_err(), "{image}");
        }
    }

    #[test]
    fn a_tag_gets_a_digest_once_and_is_kept() {
        let digest: affix_registry::oci::Digest =
            format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        assert_eq!(
            pinned("app:v1", &digest).unwrap(),
            format!("app:v1@{digest}")
        );
        assert_eq!(
            pinned("registry:5000/app", &digest).unwrap(),
            format!("registry:5000/app:latest@{digest}")
        );
        assert_eq!(pinned(&format!("app@{digest}"), &digest), None);
    }
}
