//! The loads by which Mesh is judged, and its bars: ratios to other systems within one run, and a few figures as they are.
//!
//! Single: one node on the servers' first processor, one shard, values of 256 bytes, 100,000 keys, uniformly chosen. Cluster: three and five
//! nodes on all processors that this program may use, 256 clients. Of them one load is an open loop, at half of what the same system has
//! just reached: what users meet where a system is not asked for all that it has.

use std::collections::BTreeMap;
use std::io::Write;

use super::flags::{CompareFlags, PaceFlags, Part, RooflineFlags, TellFlags};
use super::remarks::Remarks;
use super::session::{Session, Slice};
use super::{endurance, in_turn, installed, roofline};
use crate::error::{BenchError, Exit};
use crate::failover;
use crate::fleet::room::Room;
use crate::fleet::systems::{MeshLayout, Site, SystemName};
use crate::footprint;
use crate::load::{LoadFlags, Workload};
use crate::machine::{self, Machine};
use crate::pace::{ArrivalKind, Pace};
use crate::progress::{note, show};
use crate::rate::Rate;
use crate::report::text::rate;
use crate::table::{Bound, Rounds, Row, Table, Unit};

pub(super) const KEYS: u32 = 100_000;
pub(super) const VALUE_BYTES: usize = 256;
/// Of choices, where nobody may choose another.
const SEED: u64 = 1;
/// Of what a system has just reached, in the open loop.
const HALF: Rate = Rate::Percent(50.0);
/// Rounds of Mesh's leader being lost; half of them by a crash, half by standing still.
const LOSSES: u16 = 50;
/// The same of a peer, of which the median is wanted only.
const PEER_LOSSES: u16 = 10;

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Shape {
    GetOne,
    GetMany,
    PutOne,
    PutMany,
    /// One client, one at a time.
    PutAlone,
    ClusterPut,
    ClusterGet,
    /// Clients share connections, as callers of one client library do; etcd does nearly twice as much so.
    SharedPut,
    SharedGet,
    ClusterMixed,
    /// An open loop at half of what the same system reached in the load before, which is [`Shape::ClusterMixed`].
    ClusterMixedHalf,
}

impl Shape {
    const fn work(self, seed: u64) -> LoadFlags {
        let (workload, connections, in_flight) = match self {
            Self::GetOne => (Workload::Get, 50, 1),
            Self::GetMany => (Workload::Get, 50, 16),
            Self::PutOne => (Workload::Put, 50, 1),
            Self::PutMany => (Workload::Put, 50, 16),
            Self::PutAlone => (Workload::Put, 1, 1),
            Self::ClusterPut => (Workload::Put, 256, 1),
            Self::ClusterGet => (Workload::Get, 256, 1),
            Self::SharedPut => (Workload::Put, 16, 16),
            Self::SharedGet => (Workload::Get, 16, 16),
            Self::ClusterMixed | Self::ClusterMixedHalf => (Workload::Mixed, 256, 1),
        };
        LoadFlags {
            keys: KEYS,
            value_bytes: VALUE_BYTES,
            seed,
            ..LoadFlags::new(workload, connections, in_flight)
        }
    }

    /// When requests begin, of a system that answered so many in a second in the load before.
    fn pace(self, before: f64) -> Pace {
        match self {
            Self::ClusterMixedHalf => HALF.pace(ArrivalKind::Poisson, before),
            _ => Pace::Closed,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::GetOne => "get, 50 connections, 1 in flight",
            Self::GetMany => "get, 50 connections, 16 in flight",
            Self::PutOne => "durable put, 50 connections, 1 in flight",
            Self::PutMany => "durable put, 50 connections, 16 in flight",
            Self::PutAlone => "durable put, 1 connection, 1 in flight",
            Self::ClusterPut => "durable put, 256 clients",
            Self::ClusterGet => "linearizable get, 256 clients",
            Self::SharedPut => "durable put, 256 clients on 16 connections",
            Self::SharedGet => "linearizable get, 256 clients on 16 connections",
            Self::ClusterMixed => "half gets, half durable puts, 256 clients",
            Self::ClusterMixedHalf => "half gets, half durable puts, 256 clients, at half of the most",
        }
    }

    /// The rows and bars of what the systems showed.
    fn rows(self, figures: Figures) -> Vec<Row> {
        let Figures { rate, p50, p99 } = figures;
        let least = |row: Row, against: &str, least| row.bar(&[against], Bound::AtLeast(least));
        let most = |row: Row, against: &str, most| row.bar(&[against], Bound::AtMost(most));
        let (rate, p99) = (rate.row(), p99.row());
        match self {
            Self::GetOne => {
                vec![least(least(rate, "redis", 1.2), "echo", 0.8), most(p99, "redis", 0.9)]
            }
            Self::GetMany => vec![least(least(rate, "redis", 2.0), "echo", 0.45)],
            Self::PutOne => {
                vec![least(least(rate, "redis-aof", 2.5), "echo", 0.6), most(p99, "redis-aof", 0.5)]
            }
            Self::PutMany => vec![least(least(rate, "redis-aof", 5.0), "echo", 0.35)],
            Self::PutAlone => vec![p50.row().bar(&[roofline::NAME], Bound::MoreByAtMost(30.0))],
            Self::ClusterPut | Self::SharedPut => vec![least(rate, "etcd-3", 10.0), most(p99, "etcd-3", 0.1)],
            Self::ClusterGet | Self::SharedGet => vec![least(rate, "etcd-3", 12.0)],
            Self::ClusterMixed => vec![least(rate, &shown(SystemName::Mesh3), 0.6)],
            Self::ClusterMixedHalf => vec![rate, most(p99, "etcd-3", 0.1)],
        }
    }
}

/// The figures of one load.
struct Figures {
    rate: Rounds,
    p50: Rounds,
    p99: Rounds,
}

impl Figures {
    fn of(shape: Shape) -> Self {
        let rounds = |what: &str, unit| Rounds::new(format!("{}{what}", shape.words()), unit);
        Self {
            rate: rounds("", Unit::OperationsPerSecond),
            p50: rounds(": p50", Unit::Microseconds),
            p99: rounds(": p99", Unit::Microseconds),
        }
    }

    fn add(&mut self, system: &str, slice: &Slice) {
        self.rate.add(system, slice.rate);
        self.p50.add(system, slice.p50);
        self.p99.add(system, slice.p99);
    }
}

/// A system and its loads.
type Job = (SystemName, &'static [Shape]);

const SINGLE: [Job; 4] = [
    (SystemName::Mesh, &ON_ONE_CORE),
    (SystemName::Redis, &[Shape::GetOne, Shape::GetMany]),
    (SystemName::RedisAof, &[Shape::PutOne, Shape::PutMany]),
    (SystemName::Echo, &ON_ONE_CORE),
];
/// What the least is known of.
const ROOFLINES: [Job; 2] = [(SystemName::Mesh, &ON_ONE_CORE), (SystemName::Echo, &ON_ONE_CORE)];
const ON_ONE_CORE: [Shape; 5] =
    [Shape::GetOne, Shape::GetMany, Shape::PutOne, Shape::PutMany, Shape::PutAlone];
/// Five nodes first: a row is about the first Mesh that it has.
const CLUSTER: [Job; 3] = [
    (SystemName::Mesh5, &[Shape::ClusterMixed]),
    (SystemName::Mesh3, &ON_THREE_NODES),
    (SystemName::Etcd3, &ON_THREE_NODES),
];
const ON_THREE_NODES: [Shape; 6] = [
    Shape::ClusterPut,
    Shape::ClusterGet,
    Shape::SharedPut,
    Shape::SharedGet,
    Shape::ClusterMixed,
    Shape::ClusterMixedHalf,
];

/// A system's name in the table.
pub(crate) fn shown(name: SystemName) -> String {
    match name {
        SystemName::Mesh => "Mesh".to_owned(),
        SystemName::Mesh3 => "Mesh, 3 nodes".to_owned(),
        SystemName::Mesh5 => "Mesh, 5 nodes".to_owned(),
        other => other.name(),
    }
}

/// Goes through the bars that are wanted, and reports.
///
/// # Errors
/// Why there is no table.
pub(super) fn run(flags: &CompareFlags) -> Result<Exit, BenchError> {
    let machine = Machine::look();
    let (room, programs) = (Room::new(&flags.fleet.dir)?, flags.fleet.programs());
    let mut rows = Vec::new();
    let generator = flags.fleet.generator_cores.list();
    let site = |cores| Site {
        room: &room,
        programs: &programs,
        cores,
        value_bytes: VALUE_BYTES,
        mesh: MeshLayout::SINGLE,
    };
    let mut bars = Bars::new(flags.pace, generator, flags.work.seed);
    if flags.wants(Part::Single) {
        rows.extend(bars.go_through(&SINGLE, &site(flags.fleet.server_cores.list().to_vec()))?);
    }
    if flags.wants(Part::Cluster) {
        rows.extend(bars.go_through(&CLUSTER, &site(machine::allowed()))?);
    }
    if flags.wants(Part::Endurance) {
        let site = site(flags.fleet.server_cores.list().to_vec());
        let durations = endurance::Durations::BAR;
        rows.extend(endurance::rows(&site, generator, flags.work.seed, durations, &mut bars.remarks)?);
    }
    let Remarks { mut notes, lost } = bars.remarks;
    if flags.wants(Part::Failover) {
        let losses = failover::Losses { mesh: LOSSES, peers: PEER_LOSSES };
        rows.extend(failover::rows(&site(machine::allowed()), generator, losses, &mut notes)?);
    }
    if flags.wants(Part::Footprint) {
        let site = site(flags.fleet.server_cores.list().to_vec());
        rows.extend(footprint::rows(&site, generator, flags.pace.rounds, &mut notes)?);
    }
    tell(flags.pace, &flags.tell, machine, rows, notes).map(|exit| if lost { Exit::Worthless } else { exit })
}

/// Holds Mesh against the echo and the device alone, and reports.
///
/// # Errors
/// Why there is no table.
pub(super) fn against_roofline(flags: &RooflineFlags) -> Result<Exit, BenchError> {
    let machine = Machine::look();
    let (room, programs) = (Room::new(&flags.fleet.dir)?, flags.fleet.programs());
    let cores = flags.fleet.server_cores.list().to_vec();
    let site =
        Site { room: &room, programs: &programs, cores, value_bytes: VALUE_BYTES, mesh: MeshLayout::SINGLE };
    let mut bars = Bars::new(flags.pace, flags.fleet.generator_cores.list(), SEED);
    let rows = bars.go_through(&ROOFLINES, &site)?;
    let is_roof = |against: &str| against == roofline::NAME || against == SystemName::Echo.name();
    let mut rows: Vec<_> = rows.into_iter().filter_map(|row| row.only_against(is_roof)).collect();
    rows.extend(roofline::device(&site, flags.pace)?);
    tell(flags.pace, &flags.tell, machine, rows, bars.remarks.notes)
        .map(|exit| if bars.remarks.lost { Exit::Worthless } else { exit })
}

/// Writes the table to stdout.
fn tell(
    pace: PaceFlags,
    how: &TellFlags,
    machine: Machine,
    rows: Vec<Row>,
    mut notes: Vec<String>,
) -> Result<Exit, BenchError> {
    show("");
    notes.dedup();
    let table = Table {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        machine,
        rounds: pace.rounds(),
        seconds_of_a_slice: f64::from(pace.seconds),
        rows,
        notes,
    };
    std::io::stdout().write_all(table.render(how.form())?.as_bytes())?;
    Ok(if how.check && table.fails() { Exit::BarFails } else { Exit::Done })
}

/// What the parts with loads share.
struct Bars<'a> {
    pace: PaceFlags,
    generator: &'a [usize],
    seed: u64,
    remarks: Remarks,
}

impl<'a> Bars<'a> {
    fn new(pace: PaceFlags, generator: &'a [usize], seed: u64) -> Self {
        Self { pace, generator, seed, remarks: Remarks::default() }
    }

    /// Puts every system under its loads, round by round.
    fn go_through(&mut self, jobs: &[Job], site: &Site<'_>) -> Result<Vec<Row>, BenchError> {
        let names: Vec<_> = jobs.iter().map(|(name, _)| *name).collect();
        let (there, skipped) = installed(&names, site.programs);
        self.remarks.notes.extend(skipped);
        let jobs: Vec<_> = jobs.iter().copied().filter(|(name, _)| there.contains(name)).collect();
        let mut figures: BTreeMap<Shape, Figures> = BTreeMap::new();
        for round in 0..self.pace.rounds() {
            for job in in_turn(&jobs, round) {
                self.session(job, site, &mut figures)?;
            }
            if let Some(alone) = figures.get_mut(&Shape::PutAlone) {
                let roofline = roofline::one_put(site, self.pace, alone.p50.last(&SystemName::Echo.name()))?;
                roofline.into_iter().for_each(|(what, micros)| alone.p50.add(what, micros));
            }
        }
        Ok(figures.into_iter().flat_map(|(shape, figures)| shape.rows(figures)).collect())
    }

    fn session(
        &mut self,
        (name, shapes): Job,
        site: &Site<'_>,
        figures: &mut BTreeMap<Shape, Figures>,
    ) -> Result<(), BenchError> {
        let Some(first) = shapes.first() else { return Ok(()) };
        let mut session = Session::begin(name, site, &first.work(self.seed), self.generator)?;
        let mut before = 0.0;
        for &shape in shapes {
            let slice = session.load(&shape.work(self.seed), shape.pace(before), self.pace.lengths())?;
            before = slice.requests_per_second;
            note(&format!("{:<14} {:<61} {:>9}/s", shown(name), shape.words(), rate(slice.rate)));
            figures.entry(shape).or_insert_with(|| Figures::of(shape)).add(&shown(name), &slice);
            self.remarks.of_slice(&shown(name), shape.words(), &slice);
        }
        self.remarks.of_findings(&shown(name), session.end()?.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_there_and_names_a_system_that_is_measured_in_its_load() {
        let mut bars = 0;
        for job in [&SINGLE[..], &CLUSTER].concat() {
            for &shape in job.1 {
                let mut figures = Figures::of(shape);
                let slice = Slice::default();
                for (name, shapes) in [&SINGLE[..], &CLUSTER].concat() {
                    if shapes.contains(&shape) {
                        figures.add(&shown(name), &slice);
                    }
                }
                figures.p50.add(roofline::NAME, 1.0);
                if job.0.is_mesh() {
                    for row in shape.rows(figures) {
                        assert!(row.bars.iter().all(|bar| bar.measured.is_some()), "{row:?}");
                        bars += row.bars.len();
                    }
                }
            }
        }
        // Half and half is measured on two clusters of Mesh.
        assert_eq!(bars, 11 + 1 + 7 + 1);
    }

    #[test]
    fn half_of_the_most_follows_the_load_that_shows_it_on_every_system() {
        let mut halves = 0;
        for (name, shapes) in [&SINGLE[..], &CLUSTER].concat() {
            for (index, &shape) in shapes.iter().enumerate() {
                let pace = shape.pace(1000.0);
                if pace == Pace::Closed {
                    continue;
                }
                halves += 1;
                assert_eq!(pace, Pace::Open { rate: 500.0, arrivals: ArrivalKind::Poisson });
                let before = shapes[index - 1];
                assert_eq!((before, before.pace(0.0)), (Shape::ClusterMixed, Pace::Closed), "{name:?}");
                assert_eq!(format!("{:?}", shape.work(1)), format!("{:?}", before.work(1)));
            }
        }
        assert_eq!(halves, 2, "three nodes of Mesh and of etcd");
    }

    #[test]
    fn five_nodes_are_held_against_three_of_mesh_only() {
        let mut figures = Figures::of(Shape::ClusterMixed);
        for (name, _) in CLUSTER {
            figures.add(&shown(name), &Slice { rate: 1.0, ..Slice::default() });
        }
        let rows = Shape::ClusterMixed.rows(figures);
        let systems: Vec<_> = rows[0].figures.iter().map(|figure| figure.system.as_str()).collect();
        assert_eq!(systems, ["Mesh, 5 nodes", "Mesh, 3 nodes", "etcd-3"]);
        let bars: Vec<_> = rows[0].bars.iter().map(|bar| bar.against.as_str()).collect();
        assert_eq!((rows.len(), bars), (1, vec!["Mesh, 3 nodes"]));
    }
}
