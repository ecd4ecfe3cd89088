//! `mesh-bench run`: from the command line to the report.
//!
//! `sweep` goes through several rates.

mod sweep;

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use self::sweep::Sweep;
use crate::cli::RunFlags;
use crate::cpu::{self, Server};
use crate::error::{BenchError, Exit};
use crate::filling::{self, Refill};
use crate::generator::{self, Plan};
use crate::ledger::Ledgered;
use crate::machine::{self, Machine};
use crate::pace::Pace;
use crate::plot;
use crate::progress::{Progress, note, show};
use crate::rate::{MOST_SECONDS, MOST_WARM_UP};
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
    machine::raise_file_limit();
    let machine = Machine::look();
    let target = Arc::new(discover(flags)?);
    let plan = Plan {
        cores: flags.cores(),
        connections: usize::from(flags.work.connections),
        in_flight: flags.work.in_flight,
        batch: flags.work.batch,
        pace: Pace::Closed,
        mix: Mix::Random(flags.work.shares()),
        keyspace: Arc::new(filling::lay_out(&flags.work, &*target)?),
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
    let mut bench = Bench { flags, target, servers, plan, machine, most: None };
    if flags.rate.needs_most() || flags.sweep_rates.as_ref().is_some_and(Sweep::needs_most) {
        bench.most = Some(bench.measure_most()?);
    }
    match &flags.sweep_rates {
        Some(sweep) => sweep::run(&bench, sweep),
        None => {
            let report = bench.measure(flags.rate.pace(bench.most()))?;
            if let Some(directory) = &flags.plots {
                plot::of_run(directory, &report)?;
            }
            tell(flags, &report)
        }
    }
}

/// What all runs of one command share.
struct Bench<'a> {
    flags: &'a RunFlags,
    target: Arc<Mesh>,
    servers: Vec<Server>,
    plan: Plan,
    machine: Machine,
    /// Requests in a second in a closed loop, if that was measured.
    most: Option<f64>,
}

impl Bench<'_> {
    /// The most that there is, which nothing asks for where it was not measured.
    fn most(&self) -> f64 {
        self.most.unwrap_or_default()
    }

    /// Requests in a second when one is begun whenever another is answered.
    fn measure_most(&self) -> Result<f64, BenchError> {
        show("measuring the most that there is");
        let plan = Plan {
            seed: self.plan.seed.wrapping_add(1),
            warm_up: MOST_WARM_UP,
            seconds: Some(MOST_SECONDS),
            ..self.plan.clone()
        };
        let outcome = generator::run(&self.target, &plan, &mut ())?;
        let most = outcome.total.arrivals_per_second(outcome.measured);
        note(&format!("the most that there is: {} requests/s in a closed loop", text::rate(most)));
        Ok(most)
    }

    /// A run at a pace.
    fn measure(&self, pace: Pace) -> Result<Report, BenchError> {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut progress = Progress::new(&self.servers, self.flags.seconds);
        let plan = Plan { pace, ..self.plan.clone() };
        let outcome = generator::run(&self.target, &plan, &mut progress)?;
        show("");
        let facts = Facts {
            target: self.target.name(),
            partitions: self.target.partitions(),
            machine: self.machine.clone(),
            started_at,
            command: std::env::args().collect(),
            spent: progress.spent,
            pace,
            most: self.most,
            inserts_again: plan.keyspace.inserts_again(),
        };
        Ok(Report::of(self.flags, &facts, &outcome))
    }
}

fn tell(flags: &RunFlags, report: &Report) -> Result<Exit, BenchError> {
    let rendered = if flags.json {
        json::render(report)?
    } else if flags.markdown {
        markdown::render(report)
    } else {
        text::render(report)
    };
    write(&rendered)?;
    if flags.json || flags.markdown {
        report.warnings.iter().chain(&report.worthless).for_each(|line| note(&format!("warning: {line}")));
    }
    Ok(if report.worthless.is_empty() { Exit::Done } else { Exit::Worthless })
}

fn write(rendered: &str) -> Result<(), BenchError> {
    let mut stdout = BufWriter::new(std::io::stdout());
    stdout.write_all(rendered.as_bytes())?;
    Ok(stdout.flush()?)
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
