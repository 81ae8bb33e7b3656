//! The tree as text. Text from a registry is escaped and cut.

use std::fmt::Write as _;

use super::model::{CosignTag, Node, NodeKind, Referrer, Tree};
use crate::cli::output::text;
use affix_registry::oci::{Digest, annotation};

/// The maximum length of a value, in characters.
const MAX_VALUE: usize = 100;
/// The maximum number of annotations of one referrer.
const MAX_ANNOTATIONS: usize = 8;
/// The maximum number of signatures of one tag.
const MAX_LAYERS: usize = 20;
/// Annotations without information for the reader: they repeat the artifact type or list hashes.
const HIDDEN_ANNOTATIONS: [&str; 3] = [
    annotation::CREATED,
    "dev.sigstore.bundle.content",
    "io.cncf.notary.x509chain.thumbprint#S256",
];

/// Returns the tree as lines of text.
pub(super) fn render(tree: &Tree, full_digests: bool) -> String {
    let style = Style { full_digests };
    let mut out = format!(
        "{}\n{}\n",
        text::Clean(&tree.image),
        style.heading(&tree.root)
    );
    let (details, branches) = style.below(&tree.root);
    draw(&mut out, "", &details, &branches);
    if tree.not_followed > 0 {
        let _ = writeln!(
            out,
            "the referrers of {} more referrers were not read",
            tree.not_followed
        );
    }
    out
}

/// A line, its detail lines, and the branches below it.
struct Branch {
    text: String,
    details: Vec<String>,
    branches: Vec<Branch>,
}

/// Draws the details and branches below a line. `indent` precedes each line.
fn draw(out: &mut String, indent: &str, details: &[String], branches: &[Branch]) {
    let beside = if branches.is_empty() { "   " } else { "│  " };
    for detail in details {
        let _ = writeln!(out, "{indent}{beside}{detail}");
    }
    for (nth, branch) in branches.iter().enumerate() {
        let (elbow, below) = if nth + 1 == branches.len() {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        let _ = writeln!(out, "{indent}{elbow}{}", branch.text);
        draw(
            out,
            &format!("{indent}{below}"),
            &branch.details,
            &branch.branches,
        );
    }
}

struct Style {
    full_digests: bool,
}

impl Style {
    fn digest(&self, digest: &Digest) -> String {
        if self.full_digests {
            digest.to_string()
        } else {
            text::short(digest)
        }
    }

    /// Returns the line of the root. The line before it is the reference.
    fn heading(&self, root: &Node) -> String {
        format!("{}  {}", self.digest(&root.digest), self.name(root))
    }

    fn name(&self, node: &Node) -> String {
        if !node.platforms.is_empty() {
            return text::line(&node.platforms.join(", "), MAX_VALUE);
        }
        match (node.kind, &node.attests) {
            (NodeKind::Index, _) => "index".to_owned(),
            (NodeKind::Manifest, _) => "manifest".to_owned(),
            (NodeKind::Attestation, Some(about)) => {
                let about = about.parse().map_or_else(
                    |_| text::line(about, MAX_VALUE),
                    |digest| self.digest(&digest),
                );
                format!("build attestation of {about}")
            }
            (NodeKind::Attestation, None) => "build attestation".to_owned(),
            (NodeKind::Unknown, _) => text::line(&node.media_type, MAX_VALUE),
        }
    }

    fn below(&self, node: &Node) -> (Vec<String>, Vec<Branch>) {
        let details = node.errors.iter().map(|error| error_line(error)).collect();
        let referrers = node
            .referrers
            .iter()
            .map(|referrer| self.referrer(referrer));
        let tags = node.tags.iter().map(|tag| self.tag(tag));
        let manifests = node.manifests.iter().map(|node| self.node(node));
        (details, referrers.chain(tags).chain(manifests).collect())
    }

    /// Returns a tag of cosign, with a branch for each signature or attestation.
    fn tag(&self, tag: &CosignTag) -> Branch {
        let layers = tag.layers.iter().map(|layer| Branch {
            text: format!(
                "{}  {}",
                text::line(&layer.media_type, MAX_VALUE),
                self.digest(&layer.digest)
            ),
            details: Vec::new(),
            branches: Vec::new(),
        });
        Branch {
            text: format!("tag {}  {}", tag.tag, self.digest(&tag.digest)),
            details: match tag.layers.len().saturating_sub(MAX_LAYERS) {
                0 => Vec::new(),
                more => vec![format!("and {more} more")],
            },
            branches: layers.take(MAX_LAYERS).collect(),
        }
    }

    fn node(&self, node: &Node) -> Branch {
        let (details, branches) = self.below(node);
        Branch {
            text: format!("{}  {}", self.name(node), self.digest(&node.digest)),
            details,
            branches,
        }
    }

    fn referrer(&self, referrer: &Referrer) -> Branch {
        let kind = if referrer.artifact_type.is_empty() {
            "(no artifact type)"
        } else {
            &referrer.artifact_type
        };
        let mut line = format!(
            "{}  {}",
            text::line(kind, MAX_VALUE),
            self.digest(&referrer.digest)
        );
        if let Some(created) = referrer.annotations.get(annotation::CREATED) {
            let _ = write!(line, "  {}", text::line(created, MAX_VALUE));
        }
        let visible: Vec<_> = referrer
            .annotations
            .iter()
            .filter(|(key, _)| !HIDDEN_ANNOTATIONS.contains(&key.as_str()))
            .collect();
        let shown = visible.iter().take(MAX_ANNOTATIONS);
        let mut details: Vec<String> = shown
            .map(|(key, value)| {
                format!(
                    "{}: {}",
                    text::line(key, MAX_VALUE),
                    text::line(value, MAX_VALUE)
                )
            })
            .collect();
        if visible.len() > MAX_ANNOTATIONS {
            details.push(format!(
                "and {} more annotations",
                visible.len() - MAX_ANNOTATIONS
            ));
        }
        details.extend(referrer.errors.iter().map(|error| error_line(error)));
        Branch {
            text: line,
            details,
            branches: referrer
                .referrers
                .iter()
                .map(|below| self.referrer(below))
                .collect(),
        }
    }
}

fn error_line(error: &str) -> String {
    format!("! {}", text::line(error, 4 * MAX_VALUE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::collections::BTreeMap;

    use super::super::model::CosignLayer;
    use super::*;

    fn digest(seed: &str) -> Digest {
        format!("sha256:{}", seed.repeat(16)).parse().unwrap()
    }

    fn node(kind: NodeKind, platform: Option<&str>, seed: &str) -> Node {
        Node {
            kind,
            platforms: platform.map(str::to_owned).into_iter().collect(),
            digest: digest(seed),
            media_type: "m".to_owned(),
            size: 1,
            attests: None,
            referrers: Vec::new(),
            tags: Vec::new(),
            manifests: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn mark(seed: &str) -> Referrer {
        let annotations = [
            (annotation::CREATED, "2026-11-23T17:33:35Z"),
            ("end-of-life.date", "2025-03-20T01:20:30Z"),
        ];
        Referrer {
            artifact_type: "application/vnd.demo.artifact.lifecycle".to_owned(),
            digest: digest(seed),
            media_type: "m".to_owned(),
            size: 1,
            annotations: annotations
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            referrers: Vec::new(),
            errors: Vec::new(),
        }
    }

    #[test]
    fn a_tree_shows_each_manifest_with_its_referrers() {
        let mut root = node(NodeKind::Index, None, "a1a1");
        root.referrers = vec![mark("1111")];
        let mut amd64 = node(NodeKind::Manifest, Some("linux/amd64"), "b1b1");
        let signed = Referrer {
            artifact_type: "application/sig".to_owned(),
            annotations: BTreeMap::new(),
            ..mark("3333")
        };
        amd64.referrers = vec![Referrer {
            referrers: vec![signed],
            ..mark("2222")
        }];
        let mut attestation = node(NodeKind::Attestation, None, "d1d1");
        attestation.attests = Some(digest("b1b1").to_string());
        let layer = CosignLayer {
            media_type: "application/signed".to_owned(),
            digest: digest("5555"),
            size: 1,
            annotations: BTreeMap::new(),
        };
        amd64.tags = vec![CosignTag {
            tag: "sha256-b1b1.sig".to_owned(),
            digest: digest("4444"),
            media_type: "m".to_owned(),
            size: 1,
            layers: vec![layer],
        }];
        let mut arm64 = node(NodeKind::Manifest, Some("linux/arm64"), "c1c1");
        arm64.errors = vec!["GET referrers: HTTP 503".to_owned()];
        root.manifests = vec![amd64, attestation, arm64];
        let tree = Tree {
            image: "registry.example.com/team/app:v1".to_owned(),
            root,
            not_followed: 0,
        };
        let expected = "\
registry.example.com/team/app:v1
sha256:a1a1a1a1a1a1  index
├─ application/vnd.demo.artifact.lifecycle  sha256:111111111111  2026-11-23T17:33:35Z
│     end-of-life.date: 2025-03-20T01:20:30Z
├─ linux/amd64  sha256:b1b1b1b1b1b1
│  ├─ application/vnd.demo.artifact.lifecycle  sha256:222222222222  2026-11-23T17:33:35Z
│  │  │  end-of-life.date: 2025-03-20T01:20:30Z
│  │  └─ application/sig  sha256:333333333333
│  └─ tag sha256-b1b1.sig  sha256:444444444444
│     └─ application/signed  sha256:555555555555
├─ build attestation of sha256:b1b1b1b1b1b1  sha256:d1d1d1d1d1d1
└─ linux/arm64  sha256:c1c1c1c1c1c1
      ! GET referrers: HTTP 503
";
        assert_eq!(render(&tree, false), expected);
        assert!(!tree.is_complete());
        assert!(render(&tree, true).contains(&format!("linux/arm64  {}", digest("c1c1"))));
    }

    #[test]
    fn text_of_a_registry_moves_no_cursor_and_breaks_no_line() {
        let mut root = node(NodeKind::Index, Some("linux/\x1b[2J\u{9b}m"), "a1a1");
        let mut hostile = mark("1111");
        hostile.artifact_type = "a/\r\nb\u{202e}".to_owned();
        hostile
            .annotations
            .insert("k\n".to_owned(), "v\x07".repeat(500));
        hostile.errors = vec!["e\x1b".to_owned()];
        root.referrers = vec![hostile];
        let text = render(
            &Tree {
                image: "r/i".to_owned(),
                root,
                not_followed: 1,
            },
            false,
        );
        assert!(
            !text.chars().any(|c| text::is_unsafe(c) && c != '\n'),
            "{text:?}"
        );
        assert_eq!(text.lines().count(), 7, "{text}");
    }
}
