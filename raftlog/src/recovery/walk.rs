//! Walks the batches of one segment and decides where its log ends.
//!
//! Of a segment with a successor the log ends at the successor's cut, and everything up to there must be intact. Of the
//! newest segment it ends at the first batch that is not intact: that is where a crash tore it, unless something behind
//! testifies that this batch was durable. Then it is damage.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{FileId, IoOp, IoPort, IoQueue, IoToken};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{BatchSeq, Revision, SegmentNo};
use raft::eraftpb::Entry;

use super::replay::Replay;
use super::{TornTail, foreign};
use crate::contents::Place;
use crate::error::LogError;
use crate::footer::Footer;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, resembles_batch};
use crate::format::segment::{Cut, SegmentHeader};
use crate::options::LogOptions;
use crate::recovery::reader::FileReader;

/// What a segment turned out to hold.
#[derive(Clone, Debug)]
pub(crate) struct SegmentEnd {
    /// Its last batch that is part of the log.
    pub(crate) head: Cut,
    /// Where the log ends in it, in bytes.
    pub(crate) offset: u64,
    pub(crate) batches: u64,
    pub(crate) footer: Footer,
    pub(crate) torn: Option<TornTail>,
}

#[derive(Debug)]
enum Phase {
    /// Taking batches.
    Batches,
    /// Looking behind the end for testimony that it is damage.
    Traces { end: u64, batches: u64, begun: Begun },
    /// Waiting for reads that are not needed any more.
    Done(SegmentEnd),
}

/// Whether a batch was begun where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begun {
    Yes,
    No,
}

/// What is at the position.
enum Found {
    /// More bytes are needed to tell.
    Need(usize),
    /// The next batch and its payload.
    Batch(BatchHeader, Bytes),
    /// No intact batch that continues the log.
    Nothing,
}

/// A batch that can be read, and of which nothing says that it is durable.
#[derive(Debug)]
struct Unproven {
    seq: BatchSeq,
    offset: u64,
    bytes: Bytes,
}

/// The walk through one segment.
#[derive(Debug)]
pub(crate) struct SegmentWalk {
    segment: SegmentNo,
    salt: u64,
    /// Its successor's header, which says where it was cut; none for the newest segment.
    successor: Option<SegmentHeader>,
    head: Cut,
    footer: Footer,
    revision_of: fn(&Entry) -> Revision,
    batches: u64,
    /// Batches of the newest segment, oldest first: as many at most as were in flight at a time.
    unproven: VecDeque<Unproven>,
    reader: FileReader,
    file_bytes: u64,
    phase: Phase,
}

impl SegmentWalk {
    /// Begins behind the segment's header.
    pub(crate) fn new(
        header: &SegmentHeader,
        successor: Option<&SegmentHeader>,
        file_bytes: u64,
        options: &LogOptions,
    ) -> Self {
        let file = FileId::Segment(header.segment);
        Self {
            segment: header.segment,
            salt: header.salt,
            successor: successor.cloned(),
            head: header.cut,
            footer: Footer::default(),
            revision_of: options.revision_of,
            batches: 0,
            unproven: VecDeque::new(),
            reader: FileReader::new(file, SECTOR_BYTES as u64, file_bytes, options.read_bytes),
            file_bytes,
            phase: Phase::Batches,
        }
    }

    /// Takes what a read brought.
    pub(crate) fn complete(&mut self, token: IoToken, bytes: Bytes) {
        assert!(self.reader.complete(token, bytes), "a completion of what was never submitted");
    }

    /// Goes on as far as the bytes that were read allow.
    pub(crate) fn advance(
        &mut self,
        replay: &mut Replay,
        port: &mut IoPort,
        io: &mut IoQueue,
    ) -> Result<Option<SegmentEnd>, LogError> {
        loop {
            let need = match &self.phase {
                Phase::Batches => self.take_batches(replay)?,
                Phase::Traces { .. } => self.look_for_traces()?,
                Phase::Done(end) => return Ok((!self.reader.is_reading()).then(|| end.clone())),
            };
            if let Some(need) = need {
                self.reader.read_ahead(need, port, io);
                return Ok(None);
            }
        }
    }

    /// Writes the batches again of which nothing says that they are durable, as they are and where they are. Answers
    /// the writes.
    pub(crate) fn rewrite_unproven(&mut self, port: &mut IoPort, io: &mut IoQueue) -> Vec<IoToken> {
        let file = FileId::Segment(self.segment);
        let write = |Unproven { offset, bytes, .. }| IoOp::Write { file, offset, data: bytes };
        let batches = self.unproven.drain(..).filter(|_| !flaw::is_planted(Flaw::TrustUnprovenBatches));
        batches.map(|batch| port.submit(io, write(batch))).collect()
    }

    /// Takes the batches in the window. Answers the bytes it needs to go on, or none when the phase is over.
    fn take_batches(&mut self, replay: &mut Replay) -> Result<Option<usize>, LogError> {
        loop {
            if let Some(next) = self.successor.as_ref().filter(|next| next.cut.seq <= self.head.seq) {
                let position = self.reader.position();
                if next.cut != self.head {
                    return Err(self.corrupt(position, "the next segment follows another batch"));
                }
                if next.footer != self.footer {
                    return Err(self.corrupt(position, "the next segment has another footer of this one"));
                }
                self.finish(position, None);
                return Ok(None);
            }
            match self.look()? {
                Found::Need(bytes) => return Ok(Some(bytes)),
                Found::Batch(header, payload) => self.take(&header, payload, replay)?,
                Found::Nothing if self.successor.is_some() => {
                    let what = "a batch is damaged that the next segment relies on";
                    return Err(self.corrupt(self.reader.position(), what));
                }
                Found::Nothing => {
                    let begun = resembles_batch(self.reader.window(), self.salt);
                    let begun = if begun { Begun::Yes } else { Begun::No };
                    self.phase = Phase::Traces { end: self.reader.position(), batches: 0, begun };
                    return Ok(None);
                }
            }
        }
    }

    fn take(&mut self, header: &BatchHeader, payload: Bytes, replay: &mut Replay) -> Result<(), LogError> {
        let (offset, bytes) = (self.reader.position(), header.batch_bytes());
        let unpadded = BATCH_HEADER_BYTES + payload.len();
        let place = Place { segment: self.segment, offset, bytes: bytes as u64 };
        let facts = replay.batch(payload, place, self.revision_of)?;
        let whole = self.reader.window().get(..bytes).unwrap_or_default();
        self.footer.add(whole.get(..unpadded).unwrap_or_default(), &facts, place);
        if self.successor.is_none() {
            let proven = header.durable_through;
            while self.unproven.pop_front_if(|batch| batch.seq <= proven).is_some() {}
            let bytes = Bytes::copy_from_slice(whole);
            self.unproven.push_back(Unproven { seq: header.seq, offset, bytes });
        }
        self.head = Cut { seq: header.seq, crc: header.crc };
        self.batches += 1;
        self.reader.skip(bytes);
        Ok(())
    }

    fn look(&self) -> Result<Found, LogError> {
        let window = self.reader.window();
        if window.len() < BATCH_HEADER_BYTES && !self.reader.is_at_end() {
            return Ok(Found::Need(SECTOR_BYTES));
        }
        let fits =
            |header: &BatchHeader| self.reader.position() + header.batch_bytes() as u64 <= self.file_bytes;
        let continues = |header: &BatchHeader| {
            header.salt == self.salt
                && header.seq == self.head.seq.next()
                && header.prev_crc == self.head.crc
                && header.durable_through < header.seq
        };
        let header = BatchHeader::decode(window)
            .filter(fits)
            .filter(|header| continues(header) || flaw::is_planted(Flaw::ReviveDeadBatch));
        let Some(header) = header else { return Ok(Found::Nothing) };
        if window.len() < header.batch_bytes() && !self.reader.is_at_end() {
            return Ok(Found::Need(header.batch_bytes()));
        }
        let whole = window.get(..header.batch_bytes());
        let Some(payload) = whole.and_then(|whole| header.payload(whole)) else { return Ok(Found::Nothing) };
        foreign(header.encoding, FileId::Segment(self.segment), self.reader.position())?;
        // A copy of its own: entries stay in memory without what was around them on disk.
        Ok(Found::Batch(header, Bytes::copy_from_slice(payload)))
    }

    /// Looks at every sector behind the end for the header of a batch of this segment.
    fn look_for_traces(&mut self) -> Result<Option<usize>, LogError> {
        let Phase::Traces { end, mut batches, begun } = self.phase else { return Ok(None) };
        loop {
            let window = self.reader.window();
            if window.len() < SECTOR_BYTES && !self.reader.is_at_end() {
                self.phase = Phase::Traces { end, batches, begun };
                return Ok(Some(SECTOR_BYTES));
            }
            if window.is_empty() {
                break;
            }
            if let Some(header) = BatchHeader::decode(window).filter(|header| header.salt == self.salt) {
                if header.durable_through > self.head.seq && !flaw::is_planted(Flaw::CutDurableBatch) {
                    return Err(self.corrupt(end, "a batch is damaged that was durable"));
                }
                batches += u64::from(header.seq > self.head.seq);
            }
            self.reader.skip(SECTOR_BYTES);
        }
        let torn = batches > 0 || begun == Begun::Yes;
        let file = FileId::Segment(self.segment);
        self.finish(end, torn.then_some(TornTail { file, offset: end, batches_dropped: batches }));
        Ok(None)
    }

    fn finish(&mut self, offset: u64, torn: Option<TornTail>) {
        let (head, batches, footer) = (self.head, self.batches, self.footer.clone());
        self.phase = Phase::Done(SegmentEnd { head, offset, batches, footer, torn });
    }

    const fn corrupt(&self, offset: u64, what: &'static str) -> LogError {
        LogError::Corrupt { file: FileId::Segment(self.segment), offset, what }
    }
}
