//! What the nodes of the fake cluster share: as if replication took no time and never failed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::limits::SESSION_WINDOW_MAX;
use mesh_base::slot::{SLOTS, slot_of};
use mesh_base::{
    ClusterId, CoreId, NodeId, Revision, SessionId, SessionSeq, ShardId, SlotEpoch, SlotNo, Term,
};
use mesh_wire::{
    Deleted, Envelope, Error, Frame, FrameWriter, GetAnswer, GetBatchAnswer, Item, LeaderAt, NodeEntry,
    NodeState, Range, RangeAnswer, RangeItem, ReplaceAnswer, ReplicaRole, ReplicaState, ReplicaStatus,
    Request, Response, SessionOpened, ShardPlace, SlotRange, StatusAnswer, Topology, WriteContext, Written,
};

use super::Asked;

/// Cores of each node.
const CORES: u16 = 2;

/// A version of a key.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    revision: Revision,
    create_revision: Revision,
    version: u64,
    /// None: deleted.
    value: Option<Bytes>,
}

/// What one session has done.
#[derive(Default, Debug)]
struct Session {
    /// What it was opened by.
    nonce: u64,
    below: u64,
    outcomes: BTreeMap<u64, (Revision, u32)>,
}

/// One shard, as all its replicas have it.
#[derive(Default, Debug)]
pub(crate) struct Shard {
    /// The leading node, from 0.
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    pub(crate) keys: BTreeMap<Bytes, Vec<Version>>,
    sessions: BTreeMap<u64, Session>,
    newest: u64,
    /// How often writes to keys took effect.
    pub(crate) applied: BTreeMap<Bytes, usize>,
    /// Revisions that pages of ranges were read at, in the order of asking.
    pub(crate) read_at: Vec<Revision>,
}

/// The cluster.
pub(crate) struct World {
    pub(crate) cluster: ClusterId,
    pub(crate) is_born: bool,
    pub(crate) addresses: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) epoch: SlotEpoch,
    /// By slot.
    pub(crate) owners: Vec<ShardId>,
    pub(crate) shards: Vec<Shard>,
    /// Nodes whose replicas of all shards are damaged.
    pub(crate) damaged: Vec<usize>,
    /// How long a hello is left unanswered.
    pub(crate) hello_delay: Duration,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
}

impl World {
    pub(crate) fn new(addresses: Vec<String>, shards: u16) -> Self {
        let owner = |slot: u16| {
            ShardId(u16::try_from(u32::from(slot) * u32::from(shards) / u32::from(SLOTS)).unwrap())
        };
        let shard = |_| Shard { leader: Some(0), term: 1, ..Shard::default() };
        Self {
            cluster: ClusterId(*b"a fake's cluster"),
            is_born: true,
            names: (0..addresses.len())
                .map(|node| char::from(b'a' + u8::try_from(node).unwrap()).to_string())
                .collect(),
            addresses,
            epoch: SlotEpoch(1),
            owners: (0..SLOTS).map(owner).collect(),
            shards: (0..shards).map(shard).collect(),
            damaged: Vec::new(),
            hello_delay: Duration::ZERO,
            connections: 0,
            requests: 0,
        }
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        NodeId(node as u64 + 1)
    }

    pub(crate) fn name(&self, node: usize) -> String {
        self.names[node].clone()
    }

    /// How a node is named as a leader.
    pub(crate) fn leader_at(&self, node: usize) -> LeaderAt {
        LeaderAt { node: self.id(node), address: self.addresses[node].clone() }
    }

    pub(crate) fn core_of(&self, node: usize, shard: ShardId) -> CoreId {
        // Another placement on each node.
        CoreId((shard.0 + u16::try_from(node).unwrap()) % CORES)
    }

    pub(crate) fn shard_of(&self, key: &[u8]) -> ShardId {
        self.owners[usize::from(slot_of(key).0)]
    }

    pub(crate) fn lead(&mut self, shard: u16, node: Option<usize>) {
        let shard = &mut self.shards[usize::from(shard)];
        shard.leader = node;
        shard.term += 1;
    }

    pub(crate) fn lead_all(&mut self, node: Option<usize>) {
        (0..u16::try_from(self.shards.len()).unwrap()).for_each(|shard| self.lead(shard, node));
    }

    /// How often writes to a key took effect.
    pub(crate) fn applied(&self, key: &str) -> usize {
        let shard = &self.shards[usize::from(self.shard_of(key.as_bytes()).0)];
        shard.applied.get(key.as_bytes()).copied().unwrap_or_default()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.shards.iter().map(|shard| shard.sessions.len()).sum()
    }

    /// Forgets all sessions, as a shard does that has too many.
    pub(crate) fn evict_sessions(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.sessions.clear());
    }

    /// Writes a key behind the clients' back.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let shard = self.shard_of(key.as_bytes());
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.shards[usize::from(shard.0)].write(shard, &key, Some(Bytes::copy_from_slice(value.as_bytes())));
    }

    /// Gives a new shard half of the slots of shard 0, with their keys.
    pub(crate) fn split(&mut self) {
        let new = ShardId(u16::try_from(self.shards.len()).unwrap());
        let slots: Vec<_> = (0..self.owners.len()).filter(|&slot| self.owners[slot] == ShardId(0)).collect();
        slots.into_iter().skip(1).step_by(2).for_each(|slot| self.owners[slot] = new);
        let keys = std::mem::take(&mut self.shards[0].keys);
        let (moved, kept) = keys.into_iter().partition(|(key, _)| self.shard_of(key) == new);
        self.shards[0].keys = kept;
        let first = &self.shards[0];
        let (newest, applied) = (first.newest, first.applied.clone());
        self.shards.push(Shard {
            leader: first.leader,
            term: 1,
            keys: moved,
            newest,
            applied,
            ..Shard::default()
        });
        self.epoch = self.epoch.next();
    }

    pub(crate) fn slots(&self) -> Vec<SlotRange> {
        let mut ranges: Vec<SlotRange> = Vec::new();
        for (slot, &shard) in (0..).map(SlotNo).zip(&self.owners) {
            match ranges.last_mut().filter(|last| last.shard == shard) {
                Some(last) => last.last = slot,
                None => ranges.push(SlotRange { first: slot, last: slot, shard }),
            }
        }
        ranges
    }

    pub(crate) fn places(&self, node: usize) -> Vec<ShardPlace> {
        let place = |(shard, state): (u16, &Shard)| ShardPlace {
            shard: ShardId(shard),
            leader: state.leader.map(|leader| self.id(leader)),
            term: Term(state.term),
            core: self.core_of(node, ShardId(shard)),
        };
        (0..).zip(&self.shards).map(place).collect()
    }

    pub(crate) fn topology<'a>(
        &self,
        slots: &'a Vec<SlotRange>,
        places: &'a Vec<ShardPlace>,
        nodes: &'a Vec<NodeEntry<'a>>,
    ) -> Topology<'a> {
        Topology {
            epoch: self.epoch,
            shard_count: u16::try_from(self.shards.len()).unwrap(),
            slots: slots.into(),
            shards: places.into(),
            nodes: nodes.into(),
        }
    }

    /// Does what a request asks for.
    pub(crate) fn serve(&mut self, asked: &Asked, frame: &Frame) -> Bytes {
        let envelope =
            Envelope { request: frame.header.envelope.request, shard: asked.shard, epoch: self.epoch };
        let request = frame.request().unwrap();
        let mut writer = FrameWriter::new();
        let refusal = asked.shard.and_then(|shard| self.refusal(asked, shard, frame, &request));
        if let Some(error) = refusal {
            return writer.frame(&envelope, &Response::Error(error)).unwrap();
        }
        match asked.shard {
            None => self.serve_node(asked.node, &request, |answer| writer.frame(&envelope, &answer).unwrap()),
            Some(shard) => self.shards[usize::from(shard.0)]
                .serve(shard, &request, |answer| writer.frame(&envelope, &answer).unwrap()),
        }
    }

    /// Why a node refuses a request for a shard.
    fn refusal(&self, asked: &Asked, shard: ShardId, frame: &Frame, request: &Request<'_>) -> Option<Error> {
        assert_eq!(self.core_of(asked.node, shard).0, asked.core, "the connection is to the shard's core");
        if frame.header.envelope.epoch != self.epoch {
            return Some(Error::WrongEpoch { epoch: self.epoch });
        }
        let state = &self.shards[usize::from(shard.0)];
        let keys: Vec<&[u8]> = match request {
            Request::Get(get) => vec![get.key],
            Request::GetBatch(batch) => batch.keys.iter().collect(),
            Request::Put(put) => vec![put.key],
            Request::PutBatch(batch) => batch.items.iter().map(|item| item.key).collect(),
            Request::Delete(delete) => delete.keys.iter().collect(),
            _ => vec![],
        };
        assert!(keys.iter().all(|key| self.shard_of(key) == shard), "all keys are of the shard");
        (state.leader != Some(asked.node))
            .then(|| Error::NotLeader { shard, leader: state.leader.map(|leader| self.leader_at(leader)) })
    }

    fn serve_node(
        &self,
        node: usize,
        request: &Request<'_>,
        answer: impl FnOnce(Response<'_>) -> Bytes,
    ) -> Bytes {
        let entries: Vec<_> = (0..self.addresses.len())
            .map(|number| NodeEntry {
                id: self.id(number),
                name: self.names[number].as_str(),
                address: &self.addresses[number],
                state: NodeState::Voter,
            })
            .collect();
        let (slots, places) = (self.slots(), self.places(node));
        match request {
            Request::Topology => answer(Response::Topology(self.topology(&slots, &places, &entries))),
            Request::Status => {
                let replicas: Vec<_> = (0..)
                    .zip(&self.shards)
                    .map(|(shard, state)| self.replica(node, ShardId(shard), state))
                    .collect();
                answer(Response::Status(StatusAnswer {
                    node: if self.is_born { self.id(node) } else { NodeId(0) },
                    name: &self.name(node),
                    address: &self.addresses[node],
                    software: "fake 1.0",
                    cluster: self.is_born.then_some(self.cluster),
                    uptime_ms: 90_061_000,
                    cores: CORES,
                    memory_budget_bytes: 1 << 30,
                    memory_used_bytes: 1 << 20,
                    peers_reachable: 2,
                    replicas: if self.is_born { (&replicas).into() } else { mesh_wire::List::EMPTY },
                }))
            }
            other => panic!("{other:?} is not for a node"),
        }
    }

    fn replica(&self, node: usize, shard: ShardId, state: &Shard) -> ReplicaStatus<'static> {
        let leads = state.leader == Some(node);
        let is_damaged = self.damaged.contains(&node);
        ReplicaStatus {
            shard,
            core: self.core_of(node, shard),
            replica: mesh_base::ReplicaId(node as u64 + 1),
            role: if leads { ReplicaRole::Leader } else { ReplicaRole::Follower },
            term: Term(state.term),
            leader: state.leader.map(|leader| self.id(leader)),
            commit: mesh_base::LogIndex(9),
            applied: mesh_base::LogIndex(9),
            first_index: mesh_base::LogIndex(1),
            last_index: mesh_base::LogIndex(9),
            checkpoint: mesh_base::CheckpointNo(1),
            checkpoint_applied: mesh_base::LogIndex(5),
            store_bytes: 1 << 20,
            keys: state.keys.len() as u64,
            log_bytes: 64 << 20,
            resident_bytes: 4096,
            dirty_bytes: 0,
            sessions: u32::try_from(state.sessions.len()).unwrap(),
            state: if is_damaged { ReplicaState::Damaged } else { ReplicaState::Serving },
            detail: if is_damaged { "page 7 of store: checksum" } else { "" },
            voters: mesh_wire::List::EMPTY,
            learners: mesh_wire::List::EMPTY,
        }
    }
}

impl Shard {
    fn next_revision(&mut self, shard: ShardId) -> Revision {
        self.newest += 1;
        Revision(self.newest << Revision::SHARD_BITS | u64::from(shard.0))
    }

    fn revision(&self, shard: ShardId) -> Revision {
        Revision(self.newest << Revision::SHARD_BITS | u64::from(shard.0))
    }

    fn write(&mut self, shard: ShardId, key: &Bytes, value: Option<Bytes>) -> Revision {
        let revision = self.next_revision(shard);
        self.write_at(revision, key, value);
        revision
    }

    fn write_at(&mut self, revision: Revision, key: &Bytes, value: Option<Bytes>) {
        let versions = self.keys.entry(key.clone()).or_default();
        let before = versions.last().filter(|version| version.value.is_some());
        let create_revision = before.map_or(revision, |version| version.create_revision);
        let version = before.map_or(1, |version| version.version + 1);
        versions.push(Version { revision, create_revision, version, value });
        *self.applied.entry(key.clone()).or_default() += 1;
    }

    fn read(&self, key: &[u8], at: Revision) -> Option<Item<'_>> {
        let versions = self.keys.get(key)?;
        let version = versions.iter().rfind(|version| version.revision <= at)?;
        Some(Item {
            value: version.value.as_ref()?,
            revision: version.revision,
            create_revision: version.create_revision,
            version: version.version,
            lease: 0,
            type_tag: 0,
        })
    }

    fn serve(
        &mut self,
        shard: ShardId,
        request: &Request<'_>,
        answer: impl FnOnce(Response<'_>) -> Bytes,
    ) -> Bytes {
        let at = |asked: Revision, newest: Revision| if asked == Revision::ZERO { newest } else { asked };
        let own = Bytes::copy_from_slice;
        match request {
            Request::OpenSession(open) => {
                let id = self.open_session(shard, open.nonce);
                answer(Response::SessionOpened(SessionOpened { session: SessionId(id) }))
            }
            Request::Put(put) => {
                let done =
                    self.once(&put.ctx, |state| (state.write(shard, &own(put.key), Some(own(put.value))), 1));
                answer(
                    done.map_or_else(Response::Error, |(revision, _)| {
                        Response::Written(Written { revision })
                    }),
                )
            }
            Request::PutBatch(batch) => {
                let done = self.once(&batch.ctx, |state| {
                    let revision = state.next_revision(shard);
                    batch
                        .items
                        .iter()
                        .for_each(|item| state.write_at(revision, &own(item.key), Some(own(item.value))));
                    (revision, 0)
                });
                answer(
                    done.map_or_else(Response::Error, |(revision, _)| {
                        Response::Written(Written { revision })
                    }),
                )
            }
            Request::Delete(delete) => {
                let done = self.once(&delete.ctx, |state| {
                    let revision = state.next_revision(shard);
                    let exists = |key: &&[u8]| state.read(key, revision).is_some();
                    let existing: Vec<_> = delete.keys.iter().filter(exists).map(own).collect();
                    existing.iter().for_each(|key| state.write_at(revision, key, None));
                    (revision, u32::try_from(existing.len()).unwrap())
                });
                answer(done.map_or_else(Response::Error, |(revision, deleted)| {
                    Response::Deleted(Deleted { revision, deleted })
                }))
            }
            Request::Get(get) => {
                let revision = at(get.at, self.revision(shard));
                answer(Response::Get(GetAnswer { item: self.read(get.key, revision), revision }))
            }
            Request::GetBatch(batch) => {
                let revision = at(batch.at, self.revision(shard));
                // As if a frame held no more than a thousand items.
                let items: Vec<_> =
                    batch.keys.iter().take(1000).map(|key| self.read(key, revision)).collect();
                answer(Response::GetBatch(GetBatchAnswer { items: (&items).into(), revision }))
            }
            Request::Range(range) => {
                let revision = at(range.at, self.revision(shard));
                self.read_at.push(revision);
                let (items, more) = self.page(range, revision);
                answer(Response::Range(RangeAnswer { items: (&items).into(), more, revision }))
            }
            Request::ReplaceNode(replace) if replace.name == "c" => {
                assert_eq!(shard, ShardId(0), "the membership is shard 0's");
                let (node, replica) = (NodeId(9), mesh_base::ReplicaId(9));
                answer(Response::Replace(ReplaceAnswer { node, replica, state: NodeState::Joining }))
            }
            Request::ReplaceNode(replace) => {
                answer(Response::Error(Error::NotFound { what: format!("node `{}`", replace.name).into() }))
            }
            other => panic!("{other:?} is not for a shard"),
        }
    }

    /// Opens a session, once for each nonce.
    fn open_session(&mut self, shard: ShardId, nonce: u64) -> Revision {
        let known = self.sessions.iter().find(|(_, session)| session.nonce == nonce);
        if let Some((&id, _)) = known {
            return Revision(id);
        }
        let id = self.next_revision(shard);
        self.sessions.insert(id.0, Session { nonce, below: 1, outcomes: BTreeMap::new() });
        id
    }

    fn page<'a>(&'a self, range: &Range<'a>, at: Revision) -> (Vec<RangeItem<'a>>, bool) {
        let within = |key: &[u8]| {
            let after = range.after.is_none_or(|after| if range.reverse { key < after } else { key > after });
            key >= range.from && (range.to.is_empty() || key < range.to) && after
        };
        let found = self.keys.keys().filter(|key| within(key)).filter_map(|key| {
            let mut item = self.read(key, at)?;
            if range.keys_only {
                item.value = &[];
            }
            Some(RangeItem { key, item })
        });
        let mut items: Vec<_> = found.collect();
        if range.reverse {
            items.reverse();
        }
        let limit = if range.limit == 0 { 10_000 } else { range.limit as usize };
        let more = items.len() > limit;
        items.truncate(limit);
        (items, more)
    }

    /// Does a write once, as a shard does, and checks that the client keeps to the rules.
    fn once(
        &mut self,
        ctx: &WriteContext<'_>,
        write: impl FnOnce(&mut Self) -> (Revision, u32),
    ) -> Result<(Revision, u32), Error> {
        let seq = ctx.seq;
        let SessionSeq(below) = ctx.acknowledged_below;
        // Sessions that were forgotten are older than the newest; others were never opened.
        let newest = self.newest << Revision::SHARD_BITS;
        let Some(session) = self.sessions.get_mut(&ctx.session.get()) else {
            let is_old = ctx.session.get() < newest;
            return Err(if is_old { Error::Unknown } else { Error::UnknownSession });
        };
        assert!((1..=seq.0).contains(&below), "a write that is sent is awaited");
        session.below = session.below.max(below);
        assert!(seq.0 - session.below.min(seq.0) < SESSION_WINDOW_MAX as u64, "the window is kept");
        if seq.0 < session.below {
            return Err(Error::Malformed { what: "below acknowledged_below".into() });
        }
        if let Some(outcome) = session.outcomes.get(&seq.0) {
            return Ok(*outcome);
        }
        let outcome = write(self);
        let session = self.sessions.get_mut(&ctx.session.get()).unwrap();
        session.outcomes.insert(seq.0, outcome);
        let below = session.below;
        session.outcomes.retain(|seq, _| *seq >= below);
        Ok(outcome)
    }
}
