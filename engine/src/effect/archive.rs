//! The archived form of an entry: records of fixed size that point back at bytes written before them.
//!
//! Invariant: bytes are written in the order in which the records that name them are, because validation takes every
//! byte once and in order.

use rkyv::rancor::Fallible;
use rkyv::rend::unaligned::u64_ule;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place, Serialize};

/// Bytes of the prefix before the archive.
pub(super) const PREFIX_BYTES: usize = 16;
/// Where in the prefix the newest revision is; it can be read without the archive.
pub(super) const REVISION_AT: usize = 8;

/// The root of the archive.
#[derive(Archive, Serialize)]
pub(super) struct EntryRecord {
    pub(super) wall_ms: u64,
    pub(super) effects: Vec<EffectRecord>,
    pub(super) outcomes: Vec<OutcomeRecord>,
}

/// One effect. The order of the variants is the format.
#[derive(Archive, Serialize)]
pub(super) enum EffectRecord {
    Put(PutRecord),
    Delete { namespace: u32, revision: u64, key: Stored },
    SessionOpen { session: u64, nonce: u64 },
    SessionEvict { evicted_up_to: u64, sessions: StoredIds },
    Horizon { revision: u64 },
    Floor { revision: u64 },
    SystemPut { key: Stored, value: Stored },
    SystemRemove { key: Stored },
    ClusterVersion { version: u32 },
    Lock { body: Stored },
    Prepare { body: Stored },
    Commit { body: Stored },
    Digest { body: Stored },
}

/// The fields of a put.
#[derive(Archive, Serialize)]
pub(super) struct PutRecord {
    pub(super) namespace: u32,
    pub(super) revision: u64,
    pub(super) create_revision: u64,
    pub(super) version: u64,
    pub(super) lease: u64,
    pub(super) expiry_ms: u64,
    pub(super) flags: u16,
    pub(super) type_tag: u8,
    pub(super) key: Stored,
    pub(super) value: Stored,
}

/// One outcome.
#[derive(Archive, Serialize)]
pub(super) struct OutcomeRecord {
    pub(super) session: u64,
    pub(super) seq: u64,
    pub(super) acknowledged_below: u64,
    pub(super) revision: u64,
    pub(super) count: u32,
    pub(super) code: u16,
}

/// Bytes that are in the buffer already.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) position: usize,
    pub(super) length: usize,
}

impl Archive for Stored {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.length, resolver, out);
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for Stored {
    fn serialize(&self, _: &mut S) -> Result<Self::Resolver, S::Error> {
        Ok(VecResolver::from_pos(self.position))
    }
}

/// Session ids that are in the buffer already, as little-endian numbers.
#[derive(Clone, Copy)]
pub(super) struct StoredIds {
    pub(super) position: usize,
    pub(super) count: usize,
}

impl Archive for StoredIds {
    type Archived = ArchivedVec<u64_ule>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.count, resolver, out);
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for StoredIds {
    fn serialize(&self, _: &mut S) -> Result<Self::Resolver, S::Error> {
        Ok(VecResolver::from_pos(self.position))
    }
}
