//! What goes into a core and what comes out of it: the border between the pure server and its host.
//!
//! The host (or the simulator) gathers a bounded batch of [`CoreEvent`]s, reads the clocks, calls
//! [`Core::step`](super::Core::step) once, and then performs the [`CoreEffect`]s. Nothing else crosses the border.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mesh_base::io::{Completion, Submission};
use mesh_base::{ClusterId, CoreId, NodeId, ReplicaId, ShardId};
use mesh_wire::Frame;

use crate::node::Directory;
use crate::shard::ShardStatus;

/// The name of a node: unique in its cluster, chosen by the operator, kept when the node is replaced.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is at the other end of a peer's connection, as its hello said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerNode {
    /// The node's name.
    pub name: NodeName,
    /// The cluster that it belonged to then; none before its birth. Raft hears only nodes of its own.
    pub cluster: Option<ClusterId>,
}

/// A directory of files with one owner. The host decides where it lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DirectoryKey {
    /// The node's own: its identity.
    Node,
    /// A replica's: its log and page store.
    Replica {
        /// The shard.
        shard: ShardId,
        /// The incarnation; another incarnation has another directory.
        replica: ReplicaId,
    },
}

impl fmt::Display for DirectoryKey {
    /// The path below the node's data directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Replica { shard, replica } => write!(f, "shard-{:04}-replica-{}", shard.0, replica.0),
        }
    }
}

/// An inbound connection of one core, numbered by the host and never reused while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Where the answer to a request goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Responder {
    /// The core that holds the connection.
    pub core: CoreId,
    /// The connection.
    pub conn: ConnId,
    /// The request's id, repeated in the answer.
    pub request: u64,
}

/// Which of the two connections between a pair of cores a frame travels on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LinkClass {
    /// Heartbeats, votes, acknowledgements: small and urgent.
    Control,
    /// Entries and snapshots.
    Bulk,
}

/// One thing that happened.
#[derive(Debug)]
pub enum CoreEvent {
    /// A frame came in on a client's connection, after its hello.
    Request {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Frame,
    },
    /// A frame came in from another node, after its hello.
    Peer {
        /// The node that sent it.
        from: PeerNode,
        /// The frame.
        frame: Frame,
    },
    /// Another core of this node sent a message.
    Mesh {
        /// The core.
        from: CoreId,
        /// The message.
        message: MeshMessage,
    },
    /// A file operation ended.
    Io {
        /// Whose.
        directory: DirectoryKey,
        /// How.
        completion: Completion,
    },
    /// A connection is gone: nothing needs to be answered there any more.
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// A tick's period passed. Ticks missed in a stall are not replayed.
    Tick,
    /// The process has so much memory resident.
    Memory {
        /// In bytes.
        resident_bytes: u64,
    },
    /// The process was asked to stop: hand leaders over, write a checkpoint, then [`CoreEffect::Stopped`].
    Stop,
}

/// One thing to do.
#[derive(Debug)]
pub enum CoreEffect {
    /// Perform a file operation and bring its completion back.
    Io {
        /// Whose.
        directory: DirectoryKey,
        /// What.
        submission: Submission,
    },
    /// Send a frame on a connection of this core; drop it if the connection is gone.
    Reply {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Bytes,
    },
    /// Send a frame to another node; it may be lost. The host drops it when the link's queue is full.
    Peer {
        /// The node.
        to: NodeName,
        /// The link.
        class: LinkClass,
        /// Goes to the core that owns this shard there.
        shard: ShardId,
        /// The frame.
        frame: Bytes,
    },
    /// Send a message to another core of this node. Never lost.
    Mesh {
        /// The core.
        to: CoreId,
        /// The message.
        message: MeshMessage,
    },
    /// From now on the nodes of the cluster are reached at these addresses (`host:port`).
    Dial {
        /// Every other node.
        nodes: Vec<(NodeName, String)>,
    },
    /// Remove a directory with everything in it; it belongs to a replica that is gone for good.
    RemoveDirectory {
        /// Whose.
        directory: DirectoryKey,
    },
    /// Step again soon, whether anything happens or not: there was more to do than a turn has room for.
    Again,
    /// Tell the operator.
    Notice(Notice),
    /// This core has stopped: everything it had to write is durable.
    Stopped,
}

/// What the operator is told, on the terminal and in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Every shard of the cluster has a leader, for the first time since the process started.
    ClusterReady {
        /// Each shard and the name of its leader.
        leaders: Vec<(ShardId, NodeName)>,
    },
    /// The node waits: for others before it can form a cluster or join one, or for space on its disk; repeated when the
    /// reason changes.
    Waiting {
        /// Why, and what to do about it.
        reason: String,
    },
    /// A replica takes no further part; the rest of the node goes on.
    Damaged {
        /// The shard.
        shard: ShardId,
        /// What is damaged, with file and offset, and what to do about it.
        reason: String,
    },
    /// The node cannot go on and the process should end.
    Fatal {
        /// Why, and what to do about it.
        reason: String,
    },
}

/// What cores of one node tell each other.
#[derive(Clone, Debug)]
pub enum MeshMessage {
    /// A request for a shard of the receiving core.
    Request {
        /// Where the answer goes.
        responder: Responder,
        /// The request's frame.
        frame: Frame,
    },
    /// The answer to a request that came in on a connection of the receiving core.
    Reply {
        /// The connection.
        conn: ConnId,
        /// The answer's frame.
        frame: Bytes,
    },
    /// A peer's frame for a shard of the receiving core.
    Peer {
        /// The node that sent it.
        from: PeerNode,
        /// The frame.
        frame: Frame,
    },
    /// The cluster's membership as this node knows it.
    Directory(Arc<Directory>),
    /// The receiving core is to create the files of its replicas.
    Create(Arc<CreatePlan>),
    /// The sending core has created the files of its replicas.
    Created,
    /// The receiving core is to open its replicas: the cluster, and this node in it.
    Open(Arc<Directory>, NodeId),
    /// Shard 0 applied this membership. To core 0.
    Applied(Arc<Directory>),
    /// From now on the nodes of the cluster are reached at these addresses.
    Dial(Vec<(NodeName, String)>),
    /// A node asks for its id, or tells its address. To the core of shard 0.
    Admit {
        /// The node.
        name: NodeName,
        /// Its address.
        address: String,
        /// The attempt to join; `None` if it only moved.
        attempt: Option<u64>,
    },
    /// The leader of a shard, as the sending core's replica knows it.
    Leader {
        /// The shard.
        shard: ShardId,
        /// The node that leads it.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
    },
    /// The receiving core is to report on its shards.
    StatusAsk {
        /// Names the question.
        question: u64,
    },
    /// What the sending core has to report.
    StatusTell {
        /// The question.
        question: u64,
        /// Its shards.
        shards: Vec<ShardStatus>,
        /// How many other nodes answer this one; core 0 knows.
        peers_answering: u32,
    },
    /// The process was asked to stop.
    Stop,
}

/// How the replicas of a node come into being.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatePlan {
    /// The cluster as it is then.
    pub directory: Arc<Directory>,
    /// This node.
    pub node: NodeId,
    /// Whether the cluster is being born or the node joins one.
    pub origin: Origin,
}

/// Where a new replica's state comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The cluster is being born: every replica begins with the same state and is a voter.
    Birth,
    /// The replica begins empty, as a learner, and receives a snapshot.
    Join,
}
