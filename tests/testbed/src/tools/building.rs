//! Building what the cache lacks. Owns the lock (one builder a cache), the atomic move into place, and the progress on standard
//! error; refuses to leave a half-written binary under its final name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};

use super::cache;
use super::catalogue::{CONTAINERS_IMAGE, KUBERNETES, Recipe, Tool};

/// Flags of every build. Part of the key.
const FLAGS: [&str; 4] = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags"];
const LINKING: &str = "-s -w";

/// The folder of the Go modules.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go")
}

/// Finds every tool in the cache, building those that are not there.
///
/// # Errors
///
/// Where Go is missing, a build fails or the cache cannot be written.
pub(super) fn ensure(tools: &[Tool]) -> anyhow::Result<BTreeMap<Tool, PathBuf>> {
    let cache = cache::folder()?;
    let mut keys = BTreeMap::new();
    let mut paths = BTreeMap::new();
    for tool in tools {
        let recipe = tool.recipe();
        if !keys.contains_key(recipe.module) {
            let salt = format!(
                "{FLAGS:?} {LINKING} {} {}{}",
                std::env::consts::OS,
                std::env::consts::ARCH,
                tags(recipe.module)
            );
            keys.insert(
                recipe.module,
                cache::key(&sources().join(recipe.module), &salt)?,
            );
        }
        let key = keys
            .get(recipe.module)
            .map(String::as_str)
            .unwrap_or_default();
        paths.insert(
            *tool,
            cache
                .join(format!("{}-{key}", recipe.module))
                .join(recipe.binary),
        );
    }
    if paths.values().all(|path| path.is_file()) {
        note_use(&paths);
        return Ok(paths);
    }
    std::fs::create_dir_all(&cache)
        .with_context(|| format!("{} cannot be made", cache.display()))?;
    let _lock = lock(&cache)?;
    // Another process may have built meanwhile.
    let missing: Vec<(Recipe, &PathBuf)> = tools
        .iter()
        .filter_map(|tool| paths.get(tool).map(|path| (tool.recipe(), path)))
        .filter(|(_, path)| !path.is_file())
        .collect();
    build_all(&cache, &missing)?;
    note_use(&paths);
    cache::prune(&cache, SystemTime::now())?;
    Ok(paths)
}

/// Returns the program of a crate of the registry, with the given features only. Installs it into the cache if it is not there.
///
/// # Errors
///
/// Where cargo is missing, the build fails or the cache cannot be written.
pub fn cargo_tool(name: &str, version: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
    let cache = cache::folder()?;
    let folder = cache.join(format!("{name}-{version}"));
    let path = folder.join("bin").join(name);
    if !path.is_file() {
        std::fs::create_dir_all(&cache)
            .with_context(|| format!("{} cannot be made", cache.display()))?;
        let _lock = lock(&cache)?;
        if !path.is_file() {
            say(&format!("building {name} {version}, up to 4 min …"));
            install(name, version, features, &folder)?;
        }
    }
    cache::touch(&folder, SystemTime::now());
    Ok(path)
}

fn install(name: &str, version: &str, features: &[&str], folder: &Path) -> anyhow::Result<()> {
    let output = Command::new("cargo")
        .args(["install", name, "--version", version, "--locked"])
        .args(["--no-default-features", "--features", &features.join(",")])
        .arg("--root")
        .arg(folder)
        // Its dependencies do not belong into the target folder of the repository.
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()
        .context("`cargo install` cannot be started")?;
    if !output.status.success() {
        bail!(
            "`cargo install {name}` failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn note_use(paths: &BTreeMap<Tool, PathBuf>) {
    let folders: BTreeSet<&Path> = paths.values().filter_map(|path| path.parent()).collect();
    for folder in folders {
        cache::touch(folder, SystemTime::now());
    }
}

/// Takes the cache's lock, which ends with the file that is returned.
pub(super) fn lock(cache: &Path) -> anyhow::Result<File> {
    let path = cache.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    if file.try_lock().is_err() {
        say("another process builds the testbed's tools; waiting for it");
        file.lock()
            .with_context(|| format!("{} cannot be locked", path.display()))?;
    }
    Ok(file)
}

fn build_all(cache: &Path, missing: &[(Recipe, &PathBuf)]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let cold = Duration::from_secs(missing.iter().map(|(recipe, _)| recipe.cold).sum());
    say(&format!(
        "building {} tools into {}, once; up to {} on two cores",
        missing.len(),
        cache.display(),
        words(cold)
    ));
    let began = Instant::now();
    for (position, (recipe, path)) in missing.iter().enumerate() {
        let version = version(recipe)?;
        say(&format!(
            "[{}/{}] {}{version}, up to {} …",
            position + 1,
            missing.len(),
            recipe.title,
            words(Duration::from_secs(recipe.cold))
        ));
        let started = Instant::now();
        build(recipe, path)?;
        say(&format!(
            "[{}/{}] {} took {}",
            position + 1,
            missing.len(),
            recipe.title,
            words(started.elapsed())
        ));
    }
    say(&format!("all built in {}", words(began.elapsed())));
    Ok(())
}

fn build(recipe: &Recipe, path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().context("a tool is in a folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    // In the same folder, so that the move is one rename. The lock makes the name ours.
    let half = dir.join(format!(".{}.half", recipe.binary));
    let output = Command::new("go")
        .arg("build")
        .args(FLAGS)
        .arg(linking(recipe)?)
        .args(Some(tags(recipe.module)).filter(|tags| !tags.is_empty()))
        .arg("-o")
        .arg(&half)
        .arg(recipe.package)
        .current_dir(sources().join(recipe.module))
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "the testbed's tools are built with Go 1.26 or later, and there is no `go` in PATH: install it"
            )
        }
        other => other.context("`go build` cannot be started")?,
    };
    if !output.status.success() {
        bail!(
            "`go build {}` failed in {}:\n{}",
            recipe.package,
            recipe.module,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::rename(&half, path)
        .with_context(|| format!("{} cannot be moved into place", path.display()))
}

/// Programs of Kubernetes tell their version only where the linker was told.
fn linking(recipe: &Recipe) -> anyhow::Result<String> {
    if recipe.origin != KUBERNETES {
        return Ok(LINKING.to_owned());
    }
    let version = required(recipe)?;
    Ok(format!(
        "{LINKING} -X k8s.io/component-base/version.gitVersion={version}"
    ))
}

/// The build tags of a module: without them the library needs C libraries for storage and signatures that no test uses.
fn tags(module: &str) -> &'static str {
    if module == CONTAINERS_IMAGE {
        "-tags=containers_image_openpgp,containers_image_storage_stub,containers_image_docker_daemon_stub"
    } else {
        ""
    }
}

fn version(recipe: &Recipe) -> anyhow::Result<String> {
    if recipe.origin.is_empty() {
        return Ok(String::new());
    }
    Ok(format!(" {}", required(recipe)?))
}

/// The version that a tool's `go.mod` requires of the module it comes from.
pub(super) fn required(recipe: &Recipe) -> anyhow::Result<String> {
    let path = sources().join(recipe.module).join("go.mod");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    text.lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .filter_map(|line| line.strip_prefix(recipe.origin))
        .filter_map(|rest| rest.split_whitespace().next())
        .find(|version| version.starts_with('v'))
        .map(str::to_owned)
        .with_context(|| format!("{} does not require {}", path.display(), recipe.origin))
}

fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

/// One line of progress. Nobody to read it is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "testbed: {line}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its message")]
mod tests {
    use super::*;

    #[test]
    fn every_tool_comes_from_a_module_that_is_here_in_a_version_that_is_pinned() {
        for tool in Tool::all().into_iter().chain(Tool::node()) {
            let recipe = tool.recipe();
            assert!(
                sources().join(recipe.module).join("go.sum").is_file(),
                "{tool:?}"
            );
            version(&recipe).unwrap();
        }
    }
}
