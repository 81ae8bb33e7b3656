//! A child process that never outlives its owner. Owns the leash to the supervisor `underling` and the child's log; refuses to
//! leave anything running, whatever happens to this process: a panic, a kill, a lost terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::tools::{Tool, Tools};

/// How often a state that nobody announces is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a child may take to be gone after it was killed.
const DEATH: Duration = Duration::from_secs(10);
/// How long a child may take to end when it is asked to. Above the supervisor's own patience of 20 s.
const GOODBYE: Duration = Duration::from_secs(30);

/// How long the supervisor may take to answer a word.
const WORD: Duration = Duration::from_secs(10);

/// What to start. The environment is empty but for `PATH` and what [`Launch::env`] sets.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
    remove: Option<PathBuf>,
}

impl Launch {
    /// A program without arguments, whose standard output and error are appended to the file `log`. The name is for messages.
    pub fn new(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: log.into(),
            remove: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
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

    /// Names a folder that the supervisor removes if its owner dies without dropping the process.
    #[must_use]
    pub fn orphans_folder(mut self, dir: impl Into<PathBuf>) -> Self {
        self.remove = Some(dir.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// Where the log cannot be opened or the supervisor cannot be started. A program that is not there shows itself as a child
    /// that ends with status 127.
    pub fn start(&self, tools: &Tools) -> anyhow::Result<Process> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&self.log)
                .with_context(|| {
                    format!(
                        "the log {} of {} cannot be opened",
                        self.log.display(),
                        self.name
                    )
                })
        };
        let log = open()?;
        let began = log.metadata()?.len();
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(WORD))?;
        let mut command = Command::new(tools.path(Tool::Underling)?);
        if let Some(remove) = &self.remove {
            command.arg("-remove").arg(remove);
        }
        let child = command
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(OwnedFd::from(theirs))
            .stdout(log)
            .stderr(open()?)
            // The terminal's Ctrl-C is for the owner, which then ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))?;
        let mut leash = BufReader::new(ours);
        let mut first = String::new();
        // Nothing comes where the program could not be started.
        let _ = leash.read_line(&mut first);
        Ok(Process {
            name: self.name.clone(),
            child,
            pid: first.trim().parse().ok(),
            leash,
            log: self.log.clone(),
            began,
        })
    }
}

/// A child process under the supervisor. Dropping it kills the child and waits for its death, which takes milliseconds.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Option<u32>,
    leash: BufReader<UnixStream>,
    log: PathBuf,
    began: u64,
}

impl Process {
    /// The name that messages use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The child's process id, its own and not the supervisor's; none where it could not be started.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The file that takes the child's standard output and error.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What this child has printed so far, without what an earlier one left in the same file.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        let bytes = std::fs::read(&self.log)
            .with_context(|| format!("the log {} cannot be read", self.log.display()))?;
        let began = usize::try_from(self.began)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        Ok(String::from_utf8_lossy(bytes.get(began..).unwrap_or_default()).into_owned())
    }

    /// How the child ended; none while it runs. A child that a signal ended has status 128 and the signal's number.
    ///
    /// # Errors
    ///
    /// Where the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until the child's log yields something.
    ///
    /// # Errors
    ///
    /// Where the child ends before, or `timeout` passes; the message has the end of its log.
    pub async fn wait_for<T>(
        &mut self,
        timeout: Duration,
        what: &str,
        find: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            // Asked before the log is read, so that the last words of a child that ends count.
            let ended = self.ended()?;
            let log = self.log()?;
            if let Some(found) = find(&log) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!(
                    "{} ended with {status} before {what}:\n{}",
                    self.name,
                    tail(&log)
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: no {what} within {timeout:?}:\n{}",
                    self.name,
                    tail(&log)
                );
            }
            sleep(POLL).await;
        }
    }

    /// Waits for the child to end by itself.
    ///
    /// # Errors
    ///
    /// Where `timeout` passes.
    pub async fn wait(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} did not end within {timeout:?}:\n{}",
                    self.name,
                    tail(&self.log()?)
                );
            }
            sleep(POLL).await;
        }
    }

    /// Asks the child to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.tell("term");
        self.wait(GOODBYE).await
    }

    /// Kills the child (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Where it is not gone in time.
    pub async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.tell("kill");
        self.wait(DEATH).await
    }

    /// Freezes the child (SIGSTOP): its connections stay open and nobody answers on them.
    pub fn pause(&mut self) {
        self.tell("pause");
    }

    /// Lets a frozen child go on (SIGCONT).
    pub fn resume(&mut self) {
        self.tell("resume");
    }

    /// Tells the supervisor a word and waits for its answer, which takes microseconds. A child that has ended needs no word, so
    /// a broken leash is no error.
    fn tell(&mut self, word: &str) {
        let told = writeln!(self.leash.get_mut(), "{word}");
        let _ = told.and_then(|()| self.leash.read_line(&mut String::new()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The leash stays until the supervisor has gone: where it closes, the supervisor takes itself for an orphan.
        self.tell("kill");
        let deadline = std::time::Instant::now() + DEATH;
        while let Ok(None) = self.child.try_wait() {
            if std::time::Instant::now() > deadline {
                // The kernel then kills what the supervisor watches.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The last lines of a log, for a message.
fn tail(log: &str) -> String {
    const LINES: usize = 30;
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n")
}
