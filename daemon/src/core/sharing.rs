//! What the replicas of a core share: the bytes of snapshots that it sends, and its time to take them in.
//!
//! A chunk is work for a good part of a millisecond. So a core makes at most one in a turn, and takes in at most one,
//! whatever number of its replicas would like to: what clients ask meanwhile waits for one of each at most. Those made are
//! paid for out of a bucket that fills with time, so that devices and links are left to the others.
//!
//! Invariants:
//! - Replicas take turns: who had one waits until all others who want one have had theirs.
//! - A chunk is made while there is something in the bucket, and may leave it in debt, which is paid first. So over
//!   any time no more is sent than the rate, what a few ticks let gather, and one chunk for each sending whose pages came
//!   late.

use std::collections::VecDeque;

use mesh_base::limits::TICK;
use mesh_base::{Instant, ShardId};

use crate::shard::Share;

/// Turns of one kind of work.
#[derive(Default, Debug)]
struct Rota {
    /// Those who want a turn.
    waiting: VecDeque<ShardId>,
    turn: Turn,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Turn {
    #[default]
    Free,
    Given,
}

impl Rota {
    /// Lets a replica work in this turn, if it is its turn.
    fn offer(&mut self, shard: ShardId, share: &mut Share) {
        if self.turn == Turn::Free && self.waiting.front().is_none_or(|first| *first == shard) {
            share.grant();
        }
    }

    /// Takes note of what a replica did with that.
    fn settle(&mut self, shard: ShardId, share: &mut Share) {
        let (was_used, is_wanted) = share.settle();
        if was_used {
            self.turn = Turn::Given;
        }
        if was_used || !is_wanted {
            self.waiting.retain(|one| *one != shard);
        }
        if is_wanted && !self.waiting.contains(&shard) {
            self.waiting.push_back(shard);
        }
    }
}

/// A bucket of bytes that fills with time.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    /// In bytes times nanoseconds of a second; below zero it is in debt.
    level: i128,
    filled_at: Instant,
}

const SECOND_NS: i128 = 1_000_000_000;

impl Bucket {
    const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, level: 0, filled_at: Instant::ZERO }
    }

    fn fill(&mut self, now: Instant) {
        let rate = i128::from(self.bytes_per_second);
        let gap = now.since(self.filled_at).as_nanos();
        let most = rate.saturating_mul(TICK.as_nanos().cast_signed()) * 2;
        let gained = rate.saturating_mul(i128::try_from(gap).unwrap_or(i128::MAX));
        self.level = self.level.saturating_add(gained).min(most);
        self.filled_at = self.filled_at.max(now);
    }

    fn spend(&mut self, bytes: usize) {
        self.level -= i128::try_from(bytes).unwrap_or(i128::MAX).saturating_mul(SECOND_NS);
    }

    const fn is_open(&self) -> bool {
        self.level > 0
    }
}

/// What the replicas of a core share.
#[derive(Debug)]
pub(super) struct Sharing {
    sending: Rota,
    bucket: Bucket,
    loading: Rota,
}

impl Sharing {
    /// So many bytes of snapshots are sent in a second.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { sending: Rota::default(), bucket: Bucket::new(bytes_per_second), loading: Rota::default() }
    }

    /// A turn of the core begins.
    pub(super) fn begin_turn(&mut self, now: Instant) {
        self.bucket.fill(now);
        (self.sending.turn, self.loading.turn) = (Turn::Free, Turn::Free);
    }

    /// Before a replica ends its turn: what it may do.
    pub(super) fn offer(&mut self, shard: ShardId, sending: &mut Share, loading: &mut Share) {
        if self.bucket.is_open() {
            self.sending.offer(shard, sending);
        }
        self.loading.offer(shard, loading);
    }

    /// After that: what it did.
    pub(super) fn settle(&mut self, shard: ShardId, sending: &mut Share, loading: &mut Share) {
        self.bucket.spend(sending.take_bytes());
        self.sending.settle(shard, sending);
        self.loading.settle(shard, loading);
    }

    /// A replica that is not there wants nothing.
    pub(super) fn forget(&mut self, shard: ShardId) {
        self.sending.waiting.retain(|one| *one != shard);
        self.loading.waiting.retain(|one| *one != shard);
    }

    /// Who could go on at once, in another turn. Those who wait for the bucket are stepped at the next tick anyway.
    pub(super) fn next(&self) -> impl Iterator<Item = ShardId> {
        let sending = self.sending.waiting.front().filter(|_| self.bucket.is_open());
        [sending, self.loading.waiting.front()].into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    const RATE: u64 = 1_000_000;

    /// Replicas that always have a chunk of so many bytes to send, in turns a millisecond apart; what each sent.
    fn send(sharing: &mut Sharing, chunks: &[(u16, usize)], turns: u64) -> BTreeMap<u16, usize> {
        let mut sent = BTreeMap::new();
        for turn in 0..turns {
            sharing.begin_turn(Instant::ZERO + Duration::from_millis(turn));
            let mut made = 0;
            for &(shard, bytes) in chunks {
                let (mut sending, mut loading) = (Share::default(), Share::default());
                sharing.offer(ShardId(shard), &mut sending, &mut loading);
                if sending.take() {
                    sending.spend(bytes);
                    sending.want();
                    *sent.entry(shard).or_default() += bytes;
                    made += 1;
                }
                sharing.settle(ShardId(shard), &mut sending, &mut loading);
            }
            assert!(made <= 1, "one chunk a turn");
        }
        sent
    }

    #[test]
    fn no_more_is_sent_than_the_rate_and_one_chunk() {
        for bytes in [100, 5000, 70_000, 3_000_000] {
            let mut sharing = Sharing::new(RATE);
            let sent = send(&mut sharing, &[(0, bytes)], 10_000)[&0];
            let most = 10 * 1_000_000 + bytes + 20_000;
            assert!(
                sent <= most && (sent + bytes >= 9_900_000 || bytes == 100),
                "{sent} in chunks of {bytes}"
            );
        }
    }

    #[test]
    fn replicas_share_alike_in_the_number_of_chunks_and_none_starves() {
        let mut sharing = Sharing::new(RATE);
        let sent = send(&mut sharing, &[(1, 5000), (2, 5000), (3, 5000)], 5000);
        let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
        assert!(sent.len() == 3 && most - least <= 5000, "{sent:?}");
    }

    #[test]
    fn a_replica_that_wants_no_more_holds_nobody_up() {
        let mut sharing = Sharing::new(RATE);
        sharing.begin_turn(Instant::ZERO + Duration::from_secs(1));
        for shard in [1, 2] {
            let (mut sending, mut loading) = (Share::default(), Share::default());
            sharing.offer(ShardId(shard), &mut sending, &mut loading);
            loading.want();
            sharing.settle(ShardId(shard), &mut sending, &mut loading);
        }
        assert_eq!(sharing.next().collect::<Vec<_>>(), [ShardId(1)]);
        sharing.begin_turn(Instant::ZERO + Duration::from_secs(1));
        let (mut sending, mut loading) = (Share::default(), Share::default());
        sharing.settle(ShardId(1), &mut sending, &mut loading);
        assert_eq!(sharing.next().collect::<Vec<_>>(), [ShardId(2)]);
        sharing.forget(ShardId(2));
        assert_eq!(sharing.next().count(), 0);
    }
}
