//! One measured run of a command: wall-clock time, processor time, and the most memory that it had.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use wait4::Wait4;

/// How often the memory of a command is looked at. Linux keeps the most that a program had, so only its last moments can be missed.
const LOOK: Duration = Duration::from_micros(500);

/// A command to measure. Its environment is empty but for `PATH` and what is set here.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
}

/// What a run cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// From before its start to after its end.
    pub(super) wall: Duration,
    /// Of itself and of what it ran.
    pub(super) cpu: Duration,
    /// Bytes, of itself alone.
    pub(super) peak: u64,
}

impl Measured {
    /// A command that runs in `dir`.
    pub(super) fn new(program: impl Into<PathBuf>, dir: &Path) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: dir.to_owned(),
        }
    }

    #[must_use]
    pub(super) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub(super) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs it. One that fails is an error with what it wrote: the time of a failure is worth nothing.
    pub(super) async fn run(self) -> anyhow::Result<Cost> {
        tokio::task::spawn_blocking(move || self.block()).await?
    }

    fn block(self) -> anyhow::Result<Cost> {
        let log = self.dir.join("measured.log");
        let out = File::create(&log)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.env)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let began = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let (ended, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let waited = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    peak.fetch_max(memory(&status, "VmHWM"), Ordering::Relaxed);
                    std::thread::sleep(LOOK);
                }
            });
            let waited = child.wait4();
            let wall = began.elapsed();
            ended.store(true, Ordering::Relaxed);
            waited.map(|waited| (waited, wall))
        });
        let (waited, wall) = waited?;
        if !waited.status.success() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!(
                "{} {:?} ended with {}:\n{said}",
                self.program.display(),
                self.args,
                waited.status
            );
        }
        Ok(Cost {
            wall,
            cpu: waited.rusage.utime + waited.rusage.stime,
            peak: peak.into_inner(),
        })
    }
}

/// Bytes, from a process's status; 0 where it has ended.
pub(super) fn memory(status: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib << 10
}
