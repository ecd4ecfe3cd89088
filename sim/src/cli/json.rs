//! Results for programs: one JSON document on each line, told apart by `event`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::Summary;
use super::failure::{self, Failure};
use crate::driver::{Case, Ended, Outcome};
use crate::overrides;
use crate::report::{Counts, Kind, Report};
use crate::swarm::Swarm;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line {
    Begun {
        start: u64,
        with: String,
        jobs: usize,
    },
    Passed {
        #[serde(flatten)]
        run: RunDocument,
    },
    Failure {
        #[serde(flatten)]
        run: RunDocument,
        shrunk: Option<Box<ShrunkDocument>>,
        /// The last steps of the run, or of the smaller one if there is one.
        last_steps: Vec<String>,
    },
    Summary {
        start: u64,
        with: String,
        jobs: usize,
        passed: u64,
        failed: usize,
        seconds: f64,
        /// Of all cores.
        processor_seconds: f64,
        /// For each of those.
        simulated_seconds_per_second: f64,
        report: ReportDocument,
        failures: Vec<FailureDocument>,
    },
}

#[derive(Serialize)]
struct RunDocument {
    seed: u64,
    with: String,
    exit_code: u8,
    outcome: &'static str,
    message: String,
    replay: String,
    options: BTreeMap<&'static str, String>,
    report: ReportDocument,
}

#[derive(Serialize)]
struct ShrunkDocument {
    runs: u32,
    #[serde(flatten)]
    run: RunDocument,
}

#[derive(Serialize)]
struct FailureDocument {
    seed: u64,
    outcome: &'static str,
    exit_code: u8,
    replay: String,
}

#[derive(Serialize)]
struct ReportDocument {
    runs: u64,
    simulated_seconds: f64,
    events: u64,
    operations_checked: u64,
    operations: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
}

/// Seeds are about to be run.
pub(super) fn begun(output: &mut dyn Write, swarm: &Swarm) -> io::Result<()> {
    let Swarm { seeds, with, jobs, .. } = swarm;
    write(output, &Line::Begun { start: seeds.start, with: with.to_string(), jobs: *jobs })
}

/// A seed that passed.
pub(super) fn passed(output: &mut dyn Write, case: &Case, ended: &Ended) -> io::Result<()> {
    write(output, &Line::Passed { run: RunDocument::new(case, ended) })
}

/// A failure.
pub(super) fn failure(output: &mut dyn Write, failure: &Failure) -> io::Result<()> {
    let Failure { case, ended, shrunk, end } = failure;
    let shrunk = shrunk.as_ref().map(|shrunk| {
        let run = RunDocument::new(&shrunk.case, &shrunk.ended);
        Box::new(ShrunkDocument { runs: shrunk.runs, run })
    });
    write(output, &Line::Failure { run: RunDocument::new(case, ended), shrunk, last_steps: end.clone() })
}

/// Seeds that were run.
pub(super) fn summary(output: &mut dyn Write, summary: &Summary<'_>) -> io::Result<()> {
    let Summary { swarm, tally, used } = summary;
    let document = |(&seed, ended): (&u64, &Ended)| {
        let case = Case { seed, with: swarm.with.clone() };
        FailureDocument {
            seed,
            outcome: ended.outcome.name(),
            exit_code: ended.outcome.exit_code(),
            replay: failure::replay(&case, &ended.outcome),
        }
    };
    let line = Line::Summary {
        start: swarm.seeds.start,
        with: swarm.with.to_string(),
        jobs: swarm.jobs,
        passed: tally.passed,
        failed: tally.failed.len(),
        seconds: used.time.as_secs_f64(),
        processor_seconds: used.processor.as_secs_f64(),
        simulated_seconds_per_second: summary.speed(),
        report: ReportDocument::new(&tally.report),
        failures: tally.failed.iter().map(document).collect(),
    };
    write(output, &line)
}

impl RunDocument {
    fn new(case: &Case, ended: &Ended) -> Self {
        let outcome = &ended.outcome;
        Self {
            seed: case.seed,
            with: case.with.to_string(),
            exit_code: outcome.exit_code(),
            outcome: outcome.name(),
            message: match outcome {
                Outcome::Passed => String::new(),
                outcome => outcome.to_string(),
            },
            replay: failure::replay(case, outcome),
            options: overrides::values(&case.options()).collect(),
            report: ReportDocument::new(&ended.report),
        }
    }
}

impl ReportDocument {
    fn new(report: &Report) -> Self {
        Self {
            runs: report.runs,
            simulated_seconds: report.simulated.as_secs_f64(),
            events: report.events,
            operations_checked: report.operations.total(),
            operations: by_name(&report.operations),
            faults: by_name(&report.faults),
        }
    }
}

fn by_name<K: Kind>(counts: &Counts<K>) -> BTreeMap<&'static str, u64> {
    counts.iter().map(|(kind, count)| (kind.name(), count)).collect()
}

fn write(output: &mut dyn Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    writeln!(output)?;
    output.flush()
}
