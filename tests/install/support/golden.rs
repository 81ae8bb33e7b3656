//! Files that are held against what makes them. `make generate` writes them.

use std::path::{Path, PathBuf};

/// The variable that has the files written in place of compared.
const UPDATE: &str = "AFFIX_UPDATE";

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path))
        .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
}

/// Holds a file of the repository against what it must say, or writes it where that is asked for.
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
