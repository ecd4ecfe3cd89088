//! The archived form of an entry: records of fixed size that name bytes written before them.

use rkyv::{Archive, Serialize};

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
    SessionEvict { evicted_up_to: u64, sessions: Stored },
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

/// Bytes of the entry that stand before the archive: by position, from the entry's first byte on, and length. The archive
/// does not own them, so its validation does not walk over them; that they lie inside the entry is checked when it is read.
#[derive(Archive, Serialize, Clone, Copy)]
pub(super) struct Stored {
    pub(super) position: u32,
    pub(super) length: u32,
}

impl ArchivedStored {
    /// The bytes, if they lie inside the entry.
    pub(super) fn of<'a>(&self, entry: &'a [u8]) -> Option<&'a [u8]> {
        let position = usize::try_from(self.position.to_native()).ok()?;
        let length = usize::try_from(self.length.to_native()).ok()?;
        entry.get(position..)?.get(..length)
    }
}
