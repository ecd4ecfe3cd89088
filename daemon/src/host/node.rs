//! A node: as many threads as it has cores, each pinned to its processor and sharing nothing with the others.
//!
//! [`Claim`] takes what only one node can have (the data directory, the address), so that whatever is wrong with what
//! the operator gave is told before anything runs. [`Claim::run`] starts the cores, all of them or none.
//!
//! Invariant: a node with a dead core does not go on. A panic on a core's thread ends the process.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use mesh_base::limits::{CORE_IO_MEMORY_BYTES, CORE_RING_ENTRIES, STOP_TIMEOUT, TICK};
use mesh_base::prng::Prng;
use mesh_base::{CoreId, Instant};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::disable_transparent_huge_pages;

use super::breath::Breath;
use super::disk::{Disk, check_direct_io};
use super::doorbell::Doorbell;
use super::error::HostError;
use super::inbox::Inbox;
use super::link::Links;
use super::listen::{Listeners, listen};
use super::lock::DataLock;
use super::mesh::{Exchange, MeshPort, Parcel};
use super::net::{Bounds, Port};
use super::registry::{Announcement, Registry};
use super::server::{Greeter, Server};
use super::sockets::Sockets;
use super::ticker::Ticker;
use super::turn::{Ending, Shared, Sources, Turn};
use super::watch::{Pulse, watch};
use crate::core::{NodeName, Notice};
use crate::node::NodeConfig;

/// No task is interrupted by time, see [`super::watch`]; those that could go on for long stop by themselves.
const PREEMPT_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Threads of a core for what the kernel offers only to those who wait: creating, renaming, removing, allocating.
const WAITING_THREADS: usize = 2;

/// What a node holds as long as any of its threads lives.
struct Premises {
    data: PathBuf,
    name: NodeName,
    _lock: DataLock,
    _announcement: Option<Announcement>,
}

/// A data directory and an address that this process has for a node.
pub struct Claim {
    premises: Premises,
    listeners: Listeners,
    cpus: Vec<usize>,
    /// For each core; how many clients depends on the files that the process may open.
    pub(super) bounds: Bounds,
    pub(super) stop_timeout: Duration,
}

impl Claim {
    /// Takes the data directory, which is made if there is none, and the address; and leaves word of it for the other
    /// nodes of this host.
    ///
    /// # Errors
    /// [`HostError`], naming what the operator gave.
    ///
    /// # Panics
    /// When the configuration names no processor: the caller checks it first.
    pub fn new(config: &NodeConfig) -> Result<Self, HostError> {
        let registry = Registry::of_user();
        if let Err(error) = &registry {
            tracing::warn!(%error, "this node is not found by its name on this host");
        }
        Self::announced_in(registry.ok().as_ref(), config)
    }

    pub(super) fn announced_in(registry: Option<&Registry>, config: &NodeConfig) -> Result<Self, HostError> {
        assert!(!config.cpus.is_empty());
        let files_max = raise_file_limit();
        let lock = DataLock::take(&config.data, &config.name)?;
        check_direct_io(&config.data)?;
        let listeners = listen(&config.listen, config.cpus.len())?;
        let address = listeners.local_address().to_string();
        let announced = registry.map(|registry| registry.announce(&config.name, &address, &config.data));
        if let Some(Err(error)) = &announced {
            tracing::warn!(%error, "this node is not found by its name on this host");
        }
        let premises = Premises {
            data: config.data.clone(),
            name: config.name.clone(),
            _lock: lock,
            _announcement: announced.and_then(Result::ok),
        };
        let cores = config.cpus.len();
        let clients_max = files_max.saturating_sub(FILES_RESERVED + cores * FILES_RESERVED_PER_CORE) / cores;
        if clients_max < CLIENTS_FEW {
            tracing::warn!(
                files_max,
                clients_max,
                "few files may be open (ulimit -n), so few clients may come"
            );
        }
        let bounds = Bounds::for_clients(clients_max);
        Ok(Self { premises, listeners, cpus: config.cpus.clone(), bounds, stop_timeout: STOP_TIMEOUT })
    }

    /// What the node listens on; with the port that the system chose, where it was asked to (`:0`).
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listeners.address
    }

    /// Where the node is reached from this host.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.listeners.local_address()
    }

    /// Starts a thread per core, with the server that `make` makes on each.
    ///
    /// # Errors
    /// [`HostError::Core`]; nothing runs then.
    pub fn run<S, F>(self, make: F) -> Result<NodeHandle, HostError>
    where
        S: Server,
        F: Fn(CoreId, Prng) -> S + Send + Sync + 'static,
    {
        // Before there are threads it costs little, later much.
        glommio::early_init();
        permit_huge_pages();
        let (notices, noticed) = channel();
        let (started, starts) = channel();
        let cores = self.cpus.len();
        let shared = Arc::new(Shared {
            exchange: Exchange::new(cores),
            stopped: AtomicUsize::new(0),
            pulse: Pulse::new(cores),
        });
        let (premises, make) = (Arc::new(self.premises), Arc::new(make));
        let address = self.listeners.address;
        let mut threads = Vec::new();
        let mut gates = Vec::new();
        for ((core, &cpu), listener) in (0..).map(CoreId).zip(&self.cpus).zip(self.listeners.sockets) {
            let (gate, opened) = channel();
            let seat = Seat {
                core,
                cpu,
                listener,
                premises: Arc::clone(&premises),
                shared: Arc::clone(&shared),
                notices: notices.clone(),
                bounds: self.bounds,
                stop_timeout: self.stop_timeout,
            };
            let (make, started) = (Arc::clone(&make), started.clone());
            let name = format!("mesh-{}-{core}", premises.name);
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || seat.sit(&*make, &started, &opened))
                .map_err(|error| HostError::Core { core, cpu, reason: error.to_string() })?;
            threads.push(thread);
            gates.push(gate);
        }
        drop((started, notices));
        // An early return drops the gates, and with them every thread ends.
        for _ in &threads {
            starts.recv().unwrap_or_else(|_| Err(vanished()))?;
        }
        watch_over(&premises.name, &shared)?;
        for gate in gates {
            let _ = gate.send(());
        }
        Ok(NodeHandle { address, shared, threads, notices: noticed })
    }
}

/// Starts the thread that sees to it that no core sleeps for ever.
fn watch_over(name: &NodeName, shared: &Arc<Shared>) -> Result<(), HostError> {
    let watched = Arc::clone(shared);
    let thread = thread::Builder::new().name(format!("mesh-{name}-watch"));
    match thread.spawn(move || watch(&watched.pulse, &watched.exchange)) {
        Ok(_) => Ok(()),
        Err(error) => Err(HostError::Core { core: CoreId(0), cpu: 0, reason: error.to_string() }),
    }
}

/// A thread ended without a word; that is a panic, and the process is on its way out.
fn vanished() -> HostError {
    HostError::Core { core: CoreId(0), cpu: 0, reason: "its thread ended".into() }
}

/// A node that runs.
pub struct NodeHandle {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Ending>>,
    notices: Receiver<Notice>,
}

impl NodeHandle {
    /// What the node listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the operator is to be told; ends when the node does.
    #[must_use]
    pub const fn notices(&self) -> &Receiver<Notice> {
        &self.notices
    }

    /// Something that stops the node, for a signal's handler or another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { shared: Arc::clone(&self.shared) }
    }

    /// Asks the node to stop; [`NodeHandle::join`] waits until it has.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// Waits until the node has stopped: [`mesh_base::limits::STOP_TIMEOUT`] after it was asked to, at the latest.
    ///
    /// # Errors
    /// [`HostError::StopTimeout`] if not everything it had under way is durable. The next start recovers.
    pub fn join(self) -> Result<(), HostError> {
        let endings = self.threads.into_iter().map(JoinHandle::join);
        let cores = endings.filter(|ending| !matches!(ending, Ok(Ending::Orderly))).count();
        if cores == 0 { Ok(()) } else { Err(HostError::StopTimeout { cores }) }
    }
}

/// Stops a node.
#[derive(Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
}

impl Stopper {
    /// Asks the node to stop; asking again changes nothing.
    pub fn stop(&self) {
        self.shared.exchange.post_to_all(|| Parcel::Stop);
    }
}

/// What one core's thread begins with.
struct Seat {
    core: CoreId,
    cpu: usize,
    listener: TcpListener,
    premises: Arc<Premises>,
    shared: Arc<Shared>,
    notices: Sender<Notice>,
    bounds: Bounds,
    stop_timeout: Duration,
}

/// What a core needs of the kernel before it can say that it runs.
struct Parts {
    breath: Rc<Breath>,
    sockets: Rc<Sockets>,
    ticker: Ticker,
    doorbell: Doorbell,
    inbox: Rc<Inbox>,
    disk: Rc<Disk>,
}

impl Parts {
    /// Inside of the core's executor.
    fn new(data: PathBuf) -> io::Result<Self> {
        let sockets = Sockets::new()?;
        let inbox = Rc::new(Inbox::new());
        let disk = Disk::new(data, Rc::clone(&inbox), &sockets)?;
        let (ticker, doorbell) = (Ticker::new(TICK, &sockets)?, Doorbell::new(&sockets)?);
        Ok(Self { breath: Breath::new()?, ticker, doorbell, sockets, inbox, disk })
    }
}

impl Seat {
    fn sit<S: Server>(
        self,
        make: &dyn Fn(CoreId, Prng) -> S,
        started: &Sender<Result<(), HostError>>,
        opened: &Receiver<()>,
    ) -> Ending {
        let (core, cpu) = (self.core, self.cpu);
        let ready = executor(core, cpu).and_then(|executor| {
            let parts = executor.run(async { Parts::new(self.premises.data.clone()) });
            let ready = parts.and_then(|parts| Ok((executor, parts, seed()?)));
            ready.map_err(|error: io::Error| HostError::Core { core, cpu, reason: error.to_string() })
        });
        let (executor, parts, prng) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let _ = started.send(Err(error));
                return Ending::Cut;
            }
        };
        let _ = started.send(Ok(()));
        if opened.recv().is_err() {
            return Ending::Cut;
        }
        let _guard = AbortOnPanic;
        executor.run(async move {
            let (premises, shared) = (Arc::clone(&self.premises), Arc::clone(&self.shared));
            parts.sockets.attend();
            let (turn, sources) = self.furnish(make, prng, parts);
            let ending = turn.live(sources).await;
            shared.pulse.stop();
            drop(premises);
            ending
        })
    }

    /// Puts the parts of a core together.
    fn furnish<S: Server>(
        self,
        make: &dyn Fn(CoreId, Prng) -> S,
        mut prng: Prng,
        parts: Parts,
    ) -> (Turn<S>, Sources) {
        let Parts { breath, sockets, ticker, doorbell, inbox, disk } = parts;
        let server = Rc::new(RefCell::new(make(self.core, prng.fork())));
        let greeter: Rc<dyn Greeter> = Rc::<RefCell<S>>::clone(&server);
        let mesh = Rc::new(MeshPort::new(self.core, Arc::clone(&self.shared.exchange)));
        let port = Port::new(
            self.core,
            Rc::clone(&inbox),
            Rc::clone(&mesh),
            Rc::clone(&greeter),
            Rc::clone(&sockets),
            self.bounds,
        );
        let links = Links::new(Rc::clone(&inbox), greeter, Rc::clone(&sockets), prng);
        let Self { core: own, shared, notices, stop_timeout, listener, .. } = self;
        let (resident_bytes, again) = (Cell::new(0), Cell::new(false));
        let turn = Turn {
            own,
            server,
            shared,
            inbox,
            mesh,
            port,
            links,
            disk,
            sockets,
            breath,
            notices,
            resident_bytes,
            again,
            busy_at: Cell::new(Instant::ZERO),
            stop_timeout,
        };
        (turn, Sources { listener, ticker, doorbell })
    }
}

fn executor(core: CoreId, cpu: usize) -> Result<LocalExecutor, HostError> {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .io_memory(CORE_IO_MEMORY_BYTES)
        .ring_depth(CORE_RING_ENTRIES)
        .preempt_timer(PREEMPT_AFTER)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(WAITING_THREADS))
        .make()
        .map_err(|error| HostError::Core { core, cpu, reason: error.to_string() })
}

fn seed() -> io::Result<Prng> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(Prng::new(u64::from_le_bytes(seed)))
}

/// The allocator keeps huge pages from the whole process, since in its own memory they would be mostly empty. The page store's
/// memory is full, and asks for them by name.
fn permit_huge_pages() {
    if let Err(error) = disable_transparent_huge_pages(false) {
        tracing::debug!(%error, "the page store does without huge pages");
    }
}

/// Connections and files are many; the usual limit of 1024 is not meant for servers.
/// Raises the limit of open files as far as it goes; answers what it is then.
fn raise_file_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
    let now = getrlimit(Resource::Nofile).current;
    now.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// Files that a process needs beside its clients' connections: logs, stores, rings, other nodes.
const FILES_RESERVED: usize = 128;
/// The same, for each core.
const FILES_RESERVED_PER_CORE: usize = 384;
/// Fewer clients than this are worth a word.
const CLIENTS_FEW: usize = 256;

/// Ends the process when its thread panics; the panic's message is out by then.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}
