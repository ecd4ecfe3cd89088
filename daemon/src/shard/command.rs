//! What clients and other nodes ask of a shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mesh_base::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, ENTRY_BYTES_MAX, ENTRY_BYTES_SOFT_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};
use mesh_base::{Instant, Revision, SessionSeq};

use super::sessions::WriteId;
use super::transaction::{Branch, Transaction};
use crate::core::{NodeName, Responder};

/// A request, routed to its shard.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the answer goes.
    pub responder: Responder,
    /// When the client stops waiting.
    pub deadline: Instant,
    /// What it asks for.
    pub command: Command,
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Reads.
    Read(Read),
    /// Writes.
    Write(Write),
    /// Opens a session.
    OpenSession {
        /// By which a copy of the request is known; 0 for nothing.
        nonce: u64,
    },
    /// Gives a node a new id, under which it may come back empty. Shard 0 only.
    ReplaceNode {
        /// The node.
        name: NodeName,
        /// By which a copy of the request is known; 0 for nothing.
        nonce: u64,
    },
}

/// A read: linearizable, at the leader.
#[derive(Clone, Debug)]
pub enum Read {
    /// One key.
    Get {
        /// The key.
        key: Bytes,
        /// The revision to read at; [`Revision::MAX`] for the newest.
        at: Revision,
    },
    /// Several keys, at one moment.
    GetBatch {
        /// The keys; the answer is in their order.
        keys: Vec<Bytes>,
        /// The revision to read at; [`Revision::MAX`] for the newest.
        at: Revision,
    },
    /// One page of a range.
    Range(Box<Range>),
    /// What a transaction that is done found.
    Transacted {
        /// The transaction.
        transaction: Arc<Transaction>,
        /// The branch of it that was done.
        branch: Branch,
        /// Its revision.
        revision: Revision,
    },
}

impl Read {
    /// The revision to read at; [`Revision::MAX`] for the newest.
    #[must_use]
    pub fn at(&self) -> Revision {
        match self {
            Self::Get { at, .. } | Self::GetBatch { at, .. } => *at,
            Self::Range(range) => range.at,
            Self::Transacted { revision, .. } => *revision,
        }
    }
}

/// A page of a range of keys of one shard.
#[derive(Clone, Debug)]
pub struct Range {
    /// The first key; empty for the start of the keyspace.
    pub from: Bytes,
    /// The key before which the range ends; empty for the end of the keyspace.
    pub to: Bytes,
    /// The key after which (before which, in reverse) the page begins.
    pub after: Option<Bytes>,
    /// Most items of the page.
    pub items_max: usize,
    /// Bytes of keys and values at which the page ends, after at least one item.
    pub bytes_max: usize,
    /// What to return.
    pub shape: Shape,
    /// The order.
    pub order: Order,
    /// The revision to read at; [`Revision::MAX`] for the newest.
    pub at: Revision,
}

/// What a range returns of each key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Key and value.
    Items,
    /// The key alone.
    KeysOnly,
}

/// The order of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// From the first key on.
    Ascending,
    /// From the last key back.
    Descending,
}

/// A write, which takes effect once however often it is sent.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which write of which session it is.
    pub id: WriteId,
    /// The client has all answers below this number.
    pub acknowledged_below: SessionSeq,
    /// What to write.
    pub change: Change,
}

/// What a write changes; all of it or nothing, at one revision.
#[derive(Clone, Debug)]
pub enum Change {
    /// Keys and their new values. No key twice.
    Put(Vec<PutItem>),
    /// Keys to delete. No key twice.
    Delete(Vec<Bytes>),
    /// What conditions decide about.
    Transact(Arc<Transaction>),
}

impl Change {
    /// Bytes that it adds to an entry, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(items) => items.iter().map(|it| it.key.len() + it.value.len() + EFFECT_BYTES_MAX).sum(),
            Self::Delete(keys) => keys.iter().map(|key| key.len() + EFFECT_BYTES_MAX).sum(),
            Self::Transact(transaction) => {
                let (bytes, keys) = transaction.size();
                bytes + (keys + 1) * EFFECT_BYTES_MAX
            }
        }
    }
}

/// Bytes of an effect and its session's outcome beside key and value, at most.
const EFFECT_BYTES_MAX: usize = 256;

const _: () = assert!(
    ENTRY_BYTES_SOFT_MAX < ENTRY_BYTES_MAX
        && KEY_BYTES_MAX + VALUE_BYTES_MAX + 2 * EFFECT_BYTES_MAX < ENTRY_BYTES_MAX
        && BATCH_BYTES_MAX + (BATCH_OPS_MAX + 1) * EFFECT_BYTES_MAX < ENTRY_BYTES_MAX
);

/// A key and its new value.
#[derive(Clone, Debug)]
pub struct PutItem {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// A tag of the application's choice, kept beside the value.
    pub type_tag: u8,
}

/// Of a key that comes twice in a batch, the later value counts.
#[must_use]
pub fn last_of_each_key(items: Vec<PutItem>) -> Vec<PutItem> {
    let mut last: BTreeMap<Bytes, PutItem> = BTreeMap::new();
    for item in items {
        last.insert(item.key.clone(), item);
    }
    last.into_values().collect()
}
