//! Checks `BEHAVIOURS.md` and `tests/THREATS.md`: every test that they name exists under that name.

use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../BEHAVIOURS.md");
const THREATS: &str = include_str!("../../../../tests/THREATS.md");
/// Folders of tests that a name may begin with. Other names are of this folder.
const FOLDERS: [&str; 7] = [
    "admission",
    "cli",
    "e2e",
    "engine",
    "install",
    "schema",
    "signatures",
];

/// Returns the code spans of a page, each with the text that follows it.
fn quoted(page: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = page.split('`').collect();
    parts
        .windows(2)
        .skip(1)
        .step_by(2)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

/// Returns true for the name of a test: `module::function`, `folder::module::function`, or
/// `unit::path::function` for a test in `src/`.
fn is_test(text: &str) -> bool {
    text.contains("::")
        && !text.ends_with("::")
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':' | '…'))
}

/// Returns the files that may contain a test, and the name of its function.
fn place(name: &str) -> (Vec<PathBuf>, &str) {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let (path, function) = name.rsplit_once("::").unwrap();
    let path = path.replace("::", "/");
    let (folder, rest) = path.split_once('/').unwrap_or(("registry", &path));
    let files = match folder {
        "unit" => {
            let module = rest.rsplit('/').next().unwrap();
            let mut found = Vec::new();
            for folder in ["src", "crates/affix-registry/src"] {
                named(&root.join(folder), module, &mut found);
            }
            found
        }
        folder if FOLDERS.contains(&folder) => vec![root.join(format!("tests/{folder}/{rest}.rs"))],
        _ => vec![root.join(format!("crates/affix-registry/tests/registry/{path}.rs"))],
    };
    (files, function)
}

/// Collects the files below `folder` that contain the module `module` or its tests.
fn named(folder: &Path, module: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named(&path, module, found);
        } else if path.file_stem().is_some_and(|stem| stem == module)
            || path.ends_with(format!("{module}/tests.rs"))
        {
            found.push(path);
        }
    }
}

/// Returns the test functions of a file.
fn tests(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut found = Vec::new();
    let mut is_marked = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_marked = true;
        } else if let Some(rest) = line
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ")
            && std::mem::take(&mut is_marked)
        {
            found.push(rest.split(['(', '<']).next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn each_test_named_on_the_page_about_registries_exists() {
    let named: Vec<_> = quoted(PAGE)
        .into_iter()
        .filter(|(text, _)| is_test(text))
        .collect();
    assert!(
        named.len() > 100,
        "{} tests are named: the page has changed its form",
        named.len()
    );
    let mut wrong = Vec::new();
    for (name, after) in named {
        let (files, function) = place(name);
        let there: Vec<String> = files.iter().flat_map(|file| tests(file)).collect();
        let is_right = match function.strip_suffix('…') {
            None => there.iter().any(|test| test == function),
            // `t4_…` stands for all tests with that prefix. The page states their number.
            Some(prefix) => {
                let expected = after
                    .trim_start()
                    .strip_prefix('(')
                    .and_then(|rest| rest.split(')').next()?.parse().ok());
                expected == Some(there.iter().filter(|test| test.starts_with(prefix)).count())
            }
        };
        if !is_right {
            wrong.push(format!("{name} in {files:?}, which has {there:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_edge_case_and_threat_of_registries_has_its_row() {
    for case in [
        "1", "2", "3", "4", "5", "6", "7", "8", "8a", "9", "10", "11", "12", "13", "14", "15",
        "16", "17", "18",
    ] {
        assert!(PAGE.contains(&format!("\n| {case} | ")), "edge case {case}");
    }
    for threat in [
        "1", "2", "3", "4", "7", "8", "9", "11", "12", "13", "15", "17", "18", "21", "24", "25",
    ] {
        assert!(PAGE.contains(&format!("\n| T{threat} ")), "T{threat}");
    }
}

#[test]
fn each_threat_has_a_row_and_a_test_with_its_number() {
    // There are no threats 6 and 14.
    let numbers = (1..=39).filter(|number| ![6, 14].contains(number));
    let mut wrong = Vec::new();
    for number in numbers {
        let Some(row) = THREATS
            .lines()
            .find(|line| line.starts_with(&format!("| T{number} ")))
        else {
            wrong.push(format!("T{number} has no row"));
            continue;
        };
        let named: Vec<&str> = quoted(row)
            .into_iter()
            .filter(|(text, _)| is_test(text))
            .map(|(text, _)| text)
            .collect();
        if named.is_empty() {
            wrong.push(format!("T{number} names {} tests", named.len()));
        }
        for name in named {
            let (files, function) = place(name.strip_prefix("registry::").unwrap_or(name));
            if !format!("_{function}").contains(&format!("_t{number}_")) {
                wrong.push(format!("T{number}: {function} has another number"));
            }
            if !files
                .iter()
                .any(|file| tests(file).iter().any(|test| test == function))
            {
                wrong.push(format!("T{number}: there is no {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
