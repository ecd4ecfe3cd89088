//! The slow sweep: versions below the horizon that no write comes by are dropped a few leaves at a time.
//!
//! A write drops the garbage of the leaf it touches; versions of a key that was overwritten often fill leaves of their
//! own, which nothing touches again. One pass walks all leaves; the next begins when the horizon has risen.

use mesh_base::{Revision, ShardId};
use mesh_engine::{Lookup, SweepPoint};

use super::error::ShardError;
use super::output::Output;
use super::replica::{Parked, Replica};

/// Leaves of one step: a step is a small part of a tick.
const LEAVES_PER_STEP: usize = 8;

/// Where the sweep is.
#[derive(Default, Debug)]
pub(super) struct Sweeping {
    /// Where the pass goes on; `None` between passes.
    next: Option<SweepPoint>,
    /// The horizon when the pass, or the last one, began.
    horizon: Revision,
    pace: Pace,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Pace {
    #[default]
    Ready,
    /// The next leaves are being read.
    Fetching,
}

impl Replica {
    /// Sweeps a few leaves, if there is garbage to be found.
    pub(super) fn sweep(&mut self, out: &mut Output) -> Result<(), ShardError> {
        let horizon = self.state.store.horizon();
        let is_between = self.sweeping.next.is_none();
        if self.sweeping.pace == Pace::Fetching || self.receiving.is_installing() {
            return Ok(());
        }
        // Pages that it changes could not be saved.
        if self.is_out_of_memory() || self.checkpointing.is_out_of_space() {
            return Ok(());
        }
        if is_between && (self.sweeping.horizon >= horizon || !self.has_garbage()) {
            return Ok(());
        }
        if is_between {
            self.sweeping.horizon = horizon;
        }
        match self.state.store.sweep(self.sweeping.next.as_ref(), LEAVES_PER_STEP)? {
            Lookup::Ready(progress) => self.sweeping.next = progress.next,
            Lookup::Miss(misses) => {
                self.sweeping.pace = Pace::Fetching;
                self.park(&misses, Parked::Sweep, out);
            }
        }
        Ok(())
    }

    /// The leaves of the sweep's next step came.
    pub(super) fn resume_sweep(&mut self, out: &mut Output) -> Result<(), ShardError> {
        self.sweeping.pace = Pace::Ready;
        self.sweep(out)
    }

    /// Whether there are more cells than live keys and the replica's own records need.
    fn has_garbage(&self) -> bool {
        let figures = self.state.store.statistics();
        let own = self.state.sessions.len() as u64 + u64::from(self.identity.shard == ShardId(0)) + 3;
        figures.cells > figures.keys + own
    }
}
