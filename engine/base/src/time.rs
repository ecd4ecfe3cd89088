//! Time as a value. Only the host and the simulator know what time it is; everyone else is told.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point on a node's monotonic (boot-time) clock, in nanoseconds. Comparable on one node only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Self = Self(0);

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    #[allow(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit")]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

/// A reading of the wall clock: milliseconds since the Unix epoch. May jump either way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WallMillis(pub u64);

/// Both clocks of a node, read once per step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    /// For durations and deadlines.
    pub monotonic: Instant,
    /// For revisions.
    pub wall: WallMillis,
}
