//! The requests of a connection that are not answered yet, found by their ids.
//!
//! Invariant: an id is not used again while its request is unanswered, nor soon after.

use mesh_wire::{Frame, RequestId};
use tokio::sync::oneshot;

/// Who waits for an answer, and how much room the request takes up.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) answer: oneshot::Sender<Frame>,
    pub(super) units: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    waiter: Option<Waiter>,
}

/// The unanswered requests. An id is a slot's index and how often the slot was used.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// Takes an id for a request.
    pub(super) fn insert(&mut self, waiter: Waiter) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // A semaphore keeps them to some thousands.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let mut id = RequestId(0);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            assert!(slot.waiter.is_none(), "a free slot is empty");
            // Generations begin at 1: id 0 is nobody's.
            slot.generation = slot.generation.wrapping_add(1).max(1);
            slot.waiter = Some(waiter);
            id = RequestId(u64::from(slot.generation) << 32 | u64::from(index));
        }
        id
    }

    /// Takes out who waits for an id; `None` if no request has it.
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of an id")]
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Waiter> {
        let (generation, index) = ((id.0 >> 32) as u32, id.0 as u32);
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?;
        let waiter = slot.waiter.take()?;
        self.free.push(index);
        Some(waiter)
    }

    /// Takes out all.
    pub(super) fn clear(&mut self) -> Vec<Waiter> {
        let waiters = self.slots.iter_mut().filter_map(|slot| slot.waiter.take()).collect();
        (self.slots, self.free) = (Vec::new(), Vec::new());
        waiters
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(units: u32) -> Waiter {
        Waiter { answer: oneshot::channel().0, units }
    }

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert(waiter(1)), slots.insert(waiter(2)));
        assert_eq!(slots.remove(a).unwrap().units, 1);
        assert!(slots.remove(a).is_none());
        let c = slots.insert(waiter(3));
        assert_ne!(c, a, "the slot is used again under another id");
        assert!(slots.remove(a).is_none());
        assert_eq!((slots.remove(b).unwrap().units, slots.remove(c).unwrap().units), (2, 3));
        assert!(slots.remove(RequestId(0)).is_none() && slots.remove(RequestId(u64::MAX)).is_none());
        assert_eq!(slots.len(), 0);
    }
}
