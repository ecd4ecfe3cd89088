//! Who votes in a shard's group: the configuration, its stored form, and its changes.
//!
//! Changes are of one replica at a time. An entry that changes the configuration says so in our own form in its context;
//! the protobuf in its data is made and read by raft itself on the leader, and by nobody else.
//!
//! Invariant: the configuration is written in the same apply as the index that changed it, so a checkpoint holds both.

use mesh_base::ReplicaId;
use mesh_base::bytesio::{Reader, Writer};
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState};

/// A change of one replica's part in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It receives the log and does not vote.
    AddLearner(ReplicaId),
    /// It votes.
    AddVoter(ReplicaId),
    /// It is gone.
    Remove(ReplicaId),
}

impl Change {
    /// The change as raft wants it.
    #[must_use]
    pub fn to_raft(self) -> ConfChange {
        let (kind, replica) = match self {
            Self::AddLearner(replica) => (ConfChangeType::AddLearnerNode, replica),
            Self::AddVoter(replica) => (ConfChangeType::AddNode, replica),
            Self::Remove(replica) => (ConfChangeType::RemoveNode, replica),
        };
        let mut change = ConfChange::default();
        change.set_change_type(kind);
        change.node_id = replica.0;
        change
    }

    /// The stored form: kind u8, replica u64.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (kind, replica) = match self {
            Self::AddLearner(replica) => (1, replica),
            Self::AddVoter(replica) => (2, replica),
            Self::Remove(replica) => (3, replica),
        };
        let mut to = Vec::with_capacity(9);
        to.put_u8(kind);
        to.put_u64(replica.0);
        to
    }

    /// Reads the stored form; `None` if it is no change this program knows.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader::new(bytes);
        let (kind, replica) = (from.u8()?, ReplicaId(from.u64()?));
        match (kind, from.is_empty()) {
            (1, true) => Some(Self::AddLearner(replica)),
            (2, true) => Some(Self::AddVoter(replica)),
            (3, true) => Some(Self::Remove(replica)),
            _ => None,
        }
    }

    /// The configuration after the change.
    #[must_use]
    pub fn applied_to(self, conf: &ConfState) -> ConfState {
        let mut next = conf.clone();
        let (Self::AddLearner(id) | Self::AddVoter(id) | Self::Remove(id)) = self;
        next.voters.retain(|&voter| voter != id.0);
        next.learners.retain(|&learner| learner != id.0);
        match self {
            Self::AddLearner(id) => next.learners.push(id.0),
            Self::AddVoter(id) => next.voters.push(id.0),
            Self::Remove(_) => {}
        }
        next.voters.sort_unstable();
        next.learners.sort_unstable();
        next
    }
}

/// The next step from the configuration that is to the replicas that are to be, if there is one: first those that are gone
/// go, then new ones learn, then a learner that `is_caught_up` votes.
#[must_use]
pub fn next_change(
    conf: &ConfState,
    wanted: &[ReplicaId],
    is_caught_up: impl Fn(ReplicaId) -> bool,
) -> Option<Change> {
    let mut present = conf.voters.iter().chain(&conf.learners).map(|&id| ReplicaId(id));
    if let Some(gone) = present.find(|id| !wanted.contains(id)) {
        return Some(Change::Remove(gone));
    }
    if let Some(&new) = wanted.iter().find(|id| !contains(conf, **id)) {
        return Some(Change::AddLearner(new));
    }
    conf.learners.iter().map(|&id| ReplicaId(id)).find(|&id| is_caught_up(id)).map(Change::AddVoter)
}

/// The stored form of a configuration: voters u16 and their ids u64, learners u16 and their ids u64.
#[must_use]
pub fn encode(conf: &ConfState) -> Vec<u8> {
    let mut to = Vec::new();
    for ids in [&conf.voters, &conf.learners] {
        to.put_u16(u16::try_from(ids.len()).unwrap_or(u16::MAX));
        ids.iter().for_each(|&id| to.put_u64(id));
    }
    to
}

/// Reads the stored form; `None` if it is damaged.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<ConfState> {
    let mut from = Reader::new(bytes);
    let mut ids = || {
        let count = from.u16()?;
        (0..count).map(|_| from.u64()).collect::<Option<Vec<_>>>()
    };
    let (voters, learners) = (ids()?, ids()?);
    from.is_empty().then(|| conf_state(voters, learners))
}

/// A configuration of these replicas.
#[must_use]
pub fn conf_state(mut voters: Vec<u64>, mut learners: Vec<u64>) -> ConfState {
    voters.sort_unstable();
    learners.sort_unstable();
    ConfState { voters, learners, ..ConfState::default() }
}

/// Whether a replica is part of a configuration.
#[must_use]
pub fn contains(conf: &ConfState, replica: ReplicaId) -> bool {
    conf.voters.contains(&replica.0) || conf.learners.contains(&replica.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_replica_is_removed_then_learns_then_votes() {
        let wanted = [1, 2, 4].map(ReplicaId);
        let mut conf = conf_state(vec![1, 2, 3], vec![]);
        let mut steps = Vec::new();
        while let Some(change) = next_change(&conf, &wanted, |_| true) {
            assert_eq!(Change::decode(&change.encode()), Some(change));
            conf = change.applied_to(&conf);
            steps.push(change);
        }
        let new = ReplicaId(4);
        assert_eq!(steps, [Change::Remove(ReplicaId(3)), Change::AddLearner(new), Change::AddVoter(new)]);
        assert_eq!(conf, conf_state(vec![1, 2, 4], vec![]));
    }

    #[test]
    fn a_learner_that_lags_does_not_vote() {
        let conf = conf_state(vec![1, 2], vec![4]);
        assert_eq!(next_change(&conf, &[1, 2, 4].map(ReplicaId), |_| false), None);
    }

    #[test]
    fn a_configuration_is_read_back() {
        let conf = conf_state(vec![3, 1], vec![9]);
        let bytes = encode(&conf);
        assert_eq!(decode(&bytes), Some(conf));
        assert_eq!(decode(&bytes[1..]), None);
    }
}
