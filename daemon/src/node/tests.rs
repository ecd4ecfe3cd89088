//! Scenarios of birth, loss and replacement, told to one node's membership.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoValue, Submission};
use mesh_base::limits::SNAPSHOT_BYTES_PER_SECOND;
use mesh_base::prng::Prng;
use mesh_base::{ClusterId, CoreId, Instant, NodeId};

use super::identity::{Files, SLOT_BYTES};
use super::message::{NodeReport, Stage};
use super::{Directory, Membership, MembershipEffect, NodeConfig, NodeMessage};
use crate::core::{NodeName, Notice, Origin};

/// A membership and its identity file.
struct Node {
    membership: Membership,
    file: Option<Vec<u8>>,
    effects: Vec<MembershipEffect>,
    now: Instant,
}

impl Node {
    fn start(name: &str, file: Option<Vec<u8>>) -> Self {
        let others = ["a", "b", "c"].iter().filter(|other| **other != name);
        let config = NodeConfig {
            name: NodeName::from(name),
            listen: format!("{name}:1"),
            advertise: format!("{name}:1"),
            peers: others.map(|other| (NodeName::from(*other), format!("{other}:1"))).collect(),
            data: PathBuf::from("/data"),
            cpus: vec![0],
            shards: Some(2),
            memory_bytes: 1 << 30,
            snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND,
        };
        let membership = Membership::new(Arc::new(config), Prng::new(7));
        let mut node = Self { membership, file, effects: Vec::new(), now: Instant(1) };
        node.settle();
        node
    }

    /// Performs what the membership asks of its file, until it asks for nothing more.
    fn settle(&mut self) {
        loop {
            let submissions: Vec<Submission> = self.membership.io().drain().collect();
            if submissions.is_empty() {
                return;
            }
            for Submission { token, op } in submissions {
                let result = self.perform(op);
                let completion = Completion { token, result };
                self.membership.complete(self.now, completion, &mut self.effects);
            }
        }
    }

    fn perform(&mut self, op: IoOp) -> Result<IoValue, IoError> {
        match op {
            IoOp::Read { .. } => match &self.file {
                Some(bytes) => Ok(IoValue::Read(Bytes::copy_from_slice(bytes))),
                None => Err(IoError {
                    kind: IoErrorKind::NotFound,
                    verb: "read",
                    file: Some(FileId::Identity),
                    detail: String::new(),
                }),
            },
            IoOp::Create { .. } => {
                self.file = Some(Vec::new());
                Ok(IoValue::Done)
            }
            IoOp::Write { offset, data, .. } => {
                let (file, offset) = (self.file.as_mut().unwrap(), usize::try_from(offset).unwrap());
                file.resize(file.len().max(offset + data.len()), 0);
                file[offset..offset + data.len()].copy_from_slice(&data);
                Ok(IoValue::Done)
            }
            _ => Ok(IoValue::Done),
        }
    }

    fn receive(&mut self, from: &str, message: NodeMessage) {
        self.membership.receive(self.now, &NodeName::from(from), message, &mut self.effects);
        self.settle();
    }

    fn restart(self, name: &str) -> Self {
        Self::start(name, self.file)
    }

    fn is_told_to_replace(&self) -> bool {
        self.effects.iter().any(|effect| {
            matches!(effect, MembershipEffect::Notice(Notice::Waiting { reason }) if reason.contains("mesh node replace"))
        })
    }
}

const CLUSTER: ClusterId = ClusterId([5; 16]);

fn directory() -> Directory {
    let members = ["a", "b", "c"].map(|name| (NodeName::from(name), format!("{name}:1")));
    Directory::at_birth(CLUSTER, 2, &members)
}

fn born_report(version: u64) -> NodeReport {
    let stage = Stage::Born { cluster: CLUSTER, node: NodeId(1), version };
    NodeReport { address: "a:1".into(), members: Vec::new(), shards: 2, stage }
}

/// Node b, which promised to be born into the cluster.
fn promised() -> Node {
    let mut node = Node::start("b", None);
    let members = ["a", "b", "c"].map(|name| (NodeName::from(name), format!("{name}:1")));
    node.receive("a", NodeMessage::Propose { cluster: CLUSTER, members: members.to_vec(), shards: 2 });
    assert!(node.effects.iter().any(|effect| {
        matches!(effect, MembershipEffect::Send { message: NodeMessage::Accept { cluster: CLUSTER }, .. })
    }));
    node
}

#[test]
fn who_promised_is_born_when_a_born_node_says_so() {
    let mut node = promised().restart("b");
    node.receive("a", NodeMessage::Decided { directory: directory() });
    let born = node.membership.born().unwrap();
    assert_eq!((born.node, born.origin, born.files), (NodeId(2), Origin::Birth, Files::Incomplete));
}

#[test]
fn who_promised_and_was_replaced_before_it_was_born_does_not_take_the_id_of_its_successor() {
    let name = NodeName::from("b");
    let expected = directory().replaced(&name, 1).unwrap();
    let joined = expected.joined(&name, "elsewhere:1", 77).unwrap();
    for later in [expected, joined] {
        let mut node = promised().restart("b");
        node.receive("a", NodeMessage::Probe(born_report(later.version())));
        node.receive("a", NodeMessage::Decided { directory: later });
        assert!(node.membership.born().is_none());
        assert!(node.is_told_to_replace());
    }
}

#[test]
fn an_empty_node_that_meets_its_cluster_stays_out() {
    let mut node = Node::start("b", None);
    node.receive("a", NodeMessage::Probe(born_report(1)));
    assert!(node.membership.born().is_none() && node.is_told_to_replace());
}

#[test]
fn no_damage_of_one_copy_of_the_identity_makes_the_replicas_files_anew() {
    let mut node = promised();
    node.receive("a", NodeMessage::Decided { directory: directory() });
    node.membership.created(CoreId(0));
    node.settle();
    assert_eq!(node.membership.born().unwrap().files, Files::Complete);
    let file = node.file.unwrap();
    for copy in 0..2 {
        let mut damaged = file.clone();
        damaged[copy * SLOT_BYTES + 40] ^= 1;
        let node = Node::start("b", Some(damaged));
        assert_eq!(node.membership.born().unwrap().files, Files::Complete, "copy {copy}");
        // And both copies are whole again.
        let healed = node.file.unwrap();
        for copy in 0..2 {
            let mut damaged = healed.clone();
            damaged[copy * SLOT_BYTES + 40] ^= 1;
            assert!(Node::start("b", Some(damaged)).membership.born().is_some(), "copy {copy}");
        }
    }
}
