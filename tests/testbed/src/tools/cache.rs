//! Where built tools are kept: a folder that outlives the checkout, keyed by what they were built from.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// The folder of all tools: `$AFFIX_CACHE/tools`, else `$XDG_CACHE_HOME/affix/tools`, else `~/.cache/affix/tools`.
///
/// # Errors
///
/// Where none of the variables is set.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("AFFIX_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("affix")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/affix")))
        .context("no folder to keep the built tools in: set AFFIX_CACHE, XDG_CACHE_HOME or HOME")?;
    Ok(base.join("tools"))
}

/// The key of a Go module's folder: a hash of all its files and of what else decides the result.
///
/// # Errors
///
/// Where the folder cannot be read.
pub(super) fn key(module: &Path, salt: &str) -> anyhow::Result<String> {
    let mut files = Vec::new();
    collect(module, module, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    let mut feed = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    feed(salt.as_bytes());
    for (name, path) in files {
        feed(name.as_bytes());
        feed(&std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?);
    }
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// How long a folder that nobody uses is kept.
const KEPT: Duration = Duration::from_hours(14 * 24);

/// Notes that a folder is in use. One that cannot be noted is built again some day, no more.
pub(super) fn touch(folder: &Path, now: SystemTime) {
    let _ = std::fs::File::open(folder).and_then(|folder| folder.set_modified(now));
}

/// Removes the folders that nobody has used for two weeks: every change to a module leaves one behind.
///
/// # Errors
///
/// Where the cache cannot be read, or a folder not be removed.
pub(super) fn prune(cache: &Path, now: SystemTime) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let unused = now.duration_since(metadata.modified()?).unwrap_or_default();
        if metadata.is_dir() && unused > KEPT {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("{} cannot be removed", entry.path().display()))?;
        }
    }
    Ok(())
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, PathBuf)>) -> anyhow::Result<()> {
    for entry in
        std::fs::read_dir(dir).with_context(|| format!("{} cannot be listed", dir.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path
            .extension()
            .is_some_and(|end| end == "go" || end == "mod" || end == "sum")
        {
            let name = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            files.push((name, path));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its message")]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_a_file_its_name_and_the_salt_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("go.mod"), "module m").unwrap();
        std::fs::write(dir.path().join("sub/main.go"), "package main").unwrap();
        let first = key(dir.path(), "salt").unwrap();
        assert_eq!(first.len(), 16);
        std::fs::write(dir.path().join("README.md"), "words").unwrap();
        assert_eq!(key(dir.path(), "salt").unwrap(), first);
        assert_ne!(key(dir.path(), "pepper").unwrap(), first);
        std::fs::rename(
            dir.path().join("sub/main.go"),
            dir.path().join("sub/other.go"),
        )
        .unwrap();
        let renamed = key(dir.path(), "salt").unwrap();
        assert_ne!(renamed, first);
        std::fs::write(dir.path().join("sub/other.go"), "package other").unwrap();
        assert_ne!(key(dir.path(), "salt").unwrap(), renamed);
    }

    #[test]
    fn a_folder_goes_two_weeks_after_its_last_use() {
        let dir = tempfile::tempdir().unwrap();
        let (used, unused) = (dir.path().join("m-1"), dir.path().join("m-2"));
        std::fs::create_dir(&used).unwrap();
        std::fs::create_dir(&unused).unwrap();
        std::fs::write(dir.path().join(".lock"), "").unwrap();
        let later = SystemTime::now() + KEPT;
        touch(&used, later);
        prune(dir.path(), later + Duration::from_secs(60)).unwrap();
        assert!(used.exists() && !unused.exists() && dir.path().join(".lock").exists());
    }
}
