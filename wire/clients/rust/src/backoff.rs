//! How long to wait before trying again: longer each time, and never twice the same, so that those who failed together do
//! not come back together.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use mesh_base::limits::CLIENT_RETRY_PAUSE_MIN;
use mesh_base::prng::Prng;

use crate::sync::lock;

/// The library's source of randomness: for jitter and for numbers that only have to differ.
#[derive(Debug)]
pub(crate) struct Dice(Mutex<Prng>);

impl Dice {
    /// Seeded by the operating system, through the standard library's hash keys.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Prng::new(RandomState::new().hash_one(0_u8))))
    }

    pub(crate) fn number(&self) -> u64 {
        lock(&self.0).next_u64()
    }

    /// A part of the duration, half of it at least.
    pub(crate) fn jitter(&self, whole: Duration) -> Duration {
        let half = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX / 2);
        Duration::from_micros(half + lock(&self.0).range(0..half + 1))
    }
}

/// The pause after so many failures in a row, before jitter: doubling from 10 ms to at most `most`.
pub(crate) fn pause(failures: u32, most: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    CLIENT_RETRY_PAUSE_MIN.saturating_mul(1 << doublings).min(most)
}

#[cfg(test)]
mod tests {
    use mesh_base::limits::CLIENT_RETRY_PAUSE_MAX;

    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_keep_half_of_themselves() {
        let most = CLIENT_RETRY_PAUSE_MAX;
        let pauses: Vec<_> = [1, 2, 3, 8, 40].map(|failures| pause(failures, most).as_millis()).into();
        assert_eq!(pauses, [10, 20, 40, 1000, 1000]);
        let dice = Dice::new();
        let drawn: Vec<_> = (0..100).map(|_| dice.jitter(most)).collect();
        assert!(drawn.iter().all(|pause| (most / 2..=most).contains(pause)));
        assert!(drawn.iter().any(|pause| pause != &drawn[0]));
    }
}
