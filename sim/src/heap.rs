//! The event heap: true time, and what happens when.
//!
//! Invariants:
//! - True time never goes back: nothing is scheduled before the event that was taken last.
//! - Events of one time come out in the order in which they went in, so a run is a function of its draws.
//!
//! Deliberately absent: cancellation. An event that has lost its meaning (a crashed node's timer, an operation that a
//! crash swallowed) is recognised by its receiver, as in a real system.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use mesh_base::Instant;

/// The events of a run, ordered by true time.
#[derive(Clone, Debug)]
pub struct EventHeap<E> {
    events: BinaryHeap<Reverse<Scheduled<E>>>,
    now: Instant,
    next_number: u64,
}

#[derive(Clone, Debug)]
struct Scheduled<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> EventHeap<E> {
    /// An empty heap at time zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { events: BinaryHeap::new(), now: Instant::ZERO, next_number: 0 }
    }

    /// True time: when the event that was taken last happened.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Lets something happen after `delay`.
    pub fn schedule(&mut self, delay: Duration, event: E) {
        self.schedule_at(self.now + delay, event);
    }

    /// Lets something happen at a true time.
    ///
    /// # Panics
    /// When that time is past: a bug of the caller.
    pub fn schedule_at(&mut self, at: Instant, event: E) {
        assert!(at >= self.now, "scheduled {at:?}, which is before now, {:?}", self.now);
        self.events.push(Reverse(Scheduled { at, number: self.next_number, event }));
        self.next_number += 1;
    }

    /// Takes the next event and moves true time to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(next) = self.events.pop()?;
        assert!(next.at >= self.now, "true time went back");
        self.now = next.at;
        Some(next.event)
    }

    /// Takes the next event if it happens at or before `limit`; else moves true time to `limit`.
    pub fn pop_until(&mut self, limit: Instant) -> Option<E> {
        if self.next_at().is_some_and(|at| at <= limit) {
            return self.pop();
        }
        self.now = self.now.max(limit);
        None
    }

    /// The next event.
    #[must_use]
    pub fn peek(&self) -> Option<&E> {
        self.events.peek().map(|Reverse(next)| &next.event)
    }

    /// When the next event happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.events.peek().map(|Reverse(next)| next.at)
    }

    /// Events to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing more happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl<E> Default for EventHeap<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Scheduled<E> {
    const fn order(&self) -> (Instant, u64) {
        (self.at, self.number)
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn events_come_in_the_order_of_time_and_then_of_insertion(delays: Vec<u8>) -> bool {
            let mut heap = EventHeap::new();
            for (number, &delay) in delays.iter().enumerate() {
                heap.schedule(Duration::from_nanos(u64::from(delay)), (delay, number));
            }
            let taken: Vec<_> = std::iter::from_fn(|| heap.pop()).collect();
            let mut sorted = taken.clone();
            sorted.sort_unstable();
            taken.len() == delays.len() && taken == sorted
        }
    }

    #[test]
    fn time_stops_at_the_limit_when_nothing_happens_before_it() {
        let mut heap = EventHeap::new();
        heap.schedule(Duration::from_nanos(10), 'a');
        assert_eq!(heap.pop_until(Instant(5)), None);
        assert_eq!(heap.now(), Instant(5));
        assert_eq!(heap.pop_until(Instant(10)), Some('a'));
        assert!(heap.is_empty());
    }

    #[test]
    #[should_panic(expected = "before now")]
    fn nothing_is_scheduled_in_the_past() {
        let mut heap = EventHeap::new();
        heap.schedule_at(Instant(10), ());
        heap.pop();
        heap.schedule_at(Instant(9), ());
    }
}
