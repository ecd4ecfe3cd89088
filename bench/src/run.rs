//! `mesh-bench run`: from the command line to the report.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cli::RunFlags;
use crate::cpu::{self, Server};
use crate::error::{BenchError, Exit};
use crate::filling::{self, Refill};
use crate::generator::{self, Plan};
use crate::ledger::Ledgered;
use crate::machine::Machine;
use crate::pace::Pace;
use crate::progress::{Progress, note, show};
use crate::report::{Facts, Report, json, markdown, text};
use crate::target::mesh::Mesh;
use crate::target::{OpenError, Target};
use crate::workload::Mix;

/// How long a system that does not answer is asked again.
const DISCOVERY_MAX: Duration = Duration::from_secs(3);
const DISCOVERY_PAUSE: Duration = Duration::from_millis(100);
/// Runs, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &RunFlags) -> Result<Exit, BenchError> {
    flags.check()?;
    let machine = Machine::look();
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let target = Arc::new(discover(flags)?);
    let keyspace = Arc::new(filling::lay_out(&flags.work, &*target)?);
    let plan = Plan {
        cores: flags.cores(),
        connections: usize::from(flags.work.connections),
        in_flight: flags.work.in_flight,
        batch: flags.work.batch,
        pace: Pace::Closed,
        mix: Mix::Random(flags.work.shares()),
        keyspace,
        ledger: Ledgered::No,
        warm_up: flags.warm_up,
        seconds: Some(flags.seconds),
        seed: flags.work.seed,
    };
    filling::fill(&target, &plan, if flags.load { Refill::Always } else { Refill::IfMissing })?;
    let servers = match &flags.server_pids {
        Some(pids) => named(pids)?,
        None => cpu::listening(&target.servers()),
    };
    let mut progress = Progress::new(&servers, flags.seconds);
    let outcome = generator::run(&target, &plan, &mut progress)?;
    show("");
    let facts = Facts {
        target: target.name(),
        partitions: target.partitions(),
        machine,
        started_at,
        command: std::env::args().collect(),
        spent: progress.spent,
        inserts_again: plan.keyspace.inserts_again(),
    };
    tell(flags, &Report::of(flags, facts, &outcome))
}

fn tell(flags: &RunFlags, report: &Report) -> Result<Exit, BenchError> {
    let rendered = if flags.json {
        json::render(report)?
    } else if flags.markdown {
        markdown::render(report)
    } else {
        text::render(report)
    };
    let mut stdout = BufWriter::new(std::io::stdout());
    stdout.write_all(rendered.as_bytes())?;
    stdout.flush()?;
    if flags.json || flags.markdown {
        report.warnings.iter().chain(&report.worthless).for_each(|line| note(&format!("warning: {line}")));
    }
    Ok(if report.worthless.is_empty() { Exit::Done } else { Exit::Worthless })
}

/// Reaches the system.
fn discover(flags: &RunFlags) -> Result<Mesh, BenchError> {
    let until = Instant::now() + DISCOVERY_MAX;
    loop {
        match Mesh::discover(flags.endpoints.clone()) {
            Ok(mesh) => return Ok(mesh),
            Err(OpenError::Later(_)) if Instant::now() < until => std::thread::sleep(DISCOVERY_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The processes that the operator names.
fn named(pids: &[u32]) -> Result<Vec<Server>, BenchError> {
    let server = |&pid| {
        Server::of(pid).ok_or_else(|| BenchError::Usage(format!("--server-pids: there is no process {pid}")))
    };
    pids.iter().map(server).collect()
}
