//! The options of a run, drawn from its seed: how large, how fast, how hostile.
//!
//! Drawn as a swarm (Groce et al., "Swarm testing", 2012): most faults are switched off in most runs and frequent in the
//! rest, since a run with everything at once hides as much as a run with nothing. The sizes are drawn small: bugs of
//! order need few nodes, few keys and many collisions.
//!
//! A harness may change the options before it uses them, as long as the change is a function of them.

mod load;

use std::fmt;
use std::time::Duration;

use mesh_base::limits::SNAPSHOT_BYTES_PER_SECOND;
use mesh_base::prng::Prng;

pub use self::load::{LARGE_VALUE_BYTES_MAX, LoadOptions, Popularity};
use crate::clock::ClockOptions;
use crate::disk::DiskOptions;
use crate::latency::Latency;
use crate::net::{Delivery, LinkOptions};

const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);

/// Everything about a run that its seed decides before it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// The cluster and its clients.
    pub size: SizeOptions,
    /// What the clients do.
    pub load: LoadOptions,
    /// Between nodes.
    pub peers: LinkOptions,
    /// Between clients and nodes.
    pub clients: LinkOptions,
    /// Of every node.
    pub disk: DiskOptions,
    /// Of every node.
    pub clock: ClockOptions,
    /// What breaks, while the run is hostile.
    pub faults: FaultOptions,
    /// Bytes of snapshots that each core of a node sends in a second.
    pub snapshot_bytes_per_second: u64,
    /// How long the run is hostile, in true time. After that a majority at least is healed and must come to life again.
    pub hostile_for: Duration,
    /// How long after that it must have.
    pub alive_within: Duration,
}

/// How large a run is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SizeOptions {
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub shards: u16,
    /// Clients, each with one operation at a time.
    pub clients: usize,
    /// Keys that clients use.
    pub keys: usize,
    /// The longest value in bytes, but for large ones.
    pub value_bytes_max: usize,
    /// How long a client waits between two operations.
    pub think: Latency,
}

/// What breaks, and how often: `None` is never, else the mean time between two.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FaultOptions {
    /// A node crashes.
    pub crash_every: Option<Duration>,
    /// Of a thousand crashes, those that are a loss of the machine's power rather than the end of a process.
    pub power_per_mille: u64,
    /// Of a thousand crashes, those that are no crashes: the node is told to stop, and stops in order.
    pub orderly_per_mille: u64,
    /// Of a thousand crashes, those that take all nodes at once.
    pub everyone_per_mille: u64,
    /// Of a thousand crashes, those that wait until the node writes or syncs, and strike while it does.
    pub ambush_per_mille: u64,
    /// Of a thousand restarts after a crash, those that are followed by another crash, while the node recovers or soon
    /// after.
    pub relapse_per_mille: u64,
    /// How long a crashed node stays down; `None` is until someone starts it.
    pub down_for: Option<Latency>,
    /// The network is partitioned.
    pub partition_every: Option<Duration>,
    /// How long a partition lasts.
    pub partition_for: Option<Latency>,
    /// A node's disk becomes slow.
    pub slow_disk_every: Option<Duration>,
    /// A node's disk becomes full.
    pub full_disk_every: Option<Duration>,
    /// A node's directory is lost, in a cluster of three nodes or more that can bear it.
    pub wipe_every: Option<Duration>,
    /// A process stands still.
    pub pause_every: Option<Duration>,
    /// How long it does.
    pub pause_for: Option<Latency>,
    /// All nodes are restarted, one after the other.
    pub roll_every: Option<Duration>,
    /// A link between two nodes comes and goes for a while.
    pub flap_every: Option<Duration>,
    /// A link between two nodes becomes slow, one way.
    pub slow_link_every: Option<Duration>,
    /// Something stored on the one bad disk is damaged.
    pub rot_every: Option<Duration>,
    /// A wall clock jumps, by at most [`ClockOptions::skew_max`].
    pub clock_jump_every: Option<Duration>,
    /// When the hostile time is over: of a thousand nodes that a majority can do without, those that are not healed.
    pub left_out_per_mille: u64,
}

/// The options of a seed, and the root from which the run forks all its generators.
#[must_use]
pub fn draw(seed: u64) -> (Options, Prng) {
    let mut root = Prng::new(seed);
    let options = Options::draw(seed, root.fork());
    (options, root)
}

impl Options {
    fn draw(seed: u64, mut prng: Prng) -> Self {
        let prng = &mut prng;
        let size = SizeOptions::draw(prng);
        let value_bytes_max = size.value_bytes_max;
        Self {
            seed,
            load: LoadOptions::draw(prng, &size),
            size,
            peers: draw_peers(prng),
            clients: draw_clients(prng),
            disk: draw_disk(prng),
            clock: draw_clock(prng),
            faults: FaultOptions::draw(prng),
            hostile_for: draw_ms(prng, MS * 2000, MS * 20_000),
            alive_within: MS * 60_000,
            snapshot_bytes_per_second: draw_snapshot_rate(prng, value_bytes_max),
        }
    }
}

impl Options {
    /// The longest value in bytes, the large ones included.
    #[must_use]
    pub fn value_bytes_longest(&self) -> usize {
        let large = if self.load.large_per_mille > 0 { LARGE_VALUE_BYTES_MAX } else { 0 };
        self.size.value_bytes_max.max(large)
    }
}

impl SizeOptions {
    fn draw(prng: &mut Prng) -> Self {
        let value_bytes_max = pick(prng, &[16, 256, 4096, 64 * 1024]);
        // A run costs what its operations move: large values are written seldom, and few runs are busy all the time.
        let thinks = [MS, MS * 5, MS * 20, MS * 20, MS * 100, MS * 100, MS * 500];
        let think = pick(prng, if value_bytes_max > 4096 { &thinks[2..] } else { &thinks });
        Self {
            nodes: pick(prng, &[1, 3, 3, 3, 3, 5, 5]),
            shards: pick(prng, &[1, 1, 2, 3]),
            clients: 1 + prng.index(8),
            keys: pick(prng, &[1, 2, 5, 20, 100]),
            value_bytes_max,
            think: Latency::between(Duration::ZERO, think),
        }
    }
}

impl FaultOptions {
    fn draw(prng: &mut Prng) -> Self {
        let down = pick(prng, &[MS * 20, MS * 20, MS * 200, MS * 1000, MS * 3000]);
        let partition = pick(prng, &[MS * 100, MS * 500, MS * 3000]);
        let pause = pick(prng, &[MS * 50, MS * 300, MS * 3000]);
        if prng.chance_per_mille(80) {
            return Self::default();
        }
        Self {
            crash_every: sometimes(prng, 700, MS * 100, MS * 5000),
            power_per_mille: pick(prng, &[0, 300, 500, 1000]),
            orderly_per_mille: pick(prng, &[0, 0, 200, 800]),
            everyone_per_mille: pick(prng, &[0, 0, 50, 300]),
            down_for: Some(Latency::between(MS, down)),
            partition_every: sometimes(prng, 500, MS * 200, MS * 5000),
            partition_for: Some(Latency::between(MS, partition)),
            slow_disk_every: sometimes(prng, 250, MS * 500, MS * 5000),
            full_disk_every: sometimes(prng, 250, MS * 500, MS * 10_000),
            wipe_every: sometimes(prng, 350, MS * 1000, MS * 6000),
            pause_every: sometimes(prng, 250, MS * 200, MS * 5000),
            pause_for: Some(Latency::between(MS, pause)),
            roll_every: sometimes(prng, 100, MS * 1000, MS * 5000),
            flap_every: sometimes(prng, 150, MS * 500, MS * 5000),
            slow_link_every: sometimes(prng, 200, MS * 500, MS * 5000),
            rot_every: sometimes(prng, 200, MS * 50, MS * 2000),
            clock_jump_every: sometimes(prng, 250, MS * 200, MS * 5000),
            left_out_per_mille: pick(prng, &[0, 0, 500, 1000]),
            ambush_per_mille: pick(prng, &[0, 500, 800, 1000]),
            relapse_per_mille: pick(prng, &[0, 300, 600]),
        }
    }
}

/// Slow enough, at times, for much to happen while a snapshot is sent, and fast enough for one to arrive before the logs of
/// those that lead by turns have gone on from it.
fn draw_snapshot_rate(prng: &mut Prng, value_bytes_max: usize) -> u64 {
    let rates = [2 * 1024 * 1024, 4 * 1024 * 1024, 8 * 1024 * 1024, SNAPSHOT_BYTES_PER_SECOND];
    pick(prng, if value_bytes_max > 4096 { &rates[2..] } else { &rates })
}

fn draw_peers(prng: &mut Prng) -> LinkOptions {
    let delivery = pick(prng, &[Delivery::Datagram, Delivery::Datagram, Delivery::Stream]);
    LinkOptions { delivery, ..draw_link(prng) }
}

fn draw_clients(prng: &mut Prng) -> LinkOptions {
    LinkOptions { delivery: Delivery::Stream, ..draw_link(prng) }
}

fn draw_link(prng: &mut Prng) -> LinkOptions {
    let most = pick(prng, &[US * 200, US * 200, MS, MS * 5, MS * 20]);
    let tail = draw_ms(prng, most + MS, MS * 300);
    LinkOptions {
        delivery: Delivery::Stream,
        latency: Latency::between(US * 50, most).with_tail(pick(prng, &[0, 0, 1, 20]), tail),
        bytes_per_second: pick(prng, &[20_000_000, 200_000_000, 1_000_000_000]),
        loss_per_mille: pick(prng, &[0, 0, 1, 10, 50, 150]),
        duplicate_per_mille: pick(prng, &[0, 0, 10, 100]),
        reorder_per_mille: pick(prng, &[0, 0, 10, 200]),
    }
}

fn draw_disk(prng: &mut Prng) -> DiskOptions {
    let factor = pick(prng, &[1, 1, 1, 10, 50]);
    let slower = |latency: Latency| Latency::between(latency.least, latency.most * factor);
    let usual = DiskOptions::HEALTHY;
    let stalls = pick(prng, &[0, 0, 2, 20]);
    let stall = draw_ms(prng, MS * 5, MS * 500);
    DiskOptions {
        read: slower(usual.read).with_tail(stalls, stall),
        write: slower(usual.write).with_tail(stalls, stall),
        sync: slower(usual.sync).with_tail(stalls, stall),
        metadata: slower(usual.metadata),
        device_errors_per_million: pick(prng, &[0, 0, 0, 0, 0, 20, 200]),
        ..usual
    }
}

fn draw_clock(prng: &mut Prng) -> ClockOptions {
    ClockOptions {
        skew_max: pick(prng, &[Duration::ZERO, MS, MS * 50, MS * 500, MS * 4000]),
        drift_ppm_max: pick(prng, &[0, 50, 200]),
    }
}

/// In `per_mille` of a thousand runs, a mean time between two durations. Each doubling of it is as likely as the next:
/// some runs are to have many faults, and they would be few if most times were long.
fn sometimes(prng: &mut Prng, per_mille: u64, least: Duration, most: Duration) -> Option<Duration> {
    let doublings = u32::try_from(most.as_millis() / least.as_millis().max(1)).unwrap_or(1).max(1).ilog2();
    let base = least * 2u32.pow(u32::try_from(prng.index(doublings as usize + 1)).unwrap_or(0));
    let drawn = draw_ms(prng, base, base * 2).min(most);
    prng.chance_per_mille(per_mille).then_some(drawn)
}

/// A number of whole milliseconds, which reads better than nanoseconds.
#[allow(clippy::cast_possible_truncation, reason = "durations of a run")]
fn draw_ms(prng: &mut Prng, least: Duration, most: Duration) -> Duration {
    MS * prng.range(least.as_millis() as u64..most.as_millis() as u64 + 1) as u32
}

#[allow(clippy::indexing_slicing, reason = "an index below the length")]
fn pick<T: Copy>(prng: &mut Prng, items: &[T]) -> T {
    items[prng.index(items.len())]
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, size, load, peers, clients, disk, clock, faults, .. } = self;
        let Self { snapshot_bytes_per_second, hostile_for, alive_within, .. } = self;
        writeln!(f, "seed          {seed}")?;
        writeln!(f, "size          {} nodes, {} shards", size.nodes, size.shards)?;
        write!(f, "load          {} clients, {} keys, ", size.clients, size.keys)?;
        writeln!(f, "values up to {} bytes, think {}", size.value_bytes_max, size.think)?;
        write!(f, "{load}")?;
        writeln!(f, "peers         {peers}")?;
        writeln!(f, "clients       {clients}")?;
        writeln!(f, "disk          {disk}")?;
        writeln!(f, "clock         skew {:?}, drift {} ppm", clock.skew_max, clock.drift_ppm_max)?;
        writeln!(f, "snapshots     {snapshot_bytes_per_second} bytes in a second")?;
        write!(f, "{faults}")?;
        writeln!(f, "hostile for   {hostile_for:?}, then alive within {alive_within:?}")
    }
}

impl fmt::Display for FaultOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(every) = self.crash_every {
            write!(f, "crashes       every {every:?}, power {}/1000", self.power_per_mille)?;
            write!(f, ", in order {}/1000", self.orderly_per_mille)?;
            write!(f, ", everyone {}/1000", self.everyone_per_mille)?;
            write!(f, ", while it writes {}/1000", self.ambush_per_mille)?;
            write!(f, ", again after it {}/1000", self.relapse_per_mille)?;
            writeln!(f, ", down {}", self.down_for.unwrap_or(Latency::fixed(Duration::ZERO)))?;
        }
        if let Some(every) = self.partition_every {
            let lasting = self.partition_for.unwrap_or(Latency::fixed(Duration::ZERO));
            writeln!(f, "partitions    every {every:?}, for {lasting}")?;
        }
        if let Some(every) = self.pause_every {
            let lasting = self.pause_for.unwrap_or(Latency::fixed(Duration::ZERO));
            writeln!(f, "pauses        every {every:?}, for {lasting}")?;
        }
        let rest = [
            ("wipes", self.wipe_every),
            ("rolls", self.roll_every),
            ("flaps", self.flap_every),
            ("slow links", self.slow_link_every),
            ("bad disk", self.rot_every),
            ("slow disks", self.slow_disk_every),
            ("full disks", self.full_disk_every),
            ("clock jumps", self.clock_jump_every),
        ];
        for (name, every) in rest {
            if let Some(every) = every {
                writeln!(f, "{name:<13} every {every:?}")?;
            }
        }
        if self.left_out_per_mille > 0 {
            writeln!(f, "in the end    {}/1000 of a minority left out", self.left_out_per_mille)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn options_are_a_function_of_the_seed() {
        let ((options, mut root), (again, mut same_root)) = (draw(7), draw(7));
        assert_eq!(options, again);
        assert_eq!(root.next_u64(), same_root.next_u64());
        assert_ne!(draw(8).0, options);
    }

    #[test]
    fn every_fault_is_off_in_some_runs_and_on_in_others() {
        let runs: Vec<FaultOptions> = (0..200).map(|seed| draw(seed).0.faults).collect();
        let switches: [fn(&FaultOptions) -> Option<Duration>; 11] = [
            |it| it.wipe_every,
            |it| it.pause_every,
            |it| it.roll_every,
            |it| it.flap_every,
            |it| it.slow_link_every,
            |it| it.rot_every,
            |it| it.crash_every,
            |it| it.partition_every,
            |it| it.slow_disk_every,
            |it| it.full_disk_every,
            |it| it.clock_jump_every,
        ];
        for switch in switches {
            let on = runs.iter().filter(|run| switch(run).is_some()).count();
            assert!((10..150).contains(&on), "{on} of 200");
        }
        let quiet = runs.iter().filter(|run| switches.iter().all(|switch| switch(run).is_none())).count();
        assert!(quiet > 5, "{quiet} runs without any fault");
        let nodes: BTreeSet<usize> = (0..50).map(|seed| draw(seed).0.size.nodes).collect();
        assert_eq!(nodes, [1, 3, 5].into());
    }

    #[test]
    fn the_options_are_printed_with_the_seed_first() {
        let (options, _) = draw(42);
        let text = options.to_string();
        assert!(text.starts_with("seed          42\n"), "{text}");
        assert_eq!(text.contains("partitions"), options.faults.partition_every.is_some());
        assert!(text.lines().all(|line| line.len() > 14 && line.as_bytes()[13] == b' '), "{text}");
    }
}
