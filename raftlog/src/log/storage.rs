//! raft's view of the log.

use mesh_base::flaw::{self, Flaw};
use mesh_base::{LogIndex, ReplicaId};
use raft::eraftpb::{Entry, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::Log;

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        let mut hard_state = self.hard_state();
        if hard_state.vote != 0 && flaw::is_planted(Flaw::ForgetVote) {
            hard_state.vote = 0;
        }
        Ok(RaftState::new(hard_state, self.conf_state.clone()))
    }

    /// Entries after the last noted checkpoint are answered at once, older ones when they were fetched.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let (low, high, bytes_max) = (LogIndex(low), LogIndex(high), max_size.into());
        if low < self.first_index() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if low > high || high > self.last_index().next() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        if let Some(entries) = self.contents.tail.slice(low, high, bytes_max) {
            return Ok(entries);
        }
        let mut fetches = self.fetches.borrow_mut();
        if let Some(entries) = fetches.take(low, high, bytes_max) {
            return Ok(entries);
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        fetches.want(low, context);
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> Result<u64> {
        let error = || {
            let compacted = index < self.contents.base.truncated.index.0;
            Error::Store(if compacted { StorageError::Compacted } else { StorageError::Unavailable })
        };
        self.contents.terms.term(LogIndex(index)).map(|term| term.0).ok_or_else(error)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(Self::first_index(self).0)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(Self::last_index(self).0)
    }

    /// The snapshot last offered if it is new enough; otherwise the owner is asked for one.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let least = request_index.max(self.contents.base.truncated.index.0);
        match &self.offered_snapshot {
            Some(snapshot) if snapshot.get_metadata().index >= least => Ok(snapshot.clone()),
            _ => {
                self.wanted_snapshot.set(Some((LogIndex(least), ReplicaId(to))));
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
