//! `mesh-bench scale`: what becomes of Mesh's rate, latency and processor time when one thing is changed at a time.
//!
//! `dimensions` says what is changed and which loads each value gets, `flags` which of it is wanted, `report` tells it.
//!
//! Invariants:
//! - Only one thing differs between the rows of a dimension that have the same load.
//! - What was acknowledged is read back from every node that was started; one that lost anything makes the report worthless.
//! - A row says when the generator was the bottleneck, and when the node's processors were the generator's as well.
//!
//! Deliberately absent: clusters, whose nodes would share this host's processors, and projections to other machines: bench/SCALING.md.

mod dimensions;
mod flags;
mod report;

use std::io::Write;

use serde::Serialize;

use self::dimensions::{Load, Stage, stages};
pub(crate) use self::flags::ScaleFlags;
use self::report::{Row, Scaling};
use crate::compare::{Session, in_turn};
use crate::error::{BenchError, Exit};
use crate::fleet::programs::Programs;
use crate::fleet::room::Room;
use crate::fleet::systems::{Site, SystemName};
use crate::ledger::Findings;
use crate::machine::{self, Machine};
use crate::pace::Pace;
use crate::progress::{note, show};

/// Measures, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &ScaleFlags) -> Result<Exit, BenchError> {
    flags.fleet.check()?;
    machine::raise_file_limit();
    let machine = Machine::look();
    let (room, programs) = (Room::new(&flags.fleet.dir)?, flags.fleet.programs());
    let processors = Processors::of(flags);
    let stages = stages(&flags.dimensions(), processors.servers.len(), processors.order.len());
    let mut tour = Tour::new(flags, &room, &programs, &processors);
    let all: Vec<_> = stages.iter().collect();
    let order = (0..flags.pace.rounds()).flat_map(|round| in_turn(&all, round));
    for (number, stage) in (1..).zip(order) {
        note(&format!("{number} of {}: {}", all.len() * flags.pace.rounds(), stage.words()));
        tour.stop_at(stage)?;
    }
    show("");
    let scaling = Scaling::of(flags, machine, &processors, tour.rows, tour.wrong);
    std::io::stdout().write_all(scaling.render(flags.form.form())?.as_bytes())?;
    Ok(if scaling.worthless.is_empty() { Exit::Done } else { Exit::Worthless })
}

/// Who runs where.
#[derive(Debug)]
struct Processors {
    /// The server's, unless their number is what is changed.
    servers: Vec<usize>,
    generator: Vec<usize>,
    /// Those that a server with any number of cores takes, in order: its own, those of nobody, the generator's.
    order: Vec<usize>,
}

impl Processors {
    fn of(flags: &ScaleFlags) -> Self {
        let servers = flags.fleet.server_cores.list().to_vec();
        let generator = flags.fleet.generator_cores.list().to_vec();
        let order = Self::in_order(&servers, &generator, machine::allowed());
        Self { servers, generator, order }
    }

    fn in_order(servers: &[usize], generator: &[usize], mut allowed: Vec<usize>) -> Vec<usize> {
        allowed.sort_by_key(|cpu| (!servers.contains(cpu), generator.contains(cpu)));
        allowed
    }

    /// Those of a server with so many cores.
    fn server(&self, cores: usize) -> Vec<usize> {
        self.order.iter().copied().take(cores).collect()
    }

    /// Whether a server with so many cores has them for itself.
    fn sharing(&self, cores: usize) -> Sharing {
        let is_shared = self.server(cores).iter().any(|cpu| self.generator.contains(cpu));
        if is_shared { Sharing::WithGenerator } else { Sharing::None }
    }
}

/// Whose a node's processors are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Sharing {
    /// Its own, as far as this program goes.
    None,
    /// Some are the generator's as well.
    WithGenerator,
}

/// The way through all stages, and what was seen on it.
struct Tour<'a> {
    flags: &'a ScaleFlags,
    room: &'a Room,
    programs: &'a Programs,
    processors: &'a Processors,
    rows: Vec<Row>,
    /// What makes the report worthless.
    wrong: Vec<String>,
}

impl<'a> Tour<'a> {
    const fn new(
        flags: &'a ScaleFlags,
        room: &'a Room,
        programs: &'a Programs,
        processors: &'a Processors,
    ) -> Self {
        Self { flags, room, programs, processors, rows: Vec::new(), wrong: Vec::new() }
    }

    /// Starts a node, puts all loads of a stage on it, and reads back.
    fn stop_at(&mut self, stage: &Stage) -> Result<(), BenchError> {
        let Some(first) = stage.loads.first() else { return Ok(()) };
        let site = Site {
            room: self.room,
            programs: self.programs,
            cores: self.processors.server(stage.layout.cores),
            value_bytes: first.work.value_bytes,
            mesh: stage.layout,
        };
        let mut session = Session::begin(SystemName::Mesh, &site, &first.work, &self.processors.generator)?;
        for load in &stage.loads {
            let slice = session.load(&load.work, Pace::Closed, self.flags.pace.lengths())?;
            let row = self.row(load, self.processors.sharing(stage.layout.cores));
            row.rounds.push(slice);
            note(&row.line());
        }
        let findings = session.end()?.unwrap_or_default();
        self.wrong
            .extend(complaint(&findings, first.work.keys).map(|what| format!("{}: {what}", stage.words())));
        Ok(())
    }

    /// The row of a load, which is made when the load is measured first.
    fn row(&mut self, load: &Load, sharing: Sharing) -> &mut Row {
        let known = self.rows.iter().position(|row| row.is_of(load));
        let index = known.unwrap_or(self.rows.len());
        if known.is_none() {
            self.rows.push(Row::of(load, sharing));
        }
        #[allow(clippy::indexing_slicing, reason = "it was found or pushed")]
        &mut self.rows[index]
    }
}

/// What is wrong with what was read back, if anything is.
fn complaint(findings: &Findings, keys: u32) -> Option<String> {
    if findings.lost + findings.foreign > 0 {
        return Some(format!("lost acknowledged writes: {findings:?}"));
    }
    let read_back = findings.keys();
    (read_back != u64::from(keys)).then(|| format!("only {read_back} of {keys} keys were read back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_more_cores_takes_the_generators_last() {
        let order = Processors::in_order(&[2], &[1, 0], vec![0, 1, 2, 3]);
        assert_eq!(order, [2, 3, 0, 1]);
        let processors = Processors { servers: vec![2], generator: vec![1, 0], order };
        assert_eq!(processors.server(2), [2, 3]);
        assert_eq!([2, 3].map(|cores| processors.sharing(cores)), [Sharing::None, Sharing::WithGenerator]);
    }

    #[test]
    fn what_was_lost_or_not_read_back_is_told() {
        assert_eq!(complaint(&Findings { held: 3, ..Findings::default() }, 3), None);
        assert!(complaint(&Findings { held: 2, lost: 1, ..Findings::default() }, 3).is_some());
        assert!(complaint(&Findings { held: 2, ..Findings::default() }, 3).is_some());
    }
}
