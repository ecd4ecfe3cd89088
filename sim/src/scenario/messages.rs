//! What nodes say to each other, for stories that turn on one message.

use mesh_wire::{PeerMessage, SnapshotStatus};

use super::node::NodeNo;
use super::when::{When, when};

/// A message between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// A coordinator says that the cluster exists.
    Decided,
    /// A part of a snapshot.
    Chunk,
    /// A receiver has the whole of a snapshot, durably.
    ChunksDone,
    /// raft's word to take in a snapshot.
    Snapshot,
}

/// raft's number of its message.
const SNAPSHOT: u8 = 7;

/// The next thing to happen is that such a message arrives at a node, whoever sent it.
#[must_use]
pub fn reaches(message: Message, node: NodeNo) -> When {
    when(format!("{message:?} reaches {node:?}"), move |it| {
        it.script
            .next_arrival()
            .is_some_and(|(_, to, frame)| to == node.0 && frame.peer().is_ok_and(|peer| message.is_in(&peer)))
    })
}

impl Message {
    fn is_in(self, peer: &PeerMessage<'_>) -> bool {
        match self {
            Self::Decided => matches!(peer, PeerMessage::BirthDecided(_)),
            Self::Chunk => matches!(peer, PeerMessage::SnapshotChunk(_)),
            Self::ChunksDone => {
                matches!(peer, PeerMessage::SnapshotAck(ack) if matches!(ack.status, SnapshotStatus::Done(_)))
            }
            Self::Snapshot => match peer {
                PeerMessage::Raft(raft) => raft.messages.iter().any(|message| message.msg_type == SNAPSHOT),
                _ => false,
            },
        }
    }
}
