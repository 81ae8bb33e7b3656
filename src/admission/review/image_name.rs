//! Images as pods name them: with Docker Hub and `latest` where nothing is said, as container runtimes read them. Messages show
//! them short enough to be read.

use affix_registry::oci::{Reference, ReferenceError};

/// Most characters of a warning.
const MOST: usize = 120;

/// The reference that a container runtime makes of a pod's image.
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

/// The image with a digest, as it was written and for good. `None` where it has one.
pub(crate) fn pinned(image: &str, digest: &affix_registry::oci::Digest) -> Option<String> {
    if image.contains('@') {
        return None;
    }
    let last = image.rsplit_once('/').map_or(image, |(_, last)| last);
    let tag = if last.contains(':') { "" } else { ":latest" };
    Some(format!("{image}{tag}@{digest}"))
}

/// A warning about `image` of at most 120 characters: `before image after`, the image cut from its left as far as is needed.
pub(crate) fn warning(before: &str, image: &str, after: &str) -> String {
    let image = match image.split_once('@') {
        Some((name, digest)) => {
            let short: String = digest.chars().take("sha256:".len() + 12).collect();
            if digest.len() > short.len() {
                format!("{name}@{short}…")
            } else {
                image.to_owned()
            }
        }
        None => image.to_owned(),
    };
    let fixed = before.chars().count() + after.chars().count() + 2;
    let room = MOST.saturating_sub(fixed).max(16);
    let length = image.chars().count();
    let image = if length <= room {
        image
    } else {
        "…"
            .chars()
            .chain(image.chars().skip(length + 1 - room))
            .collect()
    };
    // Registries write some of it: nothing that moves a terminal's cursor.
    format!("{before} {image} {after}")
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn images_are_read_as_container_runtimes_read_them() {
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
    fn a_tag_is_pinned_once_and_kept() {
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

    #[test]
    fn a_warning_has_at_most_120_characters_and_keeps_the_end_of_the_name() {
        assert_eq!(
            warning("image", "app:v1", "reached end of life on 2025-03-20"),
            "image app:v1 reached end of life on 2025-03-20"
        );
        let long = format!("registry.example.com/{}/app:v1", "team/".repeat(40));
        let text = warning("image", &long, "reached end of life on 2025-03-20");
        assert_eq!(text.chars().count(), 120);
        assert!(
            text.contains("/app:v1 reached end of life on 2025-03-20"),
            "{text}"
        );
        assert_eq!(
            warning("image", "app:v1", "(linux/\u{1b}[2K\n) is"),
            "image app:v1 (linux/\u{fffd}[2K\u{fffd}) is"
        );
        let pinned = format!("app:v1@sha256:{}", "a".repeat(64));
        assert_eq!(
            warning("image", &pinned, "is"),
            "image app:v1@sha256:aaaaaaaaaaaa… is"
        );
    }
}
