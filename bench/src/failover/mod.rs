//! `mesh-bench failover`: how long clients cannot write when the leader's node is lost.
//!
//! Rounds: a steady load of writes runs, the leader's node is killed or stands still for a while, and the longest time between two
//! acknowledged writes is taken, whoever wrote them. Then the node is started again or goes on, and the next round waits until every
//! node has applied what is committed.
//!
//! Invariants:
//! - The time is what clients see: finding the new leader and connecting to it are in it.
//! - What was acknowledged in any round is there after the last, or there is no report.
//! - A round after which writes did not come back counts as long as it was watched.

mod flags;

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::flags::FailoverFlags;
use self::flags::Loss;
use crate::collector::{Observer, Point};
use crate::compare::bars::shown;
use crate::compare::installed;
use crate::error::{BenchError, Exit};
use crate::fleet::client::Client;
use crate::fleet::process::Process;
use crate::fleet::room::Room;
use crate::fleet::systems::{MeshLayout, Running, Site, SystemName};
use crate::generator::Plan;
use crate::ledger::{Ledger, Ledgered};
use crate::load::{LoadFlags, Workload};
use crate::machine::Machine;
use crate::pace::Pace;
use crate::progress::{note, show};
use crate::table::{Bound, Rounds, Row, Table, Unit};
use crate::workload::{Mix, Shares};

/// Keys that are written; few, so that a node that comes back has little to load.
const KEYS: u32 = 10_000;
const VALUE_BYTES: usize = 256;
/// Seconds of a round from the loss on. Mesh elects in tenths of a second; others may need seconds, and as much again until clients notice.
const MESH_SECONDS: u32 = 2;
const PEER_SECONDS: u32 = 5;
/// How long nodes may take to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);
/// Milliseconds: the median, and the worst of all rounds.
const MEDIAN_MAX: f64 = 200.0;
const WORST_MAX: f64 = 500.0;
/// Of etcd's median.
const RATIO_MAX: f64 = 0.3;

/// How often leaders are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Losses {
    /// Of Mesh.
    pub(crate) mesh: u16,
    /// Of each peer.
    pub(crate) peers: u16,
}

/// Measures, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &FailoverFlags) -> Result<Exit, BenchError> {
    flags.fleet.check()?;
    let machine = Machine::look();
    let (room, programs) = (Room::new(&flags.fleet.dir)?, flags.fleet.programs());
    let cores = flags.fleet.server_cores.list().to_vec();
    let site =
        Site { room: &room, programs: &programs, cores, value_bytes: VALUE_BYTES, mesh: MeshLayout::SINGLE };
    let losses = Losses { mesh: flags.rounds, peers: flags.rounds };
    let (generator, mut notes) = (flags.fleet.generator_cores.list(), Vec::new());
    let rows = measure(&flags.systems, &flags.losses, &site, generator, losses, &mut notes)?;
    show("");
    let table = Table {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        machine,
        rounds: usize::from(flags.rounds),
        seconds_of_a_slice: f64::from(MESH_SECONDS),
        rows,
        notes,
    };
    std::io::stdout().write_all(table.render(flags.tell.form())?.as_bytes())?;
    Ok(if flags.tell.check && table.fails() { Exit::BarFails } else { Exit::Done })
}

/// The rows for the bars.
///
/// # Errors
/// [`BenchError`]
pub(crate) fn rows(
    site: &Site<'_>,
    generator: &[usize],
    losses: Losses,
    notes: &mut Vec<String>,
) -> Result<Vec<Row>, BenchError> {
    measure(&flags::SYSTEMS, &flags::LOSSES, site, generator, losses, notes)
}

fn measure(
    systems: &[SystemName],
    kinds: &[Loss],
    site: &Site<'_>,
    generator: &[usize],
    losses: Losses,
    notes: &mut Vec<String>,
) -> Result<Vec<Row>, BenchError> {
    let (there, skipped) = installed(systems, site.programs);
    notes.extend(skipped);
    let mut rounds: Vec<_> =
        kinds.iter().map(|&kind| (kind, Rounds::new(kind.words(), Unit::Milliseconds))).collect();
    for name in there {
        let mut scene = Scene::new(name, site, generator)?;
        let count = if name.is_mesh() { losses.mesh } else { losses.peers };
        for round in 0..usize::from(count) {
            let Some((kind, rounds)) = rounds.get_mut(round % kinds.len().max(1)) else { continue };
            let silence = scene.lose(*kind)?;
            note(&format!("{:<14} {}: {:.0} ms", shown(name), kind.words(), 1000.0 * silence.as_secs_f64()));
            rounds.add(&shown(name), 1000.0 * silence.as_secs_f64());
        }
        notes.push(scene.read_back()?);
    }
    let judge = |(_, rounds): (Loss, Rounds)| {
        rounds.row().within(MEDIAN_MAX).bar(&["etcd-3"], Bound::AtMost(RATIO_MAX)).worst_within(WORST_MAX)
    };
    Ok(rounds.into_iter().map(judge).collect())
}

/// A cluster that loses its leaders.
struct Scene {
    running: Running,
    client: Box<dyn Client>,
    plan: Plan,
    ledger: Arc<Ledger>,
    seconds: u32,
}

impl Scene {
    fn new(name: SystemName, site: &Site<'_>, generator: &[usize]) -> Result<Self, BenchError> {
        show(&format!("{}: starting", name.name()));
        let work = LoadFlags {
            keys: KEYS,
            value_bytes: VALUE_BYTES,
            ..LoadFlags::new(Workload::Put, flags::CONNECTIONS, 1)
        };
        let mut running = Running::start(name, site)?;
        let client = running.client()?;
        let seconds = if name.is_mesh() { MESH_SECONDS } else { PEER_SECONDS };
        let ledger = Arc::new(Ledger::new(work.keys));
        let plan = Plan {
            // Of one thread: it sees all writes, and so the time between any two.
            cores: generator.iter().take(1).copied().collect(),
            connections: usize::from(work.connections),
            in_flight: work.in_flight,
            batch: work.batch,
            pace: Pace::Closed,
            mix: Mix::Random(Shares::reads(0)),
            keyspace: Arc::new(client.lay_out(&work)?),
            ledger: Ledgered::Records(Arc::clone(&ledger)),
            warm_up: 1,
            seconds: Some(seconds),
            seed: work.seed,
        };
        client.fill(&plan)?;
        Ok(Self { running, client, plan, ledger, seconds })
    }

    /// The longest time without an acknowledged write when the leader is lost.
    fn lose(&mut self, kind: Loss) -> Result<Duration, BenchError> {
        let mut blow = Blow {
            running: &mut self.running,
            kind,
            last: i64::from(self.seconds) - 2,
            struck: None,
            failed: None,
        };
        let outcome = self.client.run(&self.plan, &mut blow)?;
        let (struck, failed) = (blow.struck, blow.failed.take());
        if let Some(error) = failed {
            return Err(error);
        }
        self.heal(struck.unwrap_or_default())?;
        let is_over =
            outcome.total.unanswered == 0 && outcome.series.last().is_some_and(|point| point.requests > 0);
        let watched = Duration::from_secs(self.seconds.into());
        Ok(if is_over { outcome.total.silence } else { outcome.total.silence.max(watched) })
    }

    /// Reads back what was acknowledged in all rounds; a line about it.
    fn read_back(&self) -> Result<String, BenchError> {
        let findings =
            self.client.audit(&self.plan, &self.ledger).map_err(|error| self.running.explain(&error))?;
        let name = shown(self.running.name);
        if findings.lost + findings.foreign > 0 {
            return Err(BenchError::Audit { why: format!("{name} lost acknowledged writes: {findings:?}") });
        }
        Ok(format!("{name}: the last acknowledged writes of {} keys were there in the end", findings.held))
    }

    /// Waits until every node is up and has applied what is committed.
    fn heal(&mut self, node: usize) -> Result<(), BenchError> {
        match self.running.process(node) {
            None => self.running.start_node(node)?,
            Some(process) => process.thaw()?,
        }
        let since = Instant::now();
        while !self.running.is_caught_up() {
            if since.elapsed() > CATCH_UP_MAX {
                return Err(BenchError::Unreachable {
                    why: "a node that came back does not catch up".into(),
                });
            }
            thread::sleep(CATCH_UP_PAUSE);
        }
        Ok(())
    }
}

/// What happens to the leader while the load goes on.
struct Blow<'a> {
    running: &'a mut Running,
    kind: Loss,
    /// After this second a node that stands still goes on.
    last: i64,
    struck: Option<usize>,
    failed: Option<BenchError>,
}

impl Blow<'_> {
    fn strike(&mut self) -> Result<(), BenchError> {
        let leader = self.running.leader()?;
        self.struck = Some(leader);
        match self.kind {
            Loss::Kill => self.running.kill_node(leader),
            Loss::Freeze => self.running.process(leader).map_or(Ok(()), Process::freeze)?,
        }
        Ok(())
    }
}

impl Observer for Blow<'_> {
    fn measurement_begins(&mut self) {
        self.failed = self.strike().err();
    }

    fn second(&mut self, point: &Point) {
        let process = self.struck.and_then(|node| self.running.process(node));
        if point.number == self.last
            && let (Loss::Freeze, Some(process)) = (self.kind, process)
        {
            self.failed = process.thaw().err().or(self.failed.take());
        }
    }
}
