//! Reading an entry in place.

use mesh_base::bytesio::Reader;
use mesh_base::{Namespace, Revision, SessionId, SessionSeq};
use rkyv::rancor;

use super::archive::{
    ArchivedEffectRecord, ArchivedEntryRecord, ArchivedOutcomeRecord, ArchivedPutRecord, ArchivedStored,
    PREFIX_BYTES, REVISION_AT,
};
use super::{ENTRY_FORMAT, Effect, EntryHead, Outcome, ReservedEffect, SessionIds};
use crate::error::StoreError;
use crate::write::{Attributes, CellWrite};

/// The newest revision that the effects of an entry assign, read without the rest; zero if the bytes are no entry.
#[must_use]
pub fn newest_revision(bytes: &[u8]) -> Revision {
    let revision = bytes.get(REVISION_AT..).and_then(|bytes| Reader::new(bytes).u64());
    revision.map(Revision).unwrap_or_default()
}

/// A validated entry.
#[derive(Clone, Copy)]
pub struct EntryView<'a> {
    revision_high: Revision,
    /// All of it.
    bytes: &'a [u8],
    record: &'a ArchivedEntryRecord,
}

impl<'a> EntryView<'a> {
    /// Validates the bytes of an entry.
    ///
    /// # Errors
    /// [`StoreError::MalformedEntry`] and [`StoreError::NewerEncoding`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let (prefix, archive) = bytes
            .split_at_checked(PREFIX_BYTES)
            .ok_or(StoreError::MalformedEntry { what: "shorter than its prefix" })?;
        let mut reader = Reader::new(prefix);
        let fields = (reader.u16(), reader.u16(), reader.u32(), reader.u64());
        let (Some(version), Some(min_reader), Some(_reserved), Some(revision_high)) = fields else {
            return Err(StoreError::MalformedEntry { what: "shorter than its prefix" });
        };
        if version == 0 {
            return Err(StoreError::MalformedEntry { what: "no format version" });
        }
        if min_reader > ENTRY_FORMAT {
            let supported = ENTRY_FORMAT;
            return Err(StoreError::NewerEncoding { what: "entry", version, min_reader, supported });
        }
        if archive.len() < size_of::<ArchivedEntryRecord>() {
            return Err(StoreError::MalformedEntry { what: "shorter than its root" });
        }
        let record = rkyv::access::<ArchivedEntryRecord, rancor::Failure>(archive)
            .map_err(|_| StoreError::MalformedEntry { what: "invalid archive" })?;
        let named = record.effects.iter().map(|record| effect(bytes, record).map(|it| it.stored_bytes()));
        // No two name the same bytes, or a small entry could be a large write.
        if named.sum::<Option<usize>>().is_none_or(|named| named > bytes.len()) {
            return Err(StoreError::MalformedEntry { what: "names bytes that it does not have" });
        }
        Ok(Self { revision_high: Revision(revision_high), bytes, record })
    }

    /// What the entry says of itself as a whole.
    #[must_use]
    pub fn head(&self) -> EntryHead {
        EntryHead { revision_high: self.revision_high, wall_ms: self.record.wall_ms.to_native() }
    }

    /// The effects, in the order they were pushed.
    pub fn effects(&self) -> impl Iterator<Item = Effect<'a>> + Clone + use<'a> {
        let bytes = self.bytes;
        // All of them are there: that was checked.
        self.record.effects.as_slice().iter().filter_map(move |record| effect(bytes, record))
    }

    /// What the effects write into the page store, in order.
    pub fn cell_writes(&self) -> impl Iterator<Item = CellWrite<'a>> + Clone + use<'a> {
        self.effects().filter_map(|effect| effect.cell_write())
    }

    /// The outcomes, in the order they were pushed.
    pub fn outcomes(&self) -> impl ExactSizeIterator<Item = Outcome> + Clone + use<'a> {
        self.record.outcomes.as_slice().iter().map(outcome)
    }
}

/// The effect of a record; nothing if bytes that it names are not in the entry.
fn effect<'a>(entry: &'a [u8], record: &'a ArchivedEffectRecord) -> Option<Effect<'a>> {
    type Record = ArchivedEffectRecord;
    let reserved = |kind, body: &ArchivedStored| Some(Effect::Reserved { kind, body: body.of(entry)? });
    Some(match record {
        Record::Put(put) => return self::put(entry, put),
        Record::Delete { namespace, revision, key } => Effect::Delete {
            namespace: Namespace(namespace.to_native()),
            key: key.of(entry)?,
            revision: Revision(revision.to_native()),
        },
        Record::SessionOpen { session, nonce } => {
            Effect::SessionOpen { session: session_id(session.to_native()), nonce: nonce.to_native() }
        }
        Record::SessionEvict { evicted_up_to, sessions } => Effect::SessionEvict {
            sessions: SessionIds::stored(sessions.of(entry)?)?,
            evicted_up_to: session_id(evicted_up_to.to_native()),
        },
        Record::Horizon { revision } => Effect::Horizon { revision: Revision(revision.to_native()) },
        Record::Floor { revision } => Effect::Floor { revision: Revision(revision.to_native()) },
        Record::SystemPut { key, value } => {
            Effect::System { key: key.of(entry)?, value: Some(value.of(entry)?) }
        }
        Record::SystemRemove { key } => Effect::System { key: key.of(entry)?, value: None },
        Record::ClusterVersion { version } => Effect::ClusterVersion { version: version.to_native() },
        Record::Lock { body } => return reserved(ReservedEffect::Lock, body),
        Record::Prepare { body } => return reserved(ReservedEffect::Prepare, body),
        Record::Commit { body } => return reserved(ReservedEffect::Commit, body),
        Record::Digest { body } => return reserved(ReservedEffect::Digest, body),
    })
}

fn put<'a>(entry: &'a [u8], record: &'a ArchivedPutRecord) -> Option<Effect<'a>> {
    Some(Effect::Put {
        namespace: Namespace(record.namespace.to_native()),
        key: record.key.of(entry)?,
        revision: Revision(record.revision.to_native()),
        attributes: Attributes {
            create_revision: Revision(record.create_revision.to_native()),
            version: record.version.to_native(),
            lease: record.lease.to_native(),
            type_tag: record.type_tag,
            expiry_ms: record.expiry_ms.to_native(),
            flags: record.flags.to_native(),
        },
        value: record.value.of(entry)?,
    })
}

fn outcome(record: &ArchivedOutcomeRecord) -> Outcome {
    Outcome {
        session: session_id(record.session.to_native()),
        seq: SessionSeq(record.seq.to_native()),
        acknowledged_below: SessionSeq(record.acknowledged_below.to_native()),
        code: record.code.to_native(),
        revision: Revision(record.revision.to_native()),
        count: record.count.to_native(),
    }
}

const fn session_id(id: u64) -> SessionId {
    SessionId(Revision(id))
}
