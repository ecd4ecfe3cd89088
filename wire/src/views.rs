//! The messages of each class of kinds as one enumeration: what a frame is decoded to and encoded from.

use crate::builder::{Builder, Root};
use crate::message::{
    BirthAccept, BirthDecided, BirthPropose, Delete, Deleted, Directory, Get, GetAnswer, GetBatch,
    GetBatchAnswer, Hello, HelloAnswer, JoinAnswer, JoinRequest, Message, NodeProbe, OpenSession, Ping, Put,
    PutBatch, Raft, Range, RangeAnswer, ReplaceAnswer, ReplaceNode, SessionOpened, SnapshotAck,
    SnapshotChunk, SnapshotOffer, StatusAnswer, StatusRequest, Topology, TopologyRequest, Transact,
    Transacted, Written, decode,
};
use crate::{Error, Kind, WireError};

/// What a [`crate::FrameWriter`] writes: [`Request`], [`Response`] and [`PeerMessage`], and nothing else can be.
pub trait Outgoing {
    /// What the header says that the payload is.
    fn kind(&self) -> Kind;

    /// Whether the message keeps to the limits.
    ///
    /// # Errors
    /// [`WireError`] if it does not.
    fn check(&self) -> Result<(), WireError>;

    /// As many bytes as the payload takes, or somewhat more; never fewer. A message that keeps to the limits, and
    /// whose hint is within that of a payload, can be written.
    fn size_hint(&self) -> usize;

    /// Writes the payload.
    #[doc(hidden)]
    fn build(&self, to: &mut Builder) -> Root;
}

macro_rules! views {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident($message:ty) = $kind:ident,)*
        } empty {
            $($(#[$empty_doc:meta])* $empty:ident as $table:ident = $empty_kind:ident,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum $name<'a> {
            $($(#[$variant_doc])* $variant($message),)*
            $($(#[$empty_doc])* $empty,)*
        }

        impl<'a> $name<'a> {
            /// Verifies and reads a payload.
            ///
            /// # Errors
            /// [`WireError`]; [`WireError::UnexpectedKind`] if the kind is of another class.
            pub fn decode(kind: Kind, payload: &'a [u8]) -> Result<Self, WireError> {
                match kind {
                    $(Kind::$kind => decode(kind, payload).map(Self::$variant),)*
                    $(Kind::$empty_kind => decode(kind, payload).map(|$table| Self::$empty),)*
                    _ => Err(WireError::UnexpectedKind { kind }),
                }
            }

            /// The kind of the frame that carries this.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => Kind::$kind,)*
                    $(Self::$empty => Kind::$empty_kind,)*
                }
            }
        }

        impl Outgoing for $name<'_> {
            fn kind(&self) -> Kind {
                self.kind()
            }

            fn check(&self) -> Result<(), WireError> {
                match self {
                    $(Self::$variant(message) => message.check(),)*
                    $(Self::$empty => $table.check(),)*
                }
            }

            fn build(&self, to: &mut Builder) -> Root {
                match self {
                    $(Self::$variant(message) => message.build(to),)*
                    $(Self::$empty => $table.build(to),)*
                }
            }

            fn size_hint(&self) -> usize {
                match self {
                    $(Self::$variant(message) => message.size_hint(),)*
                    $(Self::$empty => $table.size_hint(),)*
                }
            }
        }
    };
}

views! {
    /// What whoever opened a connection asks.
    Request {
        /// The first frame of a connection.
        Hello(Hello<'a>) = Hello,
        /// Opens a session in a shard.
        OpenSession(OpenSession) = OpenSession,
        /// Gives a node's place to an empty one of the same name.
        ReplaceNode(ReplaceNode<'a>) = ReplaceNode,
        /// Reads a key.
        Get(Get<'a>) = Get,
        /// Reads several keys.
        GetBatch(GetBatch<'a>) = GetBatch,
        /// Writes a key.
        Put(Put<'a>) = Put,
        /// Writes several keys at one revision.
        PutBatch(PutBatch<'a>) = PutBatch,
        /// Deletes keys at one revision.
        Delete(Delete<'a>) = Delete,
        /// Reads keys in order.
        Range(Range<'a>) = Range,
        /// Reads and writes keys if conditions hold, at one revision.
        Transact(Transact<'a>) = Transact,
    } empty {
        /// Asks for the topology.
        Topology as TopologyRequest = TopologyRequest,
        /// Asks how the node is.
        Status as StatusRequest = StatusRequest,
    }
}

views! {
    /// What a request is answered with.
    #[allow(clippy::large_enum_variant, reason = "made and taken apart in place, never kept in numbers")]
    Response {
        /// To [`Request::Hello`].
        Hello(HelloAnswer<'a>) = HelloAnswer,
        /// To [`Request::Topology`].
        Topology(Topology<'a>) = Topology,
        /// To [`Request::OpenSession`].
        SessionOpened(SessionOpened) = SessionOpened,
        /// To [`Request::Status`].
        Status(StatusAnswer<'a>) = StatusAnswer,
        /// To [`Request::ReplaceNode`].
        Replace(ReplaceAnswer) = ReplaceAnswer,
        /// To [`Request::Get`].
        Get(GetAnswer<'a>) = GetAnswer,
        /// To [`Request::GetBatch`].
        GetBatch(GetBatchAnswer<'a>) = GetBatchAnswer,
        /// To [`Request::Put`] and [`Request::PutBatch`].
        Written(Written) = Written,
        /// To [`Request::Delete`].
        Deleted(Deleted) = Deleted,
        /// To [`Request::Range`].
        Range(RangeAnswer<'a>) = RangeAnswer,
        /// To [`Request::Transact`].
        Transacted(Transacted<'a>) = Transacted,
        /// To any request that was not done.
        Error(Error) = Error,
    } empty {}
}

views! {
    /// What nodes say among themselves.
    PeerMessage {
        /// Raft messages of any number of groups.
        Raft(Raft<'a>) = Raft,
        /// A part of a snapshot.
        SnapshotChunk(SnapshotChunk<'a>) = SnapshotChunk,
        /// What became of parts of a snapshot.
        SnapshotAck(SnapshotAck<'a>) = SnapshotAck,
        /// Offers a snapshot.
        SnapshotOffer(SnapshotOffer<'a>) = SnapshotOffer,
        /// Says who the sender is and asks who the receiver is.
        Probe(NodeProbe<'a>) = NodeProbe,
        /// Says who the sender is.
        ProbeAnswer(NodeProbe<'a>) = NodeProbeAnswer,
        /// Proposes the birth of a cluster.
        BirthPropose(BirthPropose<'a>) = BirthPropose,
        /// Agrees to a birth.
        BirthAccept(BirthAccept) = BirthAccept,
        /// Says that all agreed to a birth.
        BirthDecided(BirthDecided<'a>) = BirthDecided,
        /// Asks for the id of a node that was replaced.
        JoinRequest(JoinRequest<'a>) = JoinRequest,
        /// Answers that.
        JoinAnswer(JoinAnswer<'a>) = JoinAnswer,
        /// A copy of the membership.
        Directory(Directory<'a>) = Directory,
        /// Asks whether the connection lives.
        Ping(Ping) = Ping,
        /// Answers that.
        Pong(Ping) = Pong,
    } empty {}
}
