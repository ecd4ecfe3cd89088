//! A node's process: the real cores of the server, driven as the host drives them.
//!
//! What happens to a core waits in its inbox until the core's next turn, a moment later: so events are batched as they are
//! on a busy host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_base::limits::{ENTRY_BYTES_SOFT_MAX, SNAPSHOT_CHUNK_BYTES};
use mesh_base::prng::Prng;
use mesh_base::{ClusterId, CoreId, Now, ShardId};
use mesh_engine::MemoryAhead;
use mesh_server::core::{Core, CoreEffect, CoreEvent, CoreOptions, PanicPolicy};
use mesh_server::node::NodeConfig;
use mesh_server::shard::{HistoryOptions, Shard, ShardOptions};

/// One run of a node's program.
pub(super) struct Process {
    /// Tells this run's events from those of the runs before.
    pub(super) incarnation: u64,
    cores: Vec<Core>,
    /// Cores that have stopped.
    stopped: BTreeSet<usize>,
    inboxes: BTreeMap<usize, Inbox>,
}

#[derive(Default)]
struct Inbox {
    events: Vec<CoreEvent>,
    turn: Turn,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Turn {
    #[default]
    Idle,
    Scheduled,
}

/// Whether a core's turn has to be scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wake {
    /// It is asleep: give it a turn.
    Needed,
    /// It has one coming.
    Not,
}

impl Process {
    pub(super) fn new(
        config: &Arc<NodeConfig>,
        shard: &Arc<ShardOptions>,
        incarnation: u64,
        prng: &mut Prng,
    ) -> Self {
        let options = CoreOptions {
            config: Arc::clone(config),
            shard: Some(Arc::clone(shard)),
            memory: MemoryAhead::default(),
            panics: PanicPolicy::Propagate,
        };
        let cores =
            (0..).zip(&config.cpus).map(|(id, _)| Core::new(options.clone(), CoreId(id), prng.fork()));
        Self { incarnation, cores: cores.collect(), stopped: BTreeSet::new(), inboxes: BTreeMap::new() }
    }

    pub(super) const fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// Begins; the effects of each core.
    pub(super) fn start(&mut self, now: Now) -> Vec<(usize, Vec<CoreEffect>)> {
        let begin = |(number, core): (usize, &mut Core)| {
            let mut effects = Vec::new();
            core.start(now, &mut effects);
            (number, effects)
        };
        self.cores.iter_mut().enumerate().map(begin).collect()
    }

    /// Something happened to a core.
    pub(super) fn push(&mut self, core: usize, event: CoreEvent) {
        self.inboxes.entry(core % self.cores.len()).or_default().events.push(event);
    }

    /// A core is to have a turn.
    pub(super) fn wake(&mut self, core: usize) -> Wake {
        let inbox = self.inboxes.entry(core % self.cores.len()).or_default();
        match std::mem::replace(&mut inbox.turn, Turn::Scheduled) {
            Turn::Idle => Wake::Needed,
            Turn::Scheduled => Wake::Not,
        }
    }

    /// A core's turn; what it asks for is appended to `effects`.
    pub(super) fn turn(&mut self, number: usize, now: Now, effects: &mut Vec<CoreEffect>) {
        if let (Some(core), Some(inbox)) = (self.cores.get_mut(number), self.inboxes.get_mut(&number)) {
            inbox.turn = Turn::Idle;
            core.step(now, &mut inbox.events, effects);
        }
    }

    /// Notes that a core has stopped; answers whether all have.
    pub(super) fn stopped(&mut self, core: usize) -> bool {
        self.stopped.insert(core);
        self.stopped.len() == self.cores.len()
    }

    /// The cluster that the node belongs to, once it is known.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.cores.first().and_then(Core::cluster)
    }

    /// The replicas of a core.
    pub(super) fn replicas(&self, core: usize) -> impl Iterator<Item = &Shard> {
        self.cores.get(core).into_iter().flat_map(Core::replicas)
    }

    /// The replica of a shard.
    pub(super) fn replica(&self, shard: ShardId) -> Option<&Shard> {
        self.cores.iter().flat_map(Core::replicas).find(|replica| replica.shard() == shard)
    }

    /// The terms of all replicas that serve, added up.
    pub(super) fn terms(&self) -> u64 {
        let replicas = self.cores.iter().flat_map(Core::replicas).filter_map(Shard::inspect);
        replicas.map(|replica| replica.term().0).sum()
    }

    /// The reports of all replicas.
    pub(super) fn statuses(&self) -> impl Iterator<Item = mesh_server::shard::ShardStatus> + '_ {
        self.cores.iter().flat_map(Core::statuses)
    }
}

/// Replicas small enough that every path of theirs is walked in seconds.
pub(super) fn small_shards(value_bytes_max: usize, prng: &mut Prng) -> ShardOptions {
    let mut options = ShardOptions::for_memory(8 * 1024 * 1024);
    // A segment holds the largest entry: a turn's soft bound, and one value beyond it.
    let entry = (ENTRY_BYTES_SOFT_MAX + value_bytes_max) as u64;
    options.log.segment_bytes = (entry * 3 / 2).next_multiple_of(64 * 1024);
    options.log.zero_ahead_bytes = 32 * 1024;
    options.log.batch_bytes_soft_max = 64 * 1024;
    options.log.spare_segments_max = 2;
    options.store.page_bytes = 4096;
    options.store.key_bytes_max = 256;
    options.store.value_bytes_max = value_bytes_max.max(1024 * 64);
    options.store.frame_bytes_max = 64 * 1024 + 16 * value_bytes_max + prng.index(1024 * 1024);
    options.store.grow_bytes = 256 * 1024;
    options.checkpoint.at_bytes = 32 * 1024 + prng.range(0..256 * 1024);
    options.unsaved_bytes_max = 16 * 1024 * 1024;
    options.checkpoint.at_log_bytes = 64 * 1024 + prng.range(0..512 * 1024);
    options.checkpoint.period = Duration::from_millis(200 + prng.range(0..3000));
    options.sessions_max = 4 + prng.index(28);
    options.requests_waiting_max = 4 + prng.index(64);
    options.history = HistoryOptions {
        time: Duration::from_millis(20 << prng.range(0..9)),
        bytes: 4096 << prng.range(0..12),
        period: Duration::from_millis(20 + prng.range(0..1000)),
        held_for: Duration::from_millis(20 << prng.range(0..9)),
    };
    options.snapshot_patience = Duration::from_millis(300);
    options.preferred_leader_after = Duration::from_millis(50 << prng.range(0..7));
    // From slower than the writes of a run to so fast that all is written at once.
    options.checkpoint.bytes_per_second_min = (64 * 1024) << (options.sessions_max % 9);
    let segments_kept = [0, 0, 0, 2, 8];
    options.log.retained_bytes = options.log.segment_bytes * prng.choose(&segments_kept).unwrap_or(&0);
    // Chunks that a few trips over a slow link bring, and patience for the slowest sender.
    options.snapshot_chunk_bytes = (value_bytes_max.max(1024) << prng.index(6)).min(SNAPSHOT_CHUNK_BYTES);
    options.snapshot_resume_within = Duration::from_millis(2500 << prng.range(0..3));
    options
}
