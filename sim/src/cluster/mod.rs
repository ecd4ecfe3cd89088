//! A whole cluster of Mesh: the real cores, shards, logs and page stores, on simulated disks, network and clocks.
//!
//! A run is hostile first: nodes crash and lose power, the network is cut, a node's directory is wiped and the node
//! replaced. Then all is healed, and every client must be served again. What clients saw is then checked.
//!
//! Faults keep to what the cluster must survive: at most one node at a time has lost its directory and is not yet back
//! among the voters of every shard.

mod client;
mod process;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mesh_base::prng::Prng;
use mesh_base::{ClusterId, CoreId, Instant, Now, ReplicaId, ShardId};
use mesh_server::core::{
    ConnId, CoreEffect, CoreEvent, DirectoryKey, LinkClass as ServerClass, NodeName, Notice, PeerNode,
};
use mesh_server::node::NodeConfig;
use mesh_server::router::SlotMap;
use mesh_server::shard::ShardOptions;
use mesh_server::shard::status::Condition;
use mesh_wire::{FrameDecoder, FrameWriter};

use self::client::{Client, Shared, Step, address_of};
use self::process::{Process, Wake, small_shards};
use crate::clock::SimClock;
use crate::disk::{Crash, DiskOpNo, SimDisk};
use crate::driver::{Failure, Run};
use crate::heap::EventHeap;
use crate::history::History;
use crate::latency::{Latency, draw_between};
use crate::net::{Direction, Frame, LinkClass, LinkOptions, NetEvent, SimNet};
use crate::options::Options;
use crate::trace::Trace;
use crate::{cuts, linearizability, revisions};

/// How long a core's events wait for its turn.
const TURN: Latency = Latency::between(Duration::ZERO, Duration::from_micros(30));
/// How long an operator takes to see that something is to be done, and to try it again.
const OPERATOR: Duration = Duration::from_millis(400);
/// Cores of a node at most.
const CORES_MAX: usize = 2;
/// How long a node may take to stop in order, whatever goes wrong meanwhile.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Mean time that a disk is slow or full.
const DISK_AILS: Duration = Duration::from_secs(2);
/// Mean time between wipes of a directory, in the runs that have any.
const WIPE_EVERY: Duration = Duration::from_secs(4);

/// The cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster;

impl Run for Cluster {
    fn run(&self, options: &Options, root: Prng, trace: &mut Trace<'_>) -> Result<(), Failure> {
        let mut world = World::new(options, root);
        world.play(options, trace)?;
        linearizability::check(&world.history)?;
        revisions::check(&world.history)?;
        cuts::check(&world.history)?;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Peer {
    Node(usize),
    Client(usize),
    Operator,
}

#[derive(Debug)]
enum Event {
    Disk(usize, DiskOpNo),
    Net(NetEvent<Peer>),
    /// A core's turn, in the run of the program with this number.
    Turn {
        node: usize,
        core: usize,
        incarnation: u64,
    },
    Tick {
        node: usize,
        incarnation: u64,
    },
    Think(usize),
    Alarm {
        client: usize,
        attempt: u64,
    },
    Operator,
    Crash,
    /// A node was told to stop long ago, in the run of the program with this number.
    StopOverdue {
        node: usize,
        incarnation: u64,
    },
    Restart(usize),
    Partition,
    Heal,
    Wipe,
    ClockJump,
    SlowDisk,
    FullDisk,
    /// A node's disk is as fast and as large as ever.
    DiskRepaired(usize),
}

struct Node {
    name: NodeName,
    disk: SimDisk<DirectoryKey>,
    clock: SimClock,
    process: Option<Process>,
    /// The cluster that its hellos name.
    cluster: Option<ClusterId>,
    incarnations: u64,
    /// The replicas it had when its directory was wiped, until it is back among the voters.
    lost: Option<ReplicaId>,
    prng: Prng,
}

struct World {
    heap: EventHeap<Event>,
    net: SimNet<Peer>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    shared: Shared,
    shard_options: Arc<ShardOptions>,
    shards: u16,
    history: History,
    options: Options,
    is_hostile: bool,
    wipes: bool,
    operator: FrameWriter,
    /// What a replica or node said that it must not say.
    complaint: Option<String>,
    prng: Prng,
}

impl World {
    fn new(options: &Options, mut root: Prng) -> Self {
        let size = &options.size;
        let classes = [
            (LinkClass::CONTROL, options.peers),
            (LinkClass::BULK, options.peers),
            (LinkClass::CLIENT, options.clients),
        ];
        let net = SimNet::new(classes, root.fork());
        let new_node = |number: usize, root: &mut Prng| Node {
            name: NodeName::from(name_of(number).as_str()),
            disk: SimDisk::new(options.disk, root.fork()),
            clock: SimClock::draw(&options.clock, root),
            process: None,
            cluster: None,
            incarnations: 0,
            lost: None,
            prng: root.fork(),
        };
        let nodes: Vec<_> = (0..size.nodes).map(|number| new_node(number, &mut root)).collect();
        let keys = (0..size.keys).map(|number| Bytes::from(format!("key-{number:03}"))).collect();
        let shared = Shared {
            keys,
            slots: SlotMap::even(size.shards),
            nodes: size.nodes,
            value_bytes_max: size.value_bytes_max,
        };
        let mut world = Self {
            heap: EventHeap::new(),
            net,
            nodes,
            clients: (0..size.clients).map(|id| Client::new(id, root.fork())).collect(),
            shared,
            shard_options: Arc::new(small_shards(size.value_bytes_max, &mut root)),
            shards: size.shards,
            history: History::new(),
            options: options.clone(),
            is_hostile: true,
            wipes: size.nodes >= 3 && root.chance_per_mille(250),
            operator: FrameWriter::new(),
            complaint: None,
            prng: root.fork(),
        };
        (0..size.nodes).for_each(|node| world.heap.schedule(Duration::ZERO, Event::Restart(node)));
        (0..size.clients).for_each(|client| world.heap.schedule(Duration::ZERO, Event::Think(client)));
        world.heap.schedule(OPERATOR, Event::Operator);
        world.plan(options.faults.crash_every, Event::Crash);
        world.plan(options.faults.partition_every, Event::Partition);
        world.plan(options.faults.clock_jump_every, Event::ClockJump);
        world.plan(options.faults.slow_disk_every, Event::SlowDisk);
        world.plan(options.faults.full_disk_every, Event::FullDisk);
        world.plan(world.wipes.then_some(WIPE_EVERY), Event::Wipe);
        world
    }

    fn play(&mut self, options: &Options, trace: &mut Trace<'_>) -> Result<(), Failure> {
        let hostile_until = Instant::ZERO + options.hostile_for;
        while let Some(event) = self.heap.pop_until(hostile_until) {
            self.step(event, trace)?;
        }
        self.make_peace();
        let served: Vec<u64> = self.clients.iter().map(Client::served).collect();
        let alive_until = self.heap.now() + options.alive_within;
        while !self.is_well(&served) {
            match self.heap.pop_until(alive_until) {
                Some(event) => self.step(event, trace)?,
                None => return Err(Failure::Liveness(self.describe())),
            }
        }
        self.check_sessions()
    }

    /// An opening that was sent again must not have opened a second session.
    fn check_sessions(&self) -> Result<(), Failure> {
        for status in self.nodes.iter().filter_map(|node| node.process.as_ref()).flat_map(Process::statuses) {
            let opened: usize = self.clients.iter().map(|client| client.sessions_opened(status.shard)).sum();
            if status.sessions as usize > opened {
                let (sessions, shard) = (status.sessions, status.shard);
                let what = format!("shard {shard} has {sessions} sessions, and clients wanted {opened}");
                return Err(Failure::Safety(what));
            }
        }
        Ok(())
    }

    /// Whether every client was served again, more than once, and every replica votes again.
    fn is_well(&self, served: &[u64]) -> bool {
        let clients = self.clients.iter().zip(served).all(|(client, before)| client.served() > before + 3);
        clients && self.nodes.iter().all(|node| node.lost.is_none())
    }

    fn describe(&self) -> String {
        let mut text = String::from("not everyone was served in time\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let lost = if node.lost.is_some() { " (lost its directory)" } else { "" };
            text += &format!("node {number}{lost}:\n");
            for status in node.process.iter().flat_map(Process::statuses) {
                text += &format!("  {status:?}\n");
            }
        }
        text
    }

    /// Everything is repaired and stays so.
    fn make_peace(&mut self) {
        self.is_hostile = false;
        self.net.heal();
        let calm = LinkOptions { loss_per_mille: 0, ..self.options.peers };
        let nodes = (0..self.nodes.len()).map(Peer::Node);
        let clients = (0..self.clients.len()).map(Peer::Client);
        let everyone: Vec<Peer> = nodes.chain(clients).chain([Peer::Operator]).collect();
        for &from in &everyone {
            for &to in &everyone {
                self.net.degrade(from, to, calm);
            }
        }
        for node in 0..self.nodes.len() {
            if let Some(node) = self.nodes.get_mut(node) {
                node.disk.set_device_errors(0);
            }
            self.repair_disk(node);
            self.heap.schedule(Duration::ZERO, Event::Restart(node));
        }
    }

    fn step(&mut self, event: Event, trace: &mut Trace<'_>) -> Result<(), Failure> {
        trace.step(self.heap.now(), format_args!("{event:?}"));
        match event {
            Event::Disk(node, op) => self.complete(node, op),
            Event::Net(NetEvent::Frame(frame)) => {
                if let Some(frame) = self.net.arrive(frame) {
                    self.receive(&frame);
                }
            }
            Event::Net(NetEvent::Reset { .. }) => {}
            Event::Turn { node, core, incarnation } => self.turn(node, core, incarnation),
            Event::Tick { node, incarnation } => self.tick(node, incarnation),
            Event::Think(client) => {
                let now = self.heap.now();
                let World { clients, shared, history, .. } = self;
                let step = clients.get_mut(client).map(|it| it.begin(now, shared, history));
                self.follow(client, step);
            }
            Event::Alarm { client, attempt } => {
                let now = self.heap.now();
                let World { clients, shared, history, .. } = self;
                let step = clients.get_mut(client).and_then(|it| it.alarm(attempt, now, shared, history));
                self.follow(client, step);
            }
            Event::Operator => self.operate(),
            Event::Crash => self.crash(),
            Event::StopOverdue { node, incarnation } => self.stop_overdue(node, incarnation),
            Event::Restart(node) => self.restart(node),
            Event::Partition => self.partition(),
            Event::Heal => self.net.heal(),
            Event::Wipe => self.wipe(),
            Event::ClockJump => self.jump_clock(),
            Event::SlowDisk => self.slow_disk(),
            Event::FullDisk => self.fill_disk(),
            Event::DiskRepaired(node) => self.repair_disk(node),
        }
        self.complaint.take().map_or(Ok(()), |complaint| Err(Failure::Safety(complaint)))
    }

    fn now_of(&self, node: usize) -> Now {
        let now = self.heap.now();
        self.nodes.get(node).map(|node| node.clock.read(now)).unwrap_or_default()
    }

    fn complete(&mut self, number: usize, op: DiskOpNo) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        let Some((directory, completion)) = node.disk.complete(op) else { return };
        let core = match directory {
            DirectoryKey::Node => 0,
            DirectoryKey::Replica { shard, .. } => usize::from(shard.0),
        };
        self.push(number, core, CoreEvent::Io { directory, completion });
    }

    /// Hands an event to a core, and gives it a turn if it has none coming.
    fn push(&mut self, number: usize, core: usize, event: CoreEvent) {
        let Some(process) = self.nodes.get_mut(number).and_then(|node| node.process.as_mut()) else { return };
        let core = core % process.core_count();
        process.push(core, event);
        self.wake(number, core);
    }

    /// Gives a core a turn, if it has none coming.
    fn wake(&mut self, number: usize, core: usize) {
        let Some(process) = self.nodes.get_mut(number).and_then(|node| node.process.as_mut()) else { return };
        let incarnation = process.incarnation;
        if process.wake(core) == Wake::Needed {
            let wait = TURN.draw(&mut self.prng);
            self.heap.schedule(wait, Event::Turn { node: number, core, incarnation });
        }
    }

    fn turn(&mut self, number: usize, core: usize, incarnation: u64) {
        let now = self.now_of(number);
        let process = self.nodes.get_mut(number).and_then(|node| node.process.as_mut());
        if let Some(process) = process.filter(|process| process.incarnation == incarnation) {
            let effects = process.turn(core, now);
            self.perform(number, core, effects);
        }
    }

    fn tick(&mut self, number: usize, incarnation: u64) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        let Some(process) = process.filter(|process| process.incarnation == incarnation) else { return };
        for core in 0..process.core_count() {
            self.push(number, core, CoreEvent::Tick);
        }
        self.schedule_tick(number, incarnation);
    }

    /// The next tick comes when the node's own clock says so.
    fn schedule_tick(&mut self, number: usize, incarnation: u64) {
        let now = self.now_of(number);
        if let Some(node) = self.nodes.get(number) {
            let at = node.clock.true_time_of(now.monotonic + mesh_base::limits::TICK);
            self.heap.schedule_at(at.max(self.heap.now()), Event::Tick { node: number, incarnation });
        }
    }

    fn perform(&mut self, number: usize, core: usize, effects: Vec<CoreEffect>) {
        for effect in effects {
            match effect {
                CoreEffect::Io { directory, submission } => {
                    let Some(node) = self.nodes.get_mut(number) else { continue };
                    let scheduled = node.disk.submit(directory, submission);
                    self.heap.schedule(scheduled.delay, Event::Disk(number, scheduled.op));
                }
                CoreEffect::Reply { conn, frame } => {
                    let to = match usize::try_from(conn.0) {
                        Ok(client) if client < self.clients.len() => Peer::Client(client),
                        _ => Peer::Operator,
                    };
                    self.send(Peer::Node(number), to, LinkClass::CLIENT, frame);
                }
                CoreEffect::Peer { to, class, frame, .. } => {
                    let class = match class {
                        ServerClass::Control => LinkClass::CONTROL,
                        ServerClass::Bulk => LinkClass::BULK,
                    };
                    if let Some(node) = self.nodes.get_mut(number) {
                        let known = node.process.as_ref().and_then(Process::cluster);
                        node.cluster = known.or(node.cluster);
                    }
                    if let Some(to) = self.nodes.iter().position(|node| node.name == to) {
                        self.send(Peer::Node(number), Peer::Node(to), class, frame);
                    }
                }
                CoreEffect::Mesh { to, message } => {
                    let from = CoreId(u16::try_from(core).unwrap_or(0));
                    self.push(number, usize::from(to.0), CoreEvent::Mesh { from, message });
                }
                CoreEffect::RemoveDirectory { directory } => {
                    if let Some(node) = self.nodes.get_mut(number) {
                        node.disk.wipe_directory(directory);
                    }
                }
                CoreEffect::Notice(notice) => self.notice(number, notice),
                CoreEffect::Again => self.wake(number, core),
                CoreEffect::Stopped => self.stopped(number, core),
                CoreEffect::Dial { .. } => {}
            }
        }
    }

    fn notice(&mut self, number: usize, notice: Notice) {
        match notice {
            Notice::Damaged { shard, reason } => {
                if self.options.disk.device_errors_per_million == 0 {
                    self.complaint = Some(format!("node {number}, shard {shard}: {reason}"));
                } else {
                    // An operator restarts a node whose disk failed.
                    self.end(number, Crash::Process);
                }
            }
            Notice::Fatal { reason } => {
                if self.options.disk.device_errors_per_million == 0 {
                    self.complaint = Some(format!("node {number}: {reason}"));
                } else {
                    self.end(number, Crash::Process);
                }
            }
            Notice::ClusterReady { .. } | Notice::Waiting { .. } => {}
        }
    }

    fn send(&mut self, from: Peer, to: Peer, class: LinkClass, frame: Bytes) {
        let now = self.heap.now();
        for (at, event) in self.net.send(now, from, to, class, frame) {
            self.heap.schedule_at(at, Event::Net(event));
        }
    }

    fn receive(&mut self, frame: &Frame<Peer>) {
        match (frame.from, frame.to) {
            (Peer::Node(from), Peer::Node(to)) => {
                let Some(name) = self.nodes.get(from).map(|node| node.name.clone()) else { return };
                let decoded = decode(&frame.bytes);
                let core = usize::from(decoded.header.envelope.shard.map_or(0, |shard| shard.0));
                let cluster = self.nodes.get(from).and_then(|node| node.cluster);
                self.push(to, core, CoreEvent::Peer { from: PeerNode { name, cluster }, frame: decoded });
            }
            (Peer::Client(client), Peer::Node(to)) => {
                // Any core may hold the connection.
                let core = self.prng.index(CORES_MAX);
                let event = CoreEvent::Request { conn: ConnId(client as u64), frame: decode(&frame.bytes) };
                self.push(to, core, event);
            }
            (Peer::Operator, Peer::Node(to)) => {
                let conn = ConnId(self.clients.len() as u64);
                self.push(to, 0, CoreEvent::Request { conn, frame: decode(&frame.bytes) });
            }
            (Peer::Node(from), Peer::Client(client)) => {
                let now = self.heap.now();
                let World { clients, shared, history, .. } = self;
                let step = clients
                    .get_mut(client)
                    .and_then(|it| it.receive(from, &frame.bytes, now, shared, history));
                self.follow(client, step);
            }
            (Peer::Node(_), Peer::Operator) => {}
            (from, to) => unreachable!("{from:?} does not talk to {to:?}"),
        }
    }

    fn follow(&mut self, client: usize, step: Option<Step>) {
        match step {
            None => {}
            Some(Step::Send { node, frame, attempt, wait }) => {
                self.send(Peer::Client(client), Peer::Node(node), LinkClass::CLIENT, frame);
                self.heap.schedule(wait, Event::Alarm { client, attempt });
            }
            Some(Step::Pause { attempt, wait }) => {
                self.heap.schedule(wait, Event::Alarm { client, attempt });
            }
            Some(Step::Done) => {
                let pause = self.options.size.think.draw(&mut self.prng);
                self.heap.schedule(pause, Event::Think(client));
            }
        }
    }

    /// The operator replaces a node that lost its directory, until it is back.
    fn operate(&mut self) {
        self.heap.schedule(OPERATOR, Event::Operator);
        let lost = self.nodes.iter().enumerate().find_map(|(number, node)| Some((number, node.lost?)));
        let Some((lost, replica)) = lost else { return };
        if self.is_back(lost) {
            if let Some(node) = self.nodes.get_mut(lost) {
                node.lost = None;
            }
            return;
        }
        let runs = self.nodes.get(lost).is_some_and(|node| node.process.is_some());
        if runs && !self.was_replaced(lost) {
            let name = name_of(lost);
            let frame = client::replace_request(&mut self.operator, &name, replica, self.heap.now().0);
            let to = self.prng.index(self.nodes.len());
            self.send(Peer::Operator, Peer::Node(to), LinkClass::CLIENT, frame);
        }
    }

    /// Whether every shard counts the node's present incarnation among its voters.
    fn is_back(&self, number: usize) -> bool {
        let Some(process) = self.nodes.get(number).and_then(|node| node.process.as_ref()) else {
            return false;
        };
        let statuses: Vec<_> = process.statuses().collect();
        statuses.len() == usize::from(self.shards)
            && statuses.iter().all(|status| {
                status.condition == Condition::Serving && status.voters.contains(&status.replica)
            })
    }

    /// Whether the node has an identity again, or a group is without its lost replica already.
    fn was_replaced(&self, number: usize) -> bool {
        let Some(node) = self.nodes.get(number) else { return true };
        let Some(lost) = node.lost else { return true };
        let has_replicas = node.process.as_ref().is_some_and(|process| process.statuses().next().is_some());
        let others = self.nodes.iter().filter_map(|node| node.process.as_ref());
        has_replicas
            || others.flat_map(Process::statuses).any(|status| {
                status.shard == ShardId(0) && !status.voters.is_empty() && !status.voters.contains(&lost)
            })
    }

    fn crash(&mut self) {
        if !self.is_hostile {
            return;
        }
        let faults = &self.options.faults;
        let is_power = self.prng.chance_per_mille(faults.power_per_mille);
        let is_everyone = self.prng.chance_per_mille(faults.everyone_per_mille);
        let every = faults.crash_every;
        let is_orderly = self.prng.chance_per_mille(faults.orderly_per_mille);
        let kind = if is_power { Crash::Power } else { Crash::Process };
        let chosen = self.prng.index(self.nodes.len());
        for node in 0..self.nodes.len() {
            match is_everyone || node == chosen {
                true if is_orderly => self.stop(node),
                true => self.end(node, kind),
                false => {}
            }
        }
        self.plan(every, Event::Crash);
    }

    /// Asks a node to stop in order.
    fn stop(&mut self, number: usize) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        let Some(incarnation) = process.map(|process| process.incarnation) else { return };
        self.push(number, 0, CoreEvent::Stop);
        self.heap.schedule(STOP_PATIENCE, Event::StopOverdue { node: number, incarnation });
    }

    /// A core has stopped. The process ends with the last of them.
    fn stopped(&mut self, number: usize, core: usize) {
        let process = self.nodes.get_mut(number).and_then(|node| node.process.as_mut());
        if process.is_some_and(|process| process.stopped(core)) {
            self.end(number, Crash::Process);
        }
    }

    fn stop_overdue(&mut self, number: usize, incarnation: u64) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        if process.is_some_and(|process| process.incarnation == incarnation) {
            self.complaint = Some(format!("node {number} did not stop within {STOP_PATIENCE:?}"));
        }
    }

    fn end(&mut self, number: usize, kind: Crash) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.disk.crash(kind);
        node.process = None;
        let down = self.options.faults.down_for.map_or(Duration::ZERO, |it| it.draw(&mut self.prng));
        self.heap.schedule(down, Event::Restart(number));
    }

    fn restart(&mut self, number: usize) {
        let peers = self.peers_of(number);
        let now = self.heap.now();
        let shards = self.shards;
        let options = Arc::clone(&self.shard_options);
        let Some(node) = self.nodes.get_mut(number) else { return };
        if node.process.is_some() {
            return;
        }
        node.incarnations += 1;
        let cores = 1 + node.prng.index(CORES_MAX);
        let config = Arc::new(NodeConfig {
            name: node.name.clone(),
            listen: address_of(number),
            advertise: address_of(number),
            peers,
            data: PathBuf::from(format!("/{}", node.name)),
            cpus: (0..cores).collect(),
            shards: Some(shards),
            memory_bytes: 1 << 30,
        });
        let mut process = Process::new(&config, &options, node.incarnations, &mut node.prng);
        let effects = process.start(node.clock.read(now));
        let incarnation = process.incarnation;
        node.process = Some(process);
        for (core, effects) in effects {
            self.perform(number, core, effects);
        }
        self.schedule_tick(number, incarnation);
    }

    fn peers_of(&self, number: usize) -> Vec<(NodeName, String)> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != number);
        others.map(|(other, node)| (node.name.clone(), address_of(other))).collect()
    }

    fn partition(&mut self) {
        if !self.is_hostile {
            return;
        }
        let nodes = (0..self.nodes.len()).map(Peer::Node);
        let everyone = nodes.chain((0..self.clients.len()).map(Peer::Client));
        let (first, second): (Vec<Peer>, Vec<Peer>) = everyone.partition(|_| self.prng.chance_per_mille(500));
        let direction = if self.prng.chance_per_mille(700) { Direction::Both } else { Direction::OneWay };
        self.net.partition(&first, &second, direction);
        let lasting = self.options.faults.partition_for.map_or(Duration::ZERO, |it| it.draw(&mut self.prng));
        self.heap.schedule(lasting, Event::Heal);
        self.plan(self.options.faults.partition_every, Event::Partition);
    }

    /// A node's directory is lost, if the cluster can bear it.
    fn wipe(&mut self) {
        if !self.is_hostile {
            return;
        }
        let replica = |node: &Node| {
            let serving = node.process.iter().flat_map(Process::statuses).find(|it| it.applied.0 > 0);
            serving.map(|status| status.replica)
        };
        let can_bear = self.nodes.iter().all(|node| node.lost.is_none() && replica(node).is_some());
        if can_bear {
            let number = self.prng.index(self.nodes.len());
            let lost = self.nodes.get(number).and_then(replica);
            self.end(number, Crash::Power);
            if let Some(node) = self.nodes.get_mut(number) {
                node.disk.wipe();
                node.cluster = None;
                node.lost = lost;
            }
        }
        self.plan(Some(WIPE_EVERY), Event::Wipe);
    }

    fn jump_clock(&mut self) {
        if !self.is_hostile {
            return;
        }
        let most = u64::try_from(self.options.clock.skew_max.as_millis()).unwrap_or(0);
        let jump =
            i64::try_from(self.prng.range(0..2 * most + 1)).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        let number = self.prng.index(self.nodes.len());
        let now = self.heap.now();
        if let Some(node) = self.nodes.get_mut(number) {
            node.clock.jump_wall(now, jump);
        }
        self.plan(self.options.faults.clock_jump_every, Event::ClockJump);
    }

    /// A node's disk is much slower for a while.
    fn slow_disk(&mut self) {
        if !self.is_hostile {
            return;
        }
        let number = self.prng.index(self.nodes.len());
        let factor = self.prng.choose(&[3, 10, 50]).copied().unwrap_or(1);
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.set_slowdown(factor);
        }
        self.plan(Some(DISK_AILS), Event::DiskRepaired(number));
        self.plan(self.options.faults.slow_disk_every, Event::SlowDisk);
    }

    /// A node's disk has no more space than what is in use, or little more, for a while.
    fn fill_disk(&mut self) {
        if !self.is_hostile {
            return;
        }
        let number = self.prng.index(self.nodes.len());
        let room = self.prng.choose(&[0, 0, 64 * 1024, 512 * 1024]).copied().unwrap_or(0);
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.set_capacity_bytes(node.disk.used_bytes() + room);
        }
        self.plan(Some(DISK_AILS), Event::DiskRepaired(number));
        self.plan(self.options.faults.full_disk_every, Event::FullDisk);
    }

    fn repair_disk(&mut self, number: usize) {
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.set_slowdown(1);
            node.disk.set_capacity_bytes(self.options.disk.capacity_bytes);
        }
    }

    /// Lets a fault happen after a time with the mean `every`.
    fn plan(&mut self, every: Option<Duration>, fault: Event) {
        if let Some(every) = every {
            let wait = draw_between(&mut self.prng, Duration::ZERO, every * 2);
            self.heap.schedule(wait, fault);
        }
    }
}

fn name_of(number: usize) -> String {
    format!("n{number}")
}

fn decode(bytes: &Bytes) -> mesh_wire::Frame {
    let mut buffer = BytesMut::from(bytes.chunk());
    match FrameDecoder::new().decode(&mut buffer) {
        Ok(Some(frame)) => frame,
        other => unreachable!("the network changes no bytes: {other:?}"),
    }
}
