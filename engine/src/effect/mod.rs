//! What an entry of the raft log carries: the effects that the leader found a turn's commands to have, and the outcomes
//! of their sessions. Apply is a blind write of them.
//!
//! An entry is a 16-byte prefix, keys and values, and an rkyv archive that is read in place. Keys and values are written
//! into the entry's one buffer as they are pushed; the records that name them follow when the entry is finished.
//!
//! Invariants:
//! - Reading validates everything once (bytecheck) and then borrows; bytes from a peer can be refused, never panic.
//! - The order of the variants of the archive's records is the format: append only.
//!
//! Deliberately absent: what effects mean to sessions, locks and watches. That is the shard's business.

mod archive;
mod build;
mod read;

use mesh_base::{Namespace, Revision, SessionId, SessionSeq};

use crate::write::{Attributes, CellWrite, Change};

pub use build::{EntryBuilder, EntryHead};
pub use read::{EntryView, newest_revision};

/// The version of the encoding that this release writes.
pub const ENTRY_FORMAT: u16 = 1;
/// The least reader that what this release writes asks for.
pub const ENTRY_MIN_READER: u16 = 1;

/// Something that an entry does. Borrowed: the same type is pushed into a builder and read out of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect<'a> {
    /// A key gets a value.
    Put {
        /// Where.
        namespace: Namespace,
        /// The key.
        key: &'a [u8],
        /// The revision of this version.
        revision: Revision,
        /// What it carries beside the value.
        attributes: Attributes,
        /// The value.
        value: &'a [u8],
    },
    /// A key is deleted: a tombstone is written.
    Delete {
        /// Where.
        namespace: Namespace,
        /// The key.
        key: &'a [u8],
        /// The revision of the tombstone.
        revision: Revision,
    },
    /// A session begins.
    SessionOpen {
        /// Its id.
        session: SessionId,
        /// What its client chose to know an opening by that it sends again; 0 for nothing.
        nonce: u64,
    },
    /// Sessions are forgotten.
    SessionEvict {
        /// Which.
        sessions: SessionIds<'a>,
        /// Every session at or below this that is not known was evicted.
        evicted_up_to: SessionId,
    },
    /// Versions below this may be dropped, and reads below it are refused.
    Horizon {
        /// The oldest revision that stays readable.
        revision: Revision,
    },
    /// No revision at or below this will be assigned any more.
    Floor {
        /// The promise's revision.
        revision: Revision,
    },
    /// A record of the replica's own namespace is written or removed.
    System {
        /// Its key.
        key: &'a [u8],
        /// Its value, or nothing to remove it.
        value: Option<&'a [u8]>,
    },
    /// The cluster's format version is raised.
    ClusterVersion {
        /// To this.
        version: u32,
    },
    /// A kind that is reserved and has no meaning in this release.
    Reserved {
        /// Which.
        kind: ReservedEffect,
        /// Its body, which a later release defines.
        body: &'a [u8],
    },
}

impl<'a> Effect<'a> {
    /// Bytes of keys, values and lists.
    pub(crate) const fn stored_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } | Self::System { key, value: Some(value) } => {
                key.len() + value.len()
            }
            Self::Delete { key, .. } | Self::System { key, value: None } => key.len(),
            Self::SessionEvict { sessions, .. } => sessions.len() * size_of::<u64>(),
            Self::Reserved { body, .. } => body.len(),
            Self::SessionOpen { .. }
            | Self::Horizon { .. }
            | Self::Floor { .. }
            | Self::ClusterVersion { .. } => 0,
        }
    }

    /// What this effect writes into the page store, if anything.
    #[must_use]
    pub const fn cell_write(&self) -> Option<CellWrite<'a>> {
        match *self {
            Self::Put { namespace, key, revision, attributes, value } => {
                Some(CellWrite { namespace, key, revision, change: Change::Put { attributes, value } })
            }
            Self::Delete { namespace, key, revision } => {
                Some(CellWrite { namespace, key, revision, change: Change::Delete })
            }
            Self::System { key, value } => {
                let change = match value {
                    Some(value) => Change::Put { attributes: Attributes::SYSTEM, value },
                    None => Change::Remove,
                };
                Some(CellWrite { namespace: Namespace::SYSTEM, key, revision: Revision::ZERO, change })
            }
            Self::SessionOpen { .. }
            | Self::SessionEvict { .. }
            | Self::Horizon { .. }
            | Self::Floor { .. }
            | Self::ClusterVersion { .. }
            | Self::Reserved { .. } => None,
        }
    }
}

/// Kinds of effect whose place in the format is taken in advance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReservedEffect {
    /// A lock of a transaction.
    Lock,
    /// The prepare record of a transaction.
    Prepare,
    /// The commit record of a transaction.
    Commit,
    /// A digest of the state, compared between replicas.
    Digest,
}

/// A list of session ids inside an entry or in memory.
#[derive(Clone, Copy)]
pub struct SessionIds<'a>(SessionIdsInner<'a>);

#[derive(Clone, Copy)]
enum SessionIdsInner<'a> {
    Native(&'a [SessionId]),
    /// Little-endian, as an entry has them.
    Stored(&'a [[u8; 8]]),
}

impl<'a> SessionIds<'a> {
    /// A list in memory.
    #[must_use]
    pub const fn new(ids: &'a [SessionId]) -> Self {
        Self(SessionIdsInner::Native(ids))
    }

    /// A list inside an entry; nothing if its length is not that of any list.
    fn stored(bytes: &'a [u8]) -> Option<Self> {
        let (ids, rest) = bytes.as_chunks();
        rest.is_empty().then_some(Self(SessionIdsInner::Stored(ids)))
    }

    /// The ids, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SessionId> + 'a {
        let inner = self.0;
        (0..self.len()).map(move |index| {
            let id = match inner {
                SessionIdsInner::Native(ids) => ids.get(index).copied(),
                SessionIdsInner::Stored(ids) => {
                    ids.get(index).map(|id| SessionId(Revision(u64::from_le_bytes(*id))))
                }
            };
            id.unwrap_or_default()
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            SessionIdsInner::Native(ids) => ids.len(),
            SessionIdsInner::Stored(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for SessionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SessionIds<'_> {}

impl std::fmt::Debug for SessionIds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// How a session's write ended. Part of the entry that carries the write, so that both happen or neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The session.
    pub session: SessionId,
    /// The write's number in it.
    pub seq: SessionSeq,
    /// Outcomes of the session below this were received by the client and may be forgotten.
    pub acknowledged_below: SessionSeq,
    /// The result's code; the shard defines them.
    pub code: u16,
    /// The write's revision, or zero where there is none.
    pub revision: Revision,
    /// How many keys it changed, or another count the code explains.
    pub count: u32,
}
