//! Frames that wait for a connection to another node: bounded, and lossy by design, since raft sends again.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::ShardId;
use mesh_base::limits::LINK_QUEUE_BYTES_MAX;

use crate::core::LinkClass;

/// A frame and the shard it is for.
pub(super) type Letter = (ShardId, Bytes);

/// The share of control frames in [`LINK_QUEUE_BYTES_MAX`].
const CONTROL_BYTES_MAX: usize = LINK_QUEUE_BYTES_MAX / 8;
const BULK_BYTES_MAX: usize = LINK_QUEUE_BYTES_MAX - CONTROL_BYTES_MAX;

/// What waits for one connection. When it is full, the oldest control frames are dropped, since a newer one says more;
/// of bulk frames the newest, since those before it are of no use with a gap among them.
#[derive(Debug)]
pub(super) struct Queue {
    class: LinkClass,
    letters: VecDeque<Letter>,
    bytes: usize,
}

impl Queue {
    pub(super) const fn new(class: LinkClass) -> Self {
        Self { class, letters: VecDeque::new(), bytes: 0 }
    }

    /// Adds a frame; returns how many were dropped for it, itself included.
    pub(super) fn push(&mut self, letter: Letter) -> u64 {
        let length = letter.1.len();
        let mut dropped = 0;
        match self.class {
            LinkClass::Bulk => {
                if self.bytes + length > BULK_BYTES_MAX {
                    return 1;
                }
            }
            LinkClass::Control => {
                while self.bytes + length > CONTROL_BYTES_MAX && self.pop().is_some() {
                    dropped += 1;
                }
            }
        }
        self.bytes += length;
        self.letters.push_back(letter);
        dropped
    }

    /// The oldest frame.
    pub(super) fn pop(&mut self) -> Option<Letter> {
        let letter = self.letters.pop_front()?;
        self.bytes -= letter.1.len();
        Some(letter)
    }

    /// The shard of the oldest frame.
    pub(super) fn next_shard(&self) -> Option<ShardId> {
        self.letters.front().map(|(shard, _)| *shard)
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> VecDeque<Letter> {
        self.bytes = 0;
        std::mem::take(&mut self.letters)
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn letter(number: u16, bytes: usize) -> Letter {
        (ShardId(number), Bytes::from(vec![0; bytes]))
    }

    fn shards(queue: &mut Queue) -> Vec<u16> {
        queue.take().iter().map(|(shard, _)| shard.0).collect()
    }

    #[test]
    fn a_full_control_queue_keeps_the_newest() {
        let mut queue = Queue::new(LinkClass::Control);
        let dropped: u64 = (0..6).map(|number| queue.push(letter(number, CONTROL_BYTES_MAX / 4))).sum();
        assert_eq!((shards(&mut queue), dropped), (vec![2, 3, 4, 5], 2));
    }

    #[test]
    fn a_full_bulk_queue_keeps_the_oldest() {
        let mut queue = Queue::new(LinkClass::Bulk);
        let dropped: u64 = (0..6).map(|number| queue.push(letter(number, BULK_BYTES_MAX / 4))).sum();
        assert_eq!((shards(&mut queue), dropped), (vec![0, 1, 2, 3], 2));
    }

    quickcheck! {
        fn a_queue_holds_no_more_than_its_share(sizes: Vec<u32>) -> bool {
            [LinkClass::Control, LinkClass::Bulk].into_iter().all(|class| {
                let mut queue = Queue::new(class);
                let largest = letter(0, 9_000_000).1;
                sizes.iter().all(|&size| {
                    let length = usize::try_from(size).unwrap() % largest.len();
                    queue.push((ShardId(0), largest.slice(..length)));
                    let held: usize = queue.letters.iter().map(|(_, frame)| frame.len()).sum();
                    let fits = queue.letters.len() == 1 || held <= BULK_BYTES_MAX;
                    held == queue.bytes && fits
                })
            })
        }
    }
}
