//! Snapshots in parts, from the node that has the keys to the node that lacks them.

use std::fmt;

use mesh_base::{ReplicaId, ShardId};

use super::raft::conf_hint;
use super::{Message, SnapshotMeta, check_replicas, check_shard, closed};
use crate::WireError;
use crate::builder::{Builder, Root};
use crate::generated::mesh::wire as fb;

/// One sending of a snapshot, chosen by its sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransferId(pub u64);

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transfer-{}", self.0)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
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
    /// The sending that it is part of.
    pub transfer: TransferId,
    /// Its number within the sending, from 0.
    pub number: u32,
    /// Whether it is the last.
    pub last: bool,
    /// What the whole snapshot contains; the same in every part.
    pub meta: SnapshotMeta<'a>,
    /// The part.
    pub bytes: &'a [u8],
}

impl fmt::Debug for SnapshotChunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotChunk")
            .field("shard", &self.shard)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("transfer", &self.transfer)
            .field("number", &self.number)
            .field("last", &self.last)
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
            transfer: TransferId(table.transfer()),
            number: table.number(),
            last: table.last(),
            meta: SnapshotMeta::view(table.meta()),
            bytes: table.bytes().bytes(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_shard(self.shard)?;
        check_replicas(self.from, self.to)?;
        self.meta.check()
    }

    fn build(&self, to: &mut Builder) -> Root {
        let meta = self.meta.build(to);
        let bytes = to.bytes(self.bytes);
        let args = fb::SnapshotChunkArgs {
            shard: self.shard.0,
            from: self.from.0,
            to: self.to.0,
            transfer: self.transfer.0,
            number: self.number,
            last: self.last,
            meta: Some(meta),
            bytes: Some(bytes),
        };
        fb::SnapshotChunk::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        super::MESSAGE_OVERHEAD_BYTES + conf_hint(&self.meta.conf) + self.bytes.len()
    }
}

closed! {
    /// What became of a snapshot's parts.
    SnapshotStatus {
        /// All parts before [`SnapshotAck::next`] arrived.
        Ok,
        /// The snapshot cannot be received: its sender gives up.
        Failed,
        /// The snapshot is in place.
        Done,
    }
}

/// What became of the parts of a snapshot so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotAck {
    /// The shard.
    pub shard: ShardId,
    /// The replica that received them. Never 0.
    pub from: ReplicaId,
    /// The replica that sent them. Never 0.
    pub to: ReplicaId,
    /// The sending that this is about.
    pub transfer: TransferId,
    /// The number of the part that is awaited next.
    pub next: u32,
    /// What became of them.
    pub status: SnapshotStatus,
}

impl<'a> Message<'a> for SnapshotAck {
    type Table = fb::SnapshotAck<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            shard: ShardId(table.shard()),
            from: ReplicaId(table.from()),
            to: ReplicaId(table.to()),
            transfer: TransferId(table.transfer()),
            next: table.next(),
            status: SnapshotStatus::from_wire(table.status())
                .ok_or(WireError::Malformed { what: "snapshot status" })?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_shard(self.shard)?;
        check_replicas(self.from, self.to)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::SnapshotAckArgs {
            shard: self.shard.0,
            from: self.from.0,
            to: self.to.0,
            transfer: self.transfer.0,
            next: self.next,
            status: self.status.to_wire(),
        };
        fb::SnapshotAck::create(&mut to.flat, &args).into()
    }
}
