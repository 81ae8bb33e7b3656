//! The text of warnings.

/// Maximum length of a warning. The API server may truncate longer ones.
pub(crate) const MAX_WARNING_CHARS: usize = 120;

/// Returns the warning `before image after` with at most 120 characters. A long image name is cut
/// in its middle: the registry and the end of the name stay.
pub(crate) fn warning(before: &str, image: &str, after: &str) -> String {
    let fixed = before.chars().count() + after.chars().count() + 2;
    let room = MAX_WARNING_CHARS.saturating_sub(fixed).max(16);
    let image = shorten(&short_digest(image), room);
    // Parts of the text come from registries: control characters could change the terminal of the
    // reader.
    format!("{before} {image} {after}")
        .chars()
        .take(MAX_WARNING_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
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
}
