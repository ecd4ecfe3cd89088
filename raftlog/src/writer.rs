//! Writes batches to the active segment: several in flight at adjacent offsets, durable strictly in order.
//!
//! Invariants:
//! - A batch that completed before one ahead of it is *written*, not durable. Only [`Durable`] is ever acknowledged.
//! - A batch is not written into space that a write of zeros in flight may still overwrite.
//!
//! Deliberately absent: any retry. A write that fails ends the log.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::buffers::Buffers;
use mesh_base::io::{FileId, IoOp, IoPort, IoQueue, IoToken};
use mesh_base::limits::{LOG_HEADER_TERM_RUNS_MAX, LOG_ZERO_WRITE_BYTES, SECTOR_BYTES};
use mesh_base::{BatchSeq, LogIndex, SegmentNo, Term};

use crate::base::Base;
use crate::contents::{Contents, Place, Terms};
use crate::footer::{BatchFacts, Footer};
use crate::format::batch::{Seal, seal};
use crate::format::segment::{Cut, Standing};
use crate::forming::FormingBatch;
use crate::options::LogOptions;

/// Every batch up to this one is durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Durable(pub(crate) BatchSeq);

impl Durable {
    /// The newest durable batch.
    #[must_use]
    pub const fn seq(self) -> BatchSeq {
        self.0
    }

    /// Whether the batch is durable.
    #[must_use]
    pub fn covers(self, seq: BatchSeq) -> bool {
        seq <= self.0
    }
}

/// The segment that batches are appended to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub(crate) segment: SegmentNo,
    pub(crate) salt: u64,
    /// The last entry when it began.
    pub(crate) after: LogIndex,
    /// Where the next batch goes, in bytes.
    pub(crate) offset: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
    /// Up to here the file was written before, with zeros or with what is dead: appends change no metadata.
    pub(crate) zeroed_to: u64,
}

/// A batch on its way to the disk.
#[derive(Debug)]
struct InFlight {
    token: IoToken,
    seq: BatchSeq,
    progress: Progress,
    durable_through: BatchSeq,
    data: Bytes,
    /// The log as of this batch.
    after: Base,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Writing,
    /// On disk, but one ahead of it may not be.
    Written,
}

/// Where the next batch can go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// Into the active segment, now.
    Here,
    /// Into the active segment, once the write of zeros in flight is complete.
    AfterZeros,
    /// Into its reserve, which is for batches without entries while there is no other segment.
    Reserve,
    /// Into the next segment.
    NextSegment,
}

/// What was submitted.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) place: Place,
    pub(crate) facts: BatchFacts,
}

/// The writing end of a log.
#[derive(Debug)]
pub(crate) struct Writer {
    active: Active,
    /// The newest batch submitted.
    head: Cut,
    /// What the segment before the active one holds.
    footer_before: Footer,
    /// What was submitted to the active segment.
    footer: Footer,
    /// The log as of the newest batch submitted.
    submitted: Base,
    /// The terms of its entries.
    submitted_terms: Terms,
    in_flight: VecDeque<InFlight>,
    durable: BatchSeq,
    /// The log as of the newest durable batch.
    durable_base: Base,
    /// The newest batch with records.
    newest_real: BatchSeq,
    /// Every batch up to here is said to be durable by something durable.
    attested: BatchSeq,
    zeroing: Option<(IoToken, u64)>,
    zeros: Bytes,
    in_flight_max: usize,
    reserve_bytes: u64,
    zero_ahead_bytes: u64,
    segment_bytes: u64,
}

impl Writer {
    /// A writer whose segment has just begun: nothing is in flight, all up to the cut is durable.
    pub(crate) fn new(
        active: Active,
        cut: Cut,
        before: Footer,
        log: &Contents,
        options: &LogOptions,
    ) -> Self {
        let base = log.base;
        Self {
            active,
            head: cut,
            footer_before: before,
            footer: Footer::default(),
            submitted: base,
            submitted_terms: log.terms.clone(),
            in_flight: VecDeque::new(),
            durable: cut.seq,
            durable_base: base,
            newest_real: cut.seq,
            attested: cut.seq,
            zeroing: None,
            zeros: Bytes::new(),
            in_flight_max: options.writes_in_flight_max,
            reserve_bytes: options.reserve_bytes(),
            zero_ahead_bytes: options.zero_ahead_bytes,
            segment_bytes: options.segment_bytes,
        }
    }

    pub(crate) const fn active(&self) -> &Active {
        &self.active
    }

    /// The newest batch submitted: where a segment that follows now is cut.
    pub(crate) const fn head(&self) -> Cut {
        self.head
    }

    /// Whether nothing was submitted to the active segment.
    pub(crate) const fn is_at_start(&self) -> bool {
        self.active.offset == SECTOR_BYTES as u64
    }

    /// What a segment says that follows the active one now.
    pub(crate) fn standing(&self) -> Standing {
        self.standing_after(&self.footer)
    }

    /// What a segment says that replaces the active one now, to which nothing was submitted.
    pub(crate) fn standing_instead(&self) -> Standing {
        assert!(self.is_at_start(), "batches are never given up");
        self.standing_after(&self.footer_before)
    }

    fn standing_after(&self, footer: &Footer) -> Standing {
        let terms = self.submitted_terms.newest(LOG_HEADER_TERM_RUNS_MAX);
        Standing { cut: self.head, footer: footer.clone(), base: self.submitted, terms }
    }

    pub(crate) const fn durable(&self) -> Durable {
        Durable(self.durable)
    }

    /// The log as of the newest durable batch.
    pub(crate) const fn durable_base(&self) -> &Base {
        &self.durable_base
    }

    /// Whether another write may be in flight.
    pub(crate) fn has_capacity(&self) -> bool {
        self.in_flight.len() < self.in_flight_max
    }

    /// Whether nothing, zeros included, is in flight.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty() && self.zeroing.is_none()
    }

    /// Whether the newest real batches would be taken for a torn tail if they were damaged now.
    pub(crate) fn needs_marker(&self) -> bool {
        self.in_flight.is_empty() && self.attested < self.newest_real
    }

    /// Where a batch of so many bytes can go.
    pub(crate) fn room_for(&self, batch: &FormingBatch) -> Room {
        let end = self.active.offset + batch.batch_bytes();
        let reserved = end + self.reserve_bytes > self.active.capacity;
        if end > self.active.capacity || (reserved && batch.facts.entries.is_some()) {
            Room::NextSegment
        } else if self.overlaps_zeros(end) {
            Room::AfterZeros
        } else if reserved {
            Room::Reserve
        } else {
            Room::Here
        }
    }

    /// Whether a batch that ends here would meet the zeros in flight.
    fn overlaps_zeros(&self, end: u64) -> bool {
        self.zeroing.is_some() && end > self.active.zeroed_to
    }

    /// Writes a batch that has room.
    pub(crate) fn submit(&mut self, batch: FormingBatch, port: &mut IoPort, io: &mut IoQueue) -> Submitted {
        let end = self.active.offset + batch.batch_bytes();
        let FormingBatch { seq, buffer, records, facts, terms, after } = batch;
        assert_eq!(seq, self.head.seq.next(), "batches are written in order");
        assert!(self.has_capacity());
        assert!(end <= self.active.capacity && !self.overlaps_zeros(end));
        let fields = Seal {
            salt: self.active.salt,
            seq,
            durable_through: self.durable,
            prev_crc: self.head.crc,
            records,
        };
        if records > 0 {
            self.newest_real = seq;
        }
        let unpadded = buffer.len();
        let (data, crc) = seal(buffer, fields);
        let (file, offset, bytes) = (FileId::Segment(self.active.segment), self.active.offset, data.len());
        assert_eq!(offset + bytes as u64, end);
        let place = Place { segment: self.active.segment, offset, bytes: bytes as u64 };
        self.footer.add(data.get(..unpadded).unwrap_or_default(), &facts, place);
        let token = port.submit(io, IoOp::Write { file, offset, data: data.clone() });
        self.in_flight.push_back(InFlight {
            token,
            seq,
            progress: Progress::Writing,
            durable_through: self.durable,
            data,
            after,
        });
        self.head = Cut { seq, crc };
        self.submitted = after;
        self.note_terms(&facts, &terms);
        self.active.offset = end;
        self.active.zeroed_to = self.active.zeroed_to.max(end);
        Submitted { place, facts }
    }

    fn note_terms(&mut self, facts: &BatchFacts, runs: &[(LogIndex, Term)]) {
        let terms = &mut self.submitted_terms;
        if let Some(at) = facts.restart {
            *terms = Terms::new(at);
        }
        if let Some((first, last)) = facts.entries {
            terms.cut_from(first);
            terms.extend(runs, last);
        }
        terms.trim_to(self.submitted.truncated);
        assert_eq!(terms.last(), self.submitted.last, "every entry was noted");
    }

    /// Takes the completion of a write, if it is one of this writer's; answers whether it was. What it wrote from is given
    /// back.
    pub(crate) fn complete(&mut self, token: IoToken, buffers: &mut Buffers) -> bool {
        if let Some((_, end)) = self.zeroing.take_if(|(zeroing, _)| *zeroing == token) {
            self.active.zeroed_to = end;
            return true;
        }
        let Some(batch) = self.in_flight.iter_mut().find(|batch| batch.token == token) else {
            return false;
        };
        batch.progress = Progress::Written;
        buffers.give_back(std::mem::take(&mut batch.data));
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.progress == Progress::Written) {
            assert_eq!(batch.seq, self.durable.next(), "batches become durable in order");
            self.durable = batch.seq;
            self.durable_base = batch.after;
            self.attested = self.attested.max(batch.durable_through);
        }
        true
    }

    /// Writes zeros ahead of the append position, one write at a time.
    pub(crate) fn zero_ahead(&mut self, port: &mut IoPort, io: &mut IoQueue) {
        let goal = self.active.capacity.min(self.active.offset + self.zero_ahead_bytes);
        if self.zeroing.is_some() {
            return;
        }
        if self.active.zeroed_to >= goal {
            if goal == self.active.capacity {
                self.zeros = Bytes::new();
            }
            return;
        }
        let offset = self.active.zeroed_to;
        let data = zeros(&mut self.zeros, self.active.capacity - offset);
        let end = offset + data.len() as u64;
        let token = port.submit(io, IoOp::Write { file: FileId::Segment(self.active.segment), offset, data });
        self.zeroing = Some((token, end));
    }

    /// Goes on in a segment whose header is durable: after everything in the one before, or in the place of one in which
    /// there is nothing.
    pub(crate) fn begin(&mut self, active: Active) {
        assert!(self.is_quiet() && self.durable == self.head.seq, "the old segment is complete");
        assert_eq!(active.offset, SECTOR_BYTES as u64);
        assert!(active.capacity <= self.segment_bytes);
        // The new header says what the old segment must hold.
        self.attested = self.durable;
        let replaced = active.segment == self.active.segment;
        let footer = std::mem::take(&mut self.footer);
        if !replaced {
            self.footer_before = footer;
        }
        self.active = active;
    }

    /// Bytes of memory, the one buffer of zeros aside.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.in_flight.iter().map(|batch| batch.data.len()).sum()
    }
}

/// Zeros to write, at most so many bytes; the buffer is made once and shared by the writes.
pub(crate) fn zeros(buffer: &mut Bytes, bytes_max: u64) -> Bytes {
    if buffer.is_empty() {
        *buffer = vec![0; LOG_ZERO_WRITE_BYTES].into();
    }
    let bytes = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(buffer.len());
    buffer.slice(..bytes)
}
