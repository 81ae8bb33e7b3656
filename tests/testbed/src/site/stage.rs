//! The staged copy of the documentation that mdBook reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use super::links::{is_external, links};

/// Pages outside of `docs/`, and their names in the site.
const PAGES: [(&str, &str); 2] = [("README.md", "index.md"), ("CHANGELOG.md", "changelog.md")];
/// Records of decisions are in the site because pages link to them. The index of decisions is their table of contents.
const DECISIONS: &str = "docs/decisions";

/// Writes the input of mdBook into the folder `to`.
///
/// # Errors
///
/// If a page links to a file that does not exist, or a file cannot be copied.
pub(super) fn stage(root: &Path, to: &Path) -> anyhow::Result<()> {
    let docs = root.join("docs");
    for file in ["book.toml", "site.css"] {
        std::fs::copy(docs.join(file), to.join(file)).with_context(|| format!("docs/{file}"))?;
    }
    let source = to.join("src");
    let mut pages = BTreeMap::new();
    collect(root, &docs, &mut pages)?;
    for (path, name) in PAGES {
        pages.insert(PathBuf::from(path), PathBuf::from(name));
    }
    let mut files = BTreeMap::new();
    for (path, name) in &pages {
        let target = source.join(name);
        std::fs::create_dir_all(target.parent().context("a page is in a folder")?)?;
        if path.extension().is_none_or(|end| end != "md") {
            std::fs::copy(root.join(path), &target)?;
            continue;
        }
        let mut text =
            std::fs::read_to_string(root.join(path)).with_context(|| path.display().to_string())?;
        if path.ends_with("SUMMARY.md") {
            list_decisions(root, &mut text)?;
        }
        let text = rewrite(root, path, name, &text, &pages, &mut files)?;
        std::fs::write(target, text)?;
    }
    for (path, name) in files {
        copy(root, &path, &source.join(name))?;
    }
    Ok(())
}

/// Collects the files below `docs/` with their names in the site.
fn collect(
    root: &Path,
    folder: &Path,
    pages: &mut BTreeMap<PathBuf, PathBuf>,
) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, pages)?;
            continue;
        }
        let inside = path.strip_prefix(root)?;
        let mut name = inside.strip_prefix("docs")?.to_owned();
        if name.ends_with("README.md") {
            name.set_file_name("index.md");
        }
        pages.insert(inside.to_owned(), name);
    }
    Ok(())
}

/// Appends all records of decisions to the summary.
fn list_decisions(root: &Path, summary: &mut String) -> anyhow::Result<()> {
    writeln!(summary, "- [Decisions](decisions/README.md)")?;
    let mut records: Vec<_> = std::fs::read_dir(root.join(DECISIONS))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    records.retain(|name| name.ends_with(".md") && name != "README.md");
    records.sort();
    for name in records {
        let text = std::fs::read_to_string(root.join(DECISIONS).join(&name))?;
        let title = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches('#');
        writeln!(summary, "  - [{}](decisions/{name})", title.trim())?;
    }
    Ok(())
}

/// Returns the text of a page with links that work in the site. Files that are not pages are added to `files`.
fn rewrite(
    root: &Path,
    path: &Path,
    name: &Path,
    text: &str,
    pages: &BTreeMap<PathBuf, PathBuf>,
    files: &mut BTreeMap<PathBuf, PathBuf>,
) -> anyhow::Result<String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut result = text.to_owned();
    // From the end, so that positions stay valid.
    for link in links(text).into_iter().rev() {
        let (file, anchor) = link
            .target
            .split_once('#')
            .map_or((link.target, None), |(file, anchor)| (file, Some(anchor)));
        if is_external(link.target) || file.is_empty() {
            continue;
        }
        let wanted = normal(&folder.join(file));
        let found = root.join(&wanted);
        if !found.exists() {
            bail!("{} links to {file}, which does not exist", path.display());
        }
        let up = "../".repeat(name.components().count() - 1);
        let target = if let Some(page) = pages.get(&wanted) {
            let anchor = anchor.map(|anchor| format!("#{anchor}"));
            format!("{up}{}{}", page.display(), anchor.unwrap_or_default())
        } else {
            // A file has no headings.
            let place = place(&wanted, found.is_dir());
            files.insert(wanted, place.clone());
            format!("{up}{}", place.display())
        };
        result.replace_range(link.range, &target);
    }
    Ok(result)
}

/// Returns the place of a file of the repository in the site. mdBook would render Markdown, and rename it.
fn place(path: &Path, is_folder: bool) -> PathBuf {
    let mut place = Path::new("files").join(path);
    if is_folder {
        place.push("index.html");
    } else if place.extension().is_none_or(|end| end == "md") {
        place.set_extension("txt");
    }
    place
}

/// Copies a file to its place. A folder becomes a list of links to its files.
fn copy(root: &Path, path: &Path, place: &Path) -> anyhow::Result<()> {
    let folder = place.parent().context("a place is in a folder")?;
    std::fs::create_dir_all(folder)?;
    if root.join(path).is_file() {
        std::fs::copy(root.join(path), place)?;
        return Ok(());
    }
    let mut names: Vec<_> = std::fs::read_dir(root.join(path))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    names.sort();
    let mut list = format!(
        "<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title><h1>{0}</h1><ul>",
        path.display()
    );
    for name in names {
        let inside = path.join(&name);
        let is_folder = root.join(&inside).is_dir();
        let target = Path::new("files").join(path);
        let target = self::place(&inside, is_folder)
            .strip_prefix(target)?
            .to_owned();
        copy(root, &inside, &folder.join(&target))?;
        write!(list, "<li><a href=\"{}\">{name}</a>", target.display())?;
    }
    std::fs::write(place, list + "</ul>\n")?;
    Ok(())
}

/// Returns the path without `.` and `..`.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
