//! The upkeep of a replica's page store: a little with each tick.
//!
//! What is done and how fast is the page store's ([`Upkeep`]): versions below the horizon that no write comes by are dropped, thin
//! pages packed, and disk space given back. Here is only when it has to wait.

use mesh_base::ShardId;
use mesh_engine::{Lookup, Upkeep};

use super::error::ShardError;
use super::output::Output;
use super::replica::{Parked, Replica};

/// Where the upkeep is.
#[derive(Default, Debug)]
pub(super) struct Tidying {
    upkeep: Upkeep,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    #[default]
    Ready,
    /// The next pages are being read.
    Fetching,
}

impl Replica {
    /// A tick's worth of upkeep.
    pub(super) fn tidy(&mut self, out: &mut Output) -> Result<(), ShardError> {
        if self.receiving.is_installing() {
            return Ok(());
        }
        // Cells that are neither live keys nor garbage: sessions, the membership, and the replica's own records.
        let own = self.state.sessions.len() as u64 + u64::from(self.identity.shard == ShardId(0)) + 3;
        self.tidying.upkeep.tick(&self.state.store, own);
        self.step_upkeep(out)
    }

    /// The pages of the next step came.
    pub(super) fn resume_upkeep(&mut self, out: &mut Output) -> Result<(), ShardError> {
        self.tidying.state = State::Ready;
        self.step_upkeep(out)
    }

    fn step_upkeep(&mut self, out: &mut Output) -> Result<(), ShardError> {
        if self.tidying.state == State::Fetching || self.receiving.is_installing() {
            return Ok(());
        }
        // Pages that it changes could not be saved.
        if self.is_out_of_memory() || self.checkpointing.is_out_of_space() {
            return Ok(());
        }
        if let Lookup::Miss(misses) = self.tidying.upkeep.step(&mut self.state.store)? {
            self.tidying.state = State::Fetching;
            self.park(&misses, Parked::Upkeep, out);
        }
        Ok(())
    }

    /// Whether a checkpoint is to be taken for what upkeep did.
    pub(super) fn upkeep_wants_checkpoint(&self) -> bool {
        self.tidying.upkeep.wants_checkpoint(&self.state.store)
    }
}
