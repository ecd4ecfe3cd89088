//! Entries that left the memory, read back for a follower that lags.
//!
//! raft asks through a shared reference and is told to come again; the read happens in the log's own turn; when it is
//! done raft is told to ask once more, and then finds the entries here.
//!
//! Invariants:
//! - What waits, what is in flight and what is kept are each bounded.
//! - Each batch is checked each time it is read. Damage is told, and served to nobody.
//! - Only entries that a checkpoint contains are fetched. They are committed, so no conflict replaces them; a snapshot
//!   that is installed drops all of this.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::LogIndex;
use mesh_base::SegmentNo;
use mesh_base::io::{FileId, IoError, IoToken, IoValue};
use mesh_base::limits::{LOG_FETCHES_IN_FLIGHT_MAX, LOG_FETCHES_WAITING_MAX};
use raft::GetEntriesContext;
use raft::eraftpb::Entry;

use crate::contents::{Run, Terms, limited};
use crate::error::LogError;
use crate::format::batch::BatchHeader;
use crate::format::record::{Record, Records, entry_record_bytes};

/// A request that waits for its read.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) low: LogIndex,
    contexts: Vec<GetEntriesContext>,
}

/// A read in flight.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) token: IoToken,
    pub(crate) wanted: Wanted,
    /// The runs that the bytes hold, at adjacent places of one segment.
    pub(crate) runs: Vec<Run>,
    /// Entries from here on are in memory, and could be replaced while the read is in flight.
    pub(crate) below: LogIndex,
    pub(crate) salt: u64,
    /// Whether what it reads is still part of the log.
    dropped: bool,
}

impl Reading {
    pub(crate) const fn new(
        token: IoToken,
        wanted: Wanted,
        runs: Vec<Run>,
        below: LogIndex,
        salt: u64,
    ) -> Self {
        Self { token, wanted, runs, below, salt, dropped: false }
    }
}

/// Entries that were read.
#[derive(Debug)]
struct Fetched {
    low: LogIndex,
    entries: Vec<Entry>,
    bytes: usize,
}

/// What a finished read brought.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) entries: Vec<Entry>,
    pub(crate) contexts: Vec<GetEntriesContext>,
    pub(crate) damage: Option<Damage>,
}

/// What could not be read.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) error: LogError,
    pub(crate) segment: SegmentNo,
    /// The last entry that may be lost with it.
    pub(crate) through: LogIndex,
}

/// The fetches of a log.
#[derive(Debug)]
pub(crate) struct Fetches {
    waiting: VecDeque<Wanted>,
    reading: Vec<Reading>,
    fetched: VecDeque<Fetched>,
    fetched_bytes_max: usize,
}

impl Fetches {
    pub(crate) const fn new(fetched_bytes_max: usize) -> Self {
        Self { waiting: VecDeque::new(), reading: Vec::new(), fetched: VecDeque::new(), fetched_bytes_max }
    }

    /// Entries from `low` on that were read before, as many as the bytes allow and at least one.
    pub(crate) fn take(
        &mut self,
        low: LogIndex,
        high: LogIndex,
        bytes_max: Option<u64>,
    ) -> Option<Vec<Entry>> {
        let at = self
            .fetched
            .iter()
            .position(|fetched| fetched.low <= low && low.0 < fetched.low.0 + fetched.entries.len() as u64)?;
        let fetched = self.fetched.get(at)?;
        let skip = usize::try_from(low.0 - fetched.low.0).ok()?;
        let count = usize::try_from(high.0.saturating_sub(low.0)).ok()?;
        let taken = limited(fetched.entries.iter().skip(skip).take(count), bytes_max);
        if skip + taken.len() == fetched.entries.len() {
            self.fetched.remove(at);
        }
        Some(taken)
    }

    /// Asks for entries from `low` on. A request above the bound is dropped: raft makes it again with the follower's
    /// next answer.
    pub(crate) fn want(&mut self, low: LogIndex, context: GetEntriesContext) {
        let waiting = self.waiting.len();
        let reading =
            self.reading.iter_mut().filter(|reading| !reading.dropped).map(|reading| &mut reading.wanted);
        let same = self.waiting.iter_mut().chain(reading).find(|wanted| wanted.low == low);
        match same {
            Some(wanted) if wanted.contexts.len() < LOG_FETCHES_WAITING_MAX => wanted.contexts.push(context),
            None if waiting < LOG_FETCHES_WAITING_MAX => {
                self.waiting.push_back(Wanted { low, contexts: vec![context] });
            }
            _ => {}
        }
    }

    /// The next request to read for, while another read may be in flight.
    pub(crate) fn next(&mut self) -> Option<Wanted> {
        if self.reading.len() < LOG_FETCHES_IN_FLIGHT_MAX { self.waiting.pop_front() } else { None }
    }

    /// Notes a read that was submitted.
    pub(crate) fn started(&mut self, reading: Reading) {
        assert!(!reading.runs.is_empty());
        self.reading.push(reading);
    }

    /// Whether a read of this file is in flight.
    pub(crate) fn reads(&self, file: FileId) -> bool {
        let of = |segment: SegmentNo| FileId::Segment(segment) == file;
        self.reading.iter().any(|reading| reading.runs.iter().any(|run| of(run.place.segment)))
    }

    /// Takes a read that is complete, if it is one of these.
    pub(crate) fn complete(&mut self, token: IoToken) -> Option<Reading> {
        let at = self.reading.iter().position(|reading| reading.token == token)?;
        Some(self.reading.swap_remove(at))
    }

    /// Keeps what a read brought until it is used or pushed out by newer reads.
    pub(crate) fn keep(&mut self, entries: Vec<Entry>) {
        let bytes = entries.iter().map(entry_record_bytes).sum();
        if let Some(low) = entries.first().map(|entry| LogIndex(entry.index)) {
            self.fetched.push_back(Fetched { low, entries, bytes });
        }
        while self.fetched.len() > 1 && self.fetched_bytes() > self.fetched_bytes_max {
            self.fetched.pop_front();
        }
    }

    /// Forgets everything: the entries are no longer part of the log.
    pub(crate) fn drop_all(&mut self) {
        self.waiting.clear();
        self.fetched.clear();
        self.reading.iter_mut().for_each(|reading| reading.dropped = true);
    }

    /// Bytes of the entries that were read and not used.
    pub(crate) fn fetched_bytes(&self) -> usize {
        self.fetched.iter().map(|fetched| fetched.bytes).sum()
    }
}

impl Reading {
    /// The entries from the wanted one on that the bytes hold, each batch checked again.
    pub(crate) fn finish(self, result: Result<IoValue, IoError>, terms: &Terms) -> Finished {
        if self.dropped {
            return Finished { entries: Vec::new(), contexts: Vec::new(), damage: None };
        }
        let (entries, damage) = match self.entries(result, terms) {
            Ok(entries) => (entries, None),
            Err(damage) => (Vec::new(), Some(damage)),
        };
        Finished { entries, contexts: self.wanted.contexts, damage }
    }

    fn entries(&self, result: Result<IoValue, IoError>, terms: &Terms) -> Result<Vec<Entry>, Damage> {
        let damage =
            |error: LogError, run: &Run| Damage { error, segment: run.place.segment, through: run.last };
        let bytes = match (result, self.runs.last()) {
            (Ok(IoValue::Read(bytes)), _) => bytes,
            (Err(error), Some(last)) => return Err(damage(error.into(), last)),
            _ => Bytes::new(),
        };
        let start = self.runs.first().map_or(0, |run| run.place.offset);
        let mut entries = Vec::new();
        for run in &self.runs {
            let position = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            let (from, to) = (position(run.place.offset), position(run.place.offset + run.place.bytes));
            let place = bytes.get(from..to).unwrap_or_default();
            let held = entries_of(place, &bytes, self.salt);
            let held = held.and_then(|held| are_of(&held, run, self.below, terms).then_some(held).ok_or(0));
            let held = held.map_err(|at| {
                let (file, offset) = (FileId::Segment(run.place.segment), run.place.offset + at as u64);
                let what = "a batch of old entries is damaged";
                damage(LogError::Corrupt { file, offset, what }, run)
            })?;
            let live = held.into_iter().filter(|entry| {
                let index = LogIndex(entry.index);
                self.wanted.low.max(run.first) <= index && index <= run.last && index < self.below
            });
            entries.extend(live);
        }
        // Each entry keeps all bytes that were read: a few of them get their own.
        let kept: usize = entries.iter().map(entry_record_bytes).sum();
        if kept < bytes.len() / 2 {
            for entry in &mut entries {
                entry.data = Bytes::copy_from_slice(&entry.data);
                entry.context = Bytes::copy_from_slice(&entry.context);
            }
        }
        Ok(entries)
    }
}

/// The entries that batches in a row leave in the log, if all are intact; else where the first is that is not, in bytes.
fn entries_of(place: &[u8], whole: &Bytes, salt: u64) -> Result<Vec<Entry>, usize> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while at < place.len() {
        let batch = place.get(at..).unwrap_or_default();
        at += add_entries_of(&mut entries, batch, whole, salt).ok_or(at)?;
    }
    Ok(entries)
}

/// Adds the entries that a batch leaves in the log, if it is intact; answers its bytes.
fn add_entries_of(entries: &mut Vec<Entry>, batch: &[u8], whole: &Bytes, salt: u64) -> Option<usize> {
    let header = BatchHeader::decode(batch).filter(|header| header.salt == salt)?;
    let mut records = Records::new(whole.slice_ref(header.payload(batch)?));
    while let Some(record) = records.next().ok()? {
        match record {
            Record::Entry(entry) => {
                while entries.pop_if(|earlier| earlier.index >= entry.index).is_some() {}
                entries.push(entry);
            }
            Record::Install(_) => entries.clear(),
            Record::HardState(_) | Record::Checkpoint(_) | Record::Truncation { .. } => {}
        }
    }
    Some(header.batch_bytes())
}

/// Whether the entries are a sequence that contains the run, in the terms that the log has for it. Of one index and term
/// there is one entry, so what they hold is what was appended.
fn are_of(entries: &[Entry], run: &Run, below: LogIndex, terms: &Terms) -> bool {
    let follows = entries.windows(2).all(|pair| match pair {
        [a, b] => a.index + 1 == b.index,
        _ => false,
    });
    let ends = entries.first().zip(entries.last());
    let contain = ends.is_some_and(|(first, last)| first.index <= run.first.0 && run.last.0 <= last.index);
    let is_live = |index: LogIndex| run.first <= index && index <= run.last && index < below;
    // What was let go while it was read has no term any more.
    let is_known = |entry: &Entry| {
        let index = LogIndex(entry.index);
        !is_live(index) || terms.term(index).is_none_or(|term| term.0 == entry.term)
    };
    follows && contain && entries.iter().all(is_known)
}
