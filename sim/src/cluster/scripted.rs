//! A world in which nothing breaks by itself and everything can be broken by hand: what scenarios are played in. It is the
//! world of the swarm, with the same nodes, clients and operator.
//!
//! Invariants:
//! - No fault but those asked for: nodes stay as they are until told otherwise, disks, network and clocks are healthy.
//! - A replica that says it is damaged fails the scenario, unless the scenario forgave its node before.
//! - The first clients, if any, are a load that works by itself; those behind them run errands.
//!
//! Deliberately absent: words. [`crate::scenario`] has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::{ClusterId, Instant, ReplicaId, ShardId};
use mesh_server::core::{DirectoryKey, Notice};
use mesh_server::shard::{ShardOptions, ShardStatus};
use mesh_wire::{Error, FrameWriter, PeerMessage};

use super::choosing::Errand;
use super::client::{self, Client};
use super::habits::Habits;
use super::process::{Process, small_shards};
use super::{Event, Peer, World, name_of};
use crate::clock::SimClock;
use crate::disk::{Crash, SimDisk};
use crate::driver::Failure;
use crate::history::{History, OpId};
use crate::net::{Direction, Frame, LinkClass, LinkOptions, NetEvent};
use crate::options::{self, Options};
use crate::trace::Trace;

/// Errands that can be run at a time.
const ERRANDS_MAX: usize = 16;
/// Ids that a scenario's replicas may have.
const REPLICAS_MAX: u64 = 64;

/// Whether anything happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// One event.
    Made,
    /// Nothing more before the limit.
    TimeIsUp,
}

/// The world of a scenario.
pub(crate) struct Scripted {
    world: World,
    /// How many of the clients work by themselves.
    load: usize,
    /// By node: the turns and ticks of a process that stands still.
    paused: BTreeMap<usize, Paused>,
    /// Nodes whose damage is the scenario's own doing.
    forgiven: BTreeSet<usize>,
    /// The replica that each node had when its directory was last wiped.
    lost: BTreeMap<usize, ReplicaId>,
    /// What each node told its operator.
    notices: Vec<Vec<Notice>>,
    /// Who ran each errand.
    errands: BTreeMap<OpId, usize>,
}

#[derive(Default)]
struct Paused {
    turns: Vec<Event>,
    /// Ticks missed meanwhile are one.
    tick: Option<Event>,
}

impl Scripted {
    /// A cluster about to start, with clients of a load of that size.
    pub(crate) fn new(options: &Options, sizes: impl FnOnce(&mut ShardOptions)) -> Self {
        let (_, root) = options::draw(options.seed);
        let mut world = World::new(options, root);
        world.is_hostile = false;
        let mut shard_options = small_shards(options.value_bytes_longest(), &mut world.prng.fork());
        sizes(&mut shard_options);
        world.shard_options = Arc::new(shard_options);
        // The load has its keys for itself.
        world.shared.keys.keep_apart();
        let load = options.size.clients;
        world.clients.clear();
        for place in 0..load + ERRANDS_MAX {
            let prng = world.prng.fork();
            world.clients.push(Client::new(place, Habits::STEADY, prng));
        }
        world.nodes.iter_mut().for_each(|node| node.notices = Some(Vec::new()));
        Self {
            load,
            paused: BTreeMap::new(),
            forgiven: BTreeSet::new(),
            lost: BTreeMap::new(),
            notices: vec![Vec::new(); world.nodes.len()],
            errands: BTreeMap::new(),
            world,
        }
    }

    /// True time.
    pub(crate) const fn now(&self) -> Instant {
        self.world.heap.now()
    }

    /// Lets the next thing happen, if it happens at or before `limit`.
    pub(crate) fn step(&mut self, limit: Instant, trace: &mut Trace<'_>) -> Result<Progress, Failure> {
        let Some(event) = self.world.heap.pop_until(limit) else { return Ok(Progress::TimeIsUp) };
        if let Some(event) = self.divert(event) {
            self.world.step(event, trace)?;
            self.take_notices()?;
        }
        Ok(Progress::Made)
    }

    /// Keeps back what does not happen here: the turns of a process that stands still, an errand's client that would go on.
    fn divert(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Think(client) if client >= self.load => None,
            Event::Turn { node, .. } if self.paused.contains_key(&node) => {
                self.paused.entry(node).or_default().turns.push(event);
                None
            }
            Event::Tick { node, .. } if self.paused.contains_key(&node) => {
                self.paused.entry(node).or_default().tick = Some(event);
                None
            }
            event => Some(event),
        }
    }

    fn take_notices(&mut self) -> Result<(), Failure> {
        for (number, node) in self.world.nodes.iter_mut().enumerate() {
            let fresh = node.notices.as_mut().map(std::mem::take).unwrap_or_default();
            for notice in &fresh {
                let (Notice::Damaged { reason, .. } | Notice::Fatal { reason }) = notice else { continue };
                if !self.forgiven.contains(&number) {
                    return Err(Failure::Safety(format!("node {number}: {reason}")));
                }
            }
            if fresh.iter().any(|notice| matches!(notice, Notice::Fatal { .. })) {
                node.disk.crash(Crash::Process);
                node.process = None;
            }
            if let Some(notices) = self.notices.get_mut(number) {
                notices.extend(fresh);
            }
        }
        Ok(())
    }

    /// The frame whose arrival is the next thing to happen, with the nodes it goes from and to.
    pub(crate) fn next_arrival(&self) -> Option<(usize, usize, mesh_wire::Frame)> {
        match self.world.heap.peek() {
            Some(Event::Net(NetEvent::Frame(Frame {
                from: Peer::Node(from),
                to: Peer::Node(to),
                bytes,
                ..
            }))) => Some((*from, *to, super::decode(bytes.clone()))),
            _ => None,
        }
    }

    /// Spoils the part of a snapshot whose arrival is the next thing to happen, as bad memory of its sender would: the frame
    /// around it is right.
    ///
    /// # Panics
    /// When something else happens next.
    pub(crate) fn spoil_next_chunk(&mut self) {
        let Some(Event::Net(NetEvent::Frame(mut frame))) = self.world.heap.pop() else {
            unreachable!("a frame arrives next")
        };
        let decoded = super::decode(frame.bytes.clone());
        let Ok(PeerMessage::SnapshotChunk(mut chunk)) = decoded.peer() else {
            unreachable!("it is a part of a snapshot")
        };
        let mut bytes = chunk.bytes.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        chunk.bytes = &bytes;
        let spoilt = PeerMessage::SnapshotChunk(chunk);
        frame.bytes = FrameWriter::new()
            .frame(&decoded.header.envelope, &spoilt)
            .unwrap_or_else(|error| unreachable!("it is as long as it was: {error}"));
        self.world.heap.schedule(Duration::ZERO, Event::Net(NetEvent::Frame(frame)));
    }

    // --- clients

    /// What clients saw.
    pub(crate) const fn history(&self) -> &History {
        &self.world.history
    }

    /// Sends a client on an errand, to a node of the caller's choice first if there is one. The operations of which it
    /// consists.
    ///
    /// # Panics
    /// When too many are under way.
    pub(crate) fn send_errand(&mut self, errand: Errand, at: Option<usize>) -> Vec<OpId> {
        let now = self.now();
        let World { clients, shared, history, .. } = &mut self.world;
        let idle = clients.iter_mut().enumerate().skip(self.load).find(|(_, client)| client.is_idle());
        let Some((number, client)) = idle else {
            unreachable!("{ERRANDS_MAX} errands are under way already")
        };
        let (operations, step) = client.run_errand(now, errand, at, shared, history);
        self.errands.extend(operations.iter().map(|op| (*op, number)));
        self.world.follow(number, Some(step));
        operations
    }

    /// What an errand was last refused with; of use until its client is sent on the next one.
    pub(crate) fn refusal(&self, errand: OpId) -> Option<&Error> {
        self.world.clients.get(*self.errands.get(&errand)?)?.refusal()
    }

    /// How many reads clients of the load gave up because their revision was compacted.
    pub(crate) fn compacted(&self) -> u64 {
        self.world.clients.iter().take(self.load).map(Client::compacted).sum()
    }

    /// Operations of each client of the load that ended well.
    pub(crate) fn served(&self) -> Vec<u64> {
        self.world.clients.iter().take(self.load).map(Client::served).collect()
    }

    /// The shard that a key belongs to.
    pub(crate) fn shard_of(&self, key: &[u8]) -> ShardId {
        self.world.shared.keys.shard_of(key)
    }

    // --- nodes

    /// How many nodes there are.
    pub(crate) const fn node_count(&self) -> usize {
        self.world.nodes.len()
    }

    /// How many shards there are.
    pub(crate) const fn shard_count(&self) -> u16 {
        self.world.shards
    }

    /// Whether a node's process runs.
    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.process(node).is_some()
    }

    /// The reports of a node's replicas.
    pub(crate) fn statuses(&self, node: usize) -> Vec<ShardStatus> {
        self.process(node).map(|process| process.statuses().collect()).unwrap_or_default()
    }

    /// The cluster that a node belongs to, once it knows.
    pub(crate) fn cluster_of(&self, node: usize) -> Option<ClusterId> {
        self.process(node).and_then(Process::cluster)
    }

    /// What a node told its operator.
    pub(crate) fn notices(&self, node: usize) -> &[Notice] {
        self.notices.get(node).map_or(&[], Vec::as_slice)
    }

    fn process(&self, node: usize) -> Option<&Process> {
        self.world.nodes.get(node)?.process.as_ref()
    }

    /// Ends a process, or the power of its machine.
    pub(crate) fn crash(&mut self, node: usize, crash: Crash) {
        self.paused.remove(&node);
        self.world.end(node, crash);
    }

    /// Starts a process that does not run.
    pub(crate) fn start(&mut self, node: usize) {
        self.world.restart(node);
    }

    /// Asks a process to stop in order.
    pub(crate) fn stop(&mut self, node: usize) {
        self.world.stop(node);
    }

    /// Lets a process stand still: what comes for it waits.
    pub(crate) fn pause(&mut self, node: usize) {
        self.paused.entry(node).or_default();
    }

    /// Lets a process go on; all that came meanwhile comes at once.
    pub(crate) fn resume(&mut self, node: usize) {
        let Some(Paused { turns, tick }) = self.paused.remove(&node) else { return };
        for event in tick.into_iter().chain(turns) {
            self.world.heap.schedule(Duration::ZERO, event);
        }
    }

    /// Damage on this node is the scenario's own doing from now on.
    pub(crate) fn forgive(&mut self, node: usize) {
        self.forgiven.insert(node);
    }

    /// The clock of a node.
    pub(crate) fn clock(&mut self, node: usize) -> Option<&mut SimClock> {
        self.world.nodes.get_mut(node).map(|node| &mut node.clock)
    }

    // --- disks

    /// A node's disk.
    pub(crate) fn disk(&self, node: usize) -> Option<&SimDisk<DirectoryKey>> {
        self.world.nodes.get(node).map(|node| &node.disk)
    }

    /// A node's disk, to break.
    pub(crate) fn disk_mut(&mut self, node: usize) -> Option<&mut SimDisk<DirectoryKey>> {
        self.world.nodes.get_mut(node).map(|node| &mut node.disk)
    }

    /// A node's disk is as fast and as large as ever.
    pub(crate) fn repair_disk(&mut self, node: usize) {
        self.world.repair_disk(node);
    }

    /// The directory of a node's newest replica of a shard.
    pub(crate) fn directory_of(&self, node: usize, shard: ShardId) -> Option<DirectoryKey> {
        let disk = self.disk(node)?;
        let directories = (1..=REPLICAS_MAX).rev();
        directories
            .map(|id| DirectoryKey::Replica { shard, replica: ReplicaId(id) })
            .find(|directory| !disk.files(*directory).is_empty())
    }

    // --- the operator

    /// A node loses its directory, and with it what its replicas had promised.
    pub(crate) fn wipe(&mut self, number: usize) {
        self.crash(number, Crash::Power);
        self.forgiven.remove(&number);
        if let Some(DirectoryKey::Replica { replica, .. }) = self.directory_of(number, ShardId(0)) {
            self.lost.insert(number, replica);
        }
        if let Some(node) = self.world.nodes.get_mut(number) {
            node.disk.wipe();
            node.cluster = None;
        }
        self.world.checks.wiped(number);
    }

    /// The operator replaces a node, and goes on until it is back. The request that says so.
    pub(crate) fn replace(&mut self, number: usize) -> Bytes {
        // At birth the ids follow the names.
        let lost = *self.lost.entry(number).or_insert(ReplicaId(number as u64 + 1));
        let now = self.now();
        let request = client::replace_request(&mut self.world.operator, &name_of(number), lost, now.0);
        if let Some(node) = self.world.nodes.get_mut(number) {
            node.lost = Some(lost);
        }
        self.request_of_operator(number, &request);
        request
    }

    /// The operator asks all nodes but one the same.
    pub(crate) fn request_of_operator(&mut self, but: usize, request: &Bytes) {
        for other in (0..self.node_count()).filter(|&other| other != but) {
            self.world.send(Peer::Operator, Peer::Node(other), LinkClass::CLIENT, request.clone());
        }
    }

    /// Whether the operator still waits for a node that it replaces.
    pub(crate) fn is_being_replaced(&self, node: usize) -> bool {
        self.world.nodes.get(node).is_some_and(|node| node.lost.is_some())
    }

    // --- the network

    /// The second nodes no longer hear the first or, both ways, each other. Clients reach all of them.
    pub(crate) fn partition(&mut self, first: &[usize], second: &[usize], direction: Direction) {
        let peers = |nodes: &[usize]| nodes.iter().map(|&node| Peer::Node(node)).collect::<Vec<_>>();
        self.world.net.partition(&peers(first), &peers(second), direction);
    }

    /// Clients and the operator no longer hear a node or, both ways, each other.
    pub(crate) fn part_from_clients(&mut self, node: usize, direction: Direction) {
        let clients = (0..self.world.clients.len()).map(Peer::Client);
        let clients: Vec<Peer> = clients.chain([Peer::Operator]).collect();
        self.world.net.partition(&[Peer::Node(node)], &clients, direction);
    }

    /// Everyone hears everyone.
    pub(crate) fn heal(&mut self) {
        self.world.net.heal();
    }

    /// The links between two nodes behave otherwise, both ways.
    pub(crate) fn degrade(&mut self, a: usize, b: usize, options: LinkOptions) {
        self.world.net.degrade(Peer::Node(a), Peer::Node(b), options);
        self.world.net.degrade(Peer::Node(b), Peer::Node(a), options);
    }

    /// The links behave as ever.
    pub(crate) fn restore_links(&mut self) {
        self.world.net.restore();
    }

    // --- the end

    /// Repairs what can be repaired: everything but bytes that are lost.
    pub(crate) fn make_peace(&mut self) {
        self.heal();
        self.restore_links();
        for node in 0..self.node_count() {
            self.resume(node);
            self.repair_disk(node);
            self.start(node);
        }
    }

    /// Judges the whole run.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.world.check_remains()?;
        self.world.check_sessions()?;
        self.world.check_history()
    }

    /// How the nodes are, and what they told their operator last.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (number, notices) in self.notices.iter().enumerate() {
            let state = if self.is_up(number) { "up" } else { "down" };
            text += &format!("node {number}, {state}, said last: {:?}\n", notices.last());
            for status in self.statuses(number) {
                text += &format!("  {status:?}\n");
            }
        }
        text
    }
}
