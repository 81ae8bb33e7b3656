//! What a process tells of itself: its version, and what it uses of the machine, in the words of Prometheus's client libraries, read
//! from `/proc` when it is asked for. Where there is none, only the start is told.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Adds what every long-running part tells of itself. `component`: which part it is, so that each can be missed by itself.
pub(crate) fn describe(registry: &mut Registry, component: &'static str) {
    let version = env!("CARGO_PKG_VERSION");
    registry.register(
        "affix_build",
        "The version that runs, and as what",
        Info::new([("version", version), ("component", component)]),
    );
    registry.register_collector(Box::new(Process::default()));
}

/// When the process started, as far as it knows.
#[derive(Debug)]
struct Process {
    started: f64,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut gauge = |name, help, value: f64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)
        };
        gauge(
            "process_start_time_seconds",
            "Start of the process, in seconds since the epoch",
            self.started,
        )?;
        let status = read("status");
        if let Some(bytes) = kibibytes(&status, "VmRSS:") {
            gauge(
                "process_resident_memory_bytes",
                "Resident memory in bytes",
                bytes,
            )?;
        }
        if let Some(bytes) = kibibytes(&status, "VmSize:") {
            gauge(
                "process_virtual_memory_bytes",
                "Virtual memory in bytes",
                bytes,
            )?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the folder that is being read.
            gauge(
                "process_open_fds",
                "Open file descriptors",
                (open.count() as f64 - 1.0).max(0.0),
            )?;
        }
        if let Some(most) = most_files(&read("limits")) {
            gauge("process_max_fds", "File descriptors that may be open", most)?;
        }
        if let Some(seconds) = cpu_seconds(&read("stat")) {
            let help = "Time that the process has spent on processors, in seconds";
            ConstCounter::new(seconds).encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default()
}

/// A line such as `VmRSS:     1234 kB` of `status`, in bytes.
fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// The soft limit of the line `Max open files` of `limits`.
fn most_files(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of `stat` (fields 14 and 15), in ticks of which Linux tells programs a hundred a second on every
/// architecture that affix is built for.
fn cpu_seconds(stat: &str) -> Option<f64> {
    const TICKS: f64 = 100.0;
    // The second field is the program's name in brackets, which may hold blanks.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system) = (
        fields.next()?.parse::<f64>().ok()?,
        fields.next()?.parse::<f64>().ok()?,
    );
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_whatever_the_program_is_called() {
        assert_eq!(
            cpu_seconds("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 7 8 20"),
            Some(2.0)
        );
        assert_eq!(
            kibibytes("Name:\taffix\nVmRSS:\t    10 kB\n", "VmRSS:"),
            Some(10240.0)
        );
        assert_eq!(
            most_files(
                "Max open files            1024                 4096                 files\n"
            ),
            Some(1024.0)
        );
        assert_eq!(
            (cpu_seconds(""), kibibytes("", "VmRSS:"), most_files("")),
            (None, None, None)
        );
    }
}
