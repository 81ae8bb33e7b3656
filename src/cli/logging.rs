//! Log lines: on stderr, as text for people or as JSON for collectors, chosen by `RUST_LOG` or by level.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

impl LogFormat {
    /// JSON where a collector reads, text where a person does.
    pub(super) fn of_operator() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// The least that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    /// Each step of affix
    Trace,
    /// What affix decides and what is tried again
    Debug,
    /// What was done
    Info,
    /// What went wrong and is tried again
    Warn,
    /// What stays wrong
    Error,
}

impl LogLevel {
    /// As a filter. Below info the libraries stay at info: their steps would bury affix's own, and `RUST_LOG` can name them.
    const fn filter(self) -> &'static str {
        match self {
            Self::Trace => "info,affix=trace",
            Self::Debug => "info,affix=debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Starts logging; `level` counts where `RUST_LOG` is absent. A second start in one process changes nothing.
pub(super) fn start(format: LogFormat, level: LogLevel) {
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let parsed = if chosen.is_empty() { Ok(EnvFilter::new(level.filter())) } else { EnvFilter::try_new(&chosen) };
    let (filter, bad) = match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(level.filter()), Some(error)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    drop(started);
    if let Some(error) = bad {
        tracing::warn!(%error, "RUST_LOG is {chosen:?}, which is no filter, and is ignored: write for example RUST_LOG=info,affix=debug");
    }
}
