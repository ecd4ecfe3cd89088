//! The systems: which there are, how each is started with the settings that its makers recommend, and when it is ready.
//!
//! Invariants:
//! - What survives a loss of power is what the name says; nothing that a system promises by default is loosened.
//! - A system that is given back has answered a request as its clients make them.
//!
//! bench/README.md says of each setting why it is as it is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mesh_base::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX, VALUE_BYTES_MAX};
use rustix::process::getuid;

use super::client::Client;
use super::process::{Process, Start};
use super::programs::{ProgramName, Programs};
use super::room::Room;
use crate::cpu::Server;
use crate::error::BenchError;
use crate::target::echo::{AnswerBytes, Echo};
use crate::target::etcd::Etcd;
use crate::target::memcached::Memcached;
use crate::target::mesh::Mesh;
use crate::target::resp::Resp;
use crate::target::{OpenError, Standing};

/// How long a system may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const READY_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two questions.
const READY_PAUSE_MAX: Duration = Duration::from_millis(2);
/// What etcd may keep before it refuses writes: the most that it supports, so that no run comes to its default of 2 GiB.
const ETCD_QUOTA_BYTES: u64 = 8 << 30;
/// A request of etcd, at most: room for the largest that a load may have, which its default of 1.5 MiB has not.
const ETCD_REQUEST_BYTES_MAX: usize = VALUE_BYTES_MAX + BATCH_BYTES_MAX;
/// Memory of memcached, in MiB: enough for a run that fits into memory elsewhere.
const MEMCACHED_MIB: u64 = 4096;
/// The largest item that memcached takes without being told, less what it adds to one.
const MEMCACHED_ITEM_BYTES: usize = 1_000_000;

/// A system by its name on the command line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum SystemName {
    /// One node.
    Mesh,
    /// Three nodes.
    #[value(name = "mesh-3")]
    Mesh3,
    /// Five nodes.
    #[value(name = "mesh-5")]
    Mesh5,
    /// Without persistence.
    Redis,
    /// Every write is in the append-only file, and that on the disk, before it is acknowledged.
    RedisAof,
    /// Without persistence.
    Valkey,
    /// Every write is in the append-only file, and that on the disk, before it is acknowledged.
    ValkeyAof,
    /// One node.
    Etcd,
    /// Three nodes.
    #[value(name = "etcd-3")]
    Etcd3,
    /// In memory.
    Memcached,
    /// No system: the executor that Mesh is built on, answering with as many bytes as Mesh.
    Echo,
}

/// What kind of system it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Product {
    Mesh,
    Redis(Persistence),
    Valkey(Persistence),
    Etcd,
    Memcached,
    Echo,
}

/// What a server of the Redis protocol keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Persistence {
    None,
    EveryWrite,
}

impl SystemName {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    const fn product(self) -> Product {
        match self {
            Self::Mesh | Self::Mesh3 | Self::Mesh5 => Product::Mesh,
            Self::Redis => Product::Redis(Persistence::None),
            Self::RedisAof => Product::Redis(Persistence::EveryWrite),
            Self::Valkey => Product::Valkey(Persistence::None),
            Self::ValkeyAof => Product::Valkey(Persistence::EveryWrite),
            Self::Etcd | Self::Etcd3 => Product::Etcd,
            Self::Memcached => Product::Memcached,
            Self::Echo => Product::Echo,
        }
    }

    /// Whether it is Mesh, to which the others are compared.
    pub(crate) const fn is_mesh(self) -> bool {
        matches!(self, Self::Mesh | Self::Mesh3 | Self::Mesh5)
    }

    /// Whether it keeps what it is given.
    pub(crate) const fn keeps(self) -> bool {
        !matches!(self, Self::Echo)
    }

    /// How many processes it has.
    pub(crate) const fn nodes(self) -> usize {
        match self {
            Self::Mesh3 | Self::Etcd3 => 3,
            Self::Mesh5 => 5,
            _ => 1,
        }
    }

    /// What runs it.
    pub(crate) const fn program(self) -> ProgramName {
        match self.product() {
            Product::Mesh => ProgramName::MeshServer,
            Product::Redis(_) => ProgramName::RedisServer,
            Product::Valkey(_) => ProgramName::ValkeyServer,
            Product::Etcd => ProgramName::Etcd,
            Product::Memcached => ProgramName::Memcached,
            Product::Echo => ProgramName::MeshBench,
        }
    }
}

/// Where systems are started, and what they have to hold.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// The directory of the run.
    pub(crate) room: &'a Room,
    /// What is installed.
    pub(crate) programs: &'a Programs,
    /// The processors of servers.
    pub(crate) cores: Vec<usize>,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// How each node of Mesh is laid out.
    pub(crate) mesh: MeshLayout,
}

/// How a node of Mesh is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MeshLayout {
    /// Cores of a node, at least one: it uses so many of the servers' processors, the next node the next ones.
    pub(crate) cores: usize,
    /// Shards of the cluster.
    pub(crate) shards: u16,
}

impl MeshLayout {
    /// One core and one shard, as it is judged.
    pub(crate) const SINGLE: Self = Self { cores: 1, shards: 1 };
}

/// A system that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which.
    pub(crate) name: SystemName,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    start: Start,
    address: SocketAddr,
    /// `None` while it is down.
    process: Option<Process>,
}

impl Running {
    /// Starts a system in a fresh directory.
    ///
    /// # Errors
    /// [`BenchError`]
    pub(crate) fn start(name: SystemName, site: &Site<'_>) -> Result<Self, BenchError> {
        let program = site.programs.find(name.program()).map_err(BenchError::Usage)?;
        let ports = free_ports(2 * name.nodes())?;
        let directory = site.room.fresh(&name.name());
        let seats: Vec<_> =
            ports.chunks(2).zip(0..).map(|(ports, number)| Seat::new(number, ports)).collect();
        let nodes = seats.iter().map(|seat| Node {
            start: Start {
                program: program.clone(),
                arguments: arguments(name.product(), seat, &seats, site),
                variables: variables(name.product(), &directory, site),
                cores: site.cores.clone(),
                directory: directory.join(&seat.name),
            },
            address: seat.client,
            process: None,
        });
        let mut running = Self { name, nodes: nodes.collect() };
        for node in 0..running.nodes.len() {
            running.start_node(node)?;
        }
        Ok(running)
    }

    /// Starts a node that is down, with the files that it has.
    ///
    /// # Errors
    /// [`BenchError`]
    pub(crate) fn start_node(&mut self, node: usize) -> Result<(), BenchError> {
        if let Some(node) = self.nodes.get_mut(node) {
            node.process = Some(Process::start(&node.start)?);
        }
        Ok(())
    }

    /// Ends a node as a crash does.
    pub(crate) fn kill_node(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.process = None;
        }
    }

    /// A node's process, if it is up.
    pub(crate) fn process(&self, node: usize) -> Option<&Process> {
        self.nodes.get(node)?.process.as_ref()
    }

    /// The processes whose time is accounted for.
    pub(crate) fn servers(&self) -> Vec<Server> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()?.server()).collect()
    }

    /// Where clients reach its nodes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// A client, as soon as the system serves it.
    ///
    /// # Errors
    /// It does not, with the last that its processes said.
    pub(crate) fn client(&mut self) -> Result<Box<dyn Client>, BenchError> {
        let addresses = self.addresses();
        match self.name.product() {
            Product::Mesh => {
                let mesh = self.mesh()?;
                Ok(Box::new(Arc::new(mesh)))
            }
            Product::Redis(_) | Product::Valkey(_) => {
                let first = first(&addresses);
                self.ready(|| Resp::new("redis", first).reach().map(drop))?;
                Ok(Box::new(Arc::new(Resp::new("redis", first))))
            }
            Product::Memcached => {
                let first = first(&addresses);
                self.ready(|| Memcached::new(first).reach().map(drop))?;
                Ok(Box::new(Arc::new(Memcached::new(first))))
            }
            Product::Etcd => {
                self.ready(|| addresses.iter().try_for_each(|address| Etcd::serves(*address)))?;
                Ok(Box::new(Arc::new(Etcd::new(addresses))))
            }
            Product::Echo => {
                let first = first(&addresses);
                self.ready(|| Echo::new(first).reach().map(drop))?;
                Ok(Box::new(Arc::new(Echo::new(first))))
            }
        }
    }

    /// A client of Mesh, as soon as all nodes know the cluster and one of them leads.
    fn mesh(&mut self) -> Result<Mesh, BenchError> {
        let endpoints: Vec<_> = self.addresses().iter().map(ToString::to_string).collect();
        self.ready(|| {
            let each = |endpoint: &String| Mesh::discover(vec![endpoint.clone()]).map(drop);
            endpoints.iter().try_for_each(each)?;
            let mesh = Mesh::discover(endpoints.clone())?;
            if mesh.leader_of_all().is_some() { Ok(mesh) } else { Err(OpenError::Later("no leader".into())) }
        })
    }

    /// The node that leads, where nodes have a leader.
    ///
    /// # Errors
    /// None does.
    pub(crate) fn leader(&mut self) -> Result<usize, BenchError> {
        let addresses = self.addresses();
        match self.name.product() {
            Product::Mesh => {
                let leader = self.mesh()?.leader_of_all().unwrap_or_default();
                let position = addresses.iter().position(|address| address.to_string() == leader);
                position.ok_or_else(|| BenchError::Unreachable { why: format!("no node is at {leader}") })
            }
            Product::Etcd => self.ready(|| {
                let leads = |address: &SocketAddr| Etcd::leads(*address) == Ok(true);
                addresses.iter().position(leads).ok_or_else(|| OpenError::Later("no leader".into()))
            }),
            _ => Ok(0),
        }
    }

    /// Whether every node answers, follows a leader and has applied all that any of them knows to be committed.
    pub(crate) fn is_caught_up(&self) -> bool {
        let addresses = self.addresses();
        let mut nodes = addresses.iter().map(|&address| match self.name.product() {
            Product::Mesh => Mesh::standing(address),
            Product::Etcd => Etcd::standing(address),
            _ => Ok(Standing::default()),
        });
        let standings: Result<Vec<_>, _> = nodes.by_ref().collect();
        standings.is_ok_and(|standings| {
            let committed = standings.iter().map(|standing| standing.committed).max();
            standings.iter().all(|standing| Some(standing.applied) >= committed)
        })
    }

    /// Asks until it is done, or a process has ended, or too much time is over.
    ///
    /// # Errors
    /// [`BenchError::Peer`]
    pub(crate) fn ready<T>(&mut self, ask: impl Fn() -> Result<T, OpenError>) -> Result<T, BenchError> {
        let (since, mut pause) = (Instant::now(), READY_PAUSE);
        loop {
            let why = match ask() {
                Ok(done) => return Ok(done),
                Err(why) => why,
            };
            let ended =
                self.nodes.iter_mut().any(|node| node.process.as_mut().is_some_and(Process::has_ended));
            if ended || since.elapsed() > READY_MAX || matches!(why, OpenError::Refused(_)) {
                return Err(self.failed(&why.to_string()));
            }
            thread::sleep(pause);
            pause = (pause * 5 / 4).min(READY_PAUSE_MAX);
        }
    }

    /// An error of a client, with what the system's processes said last.
    pub(crate) fn explain(&self, error: &BenchError) -> BenchError {
        self.failed(&error.to_string())
    }

    /// An error with what its processes said last.
    fn failed(&self, why: &str) -> BenchError {
        let words = self.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.last_words()));
        let words = words.collect::<Vec<_>>().join("\n");
        BenchError::Peer {
            program: self.name.program().name(),
            why: format!("{why}; it said last:\n{words}"),
        }
    }
}

/// A node's name and addresses.
struct Seat {
    name: String,
    number: usize,
    client: SocketAddr,
    peer: SocketAddr,
}

impl Seat {
    fn new(number: usize, ports: &[u16]) -> Self {
        let mut addresses = ports.iter().map(|&port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut next = || addresses.next().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let letter = b'a'.saturating_add(u8::try_from(number).unwrap_or_default());
        Self { name: char::from(letter).to_string(), number, client: next(), peer: next() }
    }

    /// The processor of a node that uses one.
    fn core(&self, cores: &[usize]) -> usize {
        self.cores(cores, 1).first().copied().unwrap_or_default()
    }

    /// The processors of a node that uses so many, each once.
    fn cores(&self, cores: &[usize], count: usize) -> Vec<usize> {
        let count = count.min(cores.len());
        cores.iter().copied().cycle().skip(self.number * count).take(count).collect()
    }
}

fn first(addresses: &[SocketAddr]) -> SocketAddr {
    addresses.first().copied().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Ports that nobody uses now, all different.
fn free_ports(count: usize) -> Result<Vec<u16>, BenchError> {
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners: Vec<_> = listeners.collect::<Result<_, _>>().map_err(BenchError::host("a free port"))?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect::<Result<_, std::io::Error>>().map_err(BenchError::host("a free port"))
}

fn variables(product: Product, directory: &Path, site: &Site<'_>) -> Vec<(&'static str, String)> {
    match product {
        // Where nodes leave their names, so that none meets those of another cluster.
        Product::Mesh => vec![("XDG_RUNTIME_DIR", directory.display().to_string())],
        Product::Etcd => vec![("GOMAXPROCS", site.cores.len().to_string())],
        _ => Vec::new(),
    }
}

fn arguments(product: Product, seat: &Seat, seats: &[Seat], site: &Site<'_>) -> Vec<String> {
    let port = seat.client.port().to_string();
    match product {
        Product::Mesh => mesh(seat, seats, site),
        Product::Redis(persistence) | Product::Valkey(persistence) => redis(&port, persistence),
        Product::Etcd => etcd(seat, seats),
        Product::Memcached => memcached(&port, site),
        Product::Echo => echo(&port, seat, site),
    }
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

fn mesh(seat: &Seat, seats: &[Seat], site: &Site<'_>) -> Vec<String> {
    let listen = seat.client.to_string();
    let cores: Vec<_> = seat.cores(&site.cores, site.mesh.cores).iter().map(usize::to_string).collect();
    let (cores, shards) = (cores.join(","), site.mesh.shards.to_string());
    let mut arguments = strings(&["--node", &seat.name, "--listen", &listen, "--data", "data"]);
    arguments.extend(strings(&["--cores", &cores, "--shards", &shards]));
    let others = seats.iter().filter(|other| other.number != seat.number);
    let peers: Vec<_> = others.map(|other| format!("{}={}", other.name, other.client)).collect();
    if !peers.is_empty() {
        arguments.extend(strings(&["--peers", &peers.join(",")]));
    }
    arguments
}

fn redis(port: &str, persistence: Persistence) -> Vec<String> {
    let mut arguments = strings(&["--port", port, "--bind", "127.0.0.1", "--save", "", "--io-threads", "1"]);
    arguments.extend(match persistence {
        Persistence::None => strings(&["--appendonly", "no"]),
        // Rewriting the file would run beside the load in a process of its own.
        Persistence::EveryWrite => {
            strings(&["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"])
        }
    });
    arguments
}

fn etcd(seat: &Seat, seats: &[Seat]) -> Vec<String> {
    let (client, peer) = (format!("http://{}", seat.client), format!("http://{}", seat.peer));
    let cluster: Vec<_> = seats.iter().map(|seat| format!("{}=http://{}", seat.name, seat.peer)).collect();
    strings(&[
        "--name",
        &seat.name,
        "--data-dir",
        "data",
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &cluster.join(","),
        "--quota-backend-bytes",
        &ETCD_QUOTA_BYTES.to_string(),
        "--max-txn-ops",
        &BATCH_OPS_MAX.to_string(),
        "--max-request-bytes",
        &ETCD_REQUEST_BYTES_MAX.to_string(),
        "--log-level",
        "error",
    ])
}

fn memcached(port: &str, site: &Site<'_>) -> Vec<String> {
    let (threads, memory) = (site.cores.len().to_string(), MEMCACHED_MIB.to_string());
    let mut arguments = strings(&["-l", "127.0.0.1", "-p", port, "-U", "0", "-t", &threads, "-m", &memory]);
    arguments.extend(strings(&["-c", "16384"]));
    if site.value_bytes > MEMCACHED_ITEM_BYTES {
        arguments.extend(strings(&["-I", "16m"]));
    }
    if getuid().is_root() {
        // It does not run as root unless it is told to.
        arguments.extend(strings(&["-u", "root"]));
    }
    arguments
}

/// The echo answers each frame with one of the same request and as many bytes as Mesh's answer has.
fn echo(port: &str, seat: &Seat, site: &Site<'_>) -> Vec<String> {
    let core = seat.core(&site.cores).to_string();
    let AnswerBytes { get, put } = AnswerBytes::of(site.value_bytes);
    let (get, put) = (get.to_string(), put.to_string());
    strings(&[
        "echo",
        "--core",
        &core,
        "--port",
        port,
        "--get-answer-bytes",
        &get,
        "--put-answer-bytes",
        &put,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_the_next_processors_and_begin_again_where_there_are_no_more() {
        let cores = |number, count| Seat::new(number, &[1, 2]).cores(&[4, 5, 6], count);
        assert_eq!([cores(0, 1), cores(1, 1), cores(3, 1)], [[4], [5], [4]]);
        assert_eq!([cores(0, 2), cores(1, 2), cores(2, 2)], [[4, 5], [6, 4], [5, 6]]);
        assert_eq!(cores(1, 9), [4, 5, 6]);
    }
}
