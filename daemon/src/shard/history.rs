//! How far back the past stays readable: what a leader raises the horizon by.
//!
//! Versions that were overwritten are kept for a time, and for so many bytes of later writes at most: versions that nobody reads take
//! memory, make each page hold fewer keys that somebody does, and each checkpoint longer. A range that is read page by page at one
//! revision holds the horizon while its pages are asked for.
//!
//! Invariants:
//! - The horizon passes no revision that is held.
//! - What is held is let go: some time after the last page, and when as much time has passed since the first as the past is
//!   kept for at all. So the past is bounded in time whatever clients do.
//!
//! How long ago something was is told by the monotonic clock of this leader alone: wall clocks jump, and revisions with them. A new
//! leader knows nothing of what the last one held, and raises the horizon only as it sees writes and time pass itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesh_base::limits::{HELD_REVISIONS_MAX, HORIZON_MARKS};
use mesh_base::{Instant, Revision};

/// How much of the past is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryOptions {
    /// For so long at most, and for as long if fewer bytes were written.
    pub time: Duration,
    /// For so many bytes of entries at most, but for what is held.
    pub bytes: u64,
    /// How often the horizon moves with time.
    pub period: Duration,
    /// How long a revision is held after a page of a range that has more.
    pub held_for: Duration,
}

/// See the module.
#[derive(Default, Debug)]
pub(super) struct History {
    /// When which revision was the newest, the oldest first.
    marks: VecDeque<Mark>,
    /// Bytes of entries that were proposed.
    written: u64,
    /// What need not be kept any longer, for all that time and bytes say.
    passed: Revision,
    held: BTreeMap<Revision, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    written: u64,
    revision: Revision,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    since: Instant,
    until: Instant,
}

impl History {
    /// An entry of so many bytes was proposed.
    pub(super) const fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// A page of a range at a revision was answered, and there are more of them. Where too much is held already nothing is: the next
    /// page may find its revision compacted.
    pub(super) fn hold(&mut self, revision: Revision, now: Instant, options: &HistoryOptions) {
        let until = now + options.held_for;
        if let Some(held) = self.held.get_mut(&revision) {
            held.until = until;
        } else if self.held.len() < HELD_REVISIONS_MAX {
            self.held.insert(revision, Held { since: now, until });
        }
    }

    /// Up to where the horizon may be raised now, with the newest revision that is applied.
    pub(super) fn horizon(&mut self, newest: Revision, now: Instant, options: &HistoryOptions) -> Revision {
        let written = self.written;
        let is_due = self.marks.back().is_none_or(|last| {
            now.since(last.at) >= options.period || written - last.written >= options.bytes / HORIZON_MARKS
        });
        if is_due {
            self.marks.push_back(Mark { at: now, written, revision: newest });
        }
        let is_past =
            |mark: &mut Mark| now.since(mark.at) >= options.time || written - mark.written >= options.bytes;
        while let Some(mark) = self.marks.pop_front_if(is_past) {
            self.passed = mark.revision;
        }
        self.held.retain(|_, held| held.until > now && now.since(held.since) < options.time);
        self.held.first_key_value().map_or(self.passed, |(&held, _)| held.min(self.passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const OPTIONS: HistoryOptions = HistoryOptions {
        time: Duration::from_secs(60),
        bytes: 1600,
        period: SECOND,
        held_for: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> Instant {
        Instant(0) + Duration::from_secs(seconds)
    }

    /// A second passes with each revision, in which so many bytes are written.
    fn after(history: &mut History, seconds: std::ops::RangeInclusive<u64>, bytes: usize) -> Revision {
        let mut horizon = Revision::ZERO;
        for second in seconds {
            history.wrote(bytes);
            horizon = history.horizon(Revision(second), at(second), &OPTIONS);
        }
        horizon
    }

    #[test]
    fn the_past_is_kept_for_its_time_where_little_is_written() {
        let mut history = History::default();
        assert_eq!(after(&mut history, 1..=60, 1), Revision::ZERO);
        assert_eq!(after(&mut history, 61..=65, 1), Revision(5));
    }

    #[test]
    fn the_past_is_bounded_in_bytes() {
        let mut history = History::default();
        assert_eq!(after(&mut history, 1..=20, 200), Revision(12), "eight seconds of 200 bytes");
        assert!(history.marks.len() <= 20);
    }

    #[test]
    fn writes_move_the_horizon_however_little_time_passes() {
        let mut history = History::default();
        let mut horizon = Revision::ZERO;
        for revision in 1..=100 {
            history.wrote(100);
            horizon = history.horizon(Revision(revision), at(1), &OPTIONS);
        }
        assert_eq!(horizon, Revision(83), "a step is two of them");
        assert!(history.marks.len() as u64 <= HORIZON_MARKS + 1);
    }

    #[test]
    fn a_range_holds_the_horizon_until_it_is_not_gone_on_with() {
        let mut history = History::default();
        after(&mut history, 1..=20, 200);
        history.hold(Revision(15), at(20), &OPTIONS);
        assert_eq!(after(&mut history, 21..=29, 800), Revision(15));
        history.hold(Revision(15), at(29), &OPTIONS);
        assert_eq!(after(&mut history, 30..=38, 800), Revision(15));
        assert_eq!(after(&mut history, 39..=39, 800), Revision(37), "ten seconds after its last page");
    }

    #[test]
    fn a_range_that_never_ends_does_not_hold_the_horizon_for_ever() {
        let mut history = History::default();
        for second in 1..=61 {
            history.hold(Revision(1), at(second.min(60)), &OPTIONS);
            after(&mut history, second..=second, 800);
        }
        assert!(after(&mut history, 62..=62, 800) > Revision(50));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut history = History::default();
        (1..=2 * HELD_REVISIONS_MAX as u64).for_each(|it| history.hold(Revision(it), at(1), &OPTIONS));
        assert_eq!(history.held.len(), HELD_REVISIONS_MAX);
    }
}
