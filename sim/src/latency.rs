//! How long something takes: a range, and now and then much longer.

use std::fmt;
use std::time::Duration;

use mesh_base::prng::Prng;

/// A distribution of durations: uniform between `least` and `most`, and `tail_per_mille` times in a thousand uniform
/// between `most` and `tail`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// The shortest.
    pub least: Duration,
    /// The longest of the ordinary ones.
    pub most: Duration,
    /// How many of a thousand are drawn from the tail.
    pub tail_per_mille: u64,
    /// The longest of all.
    pub tail: Duration,
}

impl Latency {
    /// Always the same.
    #[must_use]
    pub const fn fixed(duration: Duration) -> Self {
        Self { least: duration, most: duration, tail_per_mille: 0, tail: duration }
    }

    /// Uniform between two durations, without a tail.
    #[must_use]
    pub const fn between(least: Duration, most: Duration) -> Self {
        Self { least, most, tail_per_mille: 0, tail: most }
    }

    /// The same, with some of a thousand uniform between `most` and `tail`.
    #[must_use]
    pub const fn with_tail(self, tail_per_mille: u64, tail: Duration) -> Self {
        Self { tail_per_mille, tail, ..self }
    }

    /// The same, with nothing from the tail.
    #[must_use]
    pub const fn without_tail(self) -> Self {
        Self { tail_per_mille: 0, ..self }
    }

    /// One duration.
    pub fn draw(&self, prng: &mut Prng) -> Duration {
        if self.tail_per_mille > 0 && prng.chance_per_mille(self.tail_per_mille) {
            draw_between(prng, self.most, self.tail)
        } else {
            draw_between(prng, self.least, self.most)
        }
    }
}

/// A duration between two, both included.
#[allow(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit")]
pub(crate) fn draw_between(prng: &mut Prng, least: Duration, most: Duration) -> Duration {
    let (least, most) = (least.as_nanos() as u64, most.as_nanos() as u64);
    if least >= most {
        Duration::from_nanos(least)
    } else {
        Duration::from_nanos(prng.range(least..most + 1))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.least, self.most)?;
        if self.tail_per_mille > 0 {
            write!(f, ", {}/1000 up to {:?}", self.tail_per_mille, self.tail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_between_the_least_and_the_tail_and_reach_both_parts() {
        let ms = Duration::from_millis;
        let latency = Latency::between(ms(1), ms(2)).with_tail(100, ms(50));
        let mut prng = Prng::new(1);
        let drawn: Vec<_> = (0..2000).map(|_| latency.draw(&mut prng)).collect();
        assert!(drawn.iter().all(|&it| ms(1) <= it && it <= ms(50)));
        let long = drawn.iter().filter(|&&it| it > ms(2)).count();
        assert!((100..300).contains(&long), "{long} of 2000 from the tail");
    }

    #[test]
    fn a_fixed_latency_is_always_the_same() {
        let mut prng = Prng::new(1);
        assert_eq!(Latency::fixed(Duration::ZERO).draw(&mut prng), Duration::ZERO);
    }
}
