//! Whether replicas of a shard that have applied the same entries have the same state: every cell that can be read, the
//! sessions, the horizon, the configuration, the membership.
//!
//! A state is digested part by part at moments drawn from the seed, and whenever the harness asks; states of one shard at
//! one index are compared.
//!
//! Not checked: states at the indexes between; versions that only reads below the horizon would show; records that a
//! checkpoint stores of what is in memory, until a restart loads them; that the common state is the right one, which the
//! checkers of what clients saw tell.

use std::collections::BTreeMap;

use mesh_base::prng::Prng;
use mesh_base::{LogIndex, ReplicaId, ShardId};
use mesh_server::shard::ReplicaState;

/// States that are kept of each shard for those that come later to their index.
const KEPT_MAX: usize = 64;

/// The states of all shards that were seen so far.
#[derive(Debug)]
pub struct States {
    /// An index of so many is looked at.
    every: u64,
    phase: u64,
    shards: BTreeMap<ShardId, BTreeMap<LogIndex, (ReplicaId, ReplicaState)>>,
}

impl States {
    /// No states yet; at which indexes replicas are looked at is drawn.
    #[must_use]
    pub fn new(mut prng: Prng) -> Self {
        let every = prng.choose(&[256, 1024, 4096]).copied().unwrap_or(1024);
        Self { every, phase: prng.range(0..every), shards: BTreeMap::new() }
    }

    /// Whether the state at an index is to be looked at.
    #[must_use]
    pub const fn wants(&self, applied: LogIndex) -> bool {
        applied.0 % self.every == self.phase
    }

    /// A replica has this state when it has applied everything up to `applied`.
    ///
    /// # Errors
    /// The first part in which it differs from another replica's at that index.
    pub fn observe(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        applied: LogIndex,
        state: ReplicaState,
    ) -> Result<(), String> {
        let states = self.shards.entry(shard).or_default();
        if let Some((other, known)) = states.get(&applied) {
            return match known.difference(&state) {
                None => Ok(()),
                Some(part) => Err(format!("at entry {applied}, {part:?} is not as replica {other} has it")),
            };
        }
        states.insert(applied, (replica, state));
        if states.len() > KEPT_MAX {
            states.pop_first();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mesh_server::shard::StatePart;

    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn state(sessions: u64, horizon: u64) -> ReplicaState {
        ReplicaState { parts: vec![(StatePart::Sessions, sessions), (StatePart::Horizon, horizon)] }
    }

    fn observe(states: &mut States, replica: u64, applied: u64, state: ReplicaState) -> Result<(), String> {
        states.observe(SHARD, ReplicaId(replica), LogIndex(applied), state)
    }

    #[test]
    fn states_at_one_index_are_equal_and_others_need_not_be() {
        let mut states = States::new(Prng::new(1));
        for (replica, applied, sessions) in [(1, 10, 5), (2, 10, 5), (2, 11, 6), (1, 11, 6), (3, 10, 5)] {
            assert_eq!(observe(&mut states, replica, applied, state(sessions, 0)), Ok(()));
        }
        let found = observe(&mut states, 3, 11, state(6, 9)).unwrap_err();
        assert_eq!(found, "at entry 11, Horizon is not as replica 2 has it");
    }

    #[test]
    fn a_part_that_one_state_has_not_is_a_difference() {
        let (whole, mut cut) = (state(1, 2), state(1, 2));
        cut.parts.pop();
        assert_eq!(whole.difference(&cut), Some(&StatePart::Horizon));
        assert_eq!(cut.difference(&whole), Some(&StatePart::Horizon));
        assert_eq!(cut.difference(&cut.clone()), None);
    }

    #[test]
    fn the_moments_are_drawn_and_the_states_kept_are_few() {
        let wanted = |seed| {
            let states = States::new(Prng::new(seed));
            (0..10_000).filter(|index| states.wants(LogIndex(*index))).collect::<Vec<_>>()
        };
        assert_eq!(wanted(1), wanted(1));
        assert!((1..20).any(|seed| wanted(seed) != wanted(1)));
        let mut states = States::new(Prng::new(1));
        for index in 0..1000 {
            observe(&mut states, 1, index, state(index, 0)).unwrap();
        }
        assert_eq!(states.shards[&SHARD].len(), KEPT_MAX);
    }
}
