//! Building an entry: bytes go into the buffer as they are pushed, records when it is finished.

use bytes::Bytes;
use mesh_base::Revision;
use mesh_base::bytesio::Writer;
use rkyv::rancor;

use super::archive::{
    EffectRecord, EntryRecord, OutcomeRecord, PREFIX_BYTES, PutRecord, REVISION_AT, Stored,
};
use super::{ENTRY_FORMAT, ENTRY_MIN_READER, Effect, Outcome, ReservedEffect};

/// What an entry says of itself as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHead {
    /// The newest revision among its effects; zero if none has one.
    pub revision_high: Revision,
    /// The leader's wall clock when it evaluated, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// The most of a buffer that is kept from one entry to the next.
const BUFFER_BYTES_KEPT_MAX: usize = 256 * 1024;

/// An entry in the making. Reusable: [`EntryBuilder::finish`] leaves it empty.
#[derive(Default)]
pub struct EntryBuilder {
    buffer: Vec<u8>,
    effects: Vec<EffectRecord>,
    outcomes: Vec<OutcomeRecord>,
}

impl EntryBuilder {
    /// An empty entry.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), effects: Vec::new(), outcomes: Vec::new() }
    }

    /// Adds an effect. Its bytes are copied into the entry's buffer.
    pub fn push(&mut self, effect: &Effect<'_>) {
        let record = match *effect {
            Effect::Put { namespace, key, revision, attributes, value } => EffectRecord::Put(PutRecord {
                namespace: namespace.get(),
                revision: revision.get(),
                create_revision: attributes.create_revision.get(),
                version: attributes.version,
                lease: attributes.lease,
                expiry_ms: attributes.expiry_ms,
                flags: attributes.flags,
                type_tag: attributes.type_tag,
                key: self.store(key),
                value: self.store(value),
            }),
            Effect::Delete { namespace, key, revision } => EffectRecord::Delete {
                namespace: namespace.get(),
                revision: revision.get(),
                key: self.store(key),
            },
            Effect::SessionOpen { session, nonce } => {
                EffectRecord::SessionOpen { session: session.get(), nonce }
            }
            Effect::SessionEvict { sessions, evicted_up_to } => {
                let position = self.start();
                sessions.iter().for_each(|id| self.buffer.put_u64(id.get()));
                let sessions = self.stored(position);
                EffectRecord::SessionEvict { evicted_up_to: evicted_up_to.get(), sessions }
            }
            Effect::Horizon { revision } => EffectRecord::Horizon { revision: revision.get() },
            Effect::Floor { revision } => EffectRecord::Floor { revision: revision.get() },
            Effect::System { key, value: Some(value) } => {
                EffectRecord::SystemPut { key: self.store(key), value: self.store(value) }
            }
            Effect::System { key, value: None } => EffectRecord::SystemRemove { key: self.store(key) },
            Effect::ClusterVersion { version } => EffectRecord::ClusterVersion { version },
            Effect::Reserved { kind, body } => {
                let body = self.store(body);
                match kind {
                    ReservedEffect::Lock => EffectRecord::Lock { body },
                    ReservedEffect::Prepare => EffectRecord::Prepare { body },
                    ReservedEffect::Commit => EffectRecord::Commit { body },
                    ReservedEffect::Digest => EffectRecord::Digest { body },
                }
            }
        };
        self.effects.push(record);
    }

    /// Adds the outcome of a session's write.
    pub fn push_outcome(&mut self, outcome: &Outcome) {
        self.outcomes.push(OutcomeRecord {
            session: outcome.session.get(),
            seq: outcome.seq.get(),
            acknowledged_below: outcome.acknowledged_below.get(),
            revision: outcome.revision.get(),
            count: outcome.count,
            code: outcome.code,
        });
    }

    /// Forgets everything that was pushed.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.effects.clear();
        self.outcomes.clear();
    }

    /// Bytes that the finished entry takes.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.buffer.len().max(PREFIX_BYTES)
            + self.effects.len() * size_of::<rkyv::Archived<EffectRecord>>()
            + self.outcomes.len() * size_of::<rkyv::Archived<OutcomeRecord>>()
            + size_of::<rkyv::Archived<EntryRecord>>()
    }

    /// How many effects were pushed.
    #[must_use]
    pub const fn effects(&self) -> usize {
        self.effects.len()
    }

    /// Whether neither an effect nor an outcome was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.outcomes.is_empty()
    }

    /// Encodes the entry and leaves the builder empty.
    ///
    /// # Panics
    /// When the entry is larger than 2 GiB, which the bounds on an entry rule out.
    #[must_use]
    #[allow(
        clippy::expect_used,
        reason = "a vector takes every write; only relative pointers above 2 GiB overflow"
    )]
    pub fn finish(&mut self, head: EntryHead) -> Bytes {
        let size = self.byte_size();
        self.start();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.reserve(size - buffer.len());
        if let Some(place) = buffer.get_mut(REVISION_AT..PREFIX_BYTES) {
            place.copy_from_slice(&head.revision_high.get().to_le_bytes());
        }
        let record = EntryRecord {
            wall_ms: head.wall_ms,
            effects: std::mem::take(&mut self.effects),
            outcomes: std::mem::take(&mut self.outcomes),
        };
        let bytes = rkyv::api::high::to_bytes_in::<_, rancor::Failure>(&record, buffer).expect("fits");
        assert_eq!(bytes.len(), size, "the running size is exact");
        self.effects = record.effects;
        self.effects.clear();
        self.outcomes = record.outcomes;
        self.outcomes.clear();
        // A copy of its very size: the buffer that the next entry grows in has room for that.
        let entry = Bytes::copy_from_slice(&bytes);
        if bytes.capacity() <= BUFFER_BYTES_KEPT_MAX {
            self.buffer = bytes;
            self.buffer.clear();
        }
        entry
    }

    /// The position of the next byte; the prefix is written before the first.
    fn start(&mut self) -> usize {
        if self.buffer.is_empty() {
            self.buffer.put_u16(ENTRY_FORMAT);
            self.buffer.put_u16(ENTRY_MIN_READER);
            self.buffer.pad_to(PREFIX_BYTES);
        }
        self.buffer.len()
    }

    fn store(&mut self, bytes: &[u8]) -> Stored {
        let position = self.start();
        self.buffer.put_bytes(bytes);
        self.stored(position)
    }

    /// What was written from a position on.
    #[allow(clippy::cast_possible_truncation, reason = "the bounds on an entry are far below 4 GiB")]
    fn stored(&self, position: usize) -> Stored {
        Stored { position: position as u32, length: (self.buffer.len() - position) as u32 }
    }
}
