//! On what a figure was measured.

use std::fs;
use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// A description of this host.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processors' model.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) processors: usize,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The architecture.
    pub(crate) architecture: &'static str,
    /// Processes that ran or wanted to, on average over the minute before the run.
    pub(crate) load_average: f64,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: cpu_model(&read("/proc/cpuinfo")),
            processors: allowed().len(),
            memory_bytes: memory_bytes(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            architecture: std::env::consts::ARCH,
            load_average: first_number(&read("/proc/loadavg")),
        }
    }
}

/// The processors that this process may run on, ascending.
pub(crate) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Lets this process open as many files as it ever may: thousands of connections are more than shells usually let programs have.
/// Where that is refused, the first connection too many says so.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Has this thread run on one processor only.
///
/// # Errors
/// It may not.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// x86 names a model; on arm64 there are only numbers.
fn cpu_model(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let line =
            cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim())
    };
    match (field("model name"), field("CPU implementer"), field("CPU part")) {
        (Some(name), ..) => name.to_owned(),
        (None, Some(implementer), Some(part)) => format!("implementer {implementer}, part {part}"),
        _ => "unknown".to_owned(),
    }
}

fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    total.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn first_number(loadavg: &str) -> f64 {
    loadavg.split_ascii_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_described() {
        let machine = Machine::look();
        assert!(machine.processors > 0 && machine.memory_bytes > 1 << 20);
        assert!(!machine.cpu.is_empty() && machine.kernel.contains('.'));
    }

    #[test]
    fn processors_are_named_as_far_as_the_kernel_does() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A B C\n"), "A B C");
        assert_eq!(cpu_model("CPU implementer : 0x41\nCPU part : 0xd40\n"), "implementer 0x41, part 0xd40");
        assert_eq!(cpu_model(""), "unknown");
    }
}
