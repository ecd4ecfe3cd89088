//! Memory that is made before it is needed.
//!
//! Who writes to new memory first waits until the kernel has found it and cleared it: with huge pages that can be milliseconds, in
//! which a core answers nobody. So a cache that has begun to grow orders what it will need next from whoever has a thread to
//! spare. It never waits for it: what has not come it makes itself.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::arena::Chunk;

/// Where a store orders memory. The default is nowhere: it makes all of it itself.
#[derive(Clone, Debug, Default)]
pub struct MemoryAhead {
    orders: Option<Sender<Order>>,
}

/// The orders of any number of stores.
#[derive(Debug)]
pub struct MemoryOrders {
    orders: Receiver<Order>,
}

#[derive(Debug)]
struct Order {
    bytes: usize,
    to: Sender<Chunk>,
}

impl MemoryAhead {
    /// Where to order, and the orders, for a thread that has nothing else to do.
    #[must_use]
    pub fn new() -> (Self, MemoryOrders) {
        let (sender, orders) = channel();
        (Self { orders: Some(sender) }, MemoryOrders { orders })
    }
}

impl MemoryOrders {
    /// Makes what is ordered, until nobody is left who could order anything.
    pub fn serve(self) {
        for Order { bytes, to } in self.orders {
            let mut chunk = Chunk::new(bytes);
            chunk.settle();
            // Whoever ordered it may be gone.
            let _ = to.send(chunk);
        }
    }
}

/// What one arena has ordered.
pub(super) struct Ordering {
    from: MemoryAhead,
    to: Sender<Chunk>,
    made: Receiver<Chunk>,
    under_way: usize,
}

impl Ordering {
    pub(super) fn new(from: MemoryAhead) -> Self {
        let (to, made) = channel();
        Self { from, to, made, under_way: 0 }
    }

    /// Orders chunks until so many are under way.
    pub(super) fn keep_under_way(&mut self, chunks: usize, bytes: usize) {
        let Some(orders) = &self.from.orders else { return };
        while self.under_way < chunks && orders.send(Order { bytes, to: self.to.clone() }).is_ok() {
            self.under_way += 1;
        }
    }

    /// Chunks that were ordered and not taken.
    #[cfg(test)]
    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// A chunk that was ordered, if one has come.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        let chunk = self.made.try_recv().ok()?;
        self.under_way -= 1;
        Some(chunk)
    }
}
