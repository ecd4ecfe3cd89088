//! What a node reports of itself: its topology and its status, gathered from all cores.

use std::collections::BTreeMap;

use mesh_base::{NodeId, Now, ReplicaId, ShardId};
use mesh_wire::{
    Error, Frame, Member, ReplicaRole, ReplicaState, ReplicaStatus, Request, Response, StatusAnswer,
};

use super::Core;
use super::event::{ConnId, CoreEffect, MeshMessage, Responder};
use super::greeting::OwnTopology;
use crate::node::Directory;
use crate::shard::status::{Condition, Role};
use crate::shard::{Shard, ShardStatus};

/// Status requests that wait for other cores.
#[derive(Default, Debug)]
pub(super) struct Questions {
    last: u64,
    open: BTreeMap<u64, Question>,
}

#[derive(Debug)]
struct Question {
    responder: Responder,
    missing: usize,
    shards: Vec<ShardStatus>,
    peers_answering: u32,
}

impl Questions {
    /// Nobody waits on this connection any more.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.open.retain(|_, question| question.responder.conn != conn);
    }
}

impl Core {
    /// A request that is not for a shard.
    pub(super) fn on_node_request(
        &mut self,
        now: Now,
        responder: Responder,
        frame: &Frame,
        effects: &mut Vec<CoreEffect>,
    ) {
        match frame.request() {
            Ok(Request::Topology) => self.answer_topology(responder, effects),
            Ok(Request::Status) => self.ask_status(now, responder, effects),
            Ok(Request::Hello(_)) => {
                self.fail(responder, &Error::Malformed { what: "a second hello".into() }, effects);
            }
            Ok(_) => {
                let what = "the frame names no shard, and this request is for one".into();
                self.fail(responder, &Error::Malformed { what }, effects);
            }
            Err(error) => self.fail(responder, &error.into(), effects),
        }
    }

    fn answer_topology(&mut self, responder: Responder, effects: &mut Vec<CoreEffect>) {
        match OwnTopology::of(self) {
            Some(own) => {
                let nodes = own.nodes();
                self.answer(responder, &Response::Topology(own.view(&nodes)), effects);
            }
            None => {
                let why = "the node is not part of a cluster yet".into();
                self.fail(responder, &Error::NotReady { why }, effects);
            }
        }
    }

    fn ask_status(&mut self, now: Now, responder: Responder, effects: &mut Vec<CoreEffect>) {
        let others = self.other_cores();
        self.questions.last += 1;
        let question = self.questions.last;
        let (shards, peers_answering) = (self.statuses(), self.peers_answering(now));
        let asked = Question { responder, missing: others.len(), shards, peers_answering };
        self.questions.open.insert(question, asked);
        for to in others {
            effects.push(CoreEffect::Mesh { to, message: MeshMessage::StatusAsk { question } });
        }
        self.answer_status_if_complete(now, question, effects);
    }

    /// Another core has reported.
    pub(super) fn told(
        &mut self,
        now: Now,
        question: u64,
        shards: Vec<ShardStatus>,
        peers_answering: u32,
        effects: &mut Vec<CoreEffect>,
    ) {
        if let Some(open) = self.questions.open.get_mut(&question) {
            open.missing -= 1;
            open.shards.extend(shards);
            open.peers_answering = open.peers_answering.max(peers_answering);
        }
        self.answer_status_if_complete(now, question, effects);
    }

    /// How many other nodes answer; zero on all cores but the first.
    pub(super) fn peers_answering(&self, now: Now) -> u32 {
        let answering = self.membership.as_ref().map_or(0, |it| it.peers_answering(now.monotonic));
        u32::try_from(answering).unwrap_or(u32::MAX)
    }

    /// The reports of this core's replicas.
    #[must_use]
    pub fn statuses(&self) -> Vec<ShardStatus> {
        self.shards.values().map(|slot| slot.shard.status()).collect()
    }

    /// This core's replicas, to look into.
    pub fn replicas(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values().map(|slot| &slot.shard)
    }

    fn answer_status_if_complete(&mut self, now: Now, question: u64, effects: &mut Vec<CoreEffect>) {
        if self.questions.open.get(&question).is_none_or(|open| open.missing > 0) {
            return;
        }
        let Some(asked) = self.questions.open.remove(&question) else { return };
        let Question { responder, mut shards, peers_answering, .. } = asked;
        shards.sort_by_key(|status| status.shard);
        let directory = self.directory.clone();
        let members: Vec<_> = shards.iter().map(|status| members(directory.as_deref(), status)).collect();
        let replicas: Vec<_> = shards
            .iter()
            .zip(&members)
            .map(|(status, (voters, learners))| ReplicaStatus {
                core: self.placement.core_of(status.shard),
                voters: voters.into(),
                learners: learners.into(),
                ..replica_status(status)
            })
            .collect();
        let config = std::sync::Arc::clone(&self.config);
        let answer = StatusAnswer {
            node: self.node,
            name: config.name.as_str(),
            address: &config.advertise,
            software: concat!("mesh ", env!("CARGO_PKG_VERSION")),
            cluster: directory.as_ref().map(|directory| directory.cluster()),
            uptime_ms: u64::try_from(now.monotonic.since(self.started).as_millis()).unwrap_or(u64::MAX),
            cores: u16::try_from(config.cpus.len()).unwrap_or(u16::MAX),
            memory_budget_bytes: config.memory_bytes,
            memory_used_bytes: self.resident_bytes,
            peers_reachable: peers_answering,
            replicas: (&replicas).into(),
        };
        self.answer(responder, &Response::Status(answer), effects);
    }
}

fn members(directory: Option<&Directory>, status: &ShardStatus) -> (Vec<Member>, Vec<Member>) {
    let member = |replica: &ReplicaId| Member {
        replica: *replica,
        node: directory
            .and_then(|known| known.by_replica(status.shard, *replica))
            .map_or(NodeId(0), |entry| entry.node),
    };
    (status.voters.iter().map(member).collect(), status.learners.iter().map(member).collect())
}

fn replica_status(status: &ShardStatus) -> ReplicaStatus<'_> {
    let (state, detail) = match &status.condition {
        Condition::Recovering => (ReplicaState::Recovering, ""),
        Condition::Serving => (ReplicaState::Serving, ""),
        Condition::ReceivingSnapshot => (ReplicaState::ReceivingSnapshot, ""),
        Condition::ReadOnly => (ReplicaState::ReadOnly, "the disk is full"),
        Condition::Damaged(why) => (ReplicaState::Damaged, why.as_str()),
        Condition::Stopped => (ReplicaState::Stopped, ""),
    };
    let role = match status.role {
        Role::Follower => ReplicaRole::Follower,
        Role::PreCandidate => ReplicaRole::PreCandidate,
        Role::Candidate => ReplicaRole::Candidate,
        Role::Leader => ReplicaRole::Leader,
        Role::Learner => ReplicaRole::Learner,
    };
    ReplicaStatus {
        shard: ShardId(status.shard.0),
        core: mesh_base::CoreId(0),
        replica: status.replica,
        role,
        term: status.term,
        leader: status.leader,
        commit: status.commit,
        applied: status.applied,
        first_index: status.first_index,
        last_index: status.last_index,
        checkpoint: status.checkpoint,
        checkpoint_applied: status.checkpoint_applied,
        store_bytes: status.store_bytes,
        keys: status.keys,
        log_bytes: status.log_bytes,
        resident_bytes: status.resident_bytes,
        dirty_bytes: status.dirty_bytes,
        sessions: status.sessions,
        state,
        detail,
        voters: mesh_wire::List::EMPTY,
        learners: mesh_wire::List::EMPTY,
    }
}
