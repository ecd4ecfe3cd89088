//! When a replica's checkpoints are taken, and what they wait for.
//!
//! Invariants:
//! - A checkpoint of index i begins only when a commit index of at least i is durable in the log.
//! - The log is told of a checkpoint only after it is durable, and gives up entries only after that.

use mesh_base::flaw::{self, Flaw};
use mesh_base::limits::SPACE_PATIENCE;
use mesh_base::{Instant, Now};
use mesh_engine::{Lookup, StoreEvent, Unsaved};
use mesh_raftlog::CheckpointMark;
use raft::eraftpb::ConfState;

use super::error::ShardError;
use super::output::Output;
use super::replica::{Parked, Replica};

/// The state of checkpoints.
#[derive(Debug)]
pub(super) struct Checkpointing {
    running: Option<Running>,
    wanted: Wanted,
    /// Of the next one.
    urgency: Urgency,
    /// The configuration in the newest durable checkpoint.
    pub(super) durable_conf: ConfState,
    last_begun: Instant,
    space: DiskSpace,
}

#[derive(Debug)]
struct Running {
    conf: ConfState,
    urgency: Urgency,
    begun: Instant,
    /// Bytes of log since the checkpoint before, and of entries in memory, when this one began.
    log_bytes: u64,
    entry_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    No,
    Yes,
    /// The records wait for pages.
    SavingRecords,
}

/// How a checkpoint is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Urgency {
    /// In step with what makes the next one due.
    #[default]
    InStep,
    /// As fast as it goes: somebody waits for its end.
    Awaited,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DiskSpace {
    Enough,
    /// The last checkpoint found none; the next attempt is made at this time.
    Missing(Instant),
}

impl Checkpointing {
    /// The state after the store was opened with this configuration in it.
    pub(super) const fn new(durable_conf: ConfState) -> Self {
        Self {
            running: None,
            wanted: Wanted::No,
            urgency: Urgency::InStep,
            durable_conf,
            last_begun: Instant::ZERO,
            space: DiskSpace::Enough,
        }
    }

    /// Asks for a checkpoint as soon as one can begin, for somebody who waits for its end, and so for that of the one that runs.
    pub(super) fn want(&mut self) {
        self.urgency = Urgency::Awaited;
        if self.wanted == Wanted::No {
            self.wanted = Wanted::Yes;
        }
    }

    /// Whether one runs or was asked for.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || self.wanted != Wanted::No
    }

    /// Whether the last one found no space.
    pub(super) const fn is_out_of_space(&self) -> bool {
        matches!(self.space, DiskSpace::Missing(_))
    }

    /// The records can be written now.
    pub(super) fn pages_came(&mut self) {
        if self.wanted == Wanted::SavingRecords {
            self.wanted = Wanted::Yes;
        }
    }

    /// A received snapshot took the store's place.
    pub(super) fn restart(&mut self, durable_conf: ConfState) {
        *self = Self { last_begun: self.last_begun, ..Self::new(durable_conf) };
    }
}

impl Replica {
    /// Whether what is not checkpointed takes more memory than it may.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.unsaved_bytes() >= self.options.unsaved_bytes_max
    }

    fn unsaved_bytes(&self) -> usize {
        self.state.store.dirty_bytes() + self.raw.store().memory_bytes()
    }

    /// Begins a checkpoint if one is due and can begin.
    pub(super) fn begin_checkpoint_if_due(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if self.checkpointing.running.is_some() || self.receiving.is_installing() {
            return Ok(());
        }
        let is_due = self.is_checkpoint_due(now) || self.upkeep_wants_checkpoint();
        if self.checkpointing.wanted == Wanted::No && is_due {
            self.checkpointing.wanted = Wanted::Yes;
        }
        if self.checkpointing.wanted != Wanted::Yes {
            return Ok(());
        }
        if self.raw.store().durable_commit() < self.state.applied.index
            && !flaw::is_planted(Flaw::CheckpointAheadOfLog)
        {
            if self.raw.store().hard_state().commit < self.state.applied.index.0 {
                self.log_commit_index()?;
            }
            return Ok(());
        }
        if let Lookup::Miss(misses) = self.state.save_records()? {
            self.park(&misses, Parked::SaveRecords, out);
            self.checkpointing.wanted = Wanted::SavingRecords;
            return Ok(());
        }
        self.state.begin_checkpoint();
        self.checkpointing.running = Some(Running {
            conf: self.state.conf.clone(),
            urgency: std::mem::take(&mut self.checkpointing.urgency),
            begun: now.monotonic,
            log_bytes: self.raw.store().bytes_since_checkpoint(),
            entry_bytes: self.raw.store().entry_bytes(),
        });
        self.checkpointing.wanted = Wanted::No;
        self.checkpointing.last_begun = now.monotonic;
        Ok(())
    }

    fn is_checkpoint_due(&self, now: Now) -> bool {
        let applied = self.state.applied.index > self.state.store.checkpoint().applied;
        let unsaved = Unsaved {
            bytes: self.unsaved_bytes() as u64,
            log_bytes: self.raw.store().bytes_since_checkpoint(),
            age: now.monotonic.since(self.checkpointing.last_begun),
        };
        // Upkeep changes pages although nothing is applied.
        let has_much = self.state.store.dirty_bytes() as u64 >= self.options.checkpoint.at_bytes;
        (applied || has_much) && self.options.checkpoint.is_due(&unsaved)
    }

    /// Lets the running checkpoint go on as far as is due: in step with what makes the next one due, and without restraint where
    /// somebody waits for it.
    pub(super) fn pace_checkpoint(&mut self, now: Now) {
        let (Some(running), Some(progress)) =
            (&self.checkpointing.running, self.state.store.checkpoint_progress())
        else {
            return;
        };
        let log = self.raw.store();
        let entry_bytes = log.entry_bytes().saturating_sub(running.entry_bytes) as u64;
        let since = Unsaved {
            bytes: progress.fresh_bytes + entry_bytes,
            log_bytes: log.bytes_since_checkpoint().saturating_sub(running.log_bytes),
            age: now.monotonic.since(running.begun),
        };
        let is_awaited = [running.urgency, self.checkpointing.urgency].contains(&Urgency::Awaited);
        let is_urgent = is_awaited || self.is_out_of_memory();
        let due = if is_urgent {
            progress.total_bytes
        } else {
            self.options.checkpoint.due_bytes(progress.total_bytes, &since)
        };
        self.state.store.set_checkpoint_due(due);
    }

    /// A checkpoint has ended, or cannot go on.
    pub(super) fn on_checkpoint_event(&mut self, now: Now, event: &StoreEvent) -> Result<(), ShardError> {
        match event {
            StoreEvent::CheckpointDone { checkpoint, applied } => {
                if let Some(running) = self.checkpointing.running.take() {
                    self.checkpointing.durable_conf = running.conf;
                }
                self.checkpointing.space = DiskSpace::Enough;
                self.log().note_checkpoint(CheckpointMark { no: *checkpoint, applied: *applied })?;
            }
            StoreEvent::CheckpointNoSpace { .. } => {
                tracing::warn!(shard = %self.identity.shard, "no disk space for a checkpoint");
                self.checkpointing.space = DiskSpace::Missing(now.monotonic + SPACE_PATIENCE);
            }
            StoreEvent::Fetched(_) | StoreEvent::Verified(_) => {}
        }
        Ok(())
    }

    /// Looks for disk space again, now and then, while there is none.
    pub(super) fn retry_checkpoint_space(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if let DiskSpace::Missing(retry_at) = self.checkpointing.space
            && now.monotonic >= retry_at
            && !self.receiving.is_installing()
        {
            self.checkpointing.space = DiskSpace::Missing(now.monotonic + SPACE_PATIENCE);
            self.state.store.retry_space(&mut out.io)?;
        }
        Ok(())
    }
}
