//! What this machine has: processors, memory, an address.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::quantity::CpuList;

/// The processors that this process may use.
pub(super) fn allowed_cpus() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    match list.and_then(|list| list.trim().parse::<CpuList>().ok()) {
        Some(CpuList(cpus)) => cpus,
        // Without /proc: as many as there are said to be, from the first on.
        None => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Bytes of memory: the machine's, or less if this process's group may use less; `None` if that cannot be found out.
pub(super) fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|info| total_of(&info));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|max| max.trim().parse().ok());
    machine.into_iter().chain(group).min()
}

/// The total in the text of /proc/meminfo.
fn total_of(info: &str) -> Option<u64> {
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The address of this host on its network: the one that what goes out comes from. The loopback if there is no network.
pub(super) fn network_address() -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Connecting a datagram socket sends nothing; it only looks the route up.
    let route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    route().map_or(loopback, |address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_and_memory_and_an_address() {
        assert!(!allowed_cpus().is_empty());
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 26));
        assert!(!network_address().is_unspecified());
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
    }
}
