//! The simulator's own rehearsal: a small replicated register that is known to be right, and the same with one flaw, to
//! see that a sound system passes and a flawed one is caught.
//!
//! The system is the quorum register of Attiya, Bar-Noy and Dolev ("Sharing memory robustly in message-passing systems",
//! 1995) with several writers: a write asks a majority for the newest version and stores a newer one at a majority; a
//! read asks a majority and stores what it found at a majority before it answers. Each node keeps its records in one
//! file, in blocks of their own, and answers only what is durable.
//!
//! It also shows how a harness is put together: one event heap; disks, network and clocks that are asked what comes of
//! each step; a hostile phase, then a healed one in which everyone must be served; then the checkers.

mod client;
mod message;
mod node;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::Instant;
use mesh_base::io::{IoErrorKind, IoQueue};
use mesh_base::prng::Prng;

use self::client::Client;
use self::message::Message;
use self::node::Node;
use crate::disk::{Crash, DiskOpNo, SimDisk};
use crate::driver::{Failure, Run};
use crate::heap::EventHeap;
use crate::history::History;
use crate::net::{Direction, LinkClass, NetEvent, SimNet};
use crate::options::{FaultOptions, Options};
use crate::report::{Counts, Fault, Report};
use crate::trace::Trace;
use crate::{linearizability, revisions};

/// Keys of a run: few, so that clients meet. Each has a block of a node's file.
const KEYS_MAX: usize = 5;
/// How long a client waits for a majority before it gives up.
const PATIENCE: Duration = Duration::from_millis(400);

/// What is wrong with the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Nothing.
    None,
    /// A node acknowledges what it has written and not synced.
    NoSync,
    /// A node does not sync the directory it created its file in.
    NoDirectorySync,
    /// A restarted node relies on what it reads without making it durable first.
    TrustsWhatItReads,
    /// A read answers without storing what it found at a majority.
    NoWriteBack,
    /// A client that got no answer writes again, under a newer version.
    RetriesAsNew,
    /// A client writes without asking a majority for the newest version.
    GuessesVersion,
}

/// The quorum register.
#[derive(Clone, Copy, Debug)]
pub struct QuorumRegister {
    flaw: Flaw,
}

impl QuorumRegister {
    /// The register with a flaw, or with none.
    #[must_use]
    pub const fn with(flaw: Flaw) -> Self {
        Self { flaw }
    }
}

impl Run for QuorumRegister {
    fn run(
        &self,
        options: &Options,
        root: Prng,
        trace: &mut Trace<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let mut world = World::new(self.flaw, options, root);
        let played = world.play(options, trace);
        world.report(report);
        played?;
        linearizability::check(&world.history)?;
        revisions::check(&world.history)?;
        Ok(())
    }
}

/// A node or a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Peer {
    Node(usize),
    Client(usize),
}

#[derive(Debug)]
enum Event {
    Disk(usize, DiskOpNo),
    Net(NetEvent<Peer>),
    /// A client begins its next operation.
    Think(usize),
    /// A client gives up the operation with this number, if it still waits.
    Patience(usize, u64),
    Crash,
    Restart(usize),
    Partition,
    Heal,
}

struct World {
    heap: EventHeap<Event>,
    net: SimNet<Peer>,
    disks: Vec<SimDisk<()>>,
    /// `None` while it is down.
    nodes: Vec<Option<Node>>,
    clients: Vec<Client>,
    history: History,
    faults: FaultOptions,
    injected: Counts<Fault>,
    think: crate::latency::Latency,
    is_hostile: bool,
    flaw: Flaw,
    prng: Prng,
}

impl World {
    fn new(flaw: Flaw, options: &Options, mut root: Prng) -> Self {
        let size = &options.size;
        // Answers to a client are as unreliable as everything between nodes.
        let net = SimNet::new([(LinkClass::CONTROL, options.peers)], root.fork());
        let disks = (0..size.nodes).map(|_| SimDisk::new(options.disk, root.fork())).collect();
        let keys = size.keys.min(KEYS_MAX);
        let clients =
            (0..size.clients).map(|id| Client::new(id, size.nodes, keys, flaw, root.fork())).collect();
        let mut world = Self {
            heap: EventHeap::new(),
            net,
            disks,
            nodes: (0..size.nodes).map(|_| None).collect(),
            clients,
            history: History::new(),
            faults: options.faults.clone(),
            injected: Counts::default(),
            think: size.think,
            is_hostile: true,
            flaw,
            prng: root.fork(),
        };
        (0..size.nodes).for_each(|node| world.heap.schedule(Duration::ZERO, Event::Restart(node)));
        (0..size.clients).for_each(|client| world.heap.schedule(Duration::ZERO, Event::Think(client)));
        world.plan(world.faults.crash_every, Event::Crash);
        world.plan(world.faults.partition_every, Event::Partition);
        world
    }

    fn play(&mut self, options: &Options, trace: &mut Trace<'_>) -> Result<(), Failure> {
        let hostile_until = Instant::ZERO + options.hostile_for;
        while let Some(event) = self.heap.pop_until(hostile_until) {
            self.step(event, trace);
        }
        self.make_peace(options);
        let served: Vec<u64> = self.clients.iter().map(Client::served).collect();
        let alive_until = self.heap.now() + options.alive_within;
        let all_served = |clients: &[Client]| {
            clients.iter().zip(&served).all(|(client, before)| client.served() > *before)
        };
        while !all_served(&self.clients) {
            match self.heap.pop_until(alive_until) {
                Some(event) => self.step(event, trace),
                None => return Err(Failure::Liveness("a client was not served in time".into())),
            }
        }
        Ok(())
    }

    fn report(&self, report: &mut Report) {
        report.simulated = self.heap.now().since(Instant::ZERO);
        report.faults += &self.injected;
        report.add_history(&self.history);
        report.add_network(self.net.statistics());
        self.disks.iter().for_each(|disk| report.add_disk(disk.statistics()));
    }

    /// Everything is repaired and stays so.
    fn make_peace(&mut self, options: &Options) {
        self.is_hostile = false;
        self.net.heal();
        let calm = crate::net::LinkOptions { loss_per_mille: 0, ..options.peers };
        let everyone = (0..self.nodes.len()).map(Peer::Node).chain((0..self.clients.len()).map(Peer::Client));
        let everyone: Vec<Peer> = everyone.collect();
        for (&from, &to) in everyone.iter().flat_map(|from| everyone.iter().map(move |to| (from, to))) {
            self.net.degrade(from, to, calm);
        }
        for node in 0..self.nodes.len() {
            self.set_device_errors(node, 0);
            self.heap.schedule(Duration::ZERO, Event::Restart(node));
        }
    }

    fn set_device_errors(&mut self, node: usize, per_million: u64) {
        if let Some(disk) = self.disks.get_mut(node) {
            disk.set_device_errors(per_million);
        }
    }

    fn step(&mut self, event: Event, trace: &mut Trace<'_>) {
        trace.step(self.heap.now(), format_args!("{event:?}"));
        match event {
            Event::Disk(node, op) => self.complete(node, op),
            Event::Net(NetEvent::Frame(frame)) => {
                if let Some(frame) = self.net.arrive(frame) {
                    self.receive(frame.from, frame.to, &frame.bytes);
                }
            }
            Event::Net(NetEvent::Reset { .. }) => {}
            Event::Think(client) => self.with_client(client, Client::begin),
            Event::Patience(client, operation) => {
                self.with_client(client, |client, now, history| {
                    client.lose_patience(operation, now, history)
                });
            }
            Event::Crash => self.crash(),
            Event::Restart(node) => self.restart(node),
            Event::Partition => self.partition(),
            Event::Heal => self.net.heal(),
        }
    }

    fn complete(&mut self, node: usize, op: DiskOpNo) {
        let completed = self.disks.get_mut(node).and_then(|disk| disk.complete(op));
        if let Some(((), completion)) = completed {
            let error = completion.result.as_ref().err().map(|error| error.kind);
            let is_failure = matches!(error, Some(IoErrorKind::Device | IoErrorKind::NoSpace));
            self.with_node(node, |node, io| node.complete(&completion, io));
            if is_failure {
                // A node does not go on with a disk that failed.
                self.end(node, Crash::Process);
            }
        }
    }

    fn receive(&mut self, from: Peer, to: Peer, bytes: &Bytes) {
        let Some(message) = Message::decode(bytes) else { unreachable!("the network changes no bytes") };
        match (from, to) {
            (Peer::Client(client), Peer::Node(node)) => {
                self.with_node(node, |node, io| node.receive(client, message, io));
            }
            (Peer::Node(node), Peer::Client(client)) => {
                self.with_client(client, |client, now, history| client.receive(node, &message, now, history));
            }
            _ => unreachable!("{from:?} does not talk to {to:?}"),
        }
    }

    /// Steps a node, then submits and sends what comes of it.
    fn with_node(
        &mut self,
        number: usize,
        step: impl FnOnce(&mut Node, &mut IoQueue) -> Vec<(usize, Message)>,
    ) {
        let Some(Some(node)) = self.nodes.get_mut(number) else { return };
        let mut io = IoQueue::new();
        let messages = step(node, &mut io);
        self.submit(number, io);
        for (client, message) in messages {
            self.send(Peer::Node(number), Peer::Client(client), &message);
        }
    }

    fn submit(&mut self, node: usize, mut io: IoQueue) {
        let Some(disk) = self.disks.get_mut(node) else { return };
        for submission in io.drain() {
            let scheduled = disk.submit((), submission);
            self.heap.schedule(scheduled.delay, Event::Disk(node, scheduled.op));
        }
    }

    /// Steps a client, then sends what comes of it and sets its alarm.
    fn with_client(
        &mut self,
        number: usize,
        step: impl FnOnce(&mut Client, Instant, &mut History) -> client::Effects,
    ) {
        let now = self.heap.now();
        let Some(client) = self.clients.get_mut(number) else { return };
        let effects = step(client, now, &mut self.history);
        if let Some(message) = effects.to_all {
            for node in 0..self.nodes.len() {
                self.send(Peer::Client(number), Peer::Node(node), &message);
            }
        }
        if let Some(operation) = effects.begun {
            self.heap.schedule(PATIENCE, Event::Patience(number, operation));
        }
        if effects.is_over {
            let pause = self.think.draw(&mut self.prng);
            self.heap.schedule(pause, Event::Think(number));
        }
    }

    fn send(&mut self, from: Peer, to: Peer, message: &Message) {
        let now = self.heap.now();
        for (at, event) in self.net.send(now, from, to, LinkClass::CONTROL, message.encode()) {
            self.heap.schedule_at(at, Event::Net(event));
        }
    }

    fn crash(&mut self) {
        if !self.is_hostile {
            return;
        }
        let is_power = self.prng.chance_per_mille(self.faults.power_per_mille);
        let kind = if is_power { Crash::Power } else { Crash::Process };
        let chosen = self.prng.index(self.nodes.len());
        let is_everyone = self.prng.chance_per_mille(self.faults.everyone_per_mille);
        for node in 0..self.nodes.len() {
            if is_everyone || node == chosen {
                self.injected.count(Fault::of_crash(kind));
                self.end(node, kind);
            }
        }
        self.plan(self.faults.crash_every, Event::Crash);
    }

    fn end(&mut self, node: usize, kind: Crash) {
        let (Some(disk), Some(slot)) = (self.disks.get_mut(node), self.nodes.get_mut(node)) else { return };
        disk.crash(kind);
        *slot = None;
        let down_for = self.faults.down_for.map_or(Duration::ZERO, |it| it.draw(&mut self.prng));
        self.heap.schedule(down_for, Event::Restart(node));
    }

    fn restart(&mut self, node: usize) {
        let Some(slot @ None) = self.nodes.get_mut(node) else { return };
        let mut io = IoQueue::new();
        *slot = Some(Node::start(self.flaw, &mut io));
        self.submit(node, io);
    }

    fn partition(&mut self) {
        if !self.is_hostile {
            return;
        }
        let everyone = (0..self.nodes.len()).map(Peer::Node).chain((0..self.clients.len()).map(Peer::Client));
        let (first, second): (Vec<Peer>, Vec<Peer>) = everyone.partition(|_| self.prng.chance_per_mille(500));
        let direction = if self.prng.chance_per_mille(700) { Direction::Both } else { Direction::OneWay };
        self.net.partition(&first, &second, direction);
        self.injected.count(Fault::of_partition(direction));
        let lasting = self.faults.partition_for.map_or(Duration::ZERO, |it| it.draw(&mut self.prng));
        self.heap.schedule(lasting, Event::Heal);
        self.plan(self.faults.partition_every, Event::Partition);
    }

    /// Lets a fault happen after a time with the mean `every`.
    fn plan(&mut self, every: Option<Duration>, fault: Event) {
        if let Some(every) = every {
            let wait = crate::latency::draw_between(&mut self.prng, Duration::ZERO, every * 2);
            self.heap.schedule(wait, fault);
        }
    }
}

/// A version of a record: the greater is the newer. `writer` makes those of concurrent writers differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct Version {
    counter: u64,
    writer: u64,
}

/// What a node keeps of a key. A stamp of zero is no value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct Record {
    version: Version,
    stamp: u64,
}

type Records = BTreeMap<u64, Record>;

#[cfg(test)]
mod tests;
