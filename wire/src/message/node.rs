//! How nodes find each other, are born as a cluster, and come back to one.
//!
//! The membership itself is a record of the nodes' own, opaque here. Deliberately absent: the sender's name, which the
//! hello of its connection told.

use flatbuffers::WIPOffset;
use mesh_base::limits::{DIRECTORY_BYTES_MAX, NODES_MAX};
use mesh_base::{ClusterId, NodeId};

use super::{
    ELEMENT_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES, Message, check_address, check_name, check_shard_count,
    closed,
};
use crate::builder::{self, Builder, Root, id128, read_id128};
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure};
use crate::{List, WireError};

closed! {
    /// How far a node has come.
    ProbeState {
        /// It belongs to no cluster and promised nothing.
        Empty,
        /// It promised to be born into a cluster and does not know yet whether all did.
        Forming,
        /// It has no data, stays out of the cluster that it met, and asks for its id there.
        Joining,
        /// It belongs to a cluster.
        Born,
    }
}

/// What a node says of itself; sent to ask the same of the receiver, and to answer that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeProbe<'a> {
    /// Its address.
    pub address: &'a str,
    /// The names of the nodes it was given at start, in ascending order; none if that does not matter any more.
    pub members: List<'a, &'a str>,
    /// How many shards it was given; 0 leaves it to others.
    pub shard_count: u16,
    /// How far it has come.
    pub state: ProbeState,
    /// The cluster if it is forming or born, and only then.
    pub cluster: Option<ClusterId>,
    /// Its id if it is born, else 0.
    pub node: NodeId,
    /// The version of its copy of the membership if it is born, else 0: the higher one is the newer.
    pub version: u64,
}

impl<'a> Message<'a> for NodeProbe<'a> {
    type Table = fb::NodeProbe<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            address: table.address(),
            members: table.members().into(),
            shard_count: table.shard_count(),
            state: ProbeState::from_wire(table.state())
                .ok_or(WireError::Malformed { what: "probe state" })?,
            cluster: table.cluster().map(|id| ClusterId(read_id128(id))),
            node: NodeId(table.node()),
            version: table.version(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_address(self.address)?;
        check_shard_count(self.shard_count)?;
        at_most("members", self.members.len(), NODES_MAX)?;
        self.members.iter().try_for_each(check_name)?;
        ensure!(self.members.iter().is_sorted_by(|name, next| name < next), "order of members");
        let has_cluster = match self.state {
            ProbeState::Empty | ProbeState::Joining => false,
            ProbeState::Forming | ProbeState::Born => true,
        };
        let born = self.state == ProbeState::Born;
        ensure!(self.cluster.is_some() == has_cluster, "cluster");
        ensure!(self.cluster != Some(ClusterId::NONE), "cluster");
        ensure!((self.node.0 != 0) == born, "node");
        ensure!(self.version == 0 || born, "version");
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let address = to.name(self.address);
        let members = to.list(self.members.iter(), Builder::name);
        let cluster = builder::cluster(self.cluster);
        let args = fb::NodeProbeArgs {
            address: Some(address),
            members: Some(members),
            shard_count: self.shard_count,
            state: self.state.to_wire(),
            cluster: cluster.as_ref(),
            node: self.node.0,
            version: self.version,
        };
        fb::NodeProbe::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let members = self.members.iter().map(|name| ELEMENT_OVERHEAD_BYTES + name.len());
        MESSAGE_OVERHEAD_BYTES + self.address.len() + members.sum::<usize>()
    }
}

/// A node of a cluster that is to be born.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BirthMember<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: &'a str,
}

impl<'a> BirthMember<'a> {
    pub(crate) fn view(wire: fb::BirthMember<'a>) -> Self {
        Self { name: wire.name(), address: wire.address() }
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.name)?;
        check_address(self.address)
    }

    fn build(&self, to: &mut Builder) -> WIPOffset<fb::BirthMember<'static>> {
        let args =
            fb::BirthMemberArgs { name: Some(to.name(self.name)), address: Some(to.name(self.address)) };
        fb::BirthMember::create(&mut to.flat, &args)
    }
}

/// Proposes that the named nodes become a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BirthPropose<'a> {
    /// The cluster that it would be, drawn for this proposal.
    pub cluster: ClusterId,
    /// Its nodes, in ascending order of their names.
    pub members: List<'a, BirthMember<'a>>,
    /// How many shards it would have, from 1.
    pub shard_count: u16,
}

impl<'a> Message<'a> for BirthPropose<'a> {
    type Table = fb::BirthPropose<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            cluster: ClusterId(read_id128(table.cluster())),
            members: table.members().into(),
            shard_count: table.shard_count(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        ensure!(self.cluster.is_some(), "cluster");
        ensure!(self.shard_count > 0, "shards");
        check_shard_count(self.shard_count)?;
        ensure!(!self.members.is_empty(), "members");
        at_most("members", self.members.len(), NODES_MAX)?;
        self.members.iter().try_for_each(|member| member.check())?;
        ensure!(self.members.iter().is_sorted_by(|member, next| member.name < next.name), "order of members");
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let members = to.list(self.members.iter(), |to, member| member.build(to));
        let args = fb::BirthProposeArgs {
            cluster: Some(&id128(self.cluster.0)),
            members: Some(members),
            shard_count: self.shard_count,
        };
        fb::BirthPropose::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let members = self
            .members
            .iter()
            .map(|member| ELEMENT_OVERHEAD_BYTES + member.name.len() + member.address.len());
        MESSAGE_OVERHEAD_BYTES + members.sum::<usize>()
    }
}

/// Agrees to a birth: the sender's promise is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BirthAccept {
    /// The cluster that was proposed.
    pub cluster: ClusterId,
}

impl<'a> Message<'a> for BirthAccept {
    type Table = fb::BirthAccept<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { cluster: ClusterId(read_id128(table.cluster())) })
    }

    fn check(&self) -> Result<(), WireError> {
        ensure!(self.cluster.is_some(), "cluster");
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::BirthAcceptArgs { cluster: Some(&id128(self.cluster.0)) };
        fb::BirthAccept::create(&mut to.flat, &args).into()
    }
}

/// The membership as nodes write it: something, and not too long.
fn check_directory(record: &[u8]) -> Result<(), WireError> {
    ensure!(!record.is_empty(), "an empty directory");
    at_most("bytes of the directory", record.len(), DIRECTORY_BYTES_MAX)
}

/// Says that all agreed: the cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BirthDecided<'a> {
    /// The membership at birth, as nodes write it. Never empty.
    pub directory: &'a [u8],
}

impl<'a> Message<'a> for BirthDecided<'a> {
    type Table = fb::BirthDecided<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { directory: table.directory().bytes() })
    }

    fn check(&self) -> Result<(), WireError> {
        check_directory(self.directory)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::BirthDecidedArgs { directory: Some(to.bytes(self.directory)) };
        fb::BirthDecided::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.directory.len()
    }
}

/// A node without data asks for its id. It is told one once an operator replaced the node of its name, and asks until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinRequest<'a> {
    /// Its address.
    pub address: &'a str,
    /// The attempt: random bits, durable at the node before it asks. An id is told to one attempt only.
    pub attempt: u64,
}

impl<'a> Message<'a> for JoinRequest<'a> {
    type Table = fb::JoinRequest<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { address: table.address(), attempt: table.attempt() })
    }

    fn check(&self) -> Result<(), WireError> {
        check_address(self.address)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::JoinRequestArgs { address: Some(to.name(self.address)), attempt: self.attempt };
        fb::JoinRequest::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.address.len()
    }
}

/// Answers [`JoinRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinAnswer<'a> {
    /// The attempt that asked.
    pub attempt: u64,
    /// The node that it is from now on. Never 0.
    pub node: NodeId,
    /// The membership, as nodes write it. Never empty.
    pub directory: &'a [u8],
}

impl<'a> Message<'a> for JoinAnswer<'a> {
    type Table = fb::JoinAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            attempt: table.attempt(),
            node: NodeId(table.node()),
            directory: table.directory().bytes(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        ensure!(self.node.0 != 0, "node");
        check_directory(self.directory)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::JoinAnswerArgs {
            attempt: self.attempt,
            node: self.node.0,
            directory: Some(to.bytes(self.directory)),
        };
        fb::JoinAnswer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.directory.len()
    }
}

/// A copy of the membership, passed on from node to node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Directory<'a> {
    /// The membership, as nodes write it. Never empty.
    pub bytes: &'a [u8],
}

impl<'a> Message<'a> for Directory<'a> {
    type Table = fb::Directory<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { bytes: table.bytes().bytes() })
    }

    fn check(&self) -> Result<(), WireError> {
        check_directory(self.bytes)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::DirectoryArgs { bytes: Some(to.bytes(self.bytes)) };
        fb::Directory::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.bytes.len()
    }
}

/// Asks whether the connection lives; the answer brings the stamp back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping {
    /// Nanoseconds on the asking node's monotonic clock. Means nothing elsewhere.
    pub stamp: u64,
}

impl<'a> Message<'a> for Ping {
    type Table = fb::Ping<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { stamp: table.stamp() })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        fb::Ping::create(&mut to.flat, &fb::PingArgs { stamp: self.stamp }).into()
    }
}
