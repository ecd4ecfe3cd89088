//! What the cores counted, put together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::stats::Second;
use crate::tally::Tally;

/// Seconds of [`Outcome::first_minute`].
const FIRST_MINUTE: i64 = 60;

/// One second of a run, all cores together. Times are in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Point {
    /// Which, from the beginning of the measurement; negative in the warm-up.
    pub(crate) number: i64,
    /// Keys that were read or written.
    pub(crate) keys: u64,
    /// Operations that were done.
    pub(crate) requests: u64,
    /// Errors, retried or not.
    pub(crate) errors: u64,
    /// Latencies of all operations.
    pub(crate) p50: u64,
    /// 0.99
    pub(crate) p99: u64,
    /// 0.999
    pub(crate) p99_9: u64,
    /// The longest.
    pub(crate) max: u64,
}

impl Point {
    /// Of what was counted in a second.
    pub(crate) fn of(number: i64, tally: &Tally) -> Self {
        let latencies = tally.all_latencies();
        Self {
            number,
            keys: tally.keys,
            requests: tally.requests(),
            errors: tally.errors.values().map(|count| count.retried + count.failed).sum(),
            p50: latencies.value_at_quantile(0.5),
            p99: latencies.value_at_quantile(0.99),
            p99_9: latencies.value_at_quantile(0.999),
            max: latencies.max(),
        }
    }
}

/// Looks on.
pub(crate) trait Observer {
    /// The warm-up is over.
    fn measurement_begins(&mut self) {}
    /// A second is over.
    fn second(&mut self, _point: &Point) {}
    /// What comes now does not count.
    fn measurement_ends(&mut self) {}
}

/// For those who do not care.
impl Observer for () {}

/// What a run brought.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// How long was measured.
    pub(crate) measured: Duration,
    /// What was counted meanwhile.
    pub(crate) total: Tally,
    /// The same in the first 60 seconds of it, with which a long run is compared.
    pub(crate) first_minute: Tally,
    /// The seconds of the measurement, each in a few figures: a run may take a day.
    pub(crate) series: Vec<Point>,
    /// Processor time of the generator's cores during these seconds.
    pub(crate) cpu: Duration,
}

/// See the module.
pub(crate) struct Collector {
    cores: usize,
    /// What is measured; `None` for everything.
    seconds: Option<u32>,
    waiting: BTreeMap<i64, (usize, Tally)>,
    outcome: Outcome,
}

impl Collector {
    /// Of so many cores, which measure for so many seconds.
    pub(crate) fn new(cores: usize, seconds: Option<u32>) -> Self {
        let outcome = Outcome {
            measured: Duration::ZERO,
            total: Tally::new(),
            first_minute: Tally::new(),
            series: Vec::new(),
            cpu: Duration::ZERO,
        };
        Self { cores, seconds, waiting: BTreeMap::new(), outcome }
    }

    /// Takes in what one core counted; a second is told when all cores have told theirs.
    pub(crate) fn take(&mut self, second: Second, observer: &mut dyn Observer) {
        let Second { number, tally, cpu } = second;
        if number >= 0 {
            // What was never answered is told after the last second.
            self.outcome.total.merge(&tally);
        }
        if self.is_measured(number) {
            self.outcome.cpu += cpu;
            if number < FIRST_MINUTE {
                self.outcome.first_minute.merge(&tally);
            }
        }
        let (told, of_all) = self.waiting.entry(number).or_default();
        of_all.merge(&tally);
        *told += 1;
        if *told == self.cores
            && let Some((_, of_all)) = self.waiting.remove(&number)
        {
            let point = Point::of(number, &of_all);
            observer.second(&point);
            if self.is_measured(number) {
                self.outcome.series.push(point);
            }
        }
    }

    fn is_measured(&self, number: i64) -> bool {
        number >= 0 && self.seconds.is_none_or(|seconds| number < i64::from(seconds))
    }

    /// All cores have told all.
    pub(crate) fn finish(mut self, measured: Duration) -> Outcome {
        // Cores whose operations come to an end do not do so in the same second.
        let waiting = std::mem::take(&mut self.waiting);
        let rest = waiting.into_iter().map(|(number, (_, of_all))| Point::of(number, &of_all));
        let rest: Vec<_> = rest.filter(|point| self.is_measured(point.number)).collect();
        self.outcome.series.extend(rest);
        self.outcome.measured = measured;
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: i64, keys: u64) -> Second {
        let mut tally = Tally::new();
        tally.keys = keys;
        Second { number, tally, cpu: Duration::from_secs(1) }
    }

    #[test]
    fn a_second_is_over_when_all_cores_have_told_theirs() {
        struct Seen(Vec<(i64, u64)>);
        impl Observer for Seen {
            fn second(&mut self, point: &Point) {
                self.0.push((point.number, point.keys));
            }
        }
        let (mut seen, mut collector) = (Seen(Vec::new()), Collector::new(2, Some(2)));
        for (number, keys) in [(-1, 1), (0, 2), (-1, 3), (1, 4), (0, 5), (1, 6), (2, 0)] {
            collector.take(second(number, keys), &mut seen);
        }
        assert_eq!(seen.0, [(-1, 4), (0, 7), (1, 10)]);
        let outcome = collector.finish(Duration::from_secs(2));
        assert_eq!(outcome.series.iter().map(|point| point.number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((outcome.total.keys, outcome.cpu), (17, Duration::from_secs(4)));
        assert_eq!(outcome.first_minute.keys, 17, "all of a run that is shorter");
    }

    #[test]
    fn the_first_minute_is_counted_by_itself_and_without_the_warm_up() {
        let mut collector = Collector::new(2, Some(100));
        // One core is ahead of the other.
        for number in (-2..=100).chain(-2..=100) {
            collector.take(second(number, 1), &mut ());
        }
        let outcome = collector.finish(Duration::from_secs(100));
        assert_eq!((outcome.first_minute.keys, outcome.series.len()), (120, 100));
    }
}
