//! The clocks of a node, as functions of true time: a monotonic clock that drifts, a wall clock that is skewed, drifts
//! with it and may jump.
//!
//! Invariants:
//! - The monotonic clock never goes back between two reboots of the machine, whatever is done to drift and wall clock.
//! - A reading depends on true time and on the calls made so far, on nothing else.
//!
//! Deliberately absent: time synchronisation. A harness that wants it jumps the wall clock.

use std::time::Duration;

use mesh_base::prng::Prng;
use mesh_base::{Instant, Now, Revision, WallMillis};

use crate::latency::draw_between;

/// What the wall clocks show at true time zero, before skew: the start of June 2026.
pub const WALL_AT_START: WallMillis = WallMillis(Revision::EPOCH_UNIX_MS + 151 * 24 * 3600 * 1000);

const MILLION: i128 = 1_000_000;

/// How wrong clocks may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockOptions {
    /// The wall clock is off by at most this, either way.
    pub skew_max: Duration,
    /// Both clocks are fast or slow by at most this many parts in a million.
    pub drift_ppm_max: u32,
}

impl ClockOptions {
    /// Clocks that show true time.
    pub const EXACT: Self = Self { skew_max: Duration::ZERO, drift_ppm_max: 0 };
}

/// Both clocks of one node.
#[derive(Clone, Debug)]
pub struct SimClock {
    /// Since when the rest of the fields is valid.
    anchor: Instant,
    monotonic_ns: i128,
    wall_ns: i128,
    drift_ppm: i64,
}

impl SimClock {
    /// Clocks that show true time, the machine having booted at time zero.
    #[must_use]
    pub const fn exact() -> Self {
        Self {
            anchor: Instant::ZERO,
            monotonic_ns: 0,
            wall_ns: WALL_AT_START.0 as i128 * MILLION,
            drift_ppm: 0,
        }
    }

    /// Clocks as wrong as the options allow, of a machine that booted up to a day before true time zero.
    pub fn draw(options: &ClockOptions, prng: &mut Prng) -> Self {
        let mut clock = Self::exact();
        clock.monotonic_ns =
            nanos(draw_between(prng, Duration::from_secs(1), Duration::from_secs(24 * 3600)));
        let skew = nanos(draw_between(prng, Duration::ZERO, options.skew_max * 2));
        clock.wall_ns += skew - nanos(options.skew_max);
        let drift = prng.range(0..u64::from(options.drift_ppm_max) * 2 + 1);
        clock.drift_ppm = drift.cast_signed() - i64::from(options.drift_ppm_max);
        clock
    }

    /// What the node reads at a true time.
    #[must_use]
    pub fn read(&self, true_now: Instant) -> Now {
        let elapsed = self.elapsed_ns(true_now);
        Now {
            monotonic: Instant(saturate(self.monotonic_ns + elapsed)),
            wall: WallMillis(saturate((self.wall_ns + elapsed) / MILLION)),
        }
    }

    /// The first true time at which the node's monotonic clock shows `monotonic` or more: when to wake it. Never
    /// before the last change of the clock.
    #[must_use]
    pub fn true_time_of(&self, monotonic: Instant) -> Instant {
        let ahead = (i128::from(monotonic.0) - self.monotonic_ns).max(0);
        let rate = MILLION + i128::from(self.drift_ppm);
        let at = Instant(self.anchor.0.saturating_add(saturate((ahead * MILLION + rate - 1) / rate)));
        debug_assert!(self.read(at).monotonic >= monotonic, "woken early");
        at
    }

    /// Moves the wall clock, either way. The monotonic clock does not notice.
    pub fn jump_wall(&mut self, true_now: Instant, jump_ms: i64) {
        self.reanchor(true_now);
        self.wall_ns = (self.wall_ns + i128::from(jump_ms) * MILLION).max(0);
    }

    /// Makes both clocks fast (above zero) or slow by parts in a million from now on.
    ///
    /// # Panics
    /// When the clocks would stand still or run backwards: a bug of the caller.
    pub fn set_drift(&mut self, true_now: Instant, drift_ppm: i64) {
        assert!(drift_ppm > -1_000_000, "a clock that does not advance");
        self.reanchor(true_now);
        self.drift_ppm = drift_ppm;
    }

    /// The machine reboots: the monotonic clock starts anew, and may then be far behind any reading taken before.
    pub fn reboot(&mut self, true_now: Instant, prng: &mut Prng) {
        self.reanchor(true_now);
        self.monotonic_ns = nanos(draw_between(prng, Duration::from_millis(1), Duration::from_secs(30)));
    }

    fn reanchor(&mut self, true_now: Instant) {
        let elapsed = self.elapsed_ns(true_now);
        self.anchor = self.anchor.max(true_now);
        self.monotonic_ns += elapsed;
        self.wall_ns += elapsed;
    }

    fn elapsed_ns(&self, true_now: Instant) -> i128 {
        let elapsed = nanos(true_now.since(self.anchor));
        elapsed * (MILLION + i128::from(self.drift_ppm)) / MILLION
    }
}

#[allow(clippy::cast_possible_wrap, reason = "584 years of nanoseconds fit")]
const fn nanos(duration: Duration) -> i128 {
    duration.as_nanos() as i128
}

fn saturate(ns: i128) -> u64 {
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_fast_clock_gains_and_a_slow_one_loses() {
        let mut clock = SimClock::exact();
        clock.set_drift(Instant::ZERO, 200);
        assert_eq!(clock.read(Instant(10 * SECOND)).monotonic, Instant(10 * SECOND + 2_000_000));
        clock.set_drift(Instant(10 * SECOND), -200);
        assert_eq!(clock.read(Instant(20 * SECOND)).monotonic, Instant(20 * SECOND));
    }

    #[test]
    fn a_jump_of_the_wall_clock_does_not_move_the_monotonic_one() {
        let mut clock = SimClock::exact();
        clock.jump_wall(Instant(SECOND), -5000);
        let now = clock.read(Instant(2 * SECOND));
        assert_eq!(now.monotonic, Instant(2 * SECOND));
        assert_eq!(now.wall, WallMillis(WALL_AT_START.0 + 2000 - 5000));
    }

    #[test]
    fn a_reboot_may_set_the_monotonic_clock_back_but_not_the_wall_clock() {
        let mut prng = Prng::new(3);
        let mut clock = SimClock::exact();
        let before = clock.read(Instant(3600 * SECOND));
        clock.reboot(Instant(3600 * SECOND), &mut prng);
        let after = clock.read(Instant(3600 * SECOND));
        assert!(after.monotonic < before.monotonic);
        assert_eq!(after.wall, before.wall);
    }

    quickcheck! {
        fn skew_and_drift_stay_within_their_options(seed: u64, seconds: u16) -> bool {
            let options = ClockOptions { skew_max: Duration::from_millis(300), drift_ppm_max: 100 };
            let clock = SimClock::draw(&options, &mut Prng::new(seed));
            let at = Instant(u64::from(seconds) * SECOND);
            let exact = SimClock::exact().read(at).wall.0;
            let allowed = 300 + u64::from(seconds) / 10 + 1;
            clock.read(at).wall.0.abs_diff(exact) <= allowed
        }

        fn a_wake_up_is_neither_early_nor_more_than_a_tick_late(seed: u64, wait_ns: u32) -> bool {
            let options = ClockOptions { skew_max: Duration::ZERO, drift_ppm_max: 500 };
            let clock = SimClock::draw(&options, &mut Prng::new(seed));
            let wanted = clock.read(Instant(SECOND)).monotonic + Duration::from_nanos(u64::from(wait_ns));
            let at = clock.true_time_of(wanted);
            let shown = clock.read(at).monotonic;
            at >= Instant(SECOND) && shown >= wanted && shown.0 - wanted.0 <= 2
        }

        fn the_monotonic_clock_never_goes_back(seed: u64, changes: Vec<(u16, i16)>) -> bool {
            let options = ClockOptions { skew_max: Duration::from_secs(1), drift_ppm_max: 500 };
            let mut clock = SimClock::draw(&options, &mut Prng::new(seed));
            let (mut at, mut last) = (Instant::ZERO, Instant::ZERO);
            changes.iter().all(|&(wait, change)| {
                at = at + Duration::from_nanos(u64::from(wait));
                if change % 2 == 0 {
                    clock.set_drift(at, i64::from(change));
                } else {
                    clock.jump_wall(at, i64::from(change));
                }
                let previous = std::mem::replace(&mut last, clock.read(at).monotonic);
                last >= previous
            })
        }
    }
}
