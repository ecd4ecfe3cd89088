//! How a connection and a session begin.

use mesh_base::limits::{AUTH_BYTES_MAX, AUTH_MECHANISM_BYTES_MAX};
use mesh_base::{ClusterId, NodeId, Revision, SessionId, ShardId};

use super::{Message, Topology, check_name, check_shard, closed};
use crate::WireError;
use crate::builder::{Builder, Root, cluster, read_id128};
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure};

closed! {
    /// What a connection between nodes is for.
    LinkClass {
        /// Small messages that must not wait: heartbeats, votes, probes.
        Control,
        /// Entries and snapshots.
        Bulk,
    }
}

/// Who opens a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A client.
    Client,
    /// A node.
    Peer {
        /// Which; 0 if it belongs to no cluster yet.
        node: NodeId,
        /// What the connection is for.
        link: LinkClass,
    },
}

/// One step of authentication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// The mechanism's name.
    pub mechanism: &'a str,
    /// The mechanism's message.
    pub data: &'a [u8],
}

/// The first frame of a connection, and again for each further step of authentication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Who opens the connection.
    pub role: Role,
    /// The oldest version of the protocol that it speaks.
    pub version_min: u16,
    /// The newest version of the protocol that it speaks.
    pub version_max: u16,
    /// The cluster that it expects, if it expects a certain one.
    pub cluster: Option<ClusterId>,
    /// A step of authentication.
    pub auth: Option<Auth<'a>>,
    /// The shard that most requests will be for: the connection goes to that shard's core.
    pub wanted_shard: Option<ShardId>,
    /// The node's name, or what the client calls itself.
    pub name: &'a str,
}

impl<'a> Message<'a> for Hello<'a> {
    type Table = fb::Hello<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        let role = match table.role() {
            fb::Role::Client => Role::Client,
            fb::Role::Peer => Role::Peer {
                node: NodeId(table.node()),
                link: LinkClass::from_wire(table.link())
                    .ok_or(WireError::Malformed { what: "link class" })?,
            },
            _ => return Err(WireError::Malformed { what: "role" }),
        };
        Ok(Self {
            role,
            version_min: table.version_min(),
            version_max: table.version_max(),
            cluster: table.cluster().map(|id| ClusterId(read_id128(id))),
            auth: table.auth().map(|auth| Auth { mechanism: auth.mechanism(), data: auth.data().bytes() }),
            wanted_shard: table.wanted_shard().map(ShardId),
            name: table.name(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.name)?;
        ensure!(0 < self.version_min && self.version_min <= self.version_max, "versions");
        self.wanted_shard.map_or(Ok(()), check_shard)?;
        self.auth.map_or(Ok(()), |auth| {
            at_most("mechanism bytes", auth.mechanism.len(), AUTH_MECHANISM_BYTES_MAX)?;
            at_most("authentication bytes", auth.data.len(), AUTH_BYTES_MAX)
        })
    }

    fn build(&self, to: &mut Builder) -> Root {
        let name = to.name(self.name);
        let auth = self.auth.map(|auth| {
            let args =
                fb::AuthArgs { mechanism: Some(to.name(auth.mechanism)), data: Some(to.bytes(auth.data)) };
            fb::Auth::create(&mut to.flat, &args)
        });
        let (role, node, link) = match self.role {
            Role::Client => (fb::Role::Client, 0, fb::LinkClass::None),
            Role::Peer { node, link } => (fb::Role::Peer, node.0, link.to_wire()),
        };
        let cluster = cluster(self.cluster);
        let args = fb::HelloArgs {
            role,
            version_min: self.version_min,
            version_max: self.version_max,
            cluster: cluster.as_ref(),
            auth,
            wanted_shard: self.wanted_shard.map(|shard| shard.0),
            name: Some(name),
            node,
            link,
        };
        fb::Hello::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let auth = self.auth.map_or(0, |auth| auth.mechanism.len() + auth.data.len());
        super::MESSAGE_OVERHEAD_BYTES + self.name.len() + auth
    }
}

/// Answers [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HelloAnswer<'a> {
    /// The version of the protocol that the connection speaks from now on.
    pub version: u16,
    /// The node's cluster; none before its birth.
    pub cluster: Option<ClusterId>,
    /// The node; 0 before the cluster's birth.
    pub node: NodeId,
    /// The node's name.
    pub node_name: &'a str,
    /// The mechanism's message, if another step of authentication is needed: until then only [`Hello`] is accepted.
    pub auth: Option<&'a [u8]>,
    /// The cluster's topology; none before its birth and before authentication is over.
    pub topology: Option<Topology<'a>>,
}

impl<'a> Message<'a> for HelloAnswer<'a> {
    type Table = fb::HelloAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            version: table.version(),
            cluster: table.cluster().map(|id| ClusterId(read_id128(id))),
            node: NodeId(table.node()),
            node_name: table.node_name(),
            auth: table.auth().map(|data| data.bytes()),
            topology: table.topology().map(Topology::view_table),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.node_name)?;
        at_most("authentication bytes", self.auth.map_or(0, <[u8]>::len), AUTH_BYTES_MAX)?;
        self.topology.map_or(Ok(()), |topology| topology.check())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let node_name = to.name(self.node_name);
        let auth = self.auth.map(|data| to.bytes(data));
        let topology = self.topology.map(|topology| topology.build_table(to));
        let cluster = cluster(self.cluster);
        let args = fb::HelloAnswerArgs {
            version: self.version,
            cluster: cluster.as_ref(),
            node: self.node.0,
            node_name: Some(node_name),
            auth,
            topology,
        };
        fb::HelloAnswer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        super::MESSAGE_OVERHEAD_BYTES
            + self.node_name.len()
            + self.auth.map_or(0, <[u8]>::len)
            + self.topology.map_or(0, |topology| topology.size_hint())
    }
}

/// Opens a session in the shard that the frame names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenSession {
    /// A random number by which the shard knows an opening that is sent again, while the session lasts; 0 for none.
    pub nonce: u64,
}

impl<'a> Message<'a> for OpenSession {
    type Table = fb::OpenSession<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { nonce: table.nonce() })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        fb::OpenSession::create(&mut to.flat, &fb::OpenSessionArgs { nonce: self.nonce }).into()
    }
}

/// Answers [`OpenSession`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionOpened {
    /// The session.
    pub session: SessionId,
}

impl<'a> Message<'a> for SessionOpened {
    type Table = fb::SessionOpened<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { session: SessionId(Revision(table.session())) })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::SessionOpenedArgs { session: self.session.get() };
        fb::SessionOpened::create(&mut to.flat, &args).into()
    }
}
