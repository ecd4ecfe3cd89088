//! When checkpoints begin, and how fast they are written.
//!
//! A checkpoint that is written as fast as the disk goes makes every write of the log wait behind it; one that is written too
//! slowly is not done when the next is due, and memory fills. So it is written
//! - in step with the log: when that is at four fifths of what a checkpoint begins at, all of it is written;
//! - as far as memory asks for: what is unsaved, in it and since its begin, stays within nine eighths of what a checkpoint
//!   begins at. Not in step with changed pages: random writes change most pages of a tree soon after a checkpoint's begin,
//!   and the same ones from then on;
//! - at a floor of bytes per second, which ends a checkpoint in which nothing changes any more.
//!
//! Pure: the owner brings the figures, and the time.

use std::time::Duration;

/// A checkpoint is to be written when so much of the log that makes the next one due has gathered: four fifths.
const DONE_AT: (u64, u64) = (4, 5);
/// Of the bytes at which a checkpoint begins, one of so many may be unsaved beyond them while it is written.
const BEYOND: u64 = 8;

/// What was not in a checkpoint when it began, or in the last one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Unsaved {
    /// Bytes of changed pages, and of entries in memory.
    pub bytes: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Time since the checkpoint began.
    pub age: Duration,
}

/// When checkpoints begin, and how fast they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointPace {
    /// One begins at this many bytes of changed pages and of entries in memory.
    pub at_bytes: u64,
    /// One begins at this many bytes of log since the last.
    pub at_log_bytes: u64,
    /// One begins this long after the last, if anything changed.
    pub period: Duration,
    /// One is written at no less than this many bytes per second.
    pub bytes_per_second_min: u64,
}

impl CheckpointPace {
    /// Whether a checkpoint of what is not in the last one should begin. That there is something is for the owner to know.
    #[must_use]
    pub fn is_due(&self, unsaved: &Unsaved) -> bool {
        unsaved.bytes >= self.at_bytes || unsaved.log_bytes >= self.at_log_bytes || unsaved.age >= self.period
    }

    /// How many bytes of a running checkpoint of `total_bytes` should be written by now, given what gathered since it began.
    #[must_use]
    pub fn due_bytes(&self, total_bytes: u64, since: &Unsaved) -> u64 {
        let in_step = share(total_bytes, since.log_bytes, self.at_log_bytes);
        let unsaved_max = self.at_bytes.saturating_add(self.at_bytes / BEYOND);
        let for_memory = total_bytes.saturating_add(since.bytes).saturating_sub(unsaved_max);
        let floor = u128::from(self.bytes_per_second_min) * since.age.as_micros() / 1_000_000;
        let floor = u64::try_from(floor).unwrap_or(u64::MAX);
        in_step.max(for_memory).max(floor).min(total_bytes)
    }
}

/// The part of `total` that is due when `gathered` of `limit` has gathered.
fn share(total: u64, gathered: u64, limit: u64) -> u64 {
    let (numerator, denominator) = DONE_AT;
    let scaled = u128::from(total) * u128::from(gathered) * u128::from(denominator);
    let due = scaled / (u128::from(limit.max(1)) * u128::from(numerator));
    u64::try_from(due).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: CheckpointPace = CheckpointPace {
        at_bytes: 1000,
        at_log_bytes: 5000,
        period: Duration::from_secs(30),
        bytes_per_second_min: 100,
    };

    #[test]
    fn a_checkpoint_begins_at_the_first_of_its_reasons() {
        let at = |bytes, log_bytes, seconds| {
            PACE.is_due(&Unsaved { bytes, log_bytes, age: Duration::from_secs(seconds) })
        };
        assert!(!at(999, 4999, 29));
        assert!(at(1000, 0, 0) && at(0, 5000, 0) && at(0, 0, 30));
    }

    #[test]
    fn all_of_a_checkpoint_is_due_well_before_the_next_begins() {
        let due = |bytes, log_bytes| PACE.due_bytes(800, &Unsaved { bytes, log_bytes, age: Duration::ZERO });
        assert_eq!([due(0, 0), due(0, 500), due(0, 2000), due(0, 4000)], [0, 100, 400, 800]);
        assert_eq!([due(400, 2000), due(0, u64::MAX)], [400, 800]);
    }

    #[test]
    fn what_is_unsaved_while_a_checkpoint_is_written_is_bounded() {
        let due = |total, bytes| PACE.due_bytes(total, &Unsaved { bytes, ..Unsaved::default() });
        assert_eq!([due(800, 0), due(800, 325), due(800, 725), due(800, 5000)], [0, 0, 400, 800]);
        assert_eq!([due(1000, 125), due(1000, 600), due(2000, 0)], [0, 475, 875]);
    }

    #[test]
    fn a_checkpoint_after_which_nothing_changes_is_written_at_the_floor() {
        let after = |milliseconds| {
            let age = Duration::from_millis(milliseconds);
            PACE.due_bytes(800, &Unsaved { age, ..Unsaved::default() })
        };
        assert_eq!([after(0), after(500), after(8000), after(100_000)], [0, 50, 800, 800]);
    }
}
