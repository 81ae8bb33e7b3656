//! The documentation: its links, its table of contents, and the site that mdBook makes of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use affix_testbed::site;

use crate::support::golden::{read, repository};

/// Folders without pages of this project.
const SKIPPED: [&str; 3] = ["target", "node_modules", ".git"];

/// Collects the Markdown files below a folder of the repository.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            pages(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path.strip_prefix(repository("")).unwrap().to_owned());
        }
    }
}

#[test]
fn every_link_of_every_page_leads_to_a_file_and_its_heading() {
    let mut found = Vec::new();
    pages(&repository(""), &mut found);
    assert!(found.len() > 50, "{found:?}");
    let dead = site::dead_in_repository(&repository(""), &found).unwrap();
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn the_summary_lists_every_page_of_the_documentation() {
    let summary = read("docs/SUMMARY.md");
    let listed: BTreeSet<&str> = summary
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.starts_with("../"))
        .collect();
    let mut found = Vec::new();
    pages(&repository("docs"), &mut found);
    let written: BTreeSet<&str> = found
        .iter()
        .map(|path| path.to_str().unwrap().trim_start_matches("docs/"))
        .filter(|page| !page.starts_with("decisions/") && *page != "SUMMARY.md")
        .collect();
    assert_eq!(
        listed, written,
        "docs/SUMMARY.md and the pages below docs/ differ: add a line for each new page"
    );
}

#[tokio::test]
#[ignore = "needs mdBook, which takes minutes to build"]
async fn the_site_builds_without_warnings_and_has_no_dead_link() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("site");
    let built = folder.clone();
    let root = repository("");
    let site = tokio::task::spawn_blocking(move || site::build(&root, &built))
        .await
        .unwrap()
        .unwrap();
    let dead = site::dead_in_pages(&site).unwrap();
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));

    // The addresses that the alerts name exist, and the search knows the pages.
    let troubleshooting = std::fs::read_to_string(folder.join("troubleshooting.html")).unwrap();
    let alerts = read("charts/affix/files/alerts.yaml");
    let anchors = alerts.split("https://affix.dev/troubleshooting#").skip(1);
    let anchors: Vec<&str> = anchors
        .map(|rest| rest.split_whitespace().next().unwrap())
        .collect();
    assert!(!anchors.is_empty());
    for anchor in anchors {
        assert!(
            troubleshooting.contains(&format!("id=\"{anchor}\"")),
            "{anchor}"
        );
    }
    let files = std::fs::read_dir(&folder).unwrap();
    let index = files
        .map(|file| file.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("searchindex")
        })
        .expect("a search index");
    let index = std::fs::read_to_string(index).unwrap();
    for word in ["FallbackTagConflict", "allowed-registries"] {
        assert!(index.contains(word), "the search does not know {word}");
    }
}
