//! Why something was not done: a closed list, each with what a program needs to go on.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::{ClusterId, Revision, ShardId};

use crate::CursorFlaw;

/// What a call of this library gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An address that was tried, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// The address.
    pub endpoint: String,
    /// What went wrong.
    pub why: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.why)
    }
}

/// Why something was not done. Displayed, it says what to do about it.
///
/// A write that ends with [`Error::Unknown`] may have been applied or may yet be, once; one that ends with [`Error::Forgotten`] was.
/// A write that ends with any other error was certainly not applied and never will be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// There is no address to connect to.
    #[error("no endpoint was given: name at least one node of the cluster as host:port")]
    NoEndpoints,
    /// An address is not one.
    #[error("`{endpoint}` is not an address of a node: {why}; write it as host:port")]
    BadEndpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No node could be connected to, so nothing was asked of the cluster.
    #[error(
        "no node of the cluster could be reached in time: {}; check the addresses and that the nodes run",
        Listed(tried)
    )]
    Unreachable {
        /// The addresses, each with the last that was heard of it.
        tried: Vec<Tried>,
    },
    /// The shard has no leader that a quorum follows, as far as could be found.
    #[error(
        "shard {shard} has no quorum, or no leader that could be found ({why}): `mesh status` tells the state of its replicas"
    )]
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// What was heard last.
        why: String,
    },
    /// Whether the write was applied is not known.
    #[error("whether the write was applied is not known{}: read what it would have written to find out", after(last.as_deref()))]
    Unknown {
        /// What was heard last of it, if anything was.
        last: Option<Box<Error>>,
    },
    /// The deadline passed.
    #[error("the deadline of {} ms passed before it was done: allow more time, or send less at once", deadline.as_millis())]
    DeadlineExceeded {
        /// How much time there was.
        deadline: Duration,
    },
    /// A part of a batch was done and the rest was not, because it spans several shards.
    #[error("{} of {of} items of the batch were written; of the others: {error}", done.len())]
    Partial {
        /// The places of the items in the batch that were written, ascending.
        done: Vec<usize>,
        /// How many items the batch has.
        of: usize,
        /// Why the others were not; [`Error::Unknown`] if that is true of any of them.
        error: Box<Error>,
    },
    /// The cluster has too much to do.
    #[error("the cluster is overloaded: try again in {} ms or later, with fewer requests at once", retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// A condition did not hold.
    #[error("a condition did not hold for key {}, whose revision is {revision}: read again and decide anew", key.escape_ascii())]
    Conflict {
        /// The key.
        key: Bytes,
        /// Its revision; 0 if it does not exist.
        revision: Revision,
    },
    /// A value is not what the operation works on.
    #[error("the value of key {} is {what}: nothing was applied", key.escape_ascii())]
    WrongType {
        /// The key.
        key: Bytes,
        /// What is wrong with it.
        what: String,
    },
    /// The write was applied, but what it found is kept no longer: its answer came too late.
    #[error("the write was applied, at revision {revision}, but what it found is kept no longer: read anew")]
    Forgotten {
        /// The revision of the write.
        revision: Revision,
    },
    /// A transaction holds a lock that was waited for too long.
    #[error("a transaction holds a lock on this: try again")]
    Locked,
    /// The past that was asked for is kept no longer.
    #[error("revisions before {oldest} are kept no longer: begin again, without the cursor or the revision")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// Something is larger than it may be.
    #[error("{what}: {actual} is more than {limit}: send less at a time")]
    TooLarge {
        /// What is measured.
        what: Cow<'static, str>,
        /// The most that may be.
        limit: u64,
        /// What is.
        actual: u64,
    },
    /// A key has no bytes.
    #[error("a key is empty: a key has at least one byte")]
    EmptyKey,
    /// A disk is full; reads go on.
    #[error("no disk space is left for writes: free space or add some; writes are taken again by themselves")]
    NoSpace,
    /// A node wants to know who this is.
    #[error("the node wants authentication, which was not accepted: check the credentials")]
    Unauthenticated,
    /// Whoever asks may not.
    #[error("not permitted for key {}: ask for the right to it", key.escape_ascii())]
    PermissionDenied {
        /// The key; empty where it is not about one.
        key: Bytes,
    },
    /// The node does not speak a version of the protocol that this library speaks.
    #[error(
        "the node speaks versions {version_min} to {version_max} of the protocol and this program {}: bring them to one release",
        crate::VERSIONS
    )]
    Unsupported {
        /// The oldest version that the node speaks.
        version_min: u16,
        /// The newest version that the node speaks.
        version_max: u16,
    },
    /// The node is of another cluster.
    #[error("the node is of cluster {theirs}, not of {ours}: check the endpoints")]
    WrongCluster {
        /// The node's cluster.
        theirs: ClusterId,
        /// The cluster that was expected.
        ours: ClusterId,
    },
    /// The node cannot serve yet, or not any more.
    #[error("not ready: {why}; try again shortly")]
    NotReady {
        /// What it waits for.
        why: String,
    },
    /// Something on a node's disk is damaged.
    #[error(
        "damaged: {what}; `mesh status` tells where, and `mesh node replace NAME` rebuilds that node from the others"
    )]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What there is none of.
        what: String,
    },
    /// A cursor cannot be gone on from.
    #[error("this cursor cannot be used: {flaw}; begin the range again without it")]
    Cursor {
        /// What is wrong with it.
        flaw: CursorFlaw,
    },
    /// The cluster handle was closed.
    #[error("this connection to the cluster was closed by its own program")]
    Closed,
    /// One side broke the protocol.
    #[error("the protocol was broken: {what}; this is a fault of the software: please report it")]
    Protocol {
        /// How.
        what: String,
    },
    /// The server's software is at fault.
    #[error("the server failed: {what}; this is a fault of its software: please report it")]
    Server {
        /// What happened.
        what: String,
    },
}

impl Error {
    /// The error's name, for programs that read text.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoEndpoints => "NoEndpoints",
            Self::BadEndpoint { .. } => "BadEndpoint",
            Self::Unreachable { .. } => "Unreachable",
            Self::NoQuorum { .. } => "NoQuorum",
            Self::Unknown { .. } => "Unknown",
            Self::DeadlineExceeded { .. } => "DeadlineExceeded",
            Self::Partial { .. } => "Partial",
            Self::Overloaded { .. } => "Overloaded",
            Self::Conflict { .. } => "Conflict",
            Self::WrongType { .. } => "WrongType",
            Self::Forgotten { .. } => "Forgotten",
            Self::Locked => "Locked",
            Self::Compacted { .. } => "Compacted",
            Self::TooLarge { .. } => "TooLarge",
            Self::EmptyKey => "EmptyKey",
            Self::NoSpace => "NoSpace",
            Self::Unauthenticated => "Unauthenticated",
            Self::PermissionDenied { .. } => "PermissionDenied",
            Self::Unsupported { .. } => "Unsupported",
            Self::WrongCluster { .. } => "WrongCluster",
            Self::NotReady { .. } => "NotReady",
            Self::Damaged { .. } => "Damaged",
            Self::NotFound { .. } => "NotFound",
            Self::Cursor { .. } => "Cursor",
            Self::Closed => "Closed",
            Self::Protocol { .. } => "Protocol",
            Self::Server { .. } => "Server",
        }
    }

    /// An error from the wire, of a request for `shard`, as the user sees it.
    pub(crate) fn of(error: mesh_wire::Error, shard: ShardId, deadline: Duration) -> Self {
        use mesh_wire::Error as Wire;
        match error {
            Wire::NotLeader { .. } | Wire::NoQuorum => Self::NoQuorum { shard, why: error.to_string() },
            Wire::WrongEpoch { .. } | Wire::WrongShard { .. } | Wire::SessionWindow { .. } => {
                Self::NotReady { why: error.to_string() }
            }
            Wire::Overloaded { retry_after_ms } => {
                Self::Overloaded { retry_after: Duration::from_millis(retry_after_ms.into()) }
            }
            Wire::Conflict { key, revision } => Self::Conflict { key, revision },
            Wire::WrongType { key, what } => Self::WrongType { key, what: what.into_owned() },
            Wire::Locked => Self::Locked,
            Wire::Compacted { oldest } => Self::Compacted { oldest },
            Wire::TooLarge { what, limit, actual } => Self::TooLarge { what, limit, actual },
            Wire::EmptyKey => Self::EmptyKey,
            Wire::NoSpace => Self::NoSpace,
            Wire::Unknown => Self::Unknown { last: None },
            Wire::UnknownSession => Self::NotReady { why: "the session is not known to the shard".into() },
            Wire::DeadlineExceeded => Self::DeadlineExceeded { deadline },
            Wire::Unauthenticated => Self::Unauthenticated,
            Wire::PermissionDenied { key } => Self::PermissionDenied { key },
            Wire::Malformed { what } => Self::Protocol { what: what.into_owned() },
            Wire::Unsupported { version_min, version_max } => Self::Unsupported { version_min, version_max },
            Wire::NotReady { why } => Self::NotReady { why: why.into_owned() },
            Wire::ShuttingDown => Self::NotReady { why: "the node is shutting down".into() },
            // On the wire the names are the answering node's.
            Wire::WrongCluster { theirs, ours } => Self::WrongCluster { theirs: ours, ours: theirs },
            Wire::Damaged { what } => Self::Damaged { what: what.into_owned() },
            Wire::NotFound { what } => Self::NotFound { what: what.into_owned() },
            Wire::Internal { what } => Self::Server { what: what.into_owned() },
        }
    }
}

impl From<mesh_wire::WireError> for Error {
    fn from(error: mesh_wire::WireError) -> Self {
        use mesh_wire::WireError as Wire;
        match error {
            Wire::EmptyKey => Self::EmptyKey,
            Wire::TooLarge { what, limit, actual } => {
                Self::TooLarge { what: what.into(), limit: limit as u64, actual: actual as u64 }
            }
            Wire::Invalid { .. } | Wire::UnexpectedKind { .. } | Wire::Malformed { .. } => {
                Self::Protocol { what: error.to_string() }
            }
        }
    }
}

struct Listed<'a>(&'a [Tried]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, tried) in self.0.iter().enumerate() {
            write!(f, "{}{tried}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn after(last: Option<&Error>) -> String {
    last.map_or_else(String::new, |last| format!(" (last heard: {last})"))
}
