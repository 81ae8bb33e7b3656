//! A command that ran to its end. Owns the wait and its bound; refuses to judge the outcome before it is asked to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;

/// A command that is about to run. Its environment is empty but for `PATH` and what [`Run::env`] sets.
#[derive(Debug, Clone)]
pub struct Run {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    input: Vec<u8>,
    timeout: Duration,
}

impl Run {
    /// A command without arguments, with nothing on its standard input and two minutes to end.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            input: Vec::new(),
            timeout: Duration::from_mins(2),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the folder to run in.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Sets what the command reads from its standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Sets how long the command may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs the command to its end.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, or takes longer than its time-out; then it is killed. An exit status other than zero is no
    /// error here: see [`Ran::stdout`].
    pub async fn output(self) -> anyhow::Result<Ran> {
        let line = self.line();
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("`{line}` cannot be started"))?;
        let mut stdin = child
            .stdin
            .take()
            .context("a piped standard input is there")?;
        let feed = async {
            // A command may well end without reading its input.
            let _ = stdin.write_all(&self.input).await;
            drop(stdin);
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(self.timeout, both).await else {
            bail!("`{line}` did not end within {:?}", self.timeout);
        };
        let output = output.with_context(|| format!("`{line}` cannot be waited for"))?;
        Ok(Ran {
            line,
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn line(&self) -> String {
        let name = self
            .program
            .file_name()
            .map_or(self.program.as_path(), Path::new);
        std::iter::once(name.display().to_string())
            .chain(
                self.args
                    .iter()
                    .map(|arg| arg.to_string_lossy().into_owned()),
            )
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// The standard output of a command that succeeded.
    ///
    /// # Errors
    ///
    /// Where it failed; the message has the command and both outputs.
    pub fn stdout(self) -> anyhow::Result<String> {
        if !self.status.success() {
            bail!(
                "`{}` ended with {}\n{}{}",
                self.line,
                self.status,
                self.out,
                self.err
            );
        }
        Ok(self.out)
    }

    /// The standard output of a command that succeeded, read as JSON.
    ///
    /// # Errors
    ///
    /// Where the command failed or its output is not JSON.
    pub fn json(self) -> anyhow::Result<serde_json::Value> {
        let line = self.line.clone();
        let out = self.stdout()?;
        serde_json::from_str(&out)
            .with_context(|| format!("`{line}` did not print JSON but\n{out}"))
    }

    /// Standard output and standard error of a command that must have failed.
    ///
    /// # Errors
    ///
    /// Where it succeeded.
    pub fn failure(self) -> anyhow::Result<String> {
        if self.status.success() {
            bail!(
                "`{}` succeeded but had to fail\n{}{}",
                self.line,
                self.out,
                self.err
            );
        }
        Ok(self.out + &self.err)
    }
}
