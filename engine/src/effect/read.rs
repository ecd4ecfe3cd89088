//! Reading an entry in place.

use mesh_base::bytesio::Reader;
use mesh_base::{Namespace, Revision, SessionId, SessionSeq};
use rkyv::rancor;

use super::archive::{
    ArchivedEffectRecord, ArchivedEntryRecord, ArchivedOutcomeRecord, ArchivedPutRecord, PREFIX_BYTES,
    REVISION_AT,
};
use super::{ENTRY_FORMAT, Effect, EntryHead, Outcome, ReservedEffect, SessionIds, SessionIdsInner};
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
        Ok(Self { revision_high: Revision(revision_high), record })
    }

    /// What the entry says of itself as a whole.
    #[must_use]
    pub fn head(&self) -> EntryHead {
        EntryHead { revision_high: self.revision_high, wall_ms: self.record.wall_ms.to_native() }
    }

    /// The effects, in the order they were pushed.
    pub fn effects(&self) -> impl ExactSizeIterator<Item = Effect<'a>> + Clone + use<'a> {
        self.record.effects.as_slice().iter().map(effect)
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

fn effect(record: &ArchivedEffectRecord) -> Effect<'_> {
    type Record = ArchivedEffectRecord;
    match record {
        Record::Put(put) => self::put(put),
        Record::Delete { namespace, revision, key } => Effect::Delete {
            namespace: Namespace(namespace.to_native()),
            key,
            revision: Revision(revision.to_native()),
        },
        Record::SessionOpen { session, nonce } => {
            Effect::SessionOpen { session: session_id(session.to_native()), nonce: nonce.to_native() }
        }
        Record::SessionEvict { evicted_up_to, sessions } => Effect::SessionEvict {
            sessions: SessionIds(SessionIdsInner::Archived(sessions)),
            evicted_up_to: session_id(evicted_up_to.to_native()),
        },
        Record::Horizon { revision } => Effect::Horizon { revision: Revision(revision.to_native()) },
        Record::Floor { revision } => Effect::Floor { revision: Revision(revision.to_native()) },
        Record::SystemPut { key, value } => Effect::System { key, value: Some(value) },
        Record::SystemRemove { key } => Effect::System { key, value: None },
        Record::ClusterVersion { version } => Effect::ClusterVersion { version: version.to_native() },
        Record::Lock { body } => Effect::Reserved { kind: ReservedEffect::Lock, body },
        Record::Prepare { body } => Effect::Reserved { kind: ReservedEffect::Prepare, body },
        Record::Commit { body } => Effect::Reserved { kind: ReservedEffect::Commit, body },
        Record::Digest { body } => Effect::Reserved { kind: ReservedEffect::Digest, body },
    }
}

fn put(record: &ArchivedPutRecord) -> Effect<'_> {
    Effect::Put {
        namespace: Namespace(record.namespace.to_native()),
        key: &record.key,
        revision: Revision(record.revision.to_native()),
        attributes: Attributes {
            create_revision: Revision(record.create_revision.to_native()),
            version: record.version.to_native(),
            lease: record.lease.to_native(),
            type_tag: record.type_tag,
            expiry_ms: record.expiry_ms.to_native(),
            flags: record.flags.to_native(),
        },
        value: &record.value,
    }
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
