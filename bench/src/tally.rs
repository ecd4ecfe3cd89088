//! What was counted and timed, in one second of one core or in all of a run.
//!
//! Invariant: a histogram is there only for what was timed, so that an empty tally is small.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::op::OpKind;

/// The longest time that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(100);
/// Decimal digits that a latency is kept with.
const DIGITS: u8 = 3;

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

/// Operations whose times belong together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// Of keys.
    Reads,
    /// Of keys, there or not.
    Writes,
    /// Of keys in order.
    Scans,
    /// A read and the write that follows it, as a whole. Both count by themselves, too.
    Modifies,
}

impl Class {
    const COUNT: usize = 4;

    /// All of them.
    pub(crate) const ALL: [Self; Self::COUNT] = [Self::Reads, Self::Writes, Self::Scans, Self::Modifies];

    /// For reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Scans => "ranges",
            Self::Modifies => "read+write",
        }
    }
}

impl From<OpKind> for Class {
    fn from(kind: OpKind) -> Self {
        match kind {
            OpKind::Read => Self::Reads,
            OpKind::Write => Self::Writes,
            OpKind::Scan => Self::Scans,
        }
    }
}

/// How long an operation took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Times {
    /// From when it was due.
    pub(crate) response: Duration,
    /// From when it was sent; `None` where that is when it was due.
    pub(crate) service: Option<Duration>,
}

impl Times {
    /// Of an operation that is due when it is sent.
    pub(crate) const fn closed(time: Duration) -> Self {
        Self { response: time, service: None }
    }
}

/// How often an error came.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub(crate) struct ErrorCount {
    /// The operation was sent again.
    pub(crate) retried: u64,
    /// The operation was given up.
    pub(crate) failed: u64,
}

/// Times by class.
#[derive(Clone, Default, Debug)]
struct ByClass([Option<Latencies>; Class::COUNT]);

impl ByClass {
    fn of(&self, class: Class) -> Option<&Latencies> {
        self.0.get(class as usize)?.as_ref()
    }

    fn add(&mut self, class: Class, time: Duration) {
        if let Some(of_class) = self.0.get_mut(class as usize) {
            of_class.get_or_insert_with(latencies).saturating_record(nanoseconds(time));
        }
    }

    fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            if let Some(theirs) = theirs {
                add(ours.get_or_insert_with(latencies), theirs);
            }
        }
    }
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    /// From when an operation was due to its answer.
    response: ByClass,
    /// From its sending to its answer, where operations are due at times of their own.
    service: ByClass,
    /// Keys that were read or written; a range counts as one.
    pub(crate) keys: u64,
    /// Keys that ranges brought.
    pub(crate) items: u64,
    /// Keys that were read and do not exist.
    pub(crate) missing: u64,
    /// Keys whose value had another length than those that are written.
    pub(crate) wrong: u64,
    /// By name.
    pub(crate) errors: BTreeMap<&'static str, ErrorCount>,
    /// Operations that were never answered.
    pub(crate) unanswered: u64,
    /// Operations that were due and never begun.
    pub(crate) overdue: u64,
    /// The longest time on one core between two operations that were done, whatever connections they were on; in the second of the
    /// later one.
    pub(crate) silence: Duration,
}

impl Tally {
    /// Nothing counted.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The latencies of a class, if it has any.
    pub(crate) fn latency(&self, class: Class) -> Option<&Latencies> {
        self.response.of(class)
    }

    /// The same from the sending on, where that is another time.
    pub(crate) fn service(&self, class: Class) -> Option<&Latencies> {
        self.service.of(class)
    }

    /// The latencies of all operations, each once.
    pub(crate) fn all_latencies(&self) -> Latencies {
        let mut all = latencies();
        let each = [Class::Reads, Class::Writes, Class::Scans].into_iter();
        each.filter_map(|class| self.latency(class)).for_each(|of_class| add(&mut all, of_class));
        all
    }

    /// Operations that were done.
    pub(crate) fn requests(&self) -> u64 {
        let each = [Class::Reads, Class::Writes, Class::Scans].into_iter();
        each.filter_map(|class| self.latency(class)).map(Histogram::len).sum()
    }

    /// What was begun by itself and done, in a second: a write that follows its read is not.
    pub(crate) fn arrivals_per_second(&self, measured: Duration) -> f64 {
        let halves = self.latency(Class::Modifies).map_or(0, Histogram::len);
        #[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
        let arrivals = self.requests().saturating_sub(halves) as f64;
        arrivals / measured.as_secs_f64()
    }

    /// Operations that were given up.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().map(|count| count.failed).sum()
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.keys += other.keys;
        self.items += other.items;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.unanswered += other.unanswered;
        self.overdue += other.overdue;
        self.silence = self.silence.max(other.silence);
        for (&name, theirs) in &other.errors {
            let ours = self.errors.entry(name).or_default();
            ours.retried += theirs.retried;
            ours.failed += theirs.failed;
        }
    }

    /// An operation of so many keys was done.
    pub(crate) fn done(&mut self, class: Class, keys: usize, times: Times) {
        self.time(class, times);
        self.keys += keys as u64;
    }

    /// Something took so long.
    pub(crate) fn time(&mut self, class: Class, times: Times) {
        self.response.add(class, times.response);
        if let Some(service) = times.service {
            self.service.add(class, service);
        }
    }
}

#[allow(clippy::expect_used, reason = "histograms of the same bounds")]
fn add(ours: &mut Latencies, theirs: &Latencies) {
    ours.add(theirs).expect("the same bounds");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.done(Class::Reads, 2, Times::closed(MS));
        other.done(Class::Writes, 3, Times { response: 3 * MS, service: Some(MS) });
        other.time(Class::Modifies, Times::closed(9 * MS));
        one.errors.insert("NoSpace", ErrorCount { retried: 1, failed: 0 });
        other.errors.insert("NoSpace", ErrorCount { retried: 1, failed: 2 });
        other.errors.insert("Unknown", ErrorCount { retried: 0, failed: 1 });
        one.merge(&other);
        assert_eq!((one.requests(), one.keys, one.failed()), (2, 5, 3));
        assert_eq!(one.errors["NoSpace"], ErrorCount { retried: 2, failed: 2 });
        let all = one.all_latencies();
        assert_eq!(all.len(), 2, "what is made of others counts once");
        assert!((2_990_000..3_010_000).contains(&all.max()));
        assert!((990_000..1_010_000).contains(&one.service(Class::Writes).unwrap().max()));
        assert!(one.service(Class::Reads).is_none() && one.latency(Class::Scans).is_none());
    }

    #[test]
    fn what_takes_too_long_is_kept_as_the_longest_time() {
        let mut tally = Tally::new();
        tally.done(Class::Reads, 1, Times::closed(3 * LATENCY_MAX));
        assert!(tally.all_latencies().max() >= nanoseconds(LATENCY_MAX));
    }
}
