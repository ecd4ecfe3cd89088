//! Where on disk each entry is: runs of entries that one batch holds, or several batches in a row of a segment that was
//! not walked.
//!
//! Invariant: the runs follow each other without a gap. A place may hold more entries than its run says; those are dead.

use std::collections::VecDeque;

use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{LogIndex, SegmentNo};

/// The place on disk of a batch, or of several in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) segment: SegmentNo,
    /// In bytes.
    pub(crate) offset: u64,
    /// Whole sectors, in bytes.
    pub(crate) bytes: u64,
}

impl Place {
    /// Where it begins, in sectors.
    pub(crate) fn sector(&self) -> u32 {
        u32::try_from(self.offset / SECTOR_BYTES as u64).unwrap_or(u32::MAX)
    }
}

/// The live entries of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) place: Place,
}

/// A run as it is kept: half the size, as there are many.
#[derive(Clone, Copy, Debug)]
struct Packed {
    first: LogIndex,
    segment: SegmentNo,
    count: u32,
    sector: u32,
    sectors: u32,
}

impl Packed {
    fn new(run: Run) -> Self {
        let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES as u64).unwrap_or(u32::MAX);
        Self {
            first: run.first,
            segment: run.place.segment,
            count: u32::try_from(run.last.0 - run.first.0 + 1).unwrap_or(u32::MAX),
            sector: run.place.sector(),
            sectors: sectors(run.place.bytes),
        }
    }

    fn last(&self) -> LogIndex {
        LogIndex(self.first.0 + u64::from(self.count) - 1)
    }

    fn run(&self) -> Run {
        let bytes = |sectors: u32| u64::from(sectors) * SECTOR_BYTES as u64;
        let place = Place { segment: self.segment, offset: bytes(self.sector), bytes: bytes(self.sectors) };
        Run { first: self.first, last: self.last(), place }
    }
}

/// The places of all entries that are on disk and live.
#[derive(Debug)]
pub(crate) struct Locations {
    runs: VecDeque<Packed>,
}

impl Locations {
    /// No entries.
    pub(crate) const fn new() -> Self {
        Self { runs: VecDeque::new() }
    }

    /// Notes entries at a place. They replace those of their indexes and above.
    pub(crate) fn record(&mut self, run: Run) {
        assert!(run.first <= run.last);
        self.cut_from(run.first);
        assert!(self.runs.back().is_none_or(|back| back.last().next() == run.first), "no gap");
        self.runs.push_back(Packed::new(run));
    }

    /// Forgets the entry of this index and all behind it.
    pub(crate) fn cut_from(&mut self, index: LogIndex) {
        while self.runs.back().is_some_and(|run| run.first >= index) {
            self.runs.pop_back();
        }
        if let Some(back) = self.runs.back_mut().filter(|back| back.last() >= index) {
            back.count = u32::try_from(index.0 - back.first.0).unwrap_or(u32::MAX);
        }
    }

    /// Forgets the runs that end at or before this entry.
    pub(crate) fn trim_to(&mut self, index: LogIndex) {
        while self.runs.front().is_some_and(|run| run.last() <= index) {
            self.runs.pop_front();
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// The runs from the one that holds this entry on; none if none does.
    pub(crate) fn from(&self, index: LogIndex) -> impl Iterator<Item = Run> + '_ {
        let start = self.runs.partition_point(|run| run.last() < index);
        let holds = self.runs.get(start).is_some_and(|run| run.first <= index);
        self.runs.range(if holds { start } else { self.runs.len() }..).map(Packed::run)
    }

    /// Puts older runs before these.
    pub(crate) fn follow(&mut self, mut older: Self) {
        let joins = older.last().zip(self.first()).is_none_or(|(before, first)| before.next() == first);
        assert!(joins, "no gap");
        older.runs.append(&mut self.runs);
        self.runs = older.runs;
    }

    /// The first entry whose place is known.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        self.runs.front().map(|run| run.first)
    }

    /// The last entry whose place is known.
    pub(crate) fn last(&self) -> Option<LogIndex> {
        self.runs.back().map(Packed::last)
    }

    /// The last live entry in this segment and all older ones.
    pub(crate) fn last_through(&self, segment: SegmentNo) -> Option<LogIndex> {
        let after = self.runs.partition_point(|run| run.segment <= segment);
        self.runs.get(after.checked_sub(1)?).map(Packed::last)
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Packed>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64, segment: u64, sector: u64) -> Run {
        let place = Place { segment: SegmentNo(segment), offset: sector * 4096, bytes: 8192 };
        Run { first: LogIndex(first), last: LogIndex(last), place }
    }

    #[test]
    fn a_conflict_shortens_the_run_it_falls_into() {
        let mut locations = Locations::new();
        locations.record(run(1, 5, 1, 1));
        locations.record(run(6, 9, 1, 3));
        locations.record(run(4, 7, 2, 1));
        let runs: Vec<_> = locations.from(LogIndex(2)).collect();
        assert_eq!(runs, [run(1, 3, 1, 1), run(4, 7, 2, 1)]);
        assert_eq!(locations.from(LogIndex(8)).count(), 0);
        assert_eq!(locations.last_through(SegmentNo(1)), Some(LogIndex(3)));
        assert_eq!(locations.last_through(SegmentNo(0)), None);
        locations.trim_to(LogIndex(3));
        assert_eq!(locations.from(LogIndex(4)).count(), 1);
        assert_eq!(locations.from(LogIndex(3)).count(), 0);
    }
}
