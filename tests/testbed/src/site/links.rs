//! Links of Markdown files and of HTML pages, and the check that each of them leads somewhere.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::stage::normal;

/// A link of a Markdown file.
pub(super) struct Link<'a> {
    /// The target, as written.
    pub(super) target: &'a str,
    /// The position of the target in the text.
    pub(super) range: Range<usize>,
}

/// Returns the inline links and images of a Markdown file, without those in code.
pub(super) fn links(text: &str) -> Vec<Link<'_>> {
    let mut found = Vec::new();
    let mut in_code = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let mut from = 0;
            while let Some(at) = line[from..].find("](") {
                let begin = from + at + 2;
                let Some(length) = line[begin..].find(')') else {
                    break;
                };
                from = begin + length;
                // An even number of backticks before it: the link is not in a code span.
                if line[..begin].matches('`').count() % 2 == 0 {
                    found.push(Link {
                        target: &line[begin..from],
                        range: start + begin..start + from,
                    });
                }
            }
        }
        start += line.len();
    }
    found
}

/// Returns true for a link to another site.
pub(super) fn is_external(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// Returns the anchor of a heading, as GitHub and mdBook make it.
#[must_use]
pub fn anchor(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Returns the anchors of a Markdown file.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !in_code && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

/// Returns a line for each link of the Markdown files that leads nowhere in the repository.
///
/// # Errors
///
/// If a file cannot be read.
pub fn dead_in_repository(root: &Path, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut dead = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(root.join(file))?;
        for link in links(&text) {
            if is_external(link.target) {
                continue;
            }
            let (path, anchor) = link.target.split_once('#').unwrap_or((link.target, ""));
            let target = if path.is_empty() {
                file.clone()
            } else {
                normal(&file.parent().unwrap_or(Path::new("")).join(path))
            };
            let found = root.join(&target);
            let leads = if anchor.is_empty() {
                found.exists()
            } else {
                std::fs::read_to_string(found).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            if !leads {
                dead.push(format!("{}: {}", file.display(), link.target));
            }
        }
    }
    Ok(dead)
}

/// Returns the values of an attribute in a page.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    page.split(begin.as_str())
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

/// Returns a line for each link, image, script and style of the site's pages that leads nowhere.
///
/// # Errors
///
/// If a page cannot be read.
pub fn dead_in_pages(site: &Path) -> anyhow::Result<Vec<String>> {
    let mut pages = Vec::new();
    html(site, &mut pages)?;
    let mut dead = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page)?;
        let folder = page.parent().unwrap_or(site);
        let targets = attributes(&text, "href")
            .into_iter()
            .chain(attributes(&text, "src"));
        for target in targets {
            if is_external(target) || target.starts_with("data:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => page.clone(),
                path if path.starts_with('/') => site.join(path.trim_start_matches('/')),
                path => normal(&folder.join(path)),
            };
            let leads = if anchor.is_empty() {
                file.exists()
            } else {
                std::fs::read_to_string(file)
                    .is_ok_and(|text| attributes(&text, "id").contains(&anchor))
            };
            if !leads {
                dead.push(format!("{}: {target}", page.strip_prefix(site)?.display()));
            }
        }
    }
    dead.sort();
    dead.dedup();
    Ok(dead)
}

/// Collects the HTML pages of a folder. The page for unknown addresses has links for the root of a server.
fn html(folder: &Path, pages: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            html(&path, pages)?;
        } else if path.extension().is_some_and(|end| end == "html")
            && !path.ends_with("404.html")
            && !path.ends_with("print.html")
        {
            pages.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its message")]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_with_their_positions() {
        let text = "[a](b.md#c) `[no](x)` ![d](e.svg)\n```\n[no](y)\n```\n[f](g)";
        let found = links(text);
        let targets: Vec<_> = found.iter().map(|link| link.target).collect();
        assert_eq!(targets, ["b.md#c", "e.svg", "g"]);
        for link in found {
            assert_eq!(&text[link.range], link.target);
        }
    }

    #[test]
    fn a_dead_link_and_a_dead_anchor_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let text = "# The `one`: a title\n[a](#the-one-a-title) [b](#two) [c](no.md) [d](https://example.com/x)\n";
        std::fs::write(dir.path().join("a.md"), text).unwrap();
        let dead = dead_in_repository(dir.path(), &[PathBuf::from("a.md")]).unwrap();
        assert_eq!(dead, ["a.md: #two", "a.md: no.md"]);
        let page = "<h1 id=\"x\"></h1><a href=\"#x\"></a><a href=\"#y\"></a><img src=\"z.svg\"><a href=\"a.md\"></a>";
        std::fs::write(dir.path().join("a.html"), page).unwrap();
        assert_eq!(
            dead_in_pages(dir.path()).unwrap(),
            ["a.html: #y", "a.html: z.svg"]
        );
    }
}
