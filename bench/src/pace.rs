//! When operations begin: when an earlier one is answered (a closed loop), or at times that do not depend on answers (an open loop).
//!
//! Each connection has arrivals of its own, at its part of the rate. Arrivals of all connections together are at even distances,
//! or random and independent of each other as many users' are (a Poisson process, which those of its parts are, too).
//!
//! Invariant: an arrival's time follows from the schedule alone. What could not be begun in time is begun later and keeps the time at
//! which it was due.

use std::time::{Duration, Instant};

use mesh_base::prng::Prng;

/// A system that keeps up has begun all but so small a part of what was due.
pub(crate) const OVERDUE_MAX: f64 = 0.01;

/// How arrivals follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum ArrivalKind {
    /// At even distances.
    Uniform,
    /// Independent of each other: their distances are exponentially distributed.
    Poisson,
}

impl ArrivalKind {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Poisson => "poisson",
        }
    }
}

/// When operations begin, of all connections.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// When an earlier one is answered.
    Closed,
    /// At times of their own.
    Open {
        /// Operations in a second, of all connections together.
        rate: f64,
        /// How they follow each other.
        arrivals: ArrivalKind,
    },
}

impl Pace {
    /// Operations in a second that are due; `None` in a closed loop.
    pub(crate) const fn rate(self) -> Option<f64> {
        match self {
            Self::Closed => None,
            Self::Open { rate, .. } => Some(rate),
        }
    }

    /// Operations that are due in so many seconds; `None` in a closed loop.
    pub(crate) fn due(self, seconds: u32) -> Option<f64> {
        self.rate().map(|rate| rate * f64::from(seconds))
    }
}

/// Which of how many connections it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// Among all, from 0.
    pub(crate) number: usize,
    /// All.
    pub(crate) of: usize,
}

/// The arrivals of one connection.
#[derive(Debug)]
pub(crate) struct Arrivals {
    kind: ArrivalKind,
    /// The mean distance, in nanoseconds.
    gap: f64,
    /// When the next one is due, in nanoseconds from the start.
    next: f64,
    start: Instant,
    prng: Prng,
}

impl Arrivals {
    /// Of a connection among all; they begin with [`Arrivals::start`].
    pub(crate) fn new(pace: Pace, seat: Seat, mut prng: Prng) -> Option<Self> {
        let Pace::Open { rate, arrivals: kind } = pace else { return None };
        let gap = 1e9 * as_f64(seat.of) / rate;
        let first = match kind {
            ArrivalKind::Uniform => gap * as_f64(seat.number) / as_f64(seat.of),
            ArrivalKind::Poisson => exponential(gap, &mut prng),
        };
        Some(Self { kind, gap, next: first, start: Instant::now(), prng })
    }

    /// The schedule begins.
    pub(crate) const fn start(&mut self, start: Instant) {
        self.start = start;
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.next / 1e9)
    }

    /// Takes the next one, which was due at this time.
    pub(crate) fn take(&mut self) -> Instant {
        let due = self.next();
        self.next += match self.kind {
            ArrivalKind::Uniform => self.gap,
            ArrivalKind::Poisson => exponential(self.gap, &mut self.prng),
        };
        due
    }

    /// About how many more were due before a moment.
    pub(crate) fn overdue(&self, at: Instant) -> u64 {
        let late = at.saturating_duration_since(self.next()).as_secs_f64() * 1e9;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and no more than were due"
        )]
        let count = (late / self.gap) as u64;
        count
    }
}

/// A distance, by its mean.
fn exponential(mean: f64, prng: &mut Prng) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let bits = (prng.next_u64() >> 11) as f64;
    // From 0, excluded, to 1, included.
    let unit = (bits + 1.0) / 9_007_199_254_740_992.0;
    -mean * unit.ln()
}

#[allow(clippy::cast_precision_loss, reason = "counts of connections")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(kind: ArrivalKind, rate: f64, connections: usize) -> Vec<Arrivals> {
        let start = Instant::now();
        let each = (0..connections).map(|number| {
            let pace = Pace::Open { rate, arrivals: kind };
            let seat = Seat { number, of: connections };
            let mut arrivals = Arrivals::new(pace, seat, Prng::new(number as u64 + 1)).unwrap();
            arrivals.start(start);
            arrivals
        });
        each.collect()
    }

    /// All that are due within a second, in nanoseconds from the start.
    fn within_a_second(mut each: Vec<Arrivals>) -> Vec<f64> {
        let mut due = Vec::new();
        for arrivals in &mut each {
            while arrivals.next < 1e9 {
                due.push(arrivals.next);
                arrivals.take();
            }
        }
        due.sort_by(f64::total_cmp);
        due
    }

    #[test]
    fn even_arrivals_of_all_connections_are_at_even_distances() {
        let due = within_a_second(arrivals(ArrivalKind::Uniform, 1000.0, 7));
        assert_eq!(due.len(), 1000);
        assert!(due.windows(2).all(|pair| (pair[1] - pair[0] - 1e6).abs() < 1.0));
    }

    #[test]
    fn random_arrivals_are_as_many_and_as_unequal_as_a_poisson_process_has_them() {
        let due = within_a_second(arrivals(ArrivalKind::Poisson, 100_000.0, 50));
        // The standard deviation of the number is its root.
        assert!((due.len() as f64 - 100_000.0).abs() < 4.0 * 316.0, "{}", due.len());
        let gaps: Vec<_> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!(
            (deviation / mean - 1.0).abs() < 0.03,
            "exponential: both are the same, {}",
            deviation / mean
        );
    }

    #[test]
    fn what_was_not_begun_is_known() {
        let each = arrivals(ArrivalKind::Uniform, 100.0, 1);
        assert_eq!(each[0].overdue(each[0].start + Duration::from_millis(505)), 50);
        assert_eq!(each[0].overdue(each[0].start), 0);
    }

    #[test]
    fn a_closed_loop_has_no_arrivals() {
        assert!(Arrivals::new(Pace::Closed, Seat { number: 0, of: 1 }, Prng::new(1)).is_none());
    }
}
