//! What is counted and timed while a run goes on, second by second.
//!
//! Every core of the generator has a [`Recorder`] of its own and hands over what it counted once a second, so that
//! nothing is shared while operations are timed.
//!
//! Invariants:
//! - An operation counts in the second in which its answer came; answers after the last second do not count.
//! - Seconds are counted from the beginning of the measurement on all cores alike; those of the warm-up are negative.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::tally::{Class, Tally, Times};
use crate::target::Found;

/// A second is the unit of the series.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

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

    /// Hands over the second that has begun, and tells what was never answered, and never begun though it was due.
    pub(crate) fn finish(mut self, now: Instant, unanswered: u64, overdue: u64) {
        self.look(now);
        self.tally.unanswered = unanswered;
        self.tally.overdue = overdue;
        self.hand_over();
    }

    /// An operation was answered as it should be.
    pub(crate) fn done(&mut self, class: Class, keys: usize, times: Times) {
        self.answered += 1;
        if self.counts() {
            self.tally.done(class, keys, times);
            self.tally.silence = self.tally.silence.max(self.now.saturating_duration_since(self.done_at));
            self.done_at = self.now;
        }
    }

    /// The last of the operations that belong together was answered.
    pub(crate) fn whole(&mut self, class: Class, times: Times) {
        if self.counts() {
            self.tally.time(class, times);
        }
    }

    /// A range brought so many keys.
    pub(crate) fn items(&mut self, items: usize) {
        if self.counts() {
            self.tally.items += items as u64;
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
            recorder.done(Class::Reads, 3, Times::closed(MS));
            recorder.retried("Overloaded", 1);
        }
        recorder.finish(start + 4000 * MS, 7, 0);
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
        recorder.done(Class::Writes, 1, Times::closed(MS));
        recorder.look(start + 2 * INTERVAL);
        recorder.done(Class::Writes, 1, Times::closed(MS));
        recorder.finish(start + 2 * INTERVAL, 0, 0);
        let mut all = Tally::new();
        seconds.iter().for_each(|second| all.merge(&second.tally));
        assert_eq!((all.requests(), all.latency(Class::Writes).unwrap().len()), (2, 2));
    }
}
