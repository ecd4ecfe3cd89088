//! What can be told of a segment from its bytes alone, for tools and for tests that damage it.
//!
//! Deliberately absent: anything that a recovery relies on. It goes on behind damage, which a recovery never does.

use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{BatchSeq, LogIndex, ReplicaIdentity, Revision, SegmentNo, Term};
use raft::eraftpb::{Entry, HardState};

use crate::base::{CheckpointMark, EntryPosition, SnapshotBase};
use crate::contents::Place;
use crate::footer::{BatchFacts, Footer, RevisionRange};
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, batch_bytes, resembles_batch};
use crate::format::record::{Record, RecordError, Records};
use crate::format::segment::{Cut, SegmentHeader};

/// A segment, as far as it can be read.
#[derive(Clone, PartialEq, Debug)]
pub struct SegmentSurvey {
    /// What its first sector says; nothing if that is damaged.
    pub header: Option<HeaderSurvey>,
    /// Batches with records that are intact.
    pub batches: u64,
    /// Batches without any, which only testify.
    pub markers: u64,
    /// Entries in them.
    pub entries: u64,
    /// The first and the last of these.
    pub range: Option<(EntryPosition, EntryPosition)>,
    /// The revisions that they assign.
    pub revisions: Option<RevisionRange>,
    /// The newest hard state in it.
    pub hard_state: Option<HardState>,
    /// The newest checkpoint that it notes.
    pub checkpoint: Option<CheckpointMark>,
    /// At its end, a snapshot whose page store is to be put in place, and which no checkpoint has settled.
    pub install: Option<SnapshotBase>,
    /// Where the log ends in it, in bytes.
    pub end: u64,
    /// What is behind the end.
    pub tail: Tail,
    /// What is damaged.
    pub damage: Vec<SegmentDamage>,
}

/// What a segment's first sector says of the log as it was when the segment began.
#[derive(Clone, PartialEq, Debug)]
pub struct HeaderSurvey {
    /// Whose log it is.
    pub identity: ReplicaIdentity,
    /// Which segment it is.
    pub segment: SegmentNo,
    /// The last batch before it.
    pub cut: BatchSeq,
    /// The entry before the first that was kept.
    pub truncated: EntryPosition,
    /// The last entry.
    pub last: EntryPosition,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The checkpoint last noted.
    pub checkpoint: CheckpointMark,
    /// A snapshot whose page store was to be put in place.
    pub install: Option<SnapshotBase>,
}

/// What is behind the end of the log in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// The next segment goes on.
    Continued,
    /// Nothing.
    Clean,
    /// The traces of a crash: what was there was never acknowledged.
    Torn,
}

/// A part of a segment that is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentDamage {
    /// Where, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
    /// Batches that are lost with it, where that is known.
    pub batches: u64,
    /// The entries that are lost with it, where there are some and it is known: the first and the last.
    pub entries: Option<(LogIndex, LogIndex)>,
}

/// Looks at a segment. `successor` is the first sector of the next one, if there is one.
#[must_use]
pub fn segment(bytes: &[u8], successor: Option<&[u8]>, revision_of: fn(&Entry) -> Revision) -> SegmentSurvey {
    let header = bytes.get(..SECTOR_BYTES).and_then(SegmentHeader::decode);
    let successor = successor.and_then(|sector| SegmentHeader::decode(sector.get(..SECTOR_BYTES)?));
    let mut walk = Walk {
        bytes,
        at: SECTOR_BYTES,
        // Where the header is lost, the first batch tells whose they are.
        salt: header
            .as_ref()
            .map(|header| header.salt)
            .or_else(|| Some(BatchHeader::decode(bytes.get(SECTOR_BYTES..)?)?.salt)),
        head: header.as_ref().map(|header| header.cut),
        footer: Footer::default(),
        last_entry: None,
        revision_of,
        survey: SegmentSurvey {
            header: header.as_ref().map(HeaderSurvey::of),
            batches: 0,
            markers: 0,
            entries: 0,
            range: None,
            revisions: None,
            hard_state: None,
            checkpoint: None,
            install: header.as_ref().and_then(|header| header.base.install),
            end: SECTOR_BYTES as u64,
            tail: Tail::Clean,
            damage: Vec::new(),
        },
    };
    if header.is_none() {
        walk.damage(0, "the segment's header is damaged", 0);
    }
    walk.run(successor.as_ref());
    walk.survey
}

impl HeaderSurvey {
    fn of(header: &SegmentHeader) -> Self {
        let base = &header.base;
        Self {
            identity: header.identity,
            segment: header.segment,
            cut: header.cut.seq,
            truncated: base.truncated,
            last: base.last,
            hard_state: base.ballot.into(),
            checkpoint: base.checkpoint,
            install: base.install,
        }
    }
}

/// The walk through a segment's batches.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: Option<u64>,
    /// The batch before; nothing while it is not known.
    head: Option<Cut>,
    footer: Footer,
    last_entry: Option<LogIndex>,
    revision_of: fn(&Entry) -> Revision,
    survey: SegmentSurvey,
}

impl<'a> Walk<'a> {
    fn run(&mut self, successor: Option<&SegmentHeader>) {
        loop {
            if let Some(next) =
                successor.filter(|next| self.head.is_some_and(|head| next.cut.seq <= head.seq))
            {
                return self.finish(next);
            }
            if let Some((header, payload)) =
                self.batch_at(self.at).filter(|(header, _)| self.continues(header))
            {
                self.take(&header, payload);
                continue;
            }
            // The batch that should be here is not.
            let next = self.next_batch();
            let head = self.head.map(|head| head.seq);
            let is_due = successor.is_some_and(|next| head.is_none_or(|head| next.cut.seq > head));
            if !is_due && !self.is_testified() {
                let is_begun = self.salt.is_some_and(|salt| {
                    self.bytes.get(self.at..).is_some_and(|bytes| resembles_batch(bytes, salt))
                });
                self.survey.tail = if is_begun || next.is_some() { Tail::Torn } else { Tail::Clean };
                return;
            }
            let until =
                next.map(|(_, header)| header.seq.get() - 1).or(successor.map(|next| next.cut.seq.get()));
            let lost = until.zip(head).map_or(0, |(until, head)| until.saturating_sub(head.get()));
            self.damage(self.at, "a batch is damaged that was durable", lost);
            let Some((at, header)) = next else {
                self.survey.tail = if successor.is_some() { Tail::Continued } else { Tail::Torn };
                return;
            };
            self.at = at;
            self.head = Some(Cut { seq: BatchSeq(header.seq.get() - 1), crc: header.prev_crc });
        }
    }

    fn finish(&mut self, next: &SegmentHeader) {
        self.survey.tail = Tail::Continued;
        if Some(next.cut) != self.head {
            self.damage(self.at, "the next segment follows another batch", 0);
        } else if self.survey.damage.is_empty() && next.footer != self.footer {
            self.damage(self.at, "the next segment has another footer of this one", 0);
        }
    }

    fn damage(&mut self, offset: usize, what: &'static str, batches: u64) {
        // Until an entry behind it is met, none is known to be lost.
        self.survey.damage.push(SegmentDamage { offset: offset as u64, what, batches, entries: None });
    }

    fn continues(&self, header: &BatchHeader) -> bool {
        self.head.is_none_or(|head| header.seq == head.seq.next() && header.prev_crc == head.crc)
    }

    /// The whole batch at a place, of this use of the file.
    fn batch_at(&self, at: usize) -> Option<(BatchHeader, &'a [u8])> {
        let all: &'a [u8] = self.bytes;
        let bytes = all.get(at..)?;
        let header = BatchHeader::decode(bytes).filter(|header| Some(header.salt) == self.salt)?;
        // Numbers that no log comes to would be beyond counting.
        if header.seq.get() == 0 || header.seq.get() == u64::MAX || header.encoding.foreign().is_some() {
            return None;
        }
        let payload = header.payload(bytes)?;
        Some((header, payload))
    }

    /// The next whole batch behind the place, newer than all before.
    fn next_batch(&self) -> Option<(usize, BatchHeader)> {
        let places = (self.at + SECTOR_BYTES..self.bytes.len()).step_by(SECTOR_BYTES);
        let newer = |header: &BatchHeader| self.head.is_none_or(|head| header.seq > head.seq);
        places.filter_map(|at| Some((at, self.batch_at(at)?.0))).find(|(_, header)| newer(header))
    }

    /// Whether something behind the place says that the batch missing here was durable.
    fn is_testified(&self) -> bool {
        let places = (self.at..self.bytes.len()).step_by(SECTOR_BYTES);
        let headers = places.filter_map(|at| BatchHeader::decode(self.bytes.get(at..)?));
        let mut of_this_use = headers.filter(|header| Some(header.salt) == self.salt);
        of_this_use.any(|header| self.head.is_some_and(|head| header.durable_through > head.seq))
    }

    fn take(&mut self, header: &BatchHeader, payload: &[u8]) {
        let mut records = Records::new(bytes::Bytes::copy_from_slice(payload));
        let mut facts = BatchFacts::default();
        let mut is_marker = true;
        loop {
            match records.next() {
                Ok(Some(record)) => self.take_record(record, &mut facts),
                Ok(None) => break,
                Err(RecordError::Malformed) => {
                    self.damage(self.at, "a record that does not follow the format", 0);
                    break;
                }
                Err(RecordError::UnknownKind(_)) => {
                    self.damage(self.at, "a record of a kind that is not known to this version", 0);
                    break;
                }
            }
            is_marker = false;
        }
        let whole = self.bytes.get(self.at..self.at + BATCH_HEADER_BYTES + payload.len());
        let (segment, offset) = (SegmentNo::default(), self.at as u64);
        let place = Place { segment, offset, bytes: header.batch_bytes() as u64 };
        self.footer.add(whole.unwrap_or_default(), &facts, place);
        if let Some(range) = facts.revisions {
            RevisionRange::widen(&mut self.survey.revisions, range.least);
            RevisionRange::widen(&mut self.survey.revisions, range.greatest);
        }
        self.survey.batches += u64::from(!is_marker);
        self.survey.markers += u64::from(is_marker);
        self.head = Some(Cut { seq: header.seq, crc: header.crc });
        self.at += header.batch_bytes();
        self.survey.end = self.at as u64;
    }

    fn take_record(&mut self, record: Record, facts: &mut BatchFacts) {
        match record {
            Record::Entry(entry) => {
                let at = EntryPosition { index: LogIndex(entry.index), term: Term(entry.term) };
                facts.note_entry(at.index, (self.revision_of)(&entry));
                self.survey.entries += 1;
                self.survey.range = Some((self.survey.range.map_or(at, |(first, _)| first), at));
                self.note_lost_entries(at.index);
                self.last_entry = Some(at.index);
            }
            Record::HardState(ballot) => self.survey.hard_state = Some(ballot.into()),
            Record::Checkpoint(mark) => {
                self.survey.checkpoint = Some(mark);
                self.survey.install = self.survey.install.filter(|install| mark.applied < install.index);
            }
            Record::Install(at) => {
                facts.note_restart(at.position());
                self.last_entry = None;
                self.survey.install = Some(at);
            }
            Record::Truncation { .. } => {}
        }
    }

    /// Entries between the last before damage and the first behind it are lost with it.
    fn note_lost_entries(&mut self, index: LogIndex) {
        let before = self.last_entry.or(self.survey.header.as_ref().map(|header| header.last.index));
        if let Some(damage) = self.survey.damage.last_mut().filter(|damage| damage.entries.is_none())
            && let Some(before) = before.filter(|before| index.get().saturating_sub(before.get()) > 1)
        {
            damage.entries = Some((before.next(), index.prev()));
        }
    }
}

/// Up to where, in bytes, every batch of a segment is said to be durable by a later one in it: damage before there cannot
/// be taken for the traces of a crash. Nothing where the segment's header is not intact.
#[must_use]
pub fn proven_bytes(segment: &[u8]) -> Option<u64> {
    let header = SegmentHeader::decode(segment.get(..SECTOR_BYTES)?)?;
    let (mut at, mut durable_through) = (SECTOR_BYTES, header.cut.seq);
    let mut ends: Vec<(BatchSeq, usize)> = vec![(header.cut.seq, at)];
    while let Some(batch) = segment.get(at..).and_then(BatchHeader::decode) {
        if batch.salt != header.salt {
            break;
        }
        durable_through = durable_through.max(batch.durable_through);
        at += batch_bytes(usize::try_from(batch.payload_bytes).ok()?);
        ends.push((batch.seq, at));
    }
    let proven = ends.into_iter().take_while(|(seq, _)| *seq <= durable_through).last();
    proven.map(|(_, end)| end as u64)
}
