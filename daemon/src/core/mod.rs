//! A core: the replicas it owns, the routes between them, their clients and their peers. Pure: everything it does is a
//! value it returns.
//!
//! Invariants:
//! - A replica is stepped by its own core only.
//! - Every request is answered once, or its connection is gone.
//! - What one turn has to say to one core of another node travels in one frame per link.
//! - A replica that fails takes itself out, not the core.
//!
//! Deliberately absent: sockets, files, clocks. [`CoreEvent`] and [`CoreEffect`] are the border.

mod clients;
mod event;
mod greeting;
mod node_link;
mod peers;
mod report;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use bytes::Bytes;
use mesh_base::prng::Prng;
use mesh_base::{
    ClusterId, CoreId, Instant, NodeId, Now, ReplicaId, ReplicaIdentity, Revision, ShardId, SlotEpoch,
};
use mesh_engine::MemoryAhead;
use mesh_wire::{Envelope, Error, FrameWriter, RequestId, Response};

pub use event::{
    ConnId, CoreEffect, CoreEvent, CreatePlan, DirectoryKey, LinkClass, MeshMessage, NodeName, Notice,
    Origin, PeerNode, Responder,
};
pub use greeting::{HelloOutcome, PeerPlacement};

use self::peers::Outbox;
use self::report::Questions;
use self::sharing::Sharing;
use crate::node::{Directory, Membership, MembershipEffect, NodeConfig};
use crate::router::Placement;
use crate::shard::{Again, Birth, News, Output, Shard, ShardEvent, ShardOptions};

/// What happens when a replica's code panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PanicPolicy {
    /// The replica is out, with the panic's message; the rest goes on.
    Contain,
    /// The panic goes on: for tests, which want to see it.
    Propagate,
}

/// What a core is made of.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The node's configuration.
    pub config: Arc<NodeConfig>,
    /// The sizes of each replica; `None` to derive them from the node's memory.
    pub shard: Option<Arc<ShardOptions>>,
    /// Where the page stores whose sizes are derived order memory.
    pub memory: MemoryAhead,
    /// What to do about a panic.
    pub panics: PanicPolicy,
}

/// One core of a node.
pub struct Core {
    config: Arc<NodeConfig>,
    shard_options: Option<Arc<ShardOptions>>,
    memory: MemoryAhead,
    panics: PanicPolicy,
    id: CoreId,
    placement: Placement,
    prng: Prng,
    started: Instant,
    /// On core 0.
    membership: Option<Membership>,
    directory: Option<Arc<Directory>>,
    node: NodeId,
    shards: BTreeMap<ShardId, Slot>,
    /// Who leads each shard of the cluster, as this node's replicas know it.
    leaders: BTreeMap<ShardId, (Option<NodeId>, u64)>,
    announced: Announced,
    /// Replicas stepped in this turn and not flushed yet.
    touched: BTreeSet<ShardId>,
    /// Replicas that want another turn.
    unfinished: BTreeSet<ShardId>,
    sharing: Sharing,
    outbox: Outbox,
    questions: Questions,
    /// How many cores other nodes have, by the node's name.
    peer_cores: BTreeMap<NodeName, u16>,
    /// The newest revision this core has seen.
    newest: Revision,
    /// Memory of the process.
    resident_bytes: u64,
    stopping: Stopping,
    writer: FrameWriter,
}

/// A replica and what surrounds it.
struct Slot {
    directory: DirectoryKey,
    shard: Shard,
    out: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Announced {
    Nothing,
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    No,
    Yes,
    Done,
}

impl Core {
    /// A core that has not begun.
    #[must_use]
    pub fn new(options: CoreOptions, id: CoreId, mut prng: Prng) -> Self {
        let placement = options.config.placement();
        let membership = (id == CoreId(0)).then(|| Membership::new(Arc::clone(&options.config), prng.fork()));
        let sharing = Sharing::new(options.config.snapshot_bytes_per_second);
        Self {
            config: options.config,
            shard_options: options.shard,
            memory: options.memory,
            panics: options.panics,
            id,
            placement,
            prng,
            started: Instant::ZERO,
            membership,
            directory: None,
            node: NodeId(0),
            shards: BTreeMap::new(),
            leaders: BTreeMap::new(),
            announced: Announced::Nothing,
            touched: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            sharing,
            outbox: Outbox::default(),
            questions: Questions::default(),
            peer_cores: BTreeMap::new(),
            newest: Revision::ZERO,
            resident_bytes: 0,
            stopping: Stopping::No,
            writer: FrameWriter::new(),
        }
    }

    /// The cluster that the node belongs to, once it is known.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.directory.as_ref().map(|directory| directory.cluster())
    }

    /// Begins.
    pub fn start(&mut self, now: Now, effects: &mut Vec<CoreEffect>) {
        self.started = now.monotonic;
        self.submit_node_io(effects);
    }

    /// One turn: everything that happened, then everything that is to be done.
    pub fn step(&mut self, now: Now, events: &mut Vec<CoreEvent>, effects: &mut Vec<CoreEffect>) {
        self.touched.append(&mut self.unfinished);
        self.sharing.begin_turn(now.monotonic);
        for event in events.drain(..) {
            self.handle(now, event, effects);
        }
        self.flush(now, effects);
        if !self.unfinished.is_empty() {
            effects.push(CoreEffect::Again);
        }
    }

    fn handle(&mut self, now: Now, event: CoreEvent, effects: &mut Vec<CoreEffect>) {
        match event {
            CoreEvent::Request { conn, frame } => {
                let request = frame.header.envelope.request.0;
                let responder = Responder { core: self.id, conn, request };
                self.on_request(now, responder, frame, effects);
            }
            CoreEvent::Peer { from, frame } => self.on_peer_frame(now, &from, frame, effects),
            CoreEvent::Mesh { from, message } => self.on_mesh(now, from, message, effects),
            CoreEvent::Io { directory: DirectoryKey::Node, completion } => {
                self.with_membership(now, effects, |membership, out| {
                    membership.complete(now.monotonic, completion, out);
                });
            }
            CoreEvent::Io { directory: DirectoryKey::Replica { shard, replica }, completion } => {
                // Completions of an incarnation that is gone have no one to go to.
                if self.shards.get(&shard).is_some_and(|slot| slot.shard.replica() == replica) {
                    self.step_shard(now, shard, ShardEvent::Io(completion), effects);
                }
            }
            CoreEvent::Disconnected { conn } => self.questions.forget(conn),
            CoreEvent::Tick => self.tick(now, effects),
            CoreEvent::Memory { resident_bytes } => self.resident_bytes = resident_bytes,
            CoreEvent::Stop => self.stop(effects),
        }
    }

    fn on_mesh(&mut self, now: Now, from: CoreId, message: MeshMessage, effects: &mut Vec<CoreEffect>) {
        match message {
            MeshMessage::Request { responder, frame } => self.on_request(now, responder, frame, effects),
            MeshMessage::Reply { conn, frame } => effects.push(CoreEffect::Reply { conn, frame }),
            MeshMessage::Peer { from, frame } => self.on_peer_frame(now, &from, frame, effects),
            MeshMessage::Directory(directory) => self.learn(now, &directory, effects),
            MeshMessage::Create(plan) => self.create(now, &plan, effects),
            MeshMessage::Created => {
                self.with_membership(now, effects, |membership, _| membership.created(from));
            }
            MeshMessage::Dial(nodes) => effects.push(CoreEffect::Dial { nodes }),
            MeshMessage::Open(directory, node) => self.open(now, &directory, node, effects),
            MeshMessage::Leader { shard, leader, term } => self.leader_changed(shard, leader, term, effects),
            MeshMessage::Applied(directory) => {
                self.with_membership(now, effects, |membership, out| membership.learned(&directory, out));
            }
            MeshMessage::Admit { name, address, attempt } => {
                self.step_shard(now, ShardId(0), ShardEvent::Admit { name, address, attempt }, effects);
            }
            MeshMessage::StatusAsk { question } => {
                let (shards, peers_answering) = (self.statuses(), self.peers_answering(now));
                let message = MeshMessage::StatusTell { question, shards, peers_answering };
                effects.push(CoreEffect::Mesh { to: from, message });
            }
            MeshMessage::StatusTell { question, shards, peers_answering } => {
                self.told(now, question, shards, peers_answering, effects);
            }
            MeshMessage::Stop => self.stop(effects),
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<CoreEffect>) {
        self.with_membership(now, effects, |membership, out| membership.tick(now.monotonic, out));
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            self.step_shard(now, shard, ShardEvent::Tick, effects);
        }
    }

    /// Steps a replica. Its panic ends it alone.
    fn step_shard(&mut self, now: Now, shard: ShardId, event: ShardEvent, effects: &mut Vec<CoreEffect>) {
        let Some(slot) = self.shards.get_mut(&shard) else {
            if let ShardEvent::Request(request) = event {
                let why = "the node is not part of a cluster yet, or is starting".into();
                self.fail(request.responder, &Error::NotReady { why }, effects);
            }
            return;
        };
        self.touched.insert(shard);
        // What is written here from now on comes after all that this core has heard of.
        slot.shard.observe(self.newest);
        let panics = self.panics;
        contain(panics, slot, |slot| slot.shard.step(now, event, &mut slot.out));
    }

    /// Ends the turn of every replica that was stepped, and gathers what they have to say.
    fn flush(&mut self, now: Now, effects: &mut Vec<CoreEffect>) {
        let panics = self.panics;
        while let Some(shard) = self.touched.pop_first() {
            let Some(slot) = self.shards.get_mut(&shard) else {
                self.sharing.forget(shard);
                continue;
            };
            self.sharing.offer(shard, &mut slot.out.sending, &mut slot.out.loading);
            contain(panics, slot, |slot| slot.shard.flush(now, &mut slot.out));
            self.sharing.settle(shard, &mut slot.out.sending, &mut slot.out.loading);
            self.take_output(now, shard, effects);
        }
        self.unfinished.extend(self.sharing.next());
        self.send_outbox(effects);
    }

    fn take_output(&mut self, now: Now, shard: ShardId, effects: &mut Vec<CoreEffect>) {
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        let directory = slot.directory;
        effects.extend(slot.out.io.drain().map(|submission| CoreEffect::Io { directory, submission }));
        if slot.out.end_turn() == Again::Yes {
            self.unfinished.insert(shard);
        }
        let replies = std::mem::take(&mut slot.out.replies);
        let sends = std::mem::take(&mut slot.out.peers);
        let news = std::mem::take(&mut slot.out.news);
        self.newest = self.newest.max(slot.shard.newest_revision());
        for (responder, frame) in replies {
            self.reply(responder, frame, effects);
        }
        for send in sends {
            self.post(shard, send);
        }
        for one in news {
            self.on_news(now, shard, one, effects);
        }
    }

    fn on_news(&mut self, now: Now, shard: ShardId, news: News, effects: &mut Vec<CoreEffect>) {
        match news {
            News::Created => {
                if self.shards.values().all(|slot| slot.shard.is_created()) {
                    self.created(now, effects);
                }
            }
            News::Leader { leader, term } => {
                self.leader_changed(shard, leader, term, effects);
                for to in self.other_cores() {
                    let message = MeshMessage::Leader { shard, leader, term };
                    effects.push(CoreEffect::Mesh { to, message });
                }
            }
            News::Directory(directory) => {
                self.tell_core_0(now, MeshMessage::Applied(directory), effects);
            }
            News::Joined { directory, name, attempt } => self.admit(&directory, &name, attempt, effects),
            News::Waiting(reason) => effects.push(CoreEffect::Notice(Notice::Waiting { reason })),
            News::Damaged(reason) => effects.push(CoreEffect::Notice(Notice::Damaged { shard, reason })),
            News::Stopped => self.check_stopped(effects),
        }
    }

    /// Performs what the membership asks for.
    fn with_membership(
        &mut self,
        now: Now,
        effects: &mut Vec<CoreEffect>,
        act: impl FnOnce(&mut Membership, &mut Vec<MembershipEffect>),
    ) {
        let Some(membership) = &mut self.membership else { return };
        let mut out = Vec::new();
        act(membership, &mut out);
        self.submit_node_io(effects);
        for effect in out {
            match effect {
                MembershipEffect::Send { to, message } => self.send_node_message(to, &message, effects),
                MembershipEffect::Dial(nodes) => {
                    for to in self.other_cores() {
                        let message = MeshMessage::Dial(nodes.clone());
                        effects.push(CoreEffect::Mesh { to, message });
                    }
                    effects.push(CoreEffect::Dial { nodes });
                }
                MembershipEffect::Create(plan) => {
                    self.tell_all_cores(now, &MeshMessage::Create(plan), effects);
                }
                MembershipEffect::Open(directory, node) => {
                    self.tell_all_cores(now, &MeshMessage::Open(directory, node), effects);
                }
                MembershipEffect::Changed(directory) => {
                    self.tell_all_cores(now, &MeshMessage::Directory(directory), effects);
                }
                MembershipEffect::Admit { name, address, attempt } => {
                    let message = MeshMessage::Admit { name, address, attempt: Some(attempt) };
                    self.tell_owner_of_shard_0(now, message, effects);
                }
                MembershipEffect::Moved { name, address } => {
                    let message = MeshMessage::Admit { name, address, attempt: None };
                    self.tell_owner_of_shard_0(now, message, effects);
                }
                MembershipEffect::Notice(notice) => effects.push(CoreEffect::Notice(notice)),
            }
        }
    }

    fn submit_node_io(&mut self, effects: &mut Vec<CoreEffect>) {
        if let Some(membership) = &mut self.membership {
            let directory = DirectoryKey::Node;
            effects
                .extend(membership.io().drain().map(|submission| CoreEffect::Io { directory, submission }));
        }
    }

    /// Makes the files of this core's replicas.
    fn create(&mut self, now: Now, plan: &CreatePlan, effects: &mut Vec<CoreEffect>) {
        self.node = plan.node;
        self.make_slots(&plan.directory);
        let birth = match plan.origin {
            Origin::Birth => Birth::WithCluster,
            Origin::Join => Birth::Empty,
        };
        let shards: Vec<_> = self.shards.keys().copied().collect();
        if shards.is_empty() {
            self.created(now, effects);
        }
        for shard in shards {
            self.step_shard(now, shard, ShardEvent::Create(birth), effects);
        }
    }

    fn created(&mut self, now: Now, effects: &mut Vec<CoreEffect>) {
        self.tell_core_0(now, MeshMessage::Created, effects);
    }

    /// Opens this core's replicas.
    fn open(&mut self, now: Now, directory: &Arc<Directory>, node: NodeId, effects: &mut Vec<CoreEffect>) {
        self.node = node;
        self.make_slots(directory);
        self.learn(now, directory, effects);
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            self.step_shard(now, shard, ShardEvent::Open, effects);
        }
    }

    fn make_slots(&mut self, directory: &Arc<Directory>) {
        let options = self.shard_options.clone().unwrap_or_else(|| {
            let bytes = self.config.replica_memory_bytes(directory.shard_count());
            let mut options = ShardOptions::for_memory(bytes);
            options.store.memory = self.memory.clone();
            Arc::new(options)
        });
        for shard in directory.shards() {
            if self.placement.core_of(shard) != self.id || self.shards.contains_key(&shard) {
                continue;
            }
            let replica = ReplicaId(self.node.0);
            let identity = ReplicaIdentity { cluster: directory.cluster(), shard, replica };
            let mut out = Output::new(shard);
            out.set_epoch(directory.slots().epoch());
            let slot = Slot {
                directory: DirectoryKey::Replica { shard, replica },
                shard: Shard::new(identity, Arc::clone(&options), Arc::clone(directory), self.prng.fork()),
                out,
            };
            self.shards.insert(shard, slot);
        }
    }

    /// The membership is this from now on.
    fn learn(&mut self, now: Now, directory: &Arc<Directory>, effects: &mut Vec<CoreEffect>) {
        if self.directory.as_ref().is_some_and(|known| known.version() > directory.version()) {
            return;
        }
        self.directory = Some(Arc::clone(directory));
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            self.step_shard(now, shard, ShardEvent::Directory(Arc::clone(directory)), effects);
        }
    }

    fn leader_changed(
        &mut self,
        shard: ShardId,
        leader: Option<NodeId>,
        term: u64,
        effects: &mut Vec<CoreEffect>,
    ) {
        self.leaders.insert(shard, (leader, term));
        let Some(directory) = &self.directory else { return };
        if self.announced == Announced::Ready || self.id != CoreId(0) {
            return;
        }
        let led = directory.shards().map(|shard| {
            let node = self.leaders.get(&shard)?.0?;
            Some((shard, directory.by_id(node)?.name.clone()))
        });
        if let Some(leaders) = led.collect::<Option<Vec<_>>>() {
            self.announced = Announced::Ready;
            effects.push(CoreEffect::Notice(Notice::ClusterReady { leaders }));
        }
    }

    fn stop(&mut self, effects: &mut Vec<CoreEffect>) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Yes;
        if self.id == CoreId(0) {
            for to in self.other_cores() {
                effects.push(CoreEffect::Mesh { to, message: MeshMessage::Stop });
            }
        }
        for (shard, slot) in &mut self.shards {
            slot.shard.stop();
            self.touched.insert(*shard);
        }
        self.check_stopped(effects);
    }

    fn check_stopped(&mut self, effects: &mut Vec<CoreEffect>) {
        if self.stopping == Stopping::Yes && self.shards.values().all(|slot| slot.shard.is_stopped()) {
            self.stopping = Stopping::Done;
            effects.push(CoreEffect::Stopped);
        }
    }

    fn other_cores(&self) -> Vec<CoreId> {
        self.placement.cores().filter(|&core| core != self.id).collect()
    }

    fn tell_all_cores(&mut self, now: Now, message: &MeshMessage, effects: &mut Vec<CoreEffect>) {
        for to in self.other_cores() {
            effects.push(CoreEffect::Mesh { to, message: message.clone() });
        }
        self.on_mesh(now, self.id, message.clone(), effects);
    }

    fn tell_core_0(&mut self, now: Now, message: MeshMessage, effects: &mut Vec<CoreEffect>) {
        self.tell_core(now, CoreId(0), message, effects);
    }

    fn tell_owner_of_shard_0(&mut self, now: Now, message: MeshMessage, effects: &mut Vec<CoreEffect>) {
        self.tell_core(now, self.placement.core_of(ShardId(0)), message, effects);
    }

    fn tell_core(&mut self, now: Now, to: CoreId, message: MeshMessage, effects: &mut Vec<CoreEffect>) {
        if to == self.id {
            self.on_mesh(now, self.id, message, effects);
        } else {
            effects.push(CoreEffect::Mesh { to, message });
        }
    }

    fn reply(&mut self, responder: Responder, frame: Bytes, effects: &mut Vec<CoreEffect>) {
        let conn = responder.conn;
        effects.push(if responder.core == self.id {
            CoreEffect::Reply { conn, frame }
        } else {
            CoreEffect::Mesh { to: responder.core, message: MeshMessage::Reply { conn, frame } }
        });
    }

    /// Answers a request that belongs to no shard, or whose shard cannot answer.
    fn answer(&mut self, responder: Responder, response: &Response<'_>, effects: &mut Vec<CoreEffect>) {
        let envelope =
            Envelope { request: RequestId(responder.request), shard: None, epoch: self.slot_epoch() };
        match self.writer.frame(&envelope, response) {
            Ok(frame) => self.reply(responder, frame, effects),
            Err(error) => tracing::error!(%error, "an answer could not be encoded"),
        }
    }

    fn fail(&mut self, responder: Responder, error: &Error, effects: &mut Vec<CoreEffect>) {
        self.answer(responder, &Response::Error(error.clone()), effects);
    }

    fn slot_epoch(&self) -> SlotEpoch {
        self.directory.as_ref().map_or(SlotEpoch(0), |directory| directory.slots().epoch())
    }
}

/// Runs a step of a replica; a panic in it ends the replica.
fn contain(policy: PanicPolicy, slot: &mut Slot, step: impl FnOnce(&mut Slot)) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| step(slot))) else { return };
    if policy == PanicPolicy::Propagate {
        resume_unwind(panic);
    }
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    let reason = format!("an internal check failed: {what}; this is a bug of Mesh");
    slot.shard.give_up(reason, &mut slot.out);
}
