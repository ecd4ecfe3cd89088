//! `mesh-bench run`: from the command line to the report.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cli::RunFlags;
use crate::collector::Outcome;
use crate::cpu::{self, Server};
use crate::error::{BenchError, Exit};
use crate::generator::{self, Plan};
use crate::keyspace::{KEY_BYTES, Keyspace, KeyspaceSpec};
use crate::machine::Machine;
use crate::op::OpKind;
use crate::progress::{Progress, note, show};
use crate::report::{Facts, Report, json, markdown, text};
use crate::target::mesh::Mesh;
use crate::target::{OpenError, PartitionId, Target};
use crate::workload::Mix;

/// How long a system that does not answer is asked again.
const DISCOVERY_MAX: Duration = Duration::from_secs(3);
const DISCOVERY_PAUSE: Duration = Duration::from_millis(100);
/// Of each partition, so many keys are looked at to see whether all are there.
const PROBES: usize = 1024;
/// Bytes of one request that fills in keys, about.
const LOAD_BATCH_BYTES: usize = 32 * 1024;
/// Keys of such a request, at most.
const LOAD_BATCH_MAX: usize = 64;
/// Connections that keys are filled in by, at most, unless there are more partitions.
const LOAD_CONNECTIONS_MAX: usize = 16;

/// Runs, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &RunFlags) -> Result<Exit, BenchError> {
    flags.check()?;
    let machine = Machine::look();
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let target = Arc::new(discover(flags)?);
    let keyspace = Arc::new(lay_out(flags, &*target)?);
    let plan = Plan {
        cores: flags.cores(),
        connections: usize::from(flags.connections),
        in_flight: flags.in_flight,
        batch: flags.batch,
        mix: Mix::Random { reads: flags.reads() },
        keyspace,
        warm_up: flags.warm_up,
        seconds: Some(flags.seconds),
        seed: flags.seed,
    };
    fill(flags, &target, &plan)?;
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

fn lay_out(flags: &RunFlags, target: &impl Target) -> Result<Keyspace, BenchError> {
    let spec = KeyspaceSpec {
        keys: flags.keys,
        value_bytes: flags.value_bytes,
        distribution: flags.distribution,
        seed: flags.seed,
    };
    let partitions = target.partitions();
    Keyspace::new(spec, partitions, |key| target.partition_of(key)).map_err(|PartitionId(empty)| {
        BenchError::Usage(format!(
            "--keys {}: partition {empty} of {partitions} gets no key; use more keys",
            flags.keys
        ))
    })
}

/// Sees to it that all keys are there.
fn fill(flags: &RunFlags, target: &Arc<Mesh>, plan: &Plan) -> Result<(), BenchError> {
    let partitions = target.partitions();
    let fits = LOAD_BATCH_BYTES / (plan.keyspace.value_bytes() + KEY_BYTES);
    let sweep = |kind, step| Plan {
        connections: plan.connections.min(LOAD_CONNECTIONS_MAX).max(partitions),
        in_flight: 2,
        batch: fits.clamp(1, LOAD_BATCH_MAX),
        mix: Mix::sweep(kind, step, partitions),
        warm_up: 0,
        seconds: None,
        ..plan.clone()
    };
    if !flags.load {
        show("looking whether the keys are there");
        let most = (0..partitions).map(|partition| plan.keyspace.keys_of(PartitionId(partition)).len()).max();
        let probe = sweep(OpKind::Read, most.unwrap_or(0).div_ceil(PROBES));
        let found = generator::run(target, &probe, &mut ())?;
        check_sweep(&found)?;
        if found.total.missing + found.total.wrong == 0 {
            return Ok(());
        }
    }
    show("filling in the keys");
    let begun = Instant::now();
    let written = generator::run(target, &sweep(OpKind::Write, 1), &mut ())?;
    check_sweep(&written)?;
    if written.total.keys != u64::from(flags.keys) {
        return Err(BenchError::Load {
            why: format!("{} of {} were written", written.total.keys, flags.keys),
        });
    }
    note(&format!(
        "filled in {} keys in {:.1} s",
        text::count(written.total.keys),
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn check_sweep(outcome: &Outcome) -> Result<(), BenchError> {
    let total = &outcome.total;
    if total.failed() == 0 && total.unanswered == 0 {
        return Ok(());
    }
    let why = format!(
        "{} requests failed {:?}, {} were never answered",
        total.failed(),
        total.errors,
        total.unanswered
    );
    Err(BenchError::Load { why })
}

/// The processes that the operator names.
fn named(pids: &[u32]) -> Result<Vec<Server>, BenchError> {
    let server = |&pid| {
        Server::of(pid).ok_or_else(|| BenchError::Usage(format!("--server-pids: there is no process {pid}")))
    };
    pids.iter().map(server).collect()
}
