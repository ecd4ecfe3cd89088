//! The footer of a segment: what its batches hold, in a few words, for those who look for an entry or for a change by its
//! revision, and for those who keep segments elsewhere.
//!
//! A segment's footer stands in the header of its successor: so it costs no write of its own, and there is one exactly
//! when the segment is complete. A recovery compares it with what it walked; of a segment that it need not walk it is all
//! that the log knows.

use mesh_base::checksum::xxh3;
use mesh_base::limits::{LOG_FOOTER_POINTS_MAX, SECTOR_BYTES};
use mesh_base::{LogIndex, Revision, SegmentNo};

use crate::base::EntryPosition;
use crate::contents::{Place, Run};

/// The revisions of the changes in a segment: each lies between these, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevisionRange {
    /// The newest revision of the entry with the least one.
    pub least: Revision,
    /// The newest revision of all.
    pub greatest: Revision,
}

impl RevisionRange {
    /// Takes in the newest revision of one more entry; zero is none.
    pub(crate) fn widen(range: &mut Option<Self>, revision: Revision) {
        if revision > Revision::ZERO {
            let before = range.unwrap_or(Self { least: revision, greatest: revision });
            *range =
                Some(Self { least: before.least.min(revision), greatest: before.greatest.max(revision) });
        }
    }
}

/// What one batch adds to a segment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct BatchFacts {
    /// The entries it leaves in the log, first and last.
    pub(crate) entries: Option<(LogIndex, LogIndex)>,
    /// The revisions that its entries assign.
    pub(crate) revisions: Option<RevisionRange>,
    /// The snapshot at which the log starts anew in it, before those entries.
    pub(crate) restart: Option<EntryPosition>,
}

impl BatchFacts {
    /// Takes in one more entry.
    pub(crate) fn note_entry(&mut self, index: LogIndex, revision: Revision) {
        RevisionRange::widen(&mut self.revisions, revision);
        let first = self.entries.map_or(index, |(first, _)| first.min(index));
        self.entries = Some((first, index));
    }

    /// Takes in that the log starts anew.
    pub(crate) const fn note_restart(&mut self, at: EntryPosition) {
        self.restart = Some(at);
        self.entries = None;
    }
}

/// A batch of a segment from which on all live entries of its index and above are found, and before which all live ones
/// below it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Point {
    /// The least entry of the batch.
    pub(crate) first: LogIndex,
    /// Where the batch begins, in sectors.
    pub(crate) sector: u32,
}

/// Where the entries of a segment are, roughly: points in the order of both index and place, spread over the segment.
///
/// Thinned out by halves as the segment grows, so that what it is at any time depends on the batches alone.
#[derive(Clone, Default, Debug)]
pub(crate) struct Points {
    points: Vec<Point>,
    /// How far a point is from the one before, in sectors, as a power of two.
    spacing: u32,
}

impl PartialEq for Points {
    /// The spacing is the business of who adds points, and not on disk.
    fn eq(&self, other: &Self) -> bool {
        self.points == other.points
    }
}

impl Eq for Points {}

impl Points {
    /// Takes in a batch that begins at this sector.
    fn add(&mut self, facts: &BatchFacts, sector: u32) {
        if facts.restart.is_some() {
            self.points.clear();
        }
        let Some((first, _)) = facts.entries else { return };
        while self.points.pop_if(|point| point.first >= first).is_some() {}
        if self.points.last().is_some_and(|last| sector - last.sector < 1 << self.spacing) {
            return;
        }
        if self.points.len() == LOG_FOOTER_POINTS_MAX {
            let mut at = 0..;
            self.points.retain(|_| at.next().is_some_and(|at: usize| at.is_multiple_of(2)));
            self.spacing += 1;
        }
        self.points.push(Point { first, sector });
    }

    /// Points that were read, if they are in order.
    pub(crate) fn of(points: Vec<Point>) -> Option<Self> {
        let in_order = points.is_sorted_by(|a, b| a.first < b.first && a.sector < b.sector);
        let within = points.len() <= LOG_FOOTER_POINTS_MAX && points.iter().all(|point| point.sector > 0);
        (in_order && within).then_some(Self { points, spacing: 0 })
    }

    pub(crate) fn as_slice(&self) -> &[Point] {
        &self.points
    }
}

/// What the batches of a segment hold: dead entries included, but for where entries are.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Footer {
    /// None if no entry has a revision.
    pub(crate) revisions: Option<RevisionRange>,
    /// XXH3 over each batch, chained: of the digest so far and the XXH3 of the batch's bytes, padding excluded.
    pub(crate) digest: u64,
    /// Where its last batch ends, in bytes; 0 if it has none.
    pub(crate) end: u64,
    pub(crate) points: Points,
}

impl Footer {
    /// Takes in the next batch: its bytes without the padding, and its place.
    pub(crate) fn add(&mut self, batch: &[u8], facts: &BatchFacts, place: Place) {
        if let Some(range) = facts.revisions {
            RevisionRange::widen(&mut self.revisions, range.least);
            RevisionRange::widen(&mut self.revisions, range.greatest);
        }
        let mut chain = [0; 16];
        chain[..8].copy_from_slice(&self.digest.to_le_bytes());
        chain[8..].copy_from_slice(&xxh3(batch).to_le_bytes());
        self.digest = xxh3(&chain);
        self.end = place.offset + place.bytes;
        self.points.add(facts, place.sector());
    }

    /// The runs of live entries of the segment, up to the log's last entry at its end. Each has all batches from one
    /// point to the next for its place.
    pub(crate) fn runs(&self, segment: SegmentNo, last: LogIndex) -> impl Iterator<Item = Run> + '_ {
        let points = self.points.as_slice();
        let ends = points.iter().skip(1).map(|next| (next.first.prev(), next.offset()));
        let ends = ends.chain(std::iter::once((last, self.end)));
        points.iter().zip(ends).map(move |(point, (last, end))| {
            let place = Place { segment, offset: point.offset(), bytes: end.saturating_sub(point.offset()) };
            Run { first: point.first, last, place }
        })
    }
}

impl Point {
    fn offset(&self) -> u64 {
        u64::from(self.sector) * SECTOR_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        /// Entries in batches of one to four sectors, at times in the place of some that are there.
        fn each_live_entry_is_between_its_points(batches: Vec<(u8, u8, u8)>) -> bool {
            let (mut points, mut sector, mut last) = (Points::default(), 1, 0_u64);
            let mut live: Vec<(u64, u32)> = Vec::new();
            for (back, count, sectors) in batches.into_iter().cycle().take(400) {
                let first = last + 1 - u64::from(back % 8 / 6 * (back % 5)).min(last);
                last = first + u64::from(count % 3);
                live.retain(|(index, _)| *index < first);
                live.extend((first..=last).map(|index| (index, sector)));
                let entries = Some((LogIndex(first), LogIndex(last)));
                points.add(&BatchFacts { entries, ..BatchFacts::default() }, sector);
                sector += 1 + u32::from(sectors % 4);
            }
            let footer = Footer { end: u64::from(sector) * SECTOR_BYTES as u64, points, ..Footer::default() };
            let runs: Vec<Run> = footer.runs(SegmentNo(1), LogIndex(last)).collect();
            let whole = runs.first().is_none_or(|run| run.first.0 == live[0].0);
            let joined = runs.windows(2).all(|pair| pair[0].last.next() == pair[1].first);
            let found = live.iter().all(|(index, sector)| {
                let at = u64::from(*sector) * SECTOR_BYTES as u64;
                runs.iter().any(|run| {
                    let within = run.place.offset <= at && at < run.place.offset + run.place.bytes;
                    run.first.0 <= *index && *index <= run.last.0 && within
                })
            });
            let few = runs.len() <= LOG_FOOTER_POINTS_MAX;
            whole && joined && found && few && Points::of(footer.points.points.clone()).is_some()
        }
    }
}
