//! What is counted and timed while a run goes on, second by second.
//!
//! Every core of the generator has a [`Recorder`] of its own and hands over what it counted once a second, so that
//! nothing is shared while operations are timed.
//!
//! Invariants:
//! - An operation counts in the second in which its answer came; answers after the last second do not count.
//! - Seconds are counted from the beginning of the measurement on all cores alike; those of the warm-up are negative.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cpu;
use crate::op::OpKind;
use crate::target::Found;

/// The longest time that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(100);
/// Decimal digits that a latency is kept with.
const DIGITS: u8 = 3;
/// A second is the unit of the series.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Times in nanoseconds.
pub(crate) type Latencies = Histogram<u64>;

/// An empty histogram of latencies.
#[allow(clippy::expect_used, reason = "constant bounds that the crate accepts, as every test shows")]
pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, nanoseconds(LATENCY_MAX), DIGITS).expect("bounds")
}

/// A time in nanoseconds.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How often an error came.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub(crate) struct ErrorCount {
    /// The operation was sent again.
    pub(crate) retried: u64,
    /// The operation was given up.
    pub(crate) failed: u64,
}

/// What was counted.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// From the sending of an operation to its answer, by its kind.
    latency: [Latencies; 2],
    /// Keys that were read or written.
    pub(crate) keys: u64,
    /// Keys that were read and do not exist.
    pub(crate) missing: u64,
    /// Keys whose value had another length than those that are written.
    pub(crate) wrong: u64,
    /// By name.
    pub(crate) errors: BTreeMap<&'static str, ErrorCount>,
    /// Operations that were never answered.
    pub(crate) unanswered: u64,
    /// The longest time on one core between two operations that were done, whatever connections they were on; in the second of the
    /// later one.
    pub(crate) silence: Duration,
}

impl Tally {
    /// Nothing counted.
    pub(crate) fn new() -> Self {
        Self {
            latency: [latencies(), latencies()],
            keys: 0,
            missing: 0,
            wrong: 0,
            errors: BTreeMap::new(),
            unanswered: 0,
            silence: Duration::ZERO,
        }
    }

    /// The latencies of a kind of operations.
    pub(crate) const fn latency(&self, kind: OpKind) -> &Latencies {
        let [reads, writes] = &self.latency;
        match kind {
            OpKind::Read => reads,
            OpKind::Write => writes,
        }
    }

    /// The latencies of all operations.
    pub(crate) fn all_latencies(&self) -> Latencies {
        let [reads, writes] = &self.latency;
        let mut all = reads.clone();
        add(&mut all, writes);
        all
    }

    /// Operations that were done.
    pub(crate) fn requests(&self) -> u64 {
        self.latency.iter().map(Histogram::len).sum()
    }

    /// Operations that were given up.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().map(|count| count.failed).sum()
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.latency.iter_mut().zip(&other.latency) {
            add(ours, theirs);
        }
        self.keys += other.keys;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.unanswered += other.unanswered;
        self.silence = self.silence.max(other.silence);
        for (&name, theirs) in &other.errors {
            let ours = self.errors.entry(name).or_default();
            ours.retried += theirs.retried;
            ours.failed += theirs.failed;
        }
    }

    fn done(&mut self, kind: OpKind, keys: usize, latency: Duration) {
        let [reads, writes] = &mut self.latency;
        let of_kind = match kind {
            OpKind::Read => reads,
            OpKind::Write => writes,
        };
        of_kind.saturating_record(nanoseconds(latency));
        self.keys += keys as u64;
    }
}

#[allow(clippy::expect_used, reason = "histograms of the same bounds")]
fn add(ours: &mut Latencies, theirs: &Latencies) {
    ours.add(theirs).expect("the same bounds");
}

/// When what is measured begins and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The first operations are sent.
    pub(crate) start: Instant,
    /// The warm-up is over.
    pub(crate) measure: Instant,
    /// Seconds that are measured; `None` until there are no more operations.
    pub(crate) seconds: Option<u32>,
}

impl Schedule {
    /// When no more operations are begun.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.seconds.map(|seconds| self.measure + seconds * INTERVAL)
    }

    /// Whether no more operations are begun.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| now >= end)
    }

    fn first_second(&self) -> i64 {
        let warm_up = self.measure - self.start;
        -i64::try_from(warm_up.as_nanos().div_ceil(INTERVAL.as_nanos())).unwrap_or(0)
    }
}

/// What one core counted in one second.
#[derive(Debug)]
pub(crate) struct Second {
    /// Which, from the beginning of the measurement; negative in the warm-up.
    pub(crate) number: i64,
    /// What was counted.
    pub(crate) tally: Tally,
    /// Processor time that the core's thread took.
    pub(crate) cpu: Duration,
}

/// Counts for one core. See the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    schedule: Schedule,
    number: i64,
    until: Instant,
    tally: Tally,
    /// Operations that were answered, counted or not.
    answered: u64,
    /// When it looked last, and when operations were done last.
    now: Instant,
    done_at: Instant,
    cpu: Duration,
    to: Sender<Second>,
}

impl Recorder {
    /// Begins with the schedule's first second, on the thread whose processor time is told.
    pub(crate) fn new(schedule: Schedule, to: Sender<Second>) -> Self {
        let number = schedule.first_second();
        let warm_up_seconds = u32::try_from(-number).unwrap_or(0);
        let until = schedule.measure - warm_up_seconds.saturating_sub(1) * INTERVAL;
        let until = if warm_up_seconds == 0 { schedule.measure + INTERVAL } else { until };
        let (now, cpu) = (schedule.start, cpu::of_this_thread());
        Self { schedule, number, until, tally: Tally::new(), answered: 0, now, done_at: now, cpu, to }
    }

    /// Hands over every second that is over.
    pub(crate) fn look(&mut self, now: Instant) {
        self.now = now;
        while now >= self.until {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let cpu = cpu::of_this_thread();
        let tally = std::mem::replace(&mut self.tally, Tally::new());
        let taken = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        // Whoever listens no longer is ending the run.
        let _ = self.to.send(Second { number: self.number, tally, cpu: taken });
        self.number += 1;
        self.until += INTERVAL;
    }

    /// Hands over the second that has begun, and tells what was never answered.
    pub(crate) fn finish(mut self, now: Instant, unanswered: u64) {
        self.look(now);
        self.tally.unanswered = unanswered;
        self.hand_over();
    }

    /// An operation was answered as it should be.
    pub(crate) fn done(&mut self, kind: OpKind, keys: usize, latency: Duration) {
        self.answered += 1;
        if self.counts() {
            self.tally.done(kind, keys, latency);
            self.tally.silence = self.tally.silence.max(self.now.saturating_duration_since(self.done_at));
            self.done_at = self.now;
        }
    }

    /// A part of an operation was answered, with so many of its keys.
    pub(crate) fn part(&mut self, keys: usize) {
        if self.counts() {
            self.tally.keys += keys as u64;
        }
    }

    /// What a read found that is not as it should be.
    pub(crate) fn found(&mut self, found: Found) {
        if self.counts() {
            self.tally.missing += found.missing as u64;
            self.tally.wrong += found.wrong as u64;
        }
    }

    /// So many operations met an error and are sent again.
    pub(crate) fn retried(&mut self, name: &'static str, operations: u64) {
        if self.counts() {
            self.tally.errors.entry(name).or_default().retried += operations;
        }
    }

    /// An operation met an error and is given up.
    pub(crate) fn failed(&mut self, name: &'static str) {
        if self.counts() {
            self.tally.errors.entry(name).or_default().failed += 1;
        }
    }

    /// Operations that were answered so far, counted or not.
    pub(crate) const fn answered(&self) -> u64 {
        self.answered
    }

    fn counts(&self) -> bool {
        self.schedule.seconds.is_none_or(|seconds| self.number < i64::from(seconds))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_operation_counts_in_the_second_of_its_answer_and_not_after_the_last() {
        let start = Instant::now();
        let schedule = Schedule { start, measure: start + 1500 * MS, seconds: Some(2) };
        let (to, seconds) = channel();
        let mut recorder = Recorder::new(schedule, to);
        for ms in [0, 499, 500, 1499, 1500, 2500, 3499, 3500, 4000] {
            recorder.look(start + ms * MS);
            recorder.done(OpKind::Read, 3, MS);
            recorder.retried("Overloaded", 1);
        }
        recorder.finish(start + 4000 * MS, 7);
        let seconds: Vec<_> = seconds.iter().map(|second| (second.number, second.tally)).collect();
        let counted: Vec<_> = seconds.iter().map(|(number, tally)| (*number, tally.requests())).collect();
        assert_eq!(counted, [(-2, 2), (-1, 2), (0, 1), (1, 2), (2, 0)]);
        assert_eq!(seconds[2].1.keys, 3);
        let silences: Vec<_> = seconds.iter().map(|(_, tally)| tally.silence.as_millis()).collect();
        assert_eq!(silences, [499, 999, 1, 1000, 0]);
        assert_eq!(seconds[4].1.unanswered, 7);
        assert!(seconds[4].1.errors.is_empty());
    }

    #[test]
    fn without_an_end_everything_counts() {
        let start = Instant::now();
        let (to, seconds) = channel();
        let mut recorder = Recorder::new(Schedule { start, measure: start, seconds: None }, to);
        recorder.done(OpKind::Write, 1, MS);
        recorder.look(start + 2 * INTERVAL);
        recorder.done(OpKind::Write, 1, MS);
        recorder.finish(start + 2 * INTERVAL, 0);
        let mut all = Tally::new();
        seconds.iter().for_each(|second| all.merge(&second.tally));
        assert_eq!((all.requests(), all.latency(OpKind::Write).len()), (2, 2));
    }

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.done(OpKind::Read, 2, MS);
        other.done(OpKind::Write, 3, 3 * MS);
        one.errors.insert("NoSpace", ErrorCount { retried: 1, failed: 0 });
        other.errors.insert("NoSpace", ErrorCount { retried: 1, failed: 2 });
        other.errors.insert("Unknown", ErrorCount { retried: 0, failed: 1 });
        one.merge(&other);
        assert_eq!((one.requests(), one.keys, one.failed()), (2, 5, 3));
        assert_eq!(one.errors["NoSpace"], ErrorCount { retried: 2, failed: 2 });
        let all = one.all_latencies();
        assert_eq!(all.len(), 2);
        assert!((2_990_000..3_010_000).contains(&all.max()));
    }

    #[test]
    fn what_takes_too_long_is_kept_as_the_longest_time() {
        let mut tally = Tally::new();
        tally.done(OpKind::Read, 1, 3 * LATENCY_MAX);
        assert!(tally.all_latencies().max() >= nanoseconds(LATENCY_MAX));
    }
}
