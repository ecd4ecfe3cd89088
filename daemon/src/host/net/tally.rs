//! What waits to be sent on all the connections of a core together.

use std::cell::Cell;
use std::rc::Rc;

/// A count of bytes with a bound.
pub(super) struct Tally {
    bytes: Cell<usize>,
    most: usize,
}

impl Tally {
    /// Nothing yet, of `most` bytes.
    pub(super) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { bytes: Cell::new(0), most })
    }
}

/// One connection's share of it, gone with the connection.
pub(super) struct Share {
    of: Rc<Tally>,
    bytes: Cell<usize>,
}

impl Share {
    /// Nothing yet.
    pub(super) fn of(tally: &Rc<Tally>) -> Self {
        Self { of: Rc::clone(tally), bytes: Cell::new(0) }
    }

    /// The share is so many bytes now.
    pub(super) fn set(&self, bytes: usize) {
        let others = self.of.bytes.get() - self.bytes.replace(bytes);
        self.of.bytes.set(others + bytes);
    }

    /// Whether there should be no more of all shares together.
    pub(super) fn is_too_much(&self) -> bool {
        self.of.bytes.get() >= self.of.most
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_together_are_bounded_and_go_with_their_owners() {
        let tally = Tally::new(100);
        let (one, other) = (Share::of(&tally), Share::of(&tally));
        one.set(60);
        other.set(40);
        assert!(one.is_too_much());
        one.set(59);
        assert!(!other.is_too_much());
        drop(one);
        assert_eq!(tally.bytes.get(), 40);
        drop(other);
        assert_eq!(tally.bytes.get(), 0);
    }
}
