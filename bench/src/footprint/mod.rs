//! `mesh-bench footprint`: what a node needs before anyone asks anything of it: memory, processor time, the time to start, a program's
//! size.
//!
//! Invariants:
//! - A start ends with an answer that a client got, not with a port that is open.
//! - Memory is what the kernel accounts to the process alone (PSS), pages of the program's file included.

mod flags;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::flags::FootprintFlags;
use crate::compare::bars::shown;
use crate::compare::{in_turn, installed};
use crate::cpu::Since;
use crate::error::{BenchError, Exit};
use crate::fleet::room::Room;
use crate::fleet::systems::{MeshLayout, Running, Site, SystemName};
use crate::generator::Plan;
use crate::ledger::Ledgered;
use crate::load::{LoadFlags, Workload};
use crate::machine::Machine;
use crate::op::OpKind;
use crate::pace::Pace;
use crate::progress::show;
use crate::table::{Bound, Rounds, Row, Table, Unit};
use crate::workload::{Mix, Shares};

const SYSTEMS: [SystemName; 2] = [SystemName::Mesh, SystemName::Etcd];
/// Keys that are there when a node is started again.
const KEYS: u32 = 100_000;
const VALUE_BYTES: usize = 256;
/// How long a node is left alone, and watched, before its memory is taken.
const QUIET: Duration = Duration::from_secs(4);
/// Of the peer's memory, and of its time to start.
const MEMORY_MAX: f64 = 0.7;
const START_MAX: f64 = 0.5;

/// Measures, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &FootprintFlags) -> Result<Exit, BenchError> {
    flags.fleet.check()?;
    let machine = Machine::look();
    let (room, programs) = (Room::new(&flags.fleet.dir)?, flags.fleet.programs());
    let cores = flags.fleet.server_cores.list().to_vec();
    let site =
        Site { room: &room, programs: &programs, cores, value_bytes: VALUE_BYTES, mesh: MeshLayout::SINGLE };
    let mut notes = Vec::new();
    let rows = rows(&site, flags.fleet.generator_cores.list(), flags.rounds, &mut notes)?;
    show("");
    let table = Table {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        machine,
        rounds: usize::from(flags.rounds),
        seconds_of_a_slice: QUIET.as_secs_f64(),
        rows,
        notes,
    };
    std::io::stdout().write_all(table.render(flags.tell.form())?.as_bytes())?;
    Ok(if flags.tell.check && table.fails() { Exit::BarFails } else { Exit::Done })
}

/// The rows, with their bars.
///
/// # Errors
/// [`BenchError`]
pub(crate) fn rows(
    site: &Site<'_>,
    generator: &[usize],
    rounds: u16,
    notes: &mut Vec<String>,
) -> Result<Vec<Row>, BenchError> {
    let (there, skipped) = installed(&SYSTEMS, site.programs);
    notes.extend(skipped);
    let mut figures = Figures::new();
    for round in 0..usize::from(rounds) {
        for name in in_turn(&there, round) {
            show(&format!("{}: footprint, round {} of {rounds}", name.name(), round + 1));
            figures.look_at(name, site, generator)?;
        }
    }
    Ok(figures.rows())
}

/// The rows in the making.
struct Figures {
    start: Rounds,
    restart: Rounds,
    memory: Rounds,
    memory_with_keys: Rounds,
    resident: Rounds,
    idle: Rounds,
    program: Rounds,
}

impl Figures {
    fn new() -> Self {
        Self {
            start: Rounds::new("start in an empty directory to the first answered put", Unit::Milliseconds),
            restart: Rounds::new("start with 100,000 keys to the first answered get", Unit::Milliseconds),
            memory: Rounds::new("memory of an idle node without keys (PSS)", Unit::Bytes),
            memory_with_keys: Rounds::new("memory of an idle node with 100,000 keys (PSS)", Unit::Bytes),
            resident: Rounds::new("the same, resident (RSS)", Unit::Bytes),
            idle: Rounds::new("processor time of an idle node without keys", Unit::PercentOfProcessor),
            program: Rounds::new("size of the program", Unit::Bytes),
        }
    }

    fn rows(self) -> Vec<Row> {
        let peer = SystemName::Etcd.name();
        let most = |rounds: Rounds, most| rounds.row().bar(&[&peer], Bound::AtMost(most));
        vec![
            most(self.start, START_MAX),
            most(self.restart, START_MAX),
            most(self.memory, MEMORY_MAX),
            self.memory_with_keys.row(),
            self.resident.row(),
            self.idle.row(),
            self.program.row(),
        ]
    }

    /// A system's life from its first start on.
    fn look_at(&mut self, name: SystemName, site: &Site<'_>, generator: &[usize]) -> Result<(), BenchError> {
        let (work, system) = (work(), shown(name));
        let began = Instant::now();
        let mut running = Running::start(name, site)?;
        let client = running.client()?;
        let keyspace = Arc::new(client.lay_out(&work)?);
        client.first(OpKind::Write, &keyspace)?;
        self.start.add(&system, milliseconds(began));

        let since = Since::now(&running.servers());
        thread::sleep(QUIET);
        let spent = since.spent();
        let time: Duration = spent.servers.iter().map(|(_, time)| time.total()).sum();
        self.idle.add(&system, 100.0 * time.as_secs_f64() / spent.wall.as_secs_f64());
        self.memory.add(&system, memory(&running, "Pss:")?);

        let plan = Plan {
            cores: generator.to_vec(),
            connections: usize::from(work.connections),
            in_flight: work.in_flight,
            batch: work.batch,
            pace: Pace::Closed,
            mix: Mix::Random(Shares::reads(0)),
            keyspace: Arc::clone(&keyspace),
            ledger: Ledgered::No,
            warm_up: 0,
            seconds: None,
            seed: work.seed,
        };
        client.fill(&plan)?;
        thread::sleep(QUIET);
        self.memory_with_keys.add(&system, memory(&running, "Pss:")?);
        self.resident.add(&system, memory(&running, "Rss:")?);

        running.kill_node(0);
        let began = Instant::now();
        running.start_node(0)?;
        running.client()?.first(OpKind::Read, &keyspace)?;
        self.restart.add(&system, milliseconds(began));
        self.program.add(&system, program_bytes(name, site)?);
        Ok(())
    }
}

const fn work() -> LoadFlags {
    LoadFlags { keys: KEYS, value_bytes: VALUE_BYTES, ..LoadFlags::new(Workload::Put, 8, 1) }
}

fn milliseconds(since: Instant) -> f64 {
    1000.0 * since.elapsed().as_secs_f64()
}

/// Memory of the system's processes by the kernel's account, in bytes.
fn memory(running: &Running, field: &str) -> Result<f64, BenchError> {
    let mut kib = 0;
    for server in running.servers() {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid))
            .map_err(BenchError::host("/proc"))?;
        kib += kib_of(&rollup, field).unwrap_or(0);
    }
    Ok(as_f64(kib * 1024))
}

fn kib_of(rollup: &str, field: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn program_bytes(name: SystemName, site: &Site<'_>) -> Result<f64, BenchError> {
    let program = site.programs.find(name.program()).map_err(BenchError::Usage)?;
    Ok(as_f64(fs::metadata(program.path()).map_err(BenchError::host("the program's file"))?.len()))
}

#[allow(clippy::cast_precision_loss, reason = "bytes of a process are far below 2^53")]
const fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_memory_is_found_by_its_field() {
        let rollup =
            "00400000-7fff r--p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss:  1500 kB\nPss_Dirty:  3 kB\n";
        assert_eq!((kib_of(rollup, "Pss:"), kib_of(rollup, "Rss:")), (Some(1500), Some(2048)));
        assert_eq!(kib_of(rollup, "Swap:"), None);
    }
}
