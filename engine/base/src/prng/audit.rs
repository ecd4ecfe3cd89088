//! How many numbers this thread has drawn, and which: whoever compares two runs of a seed sees where they part.
//!
//! Compiled in for the simulator alone. Auditing changes no draw.

use std::cell::Cell;

thread_local! {
    static DRAWS: Cell<Draws> = const { Cell::new(Draws { count: 0, digest: 0 }) };
}

/// All draws of a thread's generators, since [`reset`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Draws {
    /// How many.
    pub count: u64,
    /// Of what was drawn, in order.
    pub digest: u64,
}

/// The draws of this thread so far.
#[must_use]
pub fn draws() -> Draws {
    DRAWS.get()
}

/// Counts this thread's draws from nothing again.
pub fn reset() {
    DRAWS.set(Draws::default());
}

/// Multiplication by an odd number and rotation lose nothing, so two sequences that differ in one draw never have the
/// same digest right after it.
pub(super) fn note(drawn: u64) {
    let Draws { count, digest } = DRAWS.get();
    let digest = (digest.rotate_left(5) ^ drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    DRAWS.set(Draws { count: count + 1, digest });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    fn draws_of(draw: impl FnOnce(&mut Prng)) -> Draws {
        let mut prng = Prng::new(1);
        reset();
        draw(&mut prng);
        draws()
    }

    #[test]
    fn the_draws_of_all_generators_of_a_thread_are_counted_from_the_last_reset() {
        let drawn = draws_of(|prng| {
            let mut fork = prng.fork();
            fork.index(3);
            prng.chance_per_mille(1);
        });
        assert_eq!(drawn.count, 3);
    }

    #[test]
    fn a_draw_too_many_and_draws_in_another_order_are_seen() {
        let one = draws_of(|prng| _ = prng.next_u64());
        let two = draws_of(|prng| _ = (prng.next_u64(), prng.next_u64()));
        let swapped = draws_of(|prng| {
            let (first, second) = (prng.next_u64(), prng.next_u64());
            reset();
            note(second);
            note(first);
        });
        assert_ne!(one, two);
        assert_eq!(two.count, swapped.count);
        assert_ne!(two.digest, swapped.digest);
        assert_eq!(two, draws_of(|prng| _ = (prng.next_u64(), prng.next_u64())));
    }

    #[test]
    fn other_threads_do_not_disturb() {
        let drawn = draws_of(|prng| {
            prng.next_u64();
            std::thread::scope(|scope| _ = scope.spawn(|| Prng::new(2).next_u64()).join());
        });
        assert_eq!(drawn.count, 1);
    }
}
