//! Ids and quantities as types of their own: an index is not a count is not a size.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number itself.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number after this one.
            ///
            /// # Panics
            /// When the numbers of this type are used up, which the width of each rules out in practice.
            #[must_use]
            #[allow(clippy::expect_used, reason = "a counter that wraps would reuse an id that is never reused")]
            pub const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("id space exhausted"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self(inner)
            }
        }
    };
}

number!(
    /// A node of the cluster: one process with one data directory. Assigned at birth or when a node is replaced.
    NodeId(u64), "node-"
);
number!(
    /// A shard: a set of slots, replicated by one raft group.
    ShardId(u16), "shard-"
);
number!(
    /// A core of one node: a pinned thread that owns replicas. Meaningful only on its node.
    CoreId(u16), "core-"
);
number!(
    /// One of the [`crate::slot::SLOTS`] slots of the keyspace.
    SlotNo(u16), "slot-"
);
number!(
    /// A version of the slot map.
    SlotEpoch(u64), "epoch-"
);
number!(
    /// One incarnation of one node's copy of a shard, and its raft id. Never reused, never zero.
    ReplicaId(u64), "replica-"
);
number!(
    /// An index in a raft log. The first entry has index 1; 0 is "before the log".
    LogIndex(u64), "index-"
);
number!(
    /// A raft term.
    Term(u64), "term-"
);
number!(
    /// A page of a page store, counted from the start of its file.
    PageNo(u64), "page-"
);
number!(
    /// A checkpoint of a page store, counted from 1.
    CheckpointNo(u64), "checkpoint-"
);
number!(
    /// A segment file of a log, counted from 1.
    SegmentNo(u64), "segment-"
);
number!(
    /// A batch of a log, counted from 1 over all segments of the replica.
    BatchSeq(u64), "batch-"
);
number!(
    /// The number of a write within its session, counted from 1.
    SessionSeq(u64), "seq-"
);
number!(
    /// A part of a shard's key order that users of another part cannot see.
    Namespace(u32), "namespace-"
);

impl Namespace {
    /// The replica's own records: configuration, sessions, membership.
    pub const SYSTEM: Self = Self(0);
    /// The keys of clients.
    pub const USER: Self = Self(1);
}

impl LogIndex {
    /// The index before this one; the one before the first is 0, and 0 is before itself.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// A cluster, for ever: 128 random bits drawn at its birth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// The id that means "no cluster yet".
    pub const NONE: Self = Self([0; 16]);

    /// Whether this names a cluster at all.
    #[must_use]
    pub fn is_some(&self) -> bool {
        *self != Self::NONE
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The revision of a change: a hybrid timestamp of 42 bits of wall-clock milliseconds since
/// 2026-01-01 UTC, 12 bits of counter, and 10 bits of shard.
///
/// Within a shard revisions only grow; no two changes of a cluster share one unless they are one write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Bits of the shard, the lowest.
    pub const SHARD_BITS: u32 = 10;
    /// Bits of the counter, above the shard.
    pub const COUNTER_BITS: u32 = 12;
    /// Before every change.
    pub const ZERO: Self = Self(0);
    /// At or after every change: "the newest".
    pub const MAX: Self = Self(u64::MAX);
    /// 2026-01-01T00:00:00Z in milliseconds since the Unix epoch: where the milliseconds of a revision begin.
    pub const EPOCH_UNIX_MS: u64 = 1_767_225_600_000;

    const TICK: u64 = 1 << Self::SHARD_BITS;

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The first revision of `shard` in the millisecond `unix_ms`. A clock before 2026 counts as 2026.
    #[must_use]
    pub const fn at(unix_ms: u64, shard: ShardId) -> Self {
        let ms = unix_ms.saturating_sub(Self::EPOCH_UNIX_MS);
        Self((ms << (Self::SHARD_BITS + Self::COUNTER_BITS)) | shard_bits(shard))
    }

    /// The least revision of `shard` above both `self` and the start of the millisecond `unix_ms`.
    #[must_use]
    pub const fn after(self, unix_ms: u64, shard: ShardId) -> Self {
        let clock = Self::at(unix_ms, shard);
        let above = Self(
            ((self.0 >> Self::SHARD_BITS) << Self::SHARD_BITS).saturating_add(Self::TICK) | shard_bits(shard),
        );
        if clock.0 > self.0 { clock } else { above }
    }

    /// The shard that assigned this revision.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to ten bits")]
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 & (Self::TICK - 1)) as u16)
    }

    /// The millisecond of this revision, since the Unix epoch.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        (self.0 >> (Self::SHARD_BITS + Self::COUNTER_BITS)) + Self::EPOCH_UNIX_MS
    }
}

const fn shard_bits(shard: ShardId) -> u64 {
    shard.0 as u64 & (Revision::TICK - 1)
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision-{}", self.0)
    }
}

impl From<u64> for Revision {
    fn from(inner: u64) -> Self {
        Self(inner)
    }
}

/// A client's session in one shard. Its id is the revision of the entry that opened it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub Revision);

impl SessionId {
    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session-{}", self.get())
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn a_revision_after_another_is_above_it_and_not_behind_the_clock(last: u64, ms: u32, shard: u16) -> bool {
            let shard = ShardId(shard % 1024);
            let last = Revision(last >> 1);
            let clock = Revision::EPOCH_UNIX_MS + u64::from(ms);
            let next = last.after(clock, shard);
            next > last && next >= Revision::at(clock, shard) && next.shard() == shard
        }
    }

    #[test]
    fn revisions_of_one_millisecond_differ_by_counter_then_by_shard() {
        let clock = Revision::EPOCH_UNIX_MS + 5;
        let first = Revision::ZERO.after(clock, ShardId(3));
        let second = first.after(clock, ShardId(3));
        assert_eq!(first.unix_ms(), clock);
        assert_eq!(second.0 - first.0, 1024);
        assert_eq!(Revision::ZERO.after(clock, ShardId(4)).0 - first.0, 1);
    }
}
