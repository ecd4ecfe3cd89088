//! Batches that are not written yet: what arrives while writes are in flight gathers here and shares the next write.

use std::collections::VecDeque;

use mesh_base::buffers::Buffers;
use mesh_base::limits::{LOG_BUFFER_BYTES_KEPT_MAX, LOG_WRITES_IN_FLIGHT_MAX, SECTOR_BYTES};
use mesh_base::{BatchSeq, LogIndex, Revision, Term};

use crate::base::{Base, EntryPosition};
use crate::footer::BatchFacts;
use crate::format::batch::{BATCH_HEADER_BYTES, batch_bytes};

/// A batch that gathers records.
#[derive(Debug)]
pub(crate) struct FormingBatch {
    pub(crate) seq: BatchSeq,
    /// Room for the header, then the records.
    pub(crate) buffer: Vec<u8>,
    pub(crate) records: u32,
    pub(crate) facts: BatchFacts,
    /// The terms of the entries it leaves in the log: the first entry of each run.
    pub(crate) terms: Vec<(LogIndex, Term)>,
    /// The log as of this batch.
    pub(crate) after: Base,
}

impl FormingBatch {
    /// Bytes it takes on disk.
    pub(crate) const fn batch_bytes(&self) -> u64 {
        batch_bytes(self.buffer.len() - BATCH_HEADER_BYTES) as u64
    }

    /// Notes that an entry's record was added.
    pub(crate) fn note_entry(&mut self, at: EntryPosition, revision: Revision) {
        self.facts.note_entry(at.index, revision);
        while self.terms.pop_if(|(first, _)| *first >= at.index).is_some() {}
        if self.terms.last().is_none_or(|(_, term)| *term != at.term) {
            self.terms.push((at.index, at.term));
        }
    }

    /// Notes that a record was added after which the log starts anew.
    pub(crate) fn note_restart(&mut self, at: EntryPosition) {
        self.facts.note_restart(at);
        self.terms.clear();
    }
}

/// The batches that are not written yet, in order.
#[derive(Debug)]
pub(crate) struct Forming {
    queue: VecDeque<FormingBatch>,
    newest: BatchSeq,
    payload_bytes_max: usize,
    pub(crate) buffers: Buffers,
}

impl Forming {
    /// No batches; the next follows `newest`. A batch takes another record while its payload stays within the bytes.
    pub(crate) const fn new(newest: BatchSeq, payload_bytes_max: usize) -> Self {
        let buffers = Buffers::new(LOG_WRITES_IN_FLIGHT_MAX, LOG_BUFFER_BYTES_KEPT_MAX);
        Self { queue: VecDeque::new(), newest, payload_bytes_max, buffers }
    }

    /// The newest batch there is, written or not.
    pub(crate) const fn newest(&self) -> BatchSeq {
        self.newest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a record of so many bytes, after which the log is as `after` says, and answers the batch it is in.
    pub(crate) fn add(
        &mut self,
        record_bytes: usize,
        after: Base,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> &mut FormingBatch {
        let most = BATCH_HEADER_BYTES + self.payload_bytes_max;
        if self.queue.back().is_none_or(|last| last.buffer.len() + record_bytes > most) {
            self.begin(after);
        }
        let batch = self.last();
        let before = batch.buffer.len();
        // With room for what sealing adds, so that it moves nothing.
        let sealed = (before + record_bytes).next_multiple_of(SECTOR_BYTES);
        batch.buffer.reserve(sealed - before);
        write(&mut batch.buffer);
        assert!(batch.buffer.len() - before <= record_bytes, "a record is as long as was said");
        batch.records += 1;
        batch.after = after;
        batch
    }

    /// Begins a batch; without records it is a marker.
    pub(crate) fn begin(&mut self, after: Base) {
        self.newest = self.newest.next();
        let mut buffer = self.buffers.take(SECTOR_BYTES);
        buffer.resize(BATCH_HEADER_BYTES, 0);
        self.queue.push_back(FormingBatch {
            seq: self.newest,
            buffer,
            records: 0,
            facts: BatchFacts::default(),
            terms: Vec::new(),
            after,
        });
    }

    #[allow(clippy::expect_used, reason = "called when a batch was found or begun")]
    fn last(&mut self) -> &mut FormingBatch {
        self.queue.back_mut().expect("a batch is forming")
    }

    /// The oldest batch.
    pub(crate) fn front(&self) -> Option<&FormingBatch> {
        self.queue.front()
    }

    /// Takes the oldest batch.
    pub(crate) fn pop(&mut self) -> Option<FormingBatch> {
        self.queue.pop_front()
    }

    /// Bytes of memory, buffers that are free aside: those are few, whatever is appended.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.queue.iter().map(|batch| batch.buffer.capacity()).sum()
    }
}
