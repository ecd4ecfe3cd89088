//! A whole cluster of Mesh: the real cores, shards, logs and page stores, on simulated disks, network and clocks.
//!
//! A run is hostile first: nodes crash and lose power, the network is cut, a node's directory is wiped and the node
//! replaced. Then a majority is healed, and all of it must come to rest. What clients saw is then checked; what goes on
//! inside is checked all the while.

mod ambush;
mod atlas;
mod checking;
mod choosing;
mod client;
mod disturbances;
mod faults;
mod habits;
mod keys;
mod lists;
mod nodes;
mod operator;
mod peace;
mod process;
mod scripted;
mod telling;
mod transactions;
mod values;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mesh_base::prng::Prng;
use mesh_base::{ClusterId, Instant, Now, ReplicaId};
use mesh_server::core::{ConnId, CoreEffect, CoreEvent, DirectoryKey, NodeName, Notice, PeerNode};
use mesh_server::shard::ShardOptions;
use mesh_wire::{FrameDecoder, FrameWriter};

use self::ambush::Ambush;
use self::checking::Checks;
pub(crate) use self::choosing::Errand;
use self::client::{Client, Shared, Step, Wish};
use self::disturbances::Disturbance;
use self::habits::Habits;
use self::keys::Keyspace;
use self::operator::OPERATOR;
use self::peace::Part;
use self::process::{Process, small_shards};
pub(crate) use self::scripted::{Progress, Scripted};
use self::telling::Told;
use crate::clock::SimClock;
use crate::disk::{Crash, DiskOpNo, SimDisk};
use crate::driver::{Failure, Run};
use crate::heap::EventHeap;
use crate::history::History;
use crate::net::{Frame, LinkClass, NetEvent, SimNet};
use crate::options::Options;
use crate::report::{Counts, Fault, Report};
use crate::trace::Trace;
use crate::{atomicity, cuts, linearizability, revisions};

/// Cores of a node at most.
const CORES_MAX: usize = 2;

/// The cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster;

impl Run for Cluster {
    fn run(
        &self,
        options: &Options,
        root: Prng,
        trace: &mut Trace<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let mut world = World::new(options, root);
        let played = world.play(options, trace);
        world.report(report);
        played?;
        world.check_history()
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
    /// A crash that waited for a write or sync has come, to the run of the program with this number.
    Struck {
        node: usize,
        incarnation: u64,
        kind: Crash,
    },
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
    Disturbance(Disturbance),
    /// Something stored is damaged.
    Rot,
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
    /// Its process stands still until then.
    paused_until: Instant,
    /// What it told its operator, where someone reads it; else the world judges it.
    notices: Option<Vec<Notice>>,
    /// What it does at the end.
    part: Part,
    ambush: Option<Ambush>,
    /// The terms of its replicas at its last tick, added up.
    terms: u64,
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
    /// The faults that networks and disks do not count themselves.
    injected: Counts<Fault>,
    is_hostile: bool,
    /// The node with a bad disk.
    victim: Option<usize>,
    /// By when the cluster must be at rest, once faults have ended.
    alive_until: Instant,
    /// What clients are still to read at the end.
    wishes: Option<VecDeque<Wish>>,
    checks: Checks,
    operator: FrameWriter,
    /// Memory for what a turn asks for.
    effects: Vec<CoreEffect>,
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
            paused_until: Instant::ZERO,
            notices: None,
            part: Part::Healed,
            ambush: None,
            terms: 0,
            prng: root.fork(),
        };
        let nodes: Vec<_> = (0..size.nodes).map(|number| new_node(number, &mut root)).collect();
        let shared = Shared { keys: Keyspace::new(options), options: options.clone() };
        let new_client = |place, root: &mut Prng| {
            let mut prng = root.fork();
            Client::new(place, Habits::draw(&options.load, &mut prng), prng)
        };
        let mut world = Self {
            heap: EventHeap::new(),
            net,
            nodes,
            clients: (0..size.clients).map(|place| new_client(place, &mut root)).collect(),
            shared,
            shard_options: Arc::new(small_shards(options.value_bytes_longest(), &mut root)),
            shards: size.shards,
            history: History::new(),
            options: options.clone(),
            injected: Counts::default(),
            is_hostile: true,
            victim: None,
            alive_until: Instant::ZERO,
            wishes: None,
            checks: Checks::new(root.fork()),
            operator: FrameWriter::new(),
            effects: Vec::new(),
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
        world.plan(options.faults.wipe_every.filter(|_| size.nodes >= 3), Event::Wipe);
        world.plan_disturbances();
        world.appoint_victim();
        world
    }

    fn play(&mut self, options: &Options, trace: &mut Trace<'_>) -> Result<(), Failure> {
        let hostile_until = Instant::ZERO + options.hostile_for;
        while let Some(event) = self.heap.pop_until(hostile_until) {
            self.step(event, trace)?;
        }
        self.come_to_rest(trace)?;
        self.check_remains()?;
        self.check_sessions()
    }

    fn report(&self, report: &mut Report) {
        report.simulated = self.heap.now().since(Instant::ZERO);
        report.faults += &self.injected;
        report.add_history(&self.history);
        report.add_network(self.net.statistics());
        self.nodes.iter().for_each(|node| report.add_disk(node.disk.statistics()));
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

    /// Whether clients saw what they were promised.
    fn check_history(&self) -> Result<(), Failure> {
        linearizability::check(&self.history)?;
        revisions::check(&self.history)?;
        atomicity::check(&self.history, |key| self.shared.keys.shard_of(key))?;
        cuts::check(&self.history)?;
        crate::lists::check(&self.history)?;
        crate::unchanged::check(&self.history)?;
        self.history.counters().check().map_err(|miscount| Failure::Safety(miscount.to_string()))?;
        Ok(())
    }

    fn describe(&self, complaint: &str) -> String {
        let mut text = format!("{complaint}\n");
        for (number, node) in self.nodes.iter().enumerate() {
            let lost = if node.lost.is_some() { " (lost its directory)" } else { "" };
            text += &format!("node {number}, {:?}{lost}:\n", node.part);
            for status in node.process.iter().flat_map(Process::statuses) {
                text += &format!("  {status:?}\n");
            }
        }
        text
    }

    fn step(&mut self, event: Event, trace: &mut Trace<'_>) -> Result<(), Failure> {
        trace.step(self.heap.now(), format_args!("{}", Told { event: &event, nodes: &self.nodes }));
        match event {
            Event::Disk(node, op) => self.complete(node, op),
            Event::Net(NetEvent::Frame(frame)) => {
                if let Some(frame) = self.net.arrive(frame) {
                    self.receive(frame);
                }
            }
            Event::Net(NetEvent::Reset { node: Peer::Client(client), peer: Peer::Node(node), .. }) => {
                let step = self.clients.get_mut(client).and_then(|it| it.cut_off_from(node));
                self.follow(client, step);
            }
            Event::Net(NetEvent::Reset { .. }) => {}
            Event::Turn { node, core, incarnation } => self.turn(node, core, incarnation),
            Event::Tick { node, incarnation } => self.tick(node, incarnation),
            Event::Think(client) => self.think(client),
            Event::Alarm { client, attempt } => {
                let now = self.heap.now();
                let World { clients, shared, history, .. } = self;
                let step = clients.get_mut(client).and_then(|it| it.alarm(attempt, now, shared, history));
                self.follow(client, step);
            }
            Event::Operator => self.operate(),
            Event::Crash => self.crash(),
            Event::Struck { node, incarnation, kind } => self.spring_ambush(node, incarnation, kind),
            Event::StopOverdue { node, incarnation } => self.stop_overdue(node, incarnation),
            Event::Restart(node) => self.restart(node),
            Event::Partition => self.partition(),
            Event::Heal => self.heal(),
            Event::Wipe => self.wipe(),
            Event::ClockJump => self.jump_clock(),
            Event::SlowDisk => self.slow_disk(),
            Event::FullDisk => self.fill_disk(),
            Event::DiskRepaired(node) => self.repair_disk(node),
            Event::Disturbance(disturbance) => self.disturb(disturbance),
            Event::Rot => self.rot(),
        }
        self.complaint.take().map_or(Ok(()), |complaint| Err(Failure::Safety(complaint)))
    }

    fn now_of(&self, node: usize) -> Now {
        let now = self.heap.now();
        self.nodes.get(node).map(|node| node.clock.read(now)).unwrap_or_default()
    }

    fn send(&mut self, from: Peer, to: Peer, class: LinkClass, frame: Bytes) {
        let now = self.heap.now();
        for (at, event) in self.net.send(now, from, to, class, frame) {
            self.heap.schedule_at(at, Event::Net(event));
        }
    }

    fn receive(&mut self, frame: Frame<Peer>) {
        match (frame.from, frame.to) {
            (Peer::Node(from), Peer::Node(to)) => {
                let Some(name) = self.nodes.get(from).map(|node| node.name.clone()) else { return };
                let decoded = decode(frame.bytes);
                let core = usize::from(decoded.header.envelope.shard.map_or(0, |shard| shard.0));
                let cluster = self.nodes.get(from).and_then(|node| node.cluster);
                self.push(to, core, CoreEvent::Peer { from: PeerNode { name, cluster }, frame: decoded });
            }
            (Peer::Client(client), Peer::Node(to)) => {
                // Any core may hold the connection.
                let core = self.prng.index(CORES_MAX);
                let event = CoreEvent::Request { conn: ConnId(client as u64), frame: decode(frame.bytes) };
                self.push(to, core, event);
            }
            (Peer::Operator, Peer::Node(to)) => {
                let conn = ConnId(self.clients.len() as u64);
                self.push(to, 0, CoreEvent::Request { conn, frame: decode(frame.bytes) });
            }
            (Peer::Node(from), Peer::Client(client)) => {
                let now = self.heap.now();
                let World { clients, shared, history, complaint, .. } = self;
                let Some(it) = clients.get_mut(client) else { return };
                let step = it.receive(from, &frame.bytes, now, shared, history);
                *complaint = complaint.take().or_else(|| it.complaint());
                self.follow(client, step);
            }
            (Peer::Node(_), Peer::Operator) => {}
            (from, to) => unreachable!("{from:?} does not talk to {to:?}"),
        }
    }

    fn follow(&mut self, client: usize, step: Option<Step>) {
        match step {
            None => {}
            Some(Step::Send { node, also, frame, attempt, wait }) => {
                for node in [node].into_iter().chain(also) {
                    self.send(Peer::Client(client), Peer::Node(node), LinkClass::CLIENT, frame.clone());
                }
                self.heap.schedule(wait, Event::Alarm { client, attempt });
            }
            Some(Step::Pause { attempt, wait }) => {
                self.heap.schedule(wait, Event::Alarm { client, attempt });
            }
            Some(Step::Done) => {
                let think = self.options.size.think.draw(&mut self.prng);
                let pause = if self.wishes.is_none() { think } else { Duration::ZERO };
                self.heap.schedule(pause, Event::Think(client));
            }
        }
    }
}

fn name_of(number: usize) -> String {
    format!("n{number}")
}

/// Takes over the memory of a frame that comes but once.
fn decode(bytes: Bytes) -> mesh_wire::Frame {
    let mut buffer = BytesMut::from(bytes);
    match FrameDecoder::new().decode(&mut buffer) {
        Ok(Some(frame)) => frame,
        other => unreachable!("the network changes no bytes: {other:?}"),
    }
}
