//! A received snapshot takes the live store's place.
//!
//! Invariants:
//! - The log's record of the installation is durable before the staged store takes the live one's name; from then on a
//!   restart finishes it.
//! - From the decision on the live store submits nothing, and it has no operation in flight when its file is replaced.

use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{Completion, FileId, IoOp, IoToken};
use mesh_base::{BatchSeq, LogIndex, Now, Term};
use mesh_engine::Store;
use mesh_raftlog::{CheckpointMark, SnapshotBase};
use mesh_wire::Error;
use raft::eraftpb::SnapshotMetadata;

use super::error::ShardError;
use super::output::{News, Output};
use super::receiving::{Phase, Receiving};
use super::replica::{Parked, Replica};
use super::startup::{Loading, Progress};
use super::state::State;
use super::upkeep::Tidying;

/// A received snapshot taking the live store's place.
pub(super) struct Installing {
    base: SnapshotBase,
    step: InstallStep,
}

enum InstallStep {
    /// The log's record, and the live store's last operations.
    Deciding {
        batch: BatchSeq,
        staged: Box<Store>,
    },
    Renaming {
        token: IoToken,
        staged: Box<Store>,
    },
    NameDurable {
        token: IoToken,
        staged: Box<Store>,
    },
    Loading(Box<Loading>),
    Over,
}

impl Installing {
    /// Fetches of the received store that wait for pages.
    pub(super) fn fetches_waiting(&self) -> usize {
        match &self.step {
            InstallStep::Loading(loading) => loading.fetches_waiting(),
            _ => 0,
        }
    }
}

impl Replica {
    /// raft accepted the snapshot that the staged store holds: the log notes it first.
    pub(super) fn begin_install(&mut self, meta: &SnapshotMetadata) -> Result<(), ShardError> {
        let phase = std::mem::replace(&mut self.receiving.phase, Phase::Idle);
        let Phase::Transfer(transfer) = phase else {
            return Err(ShardError::NoStagedStore { index: meta.index });
        };
        let Some((store, checkpoint)) = transfer.into_store() else {
            return Err(ShardError::NoStagedStore { index: meta.index });
        };
        let base = SnapshotBase { index: LogIndex(meta.index), term: Term(meta.term), checkpoint };
        let batch = self.log().install(base)?;
        self.state.store.seal();
        let step = InstallStep::Deciding { batch, staged: Box::new(store) };
        self.receiving.phase = Phase::Installing(Box::new(Installing { base, step }));
        self.end_all_sendings();
        Ok(())
    }

    /// Goes on with an installation as far as what is durable allows.
    pub(super) fn continue_install(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        let durable = self.raw.store().durable().seq();
        let quiet = self.state.store.is_quiet();
        let Receiving { port, phase, .. } = &mut self.receiving;
        let Phase::Installing(installing) = phase else { return Ok(()) };
        installing.step = match std::mem::replace(&mut installing.step, InstallStep::Over) {
            InstallStep::Deciding { batch, staged }
                if quiet && (batch <= durable || flaw::is_planted(Flaw::InstallBeforeDecided)) =>
            {
                let op = IoOp::Rename { from: FileId::StagedStore, to: FileId::Store };
                InstallStep::Renaming { token: port.submit(&mut out.io, op), staged }
            }
            InstallStep::Loading(mut loading) => {
                if loading.advance(&mut out.io)? == Progress::Done {
                    return self.installed(now, loading.into_state(), out);
                }
                InstallStep::Loading(loading)
            }
            step => step,
        };
        Ok(())
    }

    pub(super) fn install_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let Receiving { port, phase, .. } = &mut self.receiving;
        let Phase::Installing(installing) = phase else { return Ok(()) };
        installing.step = match std::mem::replace(&mut installing.step, InstallStep::Over) {
            InstallStep::Renaming { token, staged } if token == completion.token => {
                completion.result?;
                InstallStep::NameDurable { token: port.submit(&mut out.io, IoOp::SyncDirectory), staged }
            }
            InstallStep::NameDurable { token, mut staged } if token == completion.token => {
                completion.result?;
                staged.promote(self.options.store.frame_bytes_max);
                InstallStep::Loading(Box::new(Loading::new(None, State::new(*staged))))
            }
            step => step,
        };
        self.continue_install(now, out)
    }

    /// An operation of the live store ended, or of the one that takes its place.
    pub(super) fn on_store_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if let Phase::Installing(installing) = &mut self.receiving.phase {
            if let InstallStep::Loading(loading) = &mut installing.step {
                loading.store().complete(completion, &mut out.io)?;
            } else {
                // What the old store still had to read or write concerns nobody any more, and so does its failure.
                self.state.store.complete(completion, &mut out.io)?;
            }
            return self.continue_install(now, out);
        }
        self.state.store.complete(completion, &mut out.io)?;
        self.take_store_events(now, out)
    }

    /// The received state is the replica's now.
    fn installed(&mut self, now: Now, state: State, out: &mut Output) -> Result<(), ShardError> {
        let Phase::Installing(installing) = std::mem::replace(&mut self.receiving.phase, Phase::Idle) else {
            return Ok(());
        };
        let base = installing.base;
        assert_eq!(state.applied.index, base.index, "the staged store holds the snapshot that was installed");
        tracing::info!(shard = %self.identity.shard, index = %base.index, "installed a snapshot");
        self.state = state;
        self.newest = self.newest.max(self.state.newest);
        self.committed.retain(|entry| entry.index > base.index.0);
        self.apply_is_parked = false;
        self.tidying = Tidying::default();
        let conf = self.state.conf.clone();
        self.log().set_conf_state(conf.clone());
        self.checkpointing.restart(conf);
        self.log().note_checkpoint(CheckpointMark { no: base.checkpoint, applied: base.index })?;
        let error = self.not_leader(now);
        for (parked, _) in std::mem::take(&mut self.parked).into_values() {
            match parked {
                Parked::Write(write) => out.fail(write.waiter.responder, &error),
                Parked::Read(read) => read.fail(&error, out),
                Parked::Apply | Parked::SaveRecords | Parked::Upkeep | Parked::Send(_) => {}
            }
        }
        for write in self.proposals.overtaken(base.index) {
            out.fail_all(write.waiters, &Error::Unknown);
        }
        if let Some(directory) = &self.state.directory {
            out.news.push(News::Directory(std::sync::Arc::clone(directory)));
        }
        Ok(())
    }
}
