//! The machine, in a line: what explains a figure and gives away nothing about its owner.

use std::fs::read_to_string;

/// Processor, cores, memory, system, and how busy it was when the measurement began.
pub(super) fn describe() -> String {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpus, "model name").unwrap_or("a processor without a name");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = field(&memory, "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: String = kernel
        .trim()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let gib = (kib + (1 << 19)) >> 20;
    format!(
        "Measured on {cores} cores ({model}), {gib} GiB, Linux {kernel}; load before the start: {load}."
    )
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text
        .lines()
        .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
