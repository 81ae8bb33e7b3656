//! The text of warnings.

/// Maximum length of a warning. The API server may truncate longer ones.
pub(crate) const MAX_WARNING_CHARS: usize = 120;

/// Returns the warning `before image after` with at most 120 characters. A long image name is cut
/// in its middle: the registry and the end of the name stay.
pub(crate) fn warning(before: &str, image: &str, after: &str) -> String {
    let fixed = before.chars().count() + after.chars().count() + 2;
    let room = MAX_WARNING_CHARS.saturating_sub(fixed).max(16);
    let image = shorten(&short_digest(image), room);
    printable(&format!("{before} {image} {after}"), MAX_WARNING_CHARS)
}

/// Returns at most `room` characters. Parts of the text come from registries and callers: control
/// characters could change the terminal of the reader.
pub(crate) fn printable(text: &str, room: usize) -> String {
    text.chars()
        .take(room)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Returns the warning about an image without a result. It keeps the registry of the image, the cause
/// and the way out. Without room for all, it shortens the effect, and then the cause.
pub(crate) fn unchecked_warning(image: &str, effect: &str, cause: &str, way_out: &str) -> String {
    /// Characters of the end of the image name.
    const MIN_END: usize = 13;
    let short = effect.replace(" for end of life", "");
    let host = image
        .split_once('/')
        .map_or(0, |(host, _)| host.chars().count() + 1);
    let wanted = image.chars().count().min(host + MIN_END);
    let fixed = |effect: &str| {
        "image   : ".chars().count() + effect.chars().count() + way_out.chars().count()
    };
    let room = |effect: &str| MAX_WARNING_CHARS.saturating_sub(fixed(effect) + wanted);
    let length = cause.chars().count();
    let effect = if length <= room(effect) {
        effect
    } else {
        &short
    };
    const MIN_CAUSE: usize = 12;
    let cause = truncate(cause, room(effect).max(MIN_CAUSE));
    warning("image", image, &format!("{effect} {cause}: {way_out}"))
}

/// Cuts the digest of an image name to 12 digits.
fn short_digest(image: &str) -> String {
    if let Some((name, digest)) = image.split_once('@') {
        let short: String = digest.chars().take("sha256:".len() + 12).collect();
        if digest.len() > short.len() {
            return format!("{name}@{short}…");
        }
    }
    image.to_owned()
}

/// Cuts an image name to `room` characters.
fn shorten(image: &str, room: usize) -> String {
    const MIN_END: usize = 12;
    let length = image.chars().count();
    if length <= room {
        return image.to_owned();
    }
    let host = image
        .split_once('/')
        .map(|(host, _)| format!("{host}/"))
        .filter(|host| host.chars().count() + 1 + MIN_END <= room)
        .unwrap_or_default();
    let end = room.saturating_sub(host.chars().count() + 1);
    host.chars()
        .chain("…".chars())
        .chain(image.chars().skip(length.saturating_sub(end)))
        .collect()
}

/// Cuts a text to `room` characters.
pub(crate) fn truncate(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars()
        .take(room.saturating_sub(1))
        .chain("…".chars())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_has_at_most_120_characters_and_keeps_registry_and_name() {
        assert_eq!(
            warning("image", "app:v1", "reached end of life on 2025-03-20"),
            "image app:v1 reached end of life on 2025-03-20"
        );
        let long = format!("registry.example.com/{}/app:v1", "team/".repeat(40));
        let text = warning("image", &long, "reached end of life on 2025-03-20");
        assert_eq!(text.chars().count(), 120);
        assert!(
            text.starts_with("image registry.example.com/…")
                && text.contains("/app:v1 reached end of life on 2025-03-20"),
            "{text}"
        );
        // Without room for both, the end of the name stays.
        let text = warning("image", &long, &"x".repeat(90));
        assert_eq!(text.chars().count(), 120);
        assert!(text.starts_with("image …"), "{text}");
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

    #[test]
    fn a_warning_about_an_unchecked_image_keeps_host_cause_and_way_out() {
        let unchecked = |image: &str, cause: &str| {
            let effect = "was not checked for end of life:";
            unchecked_warning(image, effect, cause, "add a pull secret")
        };
        assert_eq!(
            unchecked("app:v1", "HTTP 401"),
            "image app:v1 was not checked for end of life: HTTP 401: add a pull secret"
        );
        let team = "team/".repeat(40);
        let hosts = [
            "ghcr.io",
            "registry.example.com:5000",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        ];
        for host in hosts {
            for cause in ["HTTP 401", "timed out while waiting for the answer"] {
                let text = unchecked(&format!("{host}/{team}app:v1"), cause);
                assert!(text.chars().count() <= MAX_WARNING_CHARS, "{text}");
                assert!(text.starts_with(&format!("image {host}/…")), "{text}");
                assert!(text.contains("/app:v1 was not checked"), "{text}");
                let (start, _) = cause.split_at(8);
                assert!(text.contains(&format!(": {start}")), "{text}");
                assert!(text.ends_with(": add a pull secret"), "{text}");
            }
        }
        let text = unchecked(&format!("{}/app:v1", "h".repeat(200)), "HTTP 401");
        assert!(text.ends_with("HTTP 401: add a pull secret"), "{text}");
        assert!(text.chars().count() <= MAX_WARNING_CHARS, "{text}");
    }
}
