//! The config of the manifest under a signature tag: an image config with one diff id and one history entry for each layer.
//!
//! Verifiers read the layers only. Writers such as cosign append to the config and find its layers by their position.

use crate::oci::{Digest, RawDocument, RawEntry};

/// The history entry that cosign writes for a signature.
const HISTORY: &str = r#"{"created":"0001-01-01T00:00:00Z"}"#;

/// Returns the config of a manifest with the layers `next`, made from the config `bytes` of a manifest with the layers `base`.
///
/// Foreign parts keep their bytes. Lists that do not match the layers of `base` are only extended.
///
/// # Errors
/// If the config is not a JSON object.
pub(super) fn config_for(
    bytes: Option<&[u8]>,
    base: &[RawEntry],
    next: &[RawEntry],
) -> Result<Vec<u8>, serde_json::Error> {
    let mut config = match bytes {
        Some(bytes) => RawDocument::parse(bytes, "history")?,
        None => empty(),
    };
    let base = if bytes.is_some() { base } else { &[] };
    config.entries = aligned(&config.entries, base, next, |_| HISTORY.to_owned());
    let mut rootfs = match config.field("rootfs") {
        Some(rootfs) => RawDocument::parse(rootfs.as_bytes(), "diff_ids")?,
        None => RawDocument::new("diff_ids", &[("type", r#""layers""#.to_owned())]),
    };
    rootfs.entries = aligned(&rootfs.entries, base, next, |layer| {
        let digest = layer.digest().map(Digest::to_string);
        format!("{:?}", digest.unwrap_or_default())
    });
    let rootfs = String::from_utf8_lossy(&rootfs.to_bytes()).into_owned();
    config.set_field("rootfs", rootfs);
    Ok(config.to_bytes())
}

/// Returns the config that cosign begins with.
fn empty() -> RawDocument {
    let text = |text: &str| format!("{text:?}");
    let before = [
        ("architecture", text("")),
        ("created", text("0001-01-01T00:00:00Z")),
    ];
    let mut config = RawDocument::new("history", &before);
    config.set_field("os", text(""));
    config.set_field("rootfs", r#"{"type":"layers","diff_ids":[]}"#.to_owned());
    config.set_field("config", "{}".to_owned());
    config
}

/// Returns the items of `next`: those of its layers that `base` has, and new ones.
fn aligned(
    items: &[RawEntry],
    base: &[RawEntry],
    next: &[RawEntry],
    new: impl Fn(&RawEntry) -> String,
) -> Vec<RawEntry> {
    let new = |layer: &RawEntry| RawEntry::from_json(new(layer));
    let mut left: Vec<&RawEntry> = next.iter().collect();
    if items.len() != base.len() {
        left.retain(|layer| !base.contains(layer));
        let added = left.into_iter().filter_map(new);
        return items.iter().cloned().chain(added).collect();
    }
    let item = |layer: &RawEntry| {
        let position = base.iter().position(|known| known == layer);
        position.and_then(|position| items.get(position).cloned())
    };
    next.iter()
        .filter_map(|layer| item(layer).or_else(|| new(layer)))
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::oci::Descriptor;

    fn layer(text: &str) -> RawEntry {
        RawEntry::from(&Descriptor::of("m", text.as_bytes()))
    }

    fn made(bytes: Option<&str>, base: &[RawEntry], next: &[RawEntry]) -> String {
        let made = config_for(bytes.map(str::as_bytes), base, next).unwrap();
        String::from_utf8(made).unwrap()
    }

    #[test]
    fn a_first_config_is_that_of_cosign() {
        let one = layer("one");
        let digest = one.digest().unwrap();
        assert_eq!(
            made(None, &[], std::slice::from_ref(&one)),
            format!(
                r#"{{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{HISTORY}],"os":"","rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"config":{{}}}}"#
            )
        );
    }

    #[test]
    fn foreign_parts_stay_and_lists_follow_the_layers() {
        let (one, two, three) = (layer("one"), layer("two"), layer("three"));
        let config = r#"{"x": {"deep" : 1e400},"rootfs":{"type":"layers","y":[ ],"diff_ids":["a","b"]},"history":[{"by":"1"},{"by":"2"}]}"#;
        let base = [one.clone(), two.clone()];
        let digest = three.digest().unwrap();
        assert_eq!(
            made(Some(config), &base, &[two.clone(), three.clone()]),
            format!(
                r#"{{"x":{{"deep" : 1e400}},"rootfs":{{"type":"layers","y":[ ],"diff_ids":["b","{digest}"]}},"history":[{{"by":"2"}},{HISTORY}]}}"#
            )
        );
        // The position of a layer is unknown.
        let short = r#"{"rootfs":{"diff_ids":["a"]},"history":null}"#;
        assert_eq!(
            made(Some(short), &base, &[one, two, three.clone()]),
            format!(r#"{{"rootfs":{{"diff_ids":["a","{digest}"]}},"history":[{HISTORY}]}}"#)
        );
    }

    #[test]
    fn a_config_that_is_no_object_is_refused() {
        for text in ["[]", "7", "x", r#"{"rootfs":7}"#] {
            assert!(
                config_for(Some(text.as_bytes()), &[], &[]).is_err(),
                "{text}"
            );
        }
    }
}
