//! The sizes and times of a shard's replica.

use std::time::Duration;

use mesh_base::limits::{
    APPEND_MESSAGE_BYTES_MAX, APPEND_MESSAGES_IN_FLIGHT_MAX, CHECKPOINT_BYTES_PER_SECOND_MIN,
    COMMITTED_BYTES_PER_READY_MAX, ELECTION_TICKS_MAX, ELECTION_TICKS_MIN, HEARTBEAT_TICKS,
    HISTORY_BYTES_MAX, LOG_REPLAY_BYTES_MAX, LOG_RETAINED_BYTES, LOG_SEGMENT_BYTES_MIN, SEGMENT_BYTES,
    SESSIONS_PER_SHARD_MAX, SHARD_REQUESTS_WAITING_MAX, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_RESUME_WITHIN, TICK,
    UNCOMMITTED_BYTES_MAX,
};
use mesh_base::{LogIndex, ReplicaId};
use mesh_engine::{CheckpointPace, StoreOptions};
use mesh_raftlog::LogOptions;

use super::history::HistoryOptions;
use super::replica::newest_revision_of;

/// The sizes and times of a replica. The default is the product's; the simulator makes them small.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// The log's.
    pub log: LogOptions,
    /// The page store's.
    pub store: StoreOptions,
    /// When checkpoints are taken, and how fast they are written.
    pub checkpoint: CheckpointPace,
    /// Bytes of changed pages and of entries in memory at which writes are refused until a checkpoint has ended.
    pub unsaved_bytes_max: usize,
    /// Sessions above which the longest idle are evicted.
    pub sessions_max: usize,
    /// Requests that may wait (for a page, a quorum, a leader).
    pub requests_waiting_max: usize,
    /// How long versions that were overwritten stay readable.
    pub history: HistoryOptions,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election, at least and at most.
    pub election_ticks: (usize, usize),
    /// A shard without a leader for longer answers that it has no quorum.
    pub leaderless_patience: Duration,
    /// How long a leader that is not the preferred one stays.
    pub preferred_leader_after: Duration,
    /// After so long without a word from the other side of a snapshot it is asked.
    pub snapshot_patience: Duration,
    /// How long after the last word from the other side a snapshot that broke off is kept, to be gone on with.
    pub snapshot_resume_within: Duration,
    /// Bytes of one chunk of a snapshot, its first cell aside.
    pub snapshot_chunk_bytes: usize,
    /// How long a stop waits for leaders to be handed over.
    pub hand_over_patience: Duration,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self::for_memory(1024 * 1024 * 1024)
    }
}

impl ShardOptions {
    /// The options of a replica that may use `bytes` of memory: three eighths for pages. Half as much may be unsaved, in changed
    /// pages and in entries, before a checkpoint is taken: a page that is changed many times between two is written once, and
    /// serves reads meanwhile as a clean one would. At a quarter of the memory writes wait. The rest is for messages, requests,
    /// and what the allocator keeps. Whoever gives it little memory hardly wants it to fill a disk with log: segments, and what
    /// is kept of them, are smaller then.
    #[must_use]
    pub fn for_memory(bytes: u64) -> Self {
        let segment_bytes =
            (bytes / 8).next_power_of_two().clamp(LOG_SEGMENT_BYTES_MIN, SEGMENT_BYTES as u64);
        let log = LogOptions {
            segment_bytes,
            retained_bytes: (bytes / 2).min(LOG_RETAINED_BYTES),
            revision_of: newest_revision_of,
            ..LogOptions::default()
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            log,
            store: StoreOptions { frame_bytes_max: bytes / 8 * 3, ..StoreOptions::default() },
            checkpoint: CheckpointPace {
                at_bytes: bytes as u64 / 16 * 3,
                at_log_bytes: LOG_REPLAY_BYTES_MAX / 2,
                period: Duration::from_secs(30),
                bytes_per_second_min: CHECKPOINT_BYTES_PER_SECOND_MIN,
            },
            unsaved_bytes_max: bytes / 4,
            sessions_max: SESSIONS_PER_SHARD_MAX,
            requests_waiting_max: SHARD_REQUESTS_WAITING_MAX,
            history: HistoryOptions {
                time: Duration::from_secs(60),
                bytes: (bytes as u64 / 32).min(HISTORY_BYTES_MAX),
                period: Duration::from_secs(5),
                held_for: Duration::from_secs(10),
            },
            heartbeat_ticks: HEARTBEAT_TICKS,
            election_ticks: (ELECTION_TICKS_MIN, ELECTION_TICKS_MAX),
            leaderless_patience: TICK * 2 * u32::try_from(ELECTION_TICKS_MAX).unwrap_or(u32::MAX),
            preferred_leader_after: Duration::from_secs(3),
            snapshot_patience: Duration::from_secs(1),
            snapshot_resume_within: SNAPSHOT_RESUME_WITHIN,
            snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
            hand_over_patience: Duration::from_secs(2),
        }
    }

    /// Sessions at which no more are opened until some were evicted.
    pub(super) const fn sessions_full(&self) -> usize {
        self.sessions_max + self.sessions_max / 2
    }

    /// raft's configuration. Every size that raft leaves at zero or unlimited is set.
    pub(super) fn raft_config(&self, replica: ReplicaId, applied: LogIndex) -> raft::Config {
        raft::Config {
            id: replica.0,
            election_tick: self.election_ticks.0,
            heartbeat_tick: self.heartbeat_ticks,
            applied: applied.0,
            max_size_per_msg: APPEND_MESSAGE_BYTES_MAX as u64,
            max_inflight_msgs: APPEND_MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: self.election_ticks.0,
            max_election_tick: self.election_ticks.1,
            read_only_option: raft::ReadOnlyOption::Safe,
            skip_bcast_commit: true,
            // A turn proposes once. Appends that raft merges may outgrow a frame.
            batch_append: false,
            priority: 0,
            // Refused by the shard before raft would drop it.
            max_uncommitted_size: 4 * UNCOMMITTED_BYTES_MAX as u64,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX as u64,
        }
    }

    /// raft's own events are not ours: what matters is told by the shard.
    #[allow(clippy::unused_self, reason = "an option in waiting: the level is the operator's")]
    pub(super) fn raft_logger(&self) -> slog::Logger {
        slog::Logger::root(slog::Discard, slog::o!())
    }

    /// The election timeout of a replica in a term, in ticks: a function of its seed, so that two replicas differ and one
    /// run equals the next.
    pub(super) fn election_timeout(&self, seed: u64, term: u64) -> usize {
        let (min, max) = self.election_ticks;
        min + mesh_base::prng::Prng::new(seed ^ term.wrapping_mul(0x9e37_79b9_7f4a_7c15)).index(max - min)
    }
}
