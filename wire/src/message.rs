//! The messages as Rust sees them. One type serves to send and to receive: what it borrows is the sender's memory in the
//! first case and the frame's payload in the second.
//!
//! Invariants:
//! - What was received was verified, and [`Message::check`] holds for it; what is sent is checked by the same rules.
//! - Looking at a received message never fails and never allocates, [`crate::Error`] aside.
//!
//! Deliberately absent: what a message means for a shard or a node.

mod cluster;
mod context;
mod empty;
mod error;
mod greeting;
mod node;
mod raft;
mod read;
mod snapshot;
mod status;
mod transact;
mod write;

use std::fmt;

use flatbuffers::{Follow, InvalidFlatbuffer, Verifiable, VerifierOptions};
use mesh_base::limits::{
    FRAME_DEPTH_MAX, FRAME_TABLES_MAX, NODE_ADDRESS_BYTES_MAX, NODE_NAME_BYTES_MAX, SHARDS_MAX,
};
use mesh_base::{ReplicaId, ShardId};

pub use cluster::{NodeEntry, NodeState, ReplaceAnswer, ReplaceNode, ShardPlace, SlotRange, Topology};
pub use context::{ReadContext, TraceId, WriteContext};
pub(crate) use empty::{StatusRequest, TopologyRequest};
pub use greeting::{Auth, Hello, HelloAnswer, LinkClass, OpenSession, Role, SessionOpened};
pub use node::{
    BirthAccept, BirthDecided, BirthMember, BirthPropose, Directory, JoinAnswer, JoinRequest, NodeProbe,
    Ping, ProbeState,
};
pub use raft::{ConfState, Raft, RaftEntry, RaftMessage, RaftSnapshot, SnapshotMeta};
pub use read::{Get, GetAnswer, GetBatch, GetBatchAnswer, Item, Range, RangeAnswer, RangeItem};
pub use snapshot::{SnapshotAck, SnapshotChunk, SnapshotOffer, SnapshotPosition, SnapshotStatus};
pub use status::{Member, ReplicaRole, ReplicaState, ReplicaStatus, StatusAnswer};
pub use transact::{Action, Branch, Condition, Expect, KeyRange, Operation, Transact, Transacted};
pub use write::{Delete, Deleted, KeyValue, Put, PutBatch, Written};

use crate::builder::{Builder, Root};
use crate::wire_error::{at_most, ensure};
use crate::{Kind, WireError};

/// A root table and the Rust type for it.
pub(crate) trait Message<'a>: Sized {
    /// The generated view of the table.
    type Table: Follow<'a, Inner = Self::Table> + Verifiable + 'a;

    /// Reads a verified table.
    fn view(table: Self::Table) -> Result<Self, WireError>;

    /// Reads a payload without the generated code, if it can: see [`crate::direct`].
    fn read_directly(_payload: &'a [u8]) -> Option<Self> {
        None
    }

    /// Whether the message keeps to the limits.
    fn check(&self) -> Result<(), WireError>;

    /// Writes the table.
    fn build(&self, to: &mut Builder) -> Root;

    /// As many bytes as the payload takes, or somewhat more; never fewer.
    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES
    }
}

/// A message takes at most so many bytes besides its byte strings, its texts and the elements of its lists.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;
/// An element of a list of keys or items takes at most so many bytes besides its byte strings.
pub const ELEMENT_OVERHEAD_BYTES: usize = 80;

/// Verifies a payload and reads it.
pub(crate) fn decode<'a, M: Message<'a>>(kind: Kind, payload: &'a [u8]) -> Result<M, WireError> {
    if let Some(message) = M::read_directly(payload) {
        message.check()?;
        return Ok(message);
    }
    let options = VerifierOptions {
        max_depth: FRAME_DEPTH_MAX,
        max_tables: FRAME_TABLES_MAX,
        // Offsets may share what they point to, and vtables always do. What comes from honest senders shares little.
        max_apparent_size: payload.len().saturating_mul(4).saturating_add(4096),
        ignore_missing_null_terminator: false,
    };
    let table = flatbuffers::root_with_opts::<M::Table>(&options, payload)
        .map_err(|error| WireError::Invalid { kind, what: flaw(&error) })?;
    let message = M::view(table)?;
    message.check()?;
    Ok(message)
}

const fn flaw(error: &InvalidFlatbuffer) -> &'static str {
    match error {
        InvalidFlatbuffer::MissingRequiredField { .. } => "a required field is missing",
        InvalidFlatbuffer::InconsistentUnion { .. } => "a union has no type",
        InvalidFlatbuffer::Utf8Error { .. } => "a text is not UTF-8",
        InvalidFlatbuffer::MissingNullTerminator { .. } => "a text does not end in zero",
        InvalidFlatbuffer::Unaligned { .. } => "a field is not aligned",
        InvalidFlatbuffer::RangeOutOfBounds { .. } => "a field lies outside the payload",
        InvalidFlatbuffer::SignedOffsetOutOfBounds { .. } => "an offset points outside the payload",
        InvalidFlatbuffer::TooManyTables => "there are too many tables",
        InvalidFlatbuffer::ApparentSizeTooLarge => "too many fields share their bytes",
        InvalidFlatbuffer::DepthLimitReached => "tables are nested too deep",
    }
}

/// An enumeration of the schema whose values are closed within a version of the protocol.
macro_rules! closed {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            pub(crate) const fn to_wire(self) -> crate::generated::mesh::wire::$name {
                match self {
                    $(Self::$variant => crate::generated::mesh::wire::$name::$variant,)*
                }
            }

            pub(crate) const fn from_wire(wire: crate::generated::mesh::wire::$name) -> Option<Self> {
                match wire {
                    $(crate::generated::mesh::wire::$name::$variant => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

/// An enumeration of the schema that may grow: what a newer sender names is kept as its number.
macro_rules! open {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// One that this version does not know.
            Other(u8),
        }

        impl $name {
            pub(crate) const fn to_wire(self) -> crate::generated::mesh::wire::$name {
                match self {
                    $(Self::$variant => crate::generated::mesh::wire::$name::$variant,)*
                    Self::Other(number) => crate::generated::mesh::wire::$name(number),
                }
            }

            pub(crate) const fn from_wire(wire: crate::generated::mesh::wire::$name) -> Self {
                match wire {
                    $(crate::generated::mesh::wire::$name::$variant => Self::$variant,)*
                    other => Self::Other(other.0),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Self::Other(number) => write!(f, "unknown ({number})"),
                    known => std::fmt::Debug::fmt(known, f),
                }
            }
        }
    };
}

use {closed, open};

/// A node's or client's name: not empty, not too long.
pub(crate) fn check_name(name: &str) -> Result<(), WireError> {
    ensure!(!name.is_empty(), "an empty name");
    at_most("name bytes", name.len(), NODE_NAME_BYTES_MAX)
}

/// A node's address: not too long.
pub(crate) fn check_address(address: &str) -> Result<(), WireError> {
    at_most("address bytes", address.len(), NODE_ADDRESS_BYTES_MAX)
}

/// A shard that can be.
pub(crate) fn check_shard(shard: ShardId) -> Result<(), WireError> {
    ensure!(usize::from(shard.0) < SHARDS_MAX, "shard");
    Ok(())
}

/// A number of shards that can be; 0 where it is not decided.
pub(crate) fn check_shard_count(count: u16) -> Result<(), WireError> {
    at_most("shards", usize::from(count), SHARDS_MAX)
}

/// Two replicas, sender and receiver.
pub(crate) fn check_replicas(from: ReplicaId, to: ReplicaId) -> Result<(), WireError> {
    ensure!(from.0 != 0, "sending replica");
    ensure!(to.0 != 0, "receiving replica");
    Ok(())
}

/// Writes bytes as text where they are text.
pub(crate) fn bytes_of(bytes: &[u8]) -> impl fmt::Debug + '_ {
    fmt::from_fn(move |f| write!(f, "b\"{}\"", bytes.escape_ascii()))
}
