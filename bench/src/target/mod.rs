//! The seam between the load and the system under it.
//!
//! A [`Target`] is a system: where its keys belong, and how to reach it. A [`Lane`] is what one connection to it has to
//! know: bytes of requests out, answers out of bytes. The rest (which operations, when, how long they took, what
//! becomes of those that failed) is the same for all systems and knows neither protocols nor addresses.
//!
//! Invariants:
//! - A lane neither waits nor reads clocks: both would be measured.
//! - A lane keeps nothing for a connection that is gone but what makes its operations safe to send again.

mod dial;
pub(crate) mod echo;
pub(crate) mod etcd;
mod line;
pub(crate) mod memcached;
pub(crate) mod mesh;
pub(crate) mod resp;
#[cfg(test)]
mod trial;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_base::prng::Prng;

use crate::keyspace::Keyspace;
use crate::op::{Op, OpKind};
use crate::socket::Socket;

/// A part of the keys that connections go to separately: a shard, or everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PartitionId(pub(crate) usize);

/// An operation in flight on a connection: its slot, and how often the slot was used before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(u64);

/// Bits of a tag that name the slot.
const SLOT_BITS: u32 = 16;

impl Tag {
    /// The first operation of a slot.
    pub(crate) const fn first(slot: u16) -> Self {
        Self((1 << SLOT_BITS) | slot as u64)
    }

    /// The operation of the same slot after this one.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + (1 << SLOT_BITS))
    }

    /// The slot.
    pub(crate) const fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }

    /// The tag as a number that is never 0, for protocols that carry one.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// The tag of a number that came back.
    pub(crate) const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Found {
    /// Keys with a value of the right length.
    pub(crate) right: usize,
    /// Keys that do not exist.
    pub(crate) missing: usize,
    /// Keys with a value of another length.
    pub(crate) wrong: usize,
}

impl Found {
    /// The keys that were answered.
    pub(crate) const fn keys(&self) -> usize {
        self.right + self.missing + self.wrong
    }

    /// Counts a key's value, which should have so many bytes.
    pub(crate) const fn count(&mut self, value: Option<&[u8]>, value_bytes: usize) {
        match value {
            Some(value) if value.len() == value_bytes => self.right += 1,
            Some(_) => self.wrong += 1,
            None => self.missing += 1,
        }
    }
}

/// What is behind a page of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// Nothing.
    None,
    /// There may be more.
    Some,
}

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The first of its keys were read; mostly all of them.
    Read(Found),
    /// A page of a range was read.
    Scanned {
        /// What is in it.
        found: Found,
        /// What is behind it.
        rest: Rest,
    },
    /// All of its keys were written.
    Written,
    /// It was not done, or not known to be.
    Setback {
        /// The error, as the system calls it.
        name: &'static str,
        /// What to do about it.
        then: Then,
    },
}

/// What to do about an operation that was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Send it again.
    Again {
        /// Not earlier than after this time.
        after: Duration,
    },
    /// Send it again over another connection, which [`Target::open`] makes.
    Reopen,
    /// Nothing: the system will not do it.
    GiveUp,
}

/// An answer taken off a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decoded {
    /// Bytes that it took.
    pub(crate) length: usize,
    /// The operation.
    pub(crate) tag: Tag,
    /// What became of it.
    pub(crate) answer: Answer,
}

/// Bytes that are no answer: the connection is of no use any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Whether an operation may be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// It may.
    Granted,
    /// Earlier ones have to be answered first.
    NotYet,
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OpenError {
    /// It may be made later.
    Later(String),
    /// It never will.
    Refused(String),
}

impl OpenError {
    /// It may be made later.
    #[allow(clippy::needless_pass_by_value, reason = "passed to map_err by name")]
    pub(crate) fn later(why: std::io::Error) -> Self {
        Self::Later(why.to_string())
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Later(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

/// How far a node's log has come that follows a leader, by the log's own numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Standing {
    /// The last entry that it knows to be committed.
    pub(crate) committed: u64,
    /// The last entry that it applied.
    pub(crate) applied: u64,
}

/// What a lane is for.
#[derive(Debug)]
pub(crate) struct LaneSpec {
    /// The partition of all its keys.
    pub(crate) partition: PartitionId,
    /// Whether any operation writes.
    pub(crate) writes: Writes,
    /// Operations in flight, at most.
    pub(crate) in_flight: u16,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// For numbers that must not be those of others.
    pub(crate) prng: Prng,
}

/// Whether any operation of a lane writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writes {
    /// Some may.
    Some,
    /// None does.
    None,
}

/// A system under load. Shared by all cores of the generator.
pub(crate) trait Target: Send + Sync + 'static {
    /// What one connection has to know.
    type Lane: Lane;

    /// The system's name, for reports.
    fn name(&self) -> &'static str;

    /// How many partitions there are.
    fn partitions(&self) -> usize;

    /// The partition of a key.
    fn partition_of(&self, key: &[u8]) -> PartitionId;

    /// Where the system's processes listen, for finding those on this host.
    fn servers(&self) -> Vec<SocketAddr>;

    /// A lane without a connection.
    fn lane(&self, spec: LaneSpec) -> Self::Lane;

    /// Makes the lane a connection to where its partition is served, and does what must be done before the first
    /// operation. Tries once and may wait for a few seconds; `attempt` counts up as long as that fails.
    ///
    /// # Errors
    /// [`OpenError`], with what was tried.
    fn open(&self, lane: &mut Self::Lane, attempt: u32) -> Result<Socket, OpenError>;

    /// Has all of the system's processes asked where partitions are served, and does not wait for what they say.
    fn survey(self: &Arc<Self>);

    /// Whether the lane's partition is served elsewhere by now than where its connection goes, as far as is known.
    fn has_moved(&self, lane: &Self::Lane) -> bool;
}

/// One connection's side of a protocol.
pub(crate) trait Lane: Send + 'static {
    /// Prepares for an operation that was not sent before.
    fn admit(&mut self, tag: Tag, kind: OpKind) -> Admission;

    /// Appends the request of an admitted operation. One that is sent again is the same to the system.
    fn encode(&mut self, tag: Tag, op: &Op, keyspace: &Keyspace, out: &mut Vec<u8>);

    /// The answer at the front of what was received, if it is whole.
    ///
    /// # Errors
    /// [`Broken`]
    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken>;

    /// Shows the values of a read that was decoded right before, in the order of its keys, those that are not there as `None`.
    fn values(&self, answer: &[u8], each: &mut dyn FnMut(Option<&[u8]>));

    /// Appends what the protocol wants said beside requests: answers to its own questions, requests that there was no room for.
    fn say(&mut self, out: &mut Vec<u8>);

    /// An operation is over and will not be sent again.
    fn settle(&mut self, tag: Tag, kind: OpKind);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_knows_its_slot_however_often_it_was_used() {
        for slot in [0, 1, 1023, u16::MAX] {
            let first = Tag::first(slot);
            assert_eq!((first.slot(), first.next().next().slot()), (usize::from(slot), usize::from(slot)));
            assert_ne!(first, first.next());
            assert_eq!(Tag::from_number(first.number()), first);
            assert_ne!(first.number(), 0);
        }
    }
}
