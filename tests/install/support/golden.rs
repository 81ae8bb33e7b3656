//! Comparison of generated files with their sources. `make generate` writes them.

use std::path::{Path, PathBuf};

/// The environment variable with which files are written instead of compared.
const UPDATE: &str = "AFFIX_UPDATE";

/// Returns a path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads a file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path))
        .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
}

/// Compares a file of the repository with the expected text, or writes it with `AFFIX_UPDATE`.
pub(crate) fn hold(path: &str, wanted: &str) {
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(repository(path).parent().unwrap()).unwrap();
        std::fs::write(repository(path), wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(repository(path)).unwrap_or_default();
    let differs = wanted
        .lines()
        .zip(found.lines())
        .position(|(wanted, found)| wanted != found);
    let line = differs.unwrap_or_else(|| wanted.lines().count().min(found.lines().count()));
    let near = |text: &str| {
        text.lines()
            .skip(line.saturating_sub(2))
            .take(6)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(
        wanted == found,
        "{path} is not current from line {}: look at what changed, then run make generate\n--- the file\n{}\n--- what it must be\n{}",
        line + 1,
        near(&found),
        near(wanted)
    );
}
