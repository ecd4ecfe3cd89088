//! What replicas say to each other about snapshots, between the wire and whoever sends or receives one.
//!
//! A snapshot is a checkpoint of one replica, named by a [`SnapshotSource`]. Two of them differ even at one index: what
//! only checkpoints store and what garbage collection has dropped is each replica's own.

use bytes::Bytes;
use mesh_base::{CheckpointNo, LogIndex, ReplicaId, ShardId, Term};
use mesh_engine::{CellKey, KeyRef, SnapshotSource};
use mesh_wire::{
    ConfState as WireConf, PeerMessage as WirePeer, SnapshotAck, SnapshotChunk, SnapshotMeta, SnapshotOffer,
    SnapshotPosition, SnapshotStatus,
};
use raft::eraftpb::Snapshot;

use super::messages::own_snapshot;
use super::output::{Output, PeerMessage, PeerSend};
use crate::core::LinkClass;

/// A place in the key order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// Right before a key.
    Before(CellKey),
    /// Behind every key.
    End,
}

impl Place {
    /// Before every key.
    #[must_use]
    pub fn start() -> Self {
        Self::Before(KeyRef::FIRST.to_owned())
    }

    /// The place of which nothing is said but that it is before a key, if it is.
    #[must_use]
    pub fn of(key: Option<&CellKey>) -> Self {
        key.map_or(Self::End, |key| Self::Before(key.clone()))
    }
}

/// A leader has a snapshot.
#[derive(Clone, Debug)]
pub struct Offer {
    /// For whom.
    pub to: ReplicaId,
    /// Which. The leader's own.
    pub source: SnapshotSource,
    /// The leader's log begins behind this entry.
    pub least: LogIndex,
    /// What raft knows of it.
    pub snapshot: Snapshot,
}

/// A part of a snapshot.
#[derive(Debug)]
pub struct Chunk {
    /// For whom.
    pub to: ReplicaId,
    /// Of which.
    pub source: SnapshotSource,
    /// What raft knows of it.
    pub snapshot: Snapshot,
    /// The part.
    pub bytes: Bytes,
}

/// What became of a snapshot so far.
#[derive(Debug)]
pub struct Ack {
    /// Who receives it.
    pub from: ReplicaId,
    /// Who sends or offers it.
    pub to: ReplicaId,
    /// The sender's checkpoint.
    pub checkpoint: CheckpointNo,
    /// The last entry in it.
    pub index: LogIndex,
    /// What became of it.
    pub status: AckStatus,
}

/// What became of a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub enum AckStatus {
    /// It is taken in up to there.
    Ok(Place),
    /// It is to be sent from there on.
    Resume(Place),
    /// It cannot be received.
    Failed,
    /// This one is there, or what it contains is.
    Done(Snapshot),
    /// This one, another, is being received.
    Elsewhere(Snapshot),
}

impl Offer {
    /// Reads an offer.
    #[must_use]
    pub fn of(wire: &SnapshotOffer<'_>) -> Self {
        let source = source_of(wire.from, wire.checkpoint, &wire.meta);
        Self { to: wire.to, source, least: wire.least, snapshot: own_snapshot(&wire.meta) }
    }

    pub(super) fn send(&self, shard: ShardId, out: &mut Output) {
        let conf = Conf::of(&self.snapshot);
        let message = WirePeer::SnapshotOffer(SnapshotOffer {
            shard,
            from: self.source.replica,
            to: self.to,
            checkpoint: self.source.checkpoint,
            least: self.least,
            meta: conf.meta(&self.snapshot),
        });
        post(self.to, LinkClass::Control, &message, out);
    }
}

impl Chunk {
    /// Reads a part; its bytes share the frame's memory.
    #[must_use]
    pub fn of(wire: &SnapshotChunk<'_>, payload: &Bytes) -> Self {
        let source = source_of(wire.from, wire.checkpoint, &wire.meta);
        let bytes = if wire.bytes.is_empty() { Bytes::new() } else { payload.slice_ref(wire.bytes) };
        Self { to: wire.to, source, snapshot: own_snapshot(&wire.meta), bytes }
    }

    pub(super) fn send(&self, shard: ShardId, out: &mut Output) {
        let conf = Conf::of(&self.snapshot);
        let message = WirePeer::SnapshotChunk(SnapshotChunk {
            shard,
            from: self.source.replica,
            to: self.to,
            checkpoint: self.source.checkpoint,
            meta: conf.meta(&self.snapshot),
            bytes: &self.bytes,
        });
        post(self.to, LinkClass::Bulk, &message, out);
    }
}

impl Ack {
    /// Reads an acknowledgement; nothing if its position is none.
    #[must_use]
    pub fn of(wire: &SnapshotAck<'_>) -> Option<Self> {
        let place = |position: SnapshotPosition<'_>| match position {
            None => Some(Place::End),
            Some(bytes) => CellKey::decode(bytes).map(Place::Before),
        };
        let status = match wire.status {
            SnapshotStatus::Ok(position) => AckStatus::Ok(place(position)?),
            SnapshotStatus::Resume(position) => AckStatus::Resume(place(position)?),
            SnapshotStatus::Failed => AckStatus::Failed,
            SnapshotStatus::Done(held) => AckStatus::Done(own_snapshot(&held)),
            SnapshotStatus::Elsewhere(held) => AckStatus::Elsewhere(own_snapshot(&held)),
        };
        let (checkpoint, index) = (wire.checkpoint, wire.index);
        Some(Self { from: wire.from, to: wire.to, checkpoint, index, status })
    }

    pub(super) fn send(&self, shard: ShardId, out: &mut Output) {
        let place = |place: &Place| match place {
            Place::Before(key) => Some(key.encode()),
            Place::End => None,
        };
        let (position, held) = match &self.status {
            AckStatus::Ok(at) | AckStatus::Resume(at) => (place(at), None),
            AckStatus::Failed => (None, None),
            AckStatus::Done(held) | AckStatus::Elsewhere(held) => (None, Some((Conf::of(held), held))),
        };
        let meta = held.as_ref().map_or_else(SnapshotMeta::default, |(conf, held)| conf.meta(held));
        let status = match &self.status {
            AckStatus::Ok(_) => SnapshotStatus::Ok(position.as_deref()),
            AckStatus::Resume(_) => SnapshotStatus::Resume(position.as_deref()),
            AckStatus::Failed => SnapshotStatus::Failed,
            AckStatus::Done(_) => SnapshotStatus::Done(meta),
            AckStatus::Elsewhere(_) => SnapshotStatus::Elsewhere(meta),
        };
        let Self { from, to, checkpoint, index, .. } = *self;
        let message = WirePeer::SnapshotAck(SnapshotAck { shard, from, to, checkpoint, index, status });
        post(to, LinkClass::Control, &message, out);
    }
}

/// The lists of a configuration, which a message borrows.
struct Conf {
    voters: Vec<ReplicaId>,
    learners: Vec<ReplicaId>,
}

impl Conf {
    fn of(snapshot: &Snapshot) -> Self {
        let conf = snapshot.get_metadata().get_conf_state();
        let ids = |ids: &[u64]| ids.iter().map(|&id| ReplicaId(id)).collect();
        Self { voters: ids(&conf.voters), learners: ids(&conf.learners) }
    }

    fn meta(&self, snapshot: &Snapshot) -> SnapshotMeta<'_> {
        let metadata = snapshot.get_metadata();
        let conf = WireConf {
            voters: (&self.voters).into(),
            learners: (&self.learners).into(),
            ..WireConf::default()
        };
        SnapshotMeta { index: LogIndex(metadata.index), term: Term(metadata.term), conf }
    }
}

const fn source_of(replica: ReplicaId, checkpoint: CheckpointNo, meta: &SnapshotMeta<'_>) -> SnapshotSource {
    SnapshotSource { replica, checkpoint, applied: meta.index, term: meta.term }
}

fn post(to: ReplicaId, class: LinkClass, message: &WirePeer<'_>, out: &mut Output) {
    if let Some(frame) = out.frame(message) {
        out.peers.push(PeerSend { to, class, message: PeerMessage::Frame(frame) });
    }
}
