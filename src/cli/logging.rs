//! Log lines: on stderr, as text for people or as JSON for collectors, chosen by `RUST_LOG` or by level.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

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
        if std::io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
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

/// Whether lines tell of it. The library's span around a reconciliation says in other words what each line says of its resource, and
/// a watch that fails is told of by who watches.
fn is_told(of: &Metadata<'_>) -> bool {
    let part = of.target().strip_prefix("kube_runtime::");
    part.is_none_or(|part| of.is_event() && part != "watcher")
}

/// What ends with the process.
#[derive(Default)]
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    _traces: Option<super::traces::Traces>,
}

/// Starts logging; `level` counts where `RUST_LOG` is absent. A second start in one process changes nothing.
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
    let filter = filter.and(filter_fn(is_told));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        // The list of spans ends with the current one.
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
                "traces cannot be sent: see OTEL_EXPORTER_OTLP_ENDPOINT"
            );
            Logging::default()
        }
    };
    if let Some(error) = bad {
        tracing::warn!(%error, "RUST_LOG is {chosen:?}, which is no filter, and is ignored: write for example RUST_LOG=info,affix=debug");
    }
    logging
}
