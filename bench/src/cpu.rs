//! Processor time, as the kernel accounts for it: of threads and processes, and of the machine as a whole.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The processor time of the thread that asks.
pub(crate) fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Processor time inside and outside of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct CpuTime {
    /// Outside of the kernel.
    pub(crate) user: Duration,
    /// Inside of the kernel, on the process's behalf.
    pub(crate) system: Duration,
}

impl CpuTime {
    /// Both.
    pub(crate) fn total(&self) -> Duration {
        self.user + self.system
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// The processor time of a process, by `/proc/PID/stat`; `None` if there is none, or it cannot be seen.
fn of_process(pid: u32) -> Option<CpuTime> {
    parse_process_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 and 15; the second one, the name, may hold anything, in parentheses.
fn parse_process_stat(stat: &str) -> Option<CpuTime> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(|field| field.parse().ok().map(ticks));
    Some(CpuTime { user: fields.next()??, system: fields.next()?? })
}

/// What all processors together did since the machine started, busy and taken away by a hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Machine {
    busy: Duration,
    stolen: Duration,
}

impl Machine {
    fn now() -> Self {
        fs::read_to_string("/proc/stat").ok().and_then(|stat| Self::parse(&stat)).unwrap_or_default()
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let &[user, nice, system, _, _, irq, softirq, steal, ..] = fields.as_slice() else { return None };
        Some(Self { busy: ticks(user + nice + system + irq + softirq), stolen: ticks(steal) })
    }
}

/// The kernel's unit in /proc.
fn ticks(count: u64) -> Duration {
    Duration::from_secs(count) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1)
}

/// What processors did between two moments.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Spent {
    /// Between the moments.
    pub(crate) wall: Duration,
    /// By each process that was there at both.
    pub(crate) servers: Vec<(Server, CpuTime)>,
    /// By everything on the machine.
    pub(crate) machine: Duration,
    /// Taken away by the hypervisor.
    pub(crate) stolen: Duration,
}

/// A process of the system under load.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Server {
    /// Its number.
    pub(crate) pid: u32,
    /// Its command, as the kernel has it.
    pub(crate) command: String,
}

impl Server {
    /// A process by its number.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, command: command.trim().to_owned() })
    }
}

/// A moment from which on processor time is counted.
pub(crate) struct Since {
    at: Instant,
    servers: Vec<(Server, CpuTime)>,
    machine: Machine,
}

impl Since {
    /// Now.
    pub(crate) fn now(servers: &[Server]) -> Self {
        let times = servers.iter().filter_map(|server| Some((server.clone(), of_process(server.pid)?)));
        Self { at: Instant::now(), servers: times.collect(), machine: Machine::now() }
    }

    /// What was spent from then to now.
    pub(crate) fn spent(&self) -> Spent {
        let machine = Machine::now();
        let servers = self.servers.iter();
        let servers =
            servers.filter_map(|(server, then)| Some((server.clone(), of_process(server.pid)?.since(then))));
        Spent {
            wall: self.at.elapsed(),
            servers: servers.collect(),
            machine: machine.busy.saturating_sub(self.machine.busy),
            stolen: machine.stolen.saturating_sub(self.machine.stolen),
        }
    }
}

/// The processes of this host that listen at the addresses, as far as they may be seen.
pub(crate) fn listening(at: &[SocketAddr]) -> Vec<Server> {
    let ports: BTreeSet<_> = at.iter().filter(|address| is_here(**address)).map(SocketAddr::port).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(table.lines().filter_map(|line| listening_inode(line, &ports)));
    }
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut servers: Vec<_> = pids.filter(|&pid| has_socket(pid, &inodes)).filter_map(Server::of).collect();
    servers.sort();
    servers
}

/// Whether an address is one of this host's.
fn is_here(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// The socket of a line of the kernel's table, if it listens on one of the ports.
fn listening_inode(line: &str, ports: &BTreeSet<u16>) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if fields.nth(1)? != LISTEN || !ports.contains(&port) {
        return None;
    }
    fields.nth(5)?.parse().ok()
}

fn has_socket(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| {
        let Ok(target) = fs::read_link(file.path()) else { return false };
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_that_listens_here_is_found_and_its_time_grows() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listening(&[listener.local_addr().unwrap()]);
        assert_eq!(found.iter().map(|server| server.pid).collect::<Vec<_>>(), [std::process::id()]);
        let (since, thread) = (Since::now(&found), of_this_thread());
        while of_this_thread() - thread < Duration::from_millis(60) {}
        let spent = since.spent();
        assert!(spent.servers[0].1.total() >= Duration::from_millis(40), "{spent:?}");
        assert!(spent.machine >= Duration::from_millis(40) && spent.wall >= Duration::from_millis(60));
    }

    #[test]
    fn nobody_is_looked_for_elsewhere() {
        assert_eq!(listening(&["192.0.2.1:7700".parse().unwrap()]), []);
        assert_eq!(listening(&[]), []);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        let time = parse_process_stat(stat).unwrap();
        assert_eq!(time.user, 5 * time.system);
        assert_eq!(parse_process_stat("7 (a) S 1"), None);
    }

    #[test]
    fn idle_time_is_not_busy() {
        let machine = Machine::parse("cpu  10 20 30 1000 500 1 2 40 0 0\ncpu0 1 2").unwrap();
        assert_eq!((machine.busy, machine.stolen), (ticks(63), ticks(40)));
    }
}
