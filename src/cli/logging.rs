//! Logging to stderr, as text for people or as JSON for log collectors. `RUST_LOG` or the level selects the lines.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One JSON object per line
    Json,
    /// Text for people
    Text,
}

impl LogFormat {
    /// Returns the default of the operator: text on a terminal, JSON elsewhere.
    pub(super) fn operator_default() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    /// Every step
    Trace,
    /// Decisions and retries
    Debug,
    /// Actions
    Info,
    /// Failures that are retried
    Warn,
    /// Failures that are not retried
    Error,
}

impl LogLevel {
    /// Returns the filter. Below info, libraries stay at info, because their lines would bury those of affix. `RUST_LOG` can select them.
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

/// Returns whether an event or span appears in log lines. The reconcile span of kube-runtime repeats the fields of affix, and affix logs
/// the failures of its watches itself.
fn is_logged(of: &Metadata<'_>) -> bool {
    let part = of.target().strip_prefix("kube_runtime::");
    part.is_none_or(|part| of.is_event() && part != "watcher")
}

/// Flushes traces when it is dropped.
#[derive(Default)]
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    _traces: Option<super::traces::Traces>,
}

/// Starts logging. `level` applies if `RUST_LOG` is absent. A second start in one process has no effect.
pub(super) fn start(format: LogFormat, level: LogLevel) -> Logging {
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let parsed = if chosen.is_empty() {
        Ok(EnvFilter::new(level.filter()))
    } else {
        EnvFilter::try_new(&chosen)
    };
    let (filter, bad) = match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(level.filter()), Some(error)),
    };
    let filter = filter.and(filter_fn(is_logged));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        // The list of spans contains the current span.
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines);
    #[cfg(not(feature = "otlp"))]
    let logging = {
        let _ = subscriber.try_init();
        Logging::default()
    };
    #[cfg(feature = "otlp")]
    let logging = match super::traces::layer() {
        Ok(traces) => {
            let (layer, traces) = traces.unzip();
            let _ = subscriber.with(layer).try_init();
            Logging { _traces: traces }
        }
        Err(error) => {
            let _ = subscriber.try_init();
            tracing::warn!(
                error,
                "cannot send traces: check OTEL_EXPORTER_OTLP_ENDPOINT"
            );
            Logging::default()
        }
    };
    if let Some(error) = bad {
        tracing::warn!(%error, "RUST_LOG={chosen:?} is not a valid filter and is ignored: write for example RUST_LOG=info,affix=debug");
    }
    logging
}
