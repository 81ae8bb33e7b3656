//! Metrics of the process, with the names of Prometheus's client libraries, and of its version.
//!
//! The values are read from `/proc` at each scrape. On other systems than Linux only the start time is exported.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Registers the metrics of the process. `component` is the long-running part that runs, such as the controller.
pub(crate) fn describe(registry: &mut Registry, component: &'static str) {
    let version = env!("CARGO_PKG_VERSION");
    registry.register(
        "affix_build",
        "Version and component of the process",
        Info::new([("version", version), ("component", component)]),
    );
    registry.register_collector(Box::new(ProcessCollector::new(SystemTime::now())));
}

/// A collector of process metrics.
#[derive(Debug)]
struct ProcessCollector {
    start_seconds: f64,
}

/// The resources that the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Usage {
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
    cpu_seconds: Option<f64>,
}

impl ProcessCollector {
    fn new(start: SystemTime) -> Self {
        Self {
            start_seconds: start
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let usage = Usage::read();
        let gauges = [
            (
                "process_start_time_seconds",
                "Start time of the process since the epoch, in seconds",
                Some(self.start_seconds),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory in bytes",
                usage.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory in bytes",
                usage.virtual_bytes,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors",
                usage.open_fds,
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                usage.max_fds,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(encoder)?;
            }
        }
        if let Some(seconds) = usage.cpu_seconds {
            let encoder = encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system CPU time in seconds",
                None,
                MetricType::Counter,
            )?;
            ConstCounter::new(seconds).encode(encoder)?;
        }
        Ok(())
    }
}

impl Usage {
    #[cfg(target_os = "linux")]
    fn read() -> Self {
        use procfs::process::{LimitValue, Process};

        let Ok(process) = Process::myself() else {
            return Self::default();
        };
        let stat = process.stat().ok();
        let max_fds =
            process
                .limits()
                .ok()
                .and_then(|limits| match limits.max_open_files.soft_limit {
                    LimitValue::Value(max) => Some(max as f64),
                    LimitValue::Unlimited => None,
                });
        Self {
            resident_bytes: stat
                .as_ref()
                .map(|stat| (stat.rss * procfs::page_size()) as f64),
            virtual_bytes: stat.as_ref().map(|stat| stat.vsize as f64),
            open_fds: process.fd_count().ok().map(|count| count as f64),
            max_fds,
            cpu_seconds: stat
                .as_ref()
                .map(|stat| (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Self {
        Self::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_the_process_is_read() {
        let usage = Usage::read();
        for value in [
            usage.resident_bytes,
            usage.virtual_bytes,
            usage.open_fds,
            usage.max_fds,
        ] {
            assert!(value.is_some_and(|value| value >= 1.0), "{usage:?}");
        }
        assert!(usage.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        assert!(usage.resident_bytes < usage.virtual_bytes, "{usage:?}");
    }
}
