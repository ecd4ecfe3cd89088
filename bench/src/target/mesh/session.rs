//! A session of writes, as one connection uses it: its numbers are known to no one else.
//!
//! Invariants:
//! - A number is used for one write only, and stays the write's when that is sent again.
//! - `below` is the lowest number whose outcome is awaited.
//! - No number is given out beyond the shard's window.

use mesh_base::limits::SESSION_WINDOW_MAX;
use mesh_base::{SessionId, SessionSeq};

const WINDOW: u64 = SESSION_WINDOW_MAX as u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    below: u64,
    next: u64,
    /// Whether the outcome of a number within the window is known, by the number modulo the window.
    settled: Vec<bool>,
}

impl Session {
    pub(super) fn new(id: SessionId) -> Self {
        Self { id, below: 1, next: 1, settled: vec![false; SESSION_WINDOW_MAX] }
    }

    pub(super) const fn id(&self) -> SessionId {
        self.id
    }

    pub(super) const fn acknowledged_below(&self) -> SessionSeq {
        SessionSeq(self.below)
    }

    /// A number for a write; `None` while there are too many.
    pub(super) fn begin(&mut self) -> Option<SessionSeq> {
        if self.next - self.below >= WINDOW {
            return None;
        }
        self.next += 1;
        Some(SessionSeq(self.next - 1))
    }

    /// The outcome of a write is known, or of no interest any more.
    pub(super) fn settle(&mut self, seq: SessionSeq) {
        assert!((self.below..self.next).contains(&seq.0), "a number is settled once");
        *self.of(seq.0) = true;
        while self.below < self.next && std::mem::take(self.of(self.below)) {
            self.below += 1;
        }
    }

    #[allow(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "the vector has an element for each number modulo the window"
    )]
    fn of(&mut self, seq: u64) -> &mut bool {
        &mut self.settled[(seq % WINDOW) as usize]
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::Revision;
    use mesh_base::prng::Prng;
    use quickcheck::quickcheck;

    use super::*;

    fn session() -> Session {
        Session::new(SessionId(Revision(7)))
    }

    #[test]
    fn one_slow_write_does_not_take_the_numbers_beyond_the_window() {
        let mut session = session();
        let slow = session.begin().unwrap();
        for _ in 1..SESSION_WINDOW_MAX {
            let seq = session.begin().unwrap();
            session.settle(seq);
        }
        assert_eq!(session.begin(), None);
        assert_eq!(session.acknowledged_below(), slow);
        session.settle(slow);
        assert_eq!(session.begin(), Some(SessionSeq(WINDOW + 1)));
        assert_eq!(session.acknowledged_below(), SessionSeq(WINDOW + 1));
    }

    quickcheck! {
        fn the_lowest_number_awaited_is_known_whatever_the_order_of_outcomes(seed: u64) -> bool {
            let (mut prng, mut session, mut held) = (Prng::new(seed), session(), Vec::new());
            (0..3000).all(|_| {
                if prng.chance_per_mille(550) {
                    held.extend(session.begin());
                } else if !held.is_empty() {
                    session.settle(held.swap_remove(prng.index(held.len()).max(prng.index(held.len()))));
                }
                held.iter().min().is_none_or(|least| *least == session.acknowledged_below())
            })
        }
    }
}
