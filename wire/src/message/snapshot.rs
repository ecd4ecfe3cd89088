//! Snapshots in parts, from a replica that has the keys to one that lacks them.
//!
//! A snapshot is a checkpoint of one replica: its name is the replica, the checkpoint's number and its index.

use std::fmt;

use mesh_base::limits::SNAPSHOT_POSITION_BYTES_MAX;
use mesh_base::{CheckpointNo, LogIndex, ReplicaId, ShardId};

use super::raft::conf_hint;
use super::{Message, SnapshotMeta, check_replicas, check_shard};
use crate::WireError;
use crate::builder::{Builder, Root};
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure};

/// A leader has a snapshot for a replica that its log cannot bring up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotOffer<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The replica that leads and has the snapshot. Never 0.
    pub from: ReplicaId,
    /// The replica that it is for. Never 0.
    pub to: ReplicaId,
    /// The checkpoint that it is. Never 0.
    pub checkpoint: CheckpointNo,
    /// The leader's log begins behind this entry: a snapshot that contains it serves as well.
    pub least: LogIndex,
    /// What it contains.
    pub meta: SnapshotMeta<'a>,
}

impl<'a> Message<'a> for SnapshotOffer<'a> {
    type Table = fb::SnapshotOffer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            shard: ShardId(table.shard()),
            from: ReplicaId(table.from()),
            to: ReplicaId(table.to()),
            checkpoint: CheckpointNo(table.checkpoint()),
            least: LogIndex(table.least()),
            meta: SnapshotMeta::view(table.meta()),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.shard, self.from, self.to, self.checkpoint)?;
        self.meta.check()
    }

    fn build(&self, to: &mut Builder) -> Root {
        let meta = self.meta.build(to);
        let args = fb::SnapshotOfferArgs {
            shard: self.shard.0,
            from: self.from.0,
            to: self.to.0,
            checkpoint: self.checkpoint.0,
            least: self.least.0,
            meta: Some(meta),
        };
        fb::SnapshotOffer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        super::MESSAGE_OVERHEAD_BYTES + conf_hint(&self.meta.conf)
    }
}

/// A part of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SnapshotChunk<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The replica that sends it. Never 0.
    pub from: ReplicaId,
    /// The replica that it is for. Never 0.
    pub to: ReplicaId,
    /// The checkpoint that the snapshot is. Never 0.
    pub checkpoint: CheckpointNo,
    /// What the whole snapshot contains; the same in every part.
    pub meta: SnapshotMeta<'a>,
    /// The part. It says itself which keys it covers.
    pub bytes: &'a [u8],
}

impl fmt::Debug for SnapshotChunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotChunk")
            .field("shard", &self.shard)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("checkpoint", &self.checkpoint)
            .field("meta", &self.meta)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl<'a> Message<'a> for SnapshotChunk<'a> {
    type Table = fb::SnapshotChunk<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            shard: ShardId(table.shard()),
            from: ReplicaId(table.from()),
            to: ReplicaId(table.to()),
            checkpoint: CheckpointNo(table.checkpoint()),
            meta: SnapshotMeta::view(table.meta()),
            bytes: table.bytes().bytes(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.shard, self.from, self.to, self.checkpoint)?;
        self.meta.check()
    }

    fn build(&self, to: &mut Builder) -> Root {
        let meta = self.meta.build(to);
        let bytes = to.bytes(self.bytes);
        let args = fb::SnapshotChunkArgs {
            shard: self.shard.0,
            from: self.from.0,
            to: self.to.0,
            checkpoint: self.checkpoint.0,
            meta: Some(meta),
            bytes: Some(bytes),
        };
        fb::SnapshotChunk::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        super::MESSAGE_OVERHEAD_BYTES + conf_hint(&self.meta.conf) + self.bytes.len()
    }
}

/// A place among a snapshot's keys, encoded as in its parts: all before it are there. Nothing is behind the last.
pub type SnapshotPosition<'a> = Option<&'a [u8]>;

/// What became of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotStatus<'a> {
    /// It is taken in up to there.
    Ok(SnapshotPosition<'a>),
    /// It is to be sent from there on.
    Resume(SnapshotPosition<'a>),
    /// It cannot be received: its sender gives up.
    Failed,
    /// This one is there, whole and durable, or what it contains is.
    Done(SnapshotMeta<'a>),
    /// This one, another, is being received.
    Elsewhere(SnapshotMeta<'a>),
}

impl<'a> SnapshotStatus<'a> {
    fn view(table: fb::SnapshotAck<'a>) -> Result<Self, WireError> {
        let position = table.position().map(|position| position.bytes());
        let held = table.held().map(SnapshotMeta::view);
        match (table.status(), position, held) {
            (fb::SnapshotStatus::Ok, position, None) => Ok(Self::Ok(position)),
            (fb::SnapshotStatus::Resume, position, None) => Ok(Self::Resume(position)),
            (fb::SnapshotStatus::Failed, None, None) => Ok(Self::Failed),
            (fb::SnapshotStatus::Done, None, Some(held)) => Ok(Self::Done(held)),
            (fb::SnapshotStatus::Elsewhere, None, Some(held)) => Ok(Self::Elsewhere(held)),
            _ => Err(WireError::Malformed { what: "snapshot status" }),
        }
    }

    const fn to_wire(self) -> fb::SnapshotStatus {
        match self {
            Self::Ok(_) => fb::SnapshotStatus::Ok,
            Self::Resume(_) => fb::SnapshotStatus::Resume,
            Self::Failed => fb::SnapshotStatus::Failed,
            Self::Done(_) => fb::SnapshotStatus::Done,
            Self::Elsewhere(_) => fb::SnapshotStatus::Elsewhere,
        }
    }

    const fn position(self) -> SnapshotPosition<'a> {
        match self {
            Self::Ok(position) | Self::Resume(position) => position,
            Self::Failed | Self::Done(_) | Self::Elsewhere(_) => None,
        }
    }

    const fn held(self) -> Option<SnapshotMeta<'a>> {
        match self {
            Self::Done(held) | Self::Elsewhere(held) => Some(held),
            Self::Ok(_) | Self::Resume(_) | Self::Failed => None,
        }
    }
}

/// What became of a snapshot so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotAck<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The replica that receives it. Never 0.
    pub from: ReplicaId,
    /// The replica that sends or offers it. Never 0.
    pub to: ReplicaId,
    /// The checkpoint that it is. Never 0.
    pub checkpoint: CheckpointNo,
    /// The last entry that it contains.
    pub index: LogIndex,
    /// What became of it.
    pub status: SnapshotStatus<'a>,
}

impl<'a> Message<'a> for SnapshotAck<'a> {
    type Table = fb::SnapshotAck<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            shard: ShardId(table.shard()),
            from: ReplicaId(table.from()),
            to: ReplicaId(table.to()),
            checkpoint: CheckpointNo(table.checkpoint()),
            index: LogIndex(table.index()),
            status: SnapshotStatus::view(table)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.shard, self.from, self.to, self.checkpoint)?;
        if let Some(position) = self.status.position() {
            ensure!(!position.is_empty(), "a snapshot's position");
            at_most("bytes of a snapshot's position", position.len(), SNAPSHOT_POSITION_BYTES_MAX)?;
        }
        self.status.held().map_or(Ok(()), |held| held.check())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let position = self.status.position().map(|position| to.bytes(position));
        let held = self.status.held().map(|held| held.build(to));
        let args = fb::SnapshotAckArgs {
            shard: self.shard.0,
            from: self.from.0,
            to: self.to.0,
            checkpoint: self.checkpoint.0,
            index: self.index.0,
            status: self.status.to_wire(),
            position,
            held,
        };
        fb::SnapshotAck::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let position = self.status.position().map_or(0, <[u8]>::len);
        let held = self.status.held().map_or(0, |held| conf_hint(&held.conf));
        super::MESSAGE_OVERHEAD_BYTES + position + held
    }
}

fn check_name(
    shard: ShardId,
    from: ReplicaId,
    to: ReplicaId,
    checkpoint: CheckpointNo,
) -> Result<(), WireError> {
    check_shard(shard)?;
    check_replicas(from, to)?;
    ensure!(checkpoint.0 != 0, "a snapshot's checkpoint");
    Ok(())
}
