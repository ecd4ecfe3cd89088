//! The kinds of frames: one number per message, stable for ever.
//!
//! Requests are 1 to 63, their answers 64 to 127, and what nodes say among themselves 128 to 255. Numbers 32 to 39 (with
//! 96 to 103) are kept for transactions, 40 to 47 (104 to 111) for watches, 48 to 55 (112 to 119) for leases.

use std::fmt;

/// Who a kind is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KindClass {
    /// From whoever opened the connection: [`crate::Request`].
    Request,
    /// To whoever opened the connection: [`crate::Response`].
    Response,
    /// Between nodes, once the hello named a peer: [`crate::PeerMessage`].
    Peer,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame's payload is.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// Every kind, ordered by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The kind of a number.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The kind's name, as the protocol's page has it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

kinds! {
    /// The first frame of a connection.
    Hello = 1,
    /// Asks for the topology.
    TopologyRequest = 2,
    /// Opens a session in a shard.
    OpenSession = 3,
    /// Asks how a node is.
    StatusRequest = 4,
    /// Gives a node's place to an empty one of the same name.
    ReplaceNode = 5,
    /// Reads a key.
    Get = 16,
    /// Reads several keys.
    GetBatch = 17,
    /// Writes a key.
    Put = 18,
    /// Writes several keys at one revision.
    PutBatch = 19,
    /// Deletes keys at one revision.
    Delete = 20,
    /// Reads keys in order.
    Range = 21,
    /// Reads and writes keys if conditions hold, at one revision.
    Transact = 32,
    /// Answers [`Kind::Hello`].
    HelloAnswer = 65,
    /// Answers [`Kind::TopologyRequest`].
    Topology = 66,
    /// Answers [`Kind::OpenSession`].
    SessionOpened = 67,
    /// Answers [`Kind::StatusRequest`].
    StatusAnswer = 68,
    /// Answers [`Kind::ReplaceNode`].
    ReplaceAnswer = 69,
    /// Answers [`Kind::Get`].
    GetAnswer = 80,
    /// Answers [`Kind::GetBatch`].
    GetBatchAnswer = 81,
    /// Answers [`Kind::Put`] and [`Kind::PutBatch`].
    Written = 82,
    /// Answers [`Kind::Delete`].
    Deleted = 84,
    /// Answers [`Kind::Range`].
    RangeAnswer = 85,
    /// Answers [`Kind::Transact`].
    Transacted = 96,
    /// Answers any request that was not done.
    Error = 127,
    /// Raft messages of any number of groups.
    Raft = 128,
    /// A part of a snapshot.
    SnapshotChunk = 129,
    /// What became of parts of a snapshot.
    SnapshotAck = 130,
    /// Offers a snapshot.
    SnapshotOffer = 131,
    /// Says who the sender is and asks who the receiver is.
    NodeProbe = 136,
    /// Answers [`Kind::NodeProbe`].
    NodeProbeAnswer = 137,
    /// Proposes the birth of a cluster.
    BirthPropose = 138,
    /// Agrees to a birth.
    BirthAccept = 139,
    /// Says that all agreed, with the membership that follows.
    BirthDecided = 140,
    /// Asks for the id of a node that was replaced.
    JoinRequest = 141,
    /// Answers [`Kind::JoinRequest`].
    JoinAnswer = 142,
    /// A copy of the membership.
    Directory = 143,
    /// Asks whether the connection lives.
    Ping = 160,
    /// Answers [`Kind::Ping`].
    Pong = 161,
}

impl Kind {
    /// The kind's number.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Who the kind is for.
    #[must_use]
    pub const fn class(self) -> KindClass {
        match self.to_byte() {
            0..64 => KindClass::Request,
            64..128 => KindClass::Response,
            _ => KindClass::Peer,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number_and_no_other_number_is_a_kind() {
        let found: Vec<Kind> = (0..=255).filter_map(Kind::from_byte).collect();
        assert_eq!(found, Kind::ALL);
        assert!(Kind::ALL.is_sorted());
        assert!(Kind::ALL.iter().all(|kind| Kind::from_byte(kind.to_byte()) == Some(*kind)));
    }

    #[test]
    fn the_class_follows_from_the_number() {
        assert_eq!(Kind::Range.class(), KindClass::Request);
        assert_eq!(Kind::Error.class(), KindClass::Response);
        assert_eq!(Kind::Raft.class(), KindClass::Peer);
    }
}
