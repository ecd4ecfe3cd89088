//! Scenarios: stories of one cluster, told in a few words and played exactly so.
//!
//! ```
//! use mesh_sim::scenario::{Power, Scenario, secs};
//!
//! Scenario::of(3).play(|cluster| {
//!     let [a, b, c] = cluster.nodes();
//!     cluster.write("k", "before");
//!     cluster.partition(&[a], &[b, c]);
//!     cluster.until(b.leads().or(c.leads()));
//!     cluster.write("k", "meanwhile");
//!     cluster.node(b).crash(Power);
//!     cluster.heal();
//!     assert_eq!(cluster.read("k").as_deref(), Some("meanwhile"));
//!     cluster.run_for(secs(1));
//! });
//! ```
//!
//! The cluster is that of the swarm: the real cores, logs and page stores, on simulated disks, network and clocks. Here all
//! of that is healthy, and nothing breaks, starts, stops or is repaired but what the story says. A story ends well: when
//! it is told, everything but lost bytes is repaired, every shard must take writes and answer reads again, and
//! what clients saw over the whole of it is checked as in the swarm.
//!
//! Invariants:
//! - A story is a function of its seed. It is played for several seeds, where chance has a part in it, and for the first
//!   of them twice, to compare.
//! - Whatever goes wrong panics at the story's own line, with the seed and the last events.
//!
//! Deliberately absent: waiting in real time, threads, a second harness.

mod damage;
mod messages;
mod node;
mod operations;
mod stage;
mod when;

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use mesh_base::checksum::xxh3;
use mesh_base::limits::{SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHUNK_BYTES};
use mesh_base::prng::audit;
use mesh_server::shard::ShardOptions;

pub use self::damage::{Place, identity_copy, leaf, log_record, staged_root, superblock};
pub use self::messages::{Message, reaches};
pub use self::node::{Clock, Disk, Node, NodeNo};
pub use self::operations::Operation;
pub use self::stage::{Replacement, Stage};
pub use self::when::{When, when};
use crate::clock::ClockOptions;
pub use crate::disk::ArmedFault::{FailRead, FailSync, FailWrite, LoseWrite, MisdirectWrite};
pub use crate::disk::Crash::{Power, Process};
pub use crate::disk::Damage::{FlipBit, LoseSector, ScrambleSector, ZeroSector};
use crate::disk::DiskOptions;
use crate::latency::Latency;
use crate::net::LinkOptions;
use crate::options::{FaultOptions, LoadOptions, Options, SizeOptions};
use crate::trace::{Step, Trace};

/// How many events are shown of a story that goes wrong, and how long a line of it is at most.
const TAIL_LINES: usize = 60;
const TAIL_COLUMNS: usize = 160;

/// So many milliseconds.
#[must_use]
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// So many seconds.
#[must_use]
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What a story begins with.
#[derive(Clone, Debug)]
pub struct Scenario {
    nodes: usize,
    shards: u16,
    load: usize,
    requests: LoadOptions,
    value_bytes_max: usize,
    seeds: RangeInclusive<u64>,
    sizes: Vec<fn(&mut ShardOptions)>,
    snapshot_rate: u64,
    beginning: Beginning,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beginning {
    /// The cluster serves.
    Born,
    /// The processes have just started.
    Unborn,
}

impl Scenario {
    /// A cluster of so many nodes with one shard, born and well, and nobody who uses it.
    #[must_use]
    pub const fn of(nodes: usize) -> Self {
        Self {
            nodes,
            shards: 1,
            load: 0,
            requests: LoadOptions::QUIET,
            value_bytes_max: 1024,
            seeds: 1..=1,
            sizes: Vec::new(),
            snapshot_rate: SNAPSHOT_BYTES_PER_SECOND,
            beginning: Beginning::Born,
        }
    }

    /// With so many shards.
    #[must_use]
    pub const fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        self
    }

    /// With so many clients that read and write all the while, keys of their own.
    #[must_use]
    pub const fn load(mut self, clients: usize) -> Self {
        self.load = clients;
        self
    }

    /// With a load that appends to lists and counters, and reads them, for half of its operations.
    #[must_use]
    pub const fn lists(mut self) -> Self {
        self.requests.lists_per_mille = 500;
        self
    }

    /// With a load that writes and reads several keys at once, for half of its operations.
    #[must_use]
    pub const fn batches(mut self) -> Self {
        self.requests.batches_per_mille = 500;
        self
    }

    /// With a load of transactions and increments, for most of its operations.
    #[must_use]
    pub const fn transactions(mut self) -> Self {
        self.requests.transactions_per_mille = 700;
        self.requests.increments_per_mille = 200;
        self
    }

    /// With values of the load of up to so many bytes.
    #[must_use]
    pub const fn values(mut self, bytes_max: usize) -> Self {
        self.value_bytes_max = bytes_max;
        self
    }

    /// To be played for each of these seeds: chance has a part in it.
    #[must_use]
    pub const fn seeds(mut self, seeds: RangeInclusive<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// With replicas of other sizes and times.
    #[must_use]
    pub fn sizes(mut self, change: fn(&mut ShardOptions)) -> Self {
        self.sizes.push(change);
        self
    }

    /// With nodes that send no more than so many bytes of snapshots in a second, in chunks of a tenth of that at most.
    #[must_use]
    pub const fn snapshot_rate(mut self, bytes_per_second: u64) -> Self {
        self.snapshot_rate = bytes_per_second;
        self
    }

    /// From before the birth of the cluster: the processes have just started.
    #[must_use]
    pub const fn unborn(mut self) -> Self {
        self.beginning = Beginning::Unborn;
        self
    }

    /// Plays the story.
    ///
    /// # Panics
    /// When it does not go as told, or does not end well.
    #[track_caller]
    pub fn play(&self, story: impl Fn(&mut Stage<'_>)) {
        for seed in self.seeds.clone() {
            let is_first = seed == *self.seeds.start();
            let mut steps = Vec::new();
            let told = panic::catch_unwind(AssertUnwindSafe(|| {
                let mut keep = |step: Step| steps.push(fingerprint(&step));
                let trace = if is_first { Trace::handing(&mut keep) } else { Trace::off() };
                self.tell(seed, trace, &story);
            }));
            if let Err(panic) = told {
                self.show_end(seed, &story);
                panic::resume_unwind(panic);
            }
            if is_first {
                self.play_alike(seed, &steps, &story);
            }
        }
    }

    /// Plays a story again, which took these steps.
    fn play_alike(&self, seed: u64, steps: &[u64], story: &impl Fn(&mut Stage<'_>)) {
        let (mut expected, mut divergence) = (steps.iter(), None);
        let mut compare = |step: Step| {
            if expected.next() != Some(&fingerprint(&step)) {
                divergence.get_or_insert(step);
            }
        };
        self.tell(seed, Trace::handing(&mut compare), story);
        assert!(divergence.is_none(), "the story is not a function of its seed: {divergence:?}");
        assert!(expected.next().is_none(), "told again, the story ends early");
    }

    fn tell<'a>(&self, seed: u64, trace: Trace<'a>, story: &impl Fn(&mut Stage<'_>)) -> Trace<'a> {
        audit::reset();
        let mut stage = Stage::new(&self.options(seed), |sizes| self.settle_sizes(sizes), trace);
        match self.beginning {
            Beginning::Born => stage.until(stage::everyone_serves()),
            Beginning::Unborn => stage.run_for(Duration::ZERO),
        }
        story(&mut stage);
        stage.end_well()
    }

    /// Plays a story that went wrong again, to show its last events.
    #[allow(clippy::print_stderr, reason = "what a failed test has to say is for whoever runs it")]
    fn show_end(&self, seed: u64, story: &impl Fn(&mut Stage<'_>)) {
        eprintln!("seed {seed} went wrong; once more, for its last events:");
        let mut tail = Tail::default();
        let again = AssertUnwindSafe(|| drop(self.tell(seed, Trace::printing(&mut tail), story)));
        let _same_panic = panic::catch_unwind(again);
        for line in &tail.lines {
            eprintln!("{line}");
        }
    }

    /// Everything is healthy, and fast.
    fn options(&self, seed: u64) -> Options {
        Options {
            seed,
            size: SizeOptions {
                nodes: self.nodes,
                shards: self.shards,
                clients: self.load,
                keys: 20,
                value_bytes_max: self.value_bytes_max,
                think: Latency::between(Duration::ZERO, ms(5)),
            },
            load: self.requests.clone(),
            peers: LinkOptions::HEALTHY,
            clients: LinkOptions::HEALTHY,
            disk: DiskOptions::HEALTHY,
            clock: ClockOptions::EXACT,
            faults: FaultOptions::default(),
            snapshot_bytes_per_second: self.snapshot_rate,
            hostile_for: Duration::ZERO,
            alive_within: secs(30),
        }
    }

    /// Replicas that are small, and of the same size for every seed.
    fn settle_sizes(&self, sizes: &mut ShardOptions) {
        sizes.log.retained_bytes = 0;
        sizes.store.frame_bytes_max = 512 * 1024;
        sizes.checkpoint.at_bytes = 64 * 1024;
        sizes.checkpoint.at_log_bytes = 128 * 1024;
        sizes.checkpoint.period = ms(500);
        sizes.sessions_max = 64;
        sizes.requests_waiting_max = 1024;
        sizes.history.time = secs(1);
        sizes.history.period = ms(200);
        sizes.snapshot_patience = ms(300);
        sizes.snapshot_resume_within = secs(5);
        sizes.snapshot_chunk_bytes =
            usize::try_from(self.snapshot_rate / 10).unwrap_or(usize::MAX).min(SNAPSHOT_CHUNK_BYTES);
        sizes.preferred_leader_after = secs(1);
        self.sizes.iter().for_each(|change| change(sizes));
    }
}

/// Keeps the last lines of a trace.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    line: Vec<u8>,
}

impl io::Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            self.lines.push_back(line.chars().take(TAIL_COLUMNS).collect());
            if self.lines.len() > TAIL_LINES {
                self.lines.pop_front();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells two steps apart, and what was drawn before them.
fn fingerprint(step: &Step) -> u64 {
    xxh3(step.text.as_bytes()) ^ step.draws.digest
}
