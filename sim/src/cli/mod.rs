//! The command line of a simulator: which seeds, how, and what to tell of them.
//!
//! Results go to the output, as text or as one JSON document on each line; how far it has come goes to a terminal's
//! standard error.

mod arguments;
mod failure;
mod json;
mod progress;
mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

pub use self::arguments::{Arguments, Command, Play, Soak, Start};
use self::failure::{Failure, Shrinking};
use self::progress::Progress;
use crate::determinism::run_twice;
use crate::driver::{self, Case, Ended, Run, run_case};
use crate::overrides::Overrides;
use crate::swarm::{AfterFailure, Repeat, Swarm, Tally};
use crate::trace::Trace;

/// The exit code of wrong usage, and of an output that cannot be written.
const USAGE: u8 = 2;

/// The whole program: arguments from the process, output to it.
pub fn main(run: &dyn Run) -> ExitCode {
    // Ends the process if they are wrong.
    let arguments = Arguments::parse();
    driver::keep_panics_silent();
    let mut output = io::stdout().lock();
    match execute(run, &arguments, &mut output).and_then(|code| output.flush().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        // Nobody is left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(USAGE),
        Err(error) => {
            let _told = writeln!(io::stderr(), "mesh-sim: {error}");
            ExitCode::from(USAGE)
        }
    }
}

/// Runs what the arguments ask for and returns the exit code: that of the failure with the lowest seed.
///
/// # Errors
/// What the output reports, or the trace's file.
pub fn execute(run: &dyn Run, arguments: &Arguments, output: &mut dyn Write) -> io::Result<u8> {
    match &arguments.command {
        Some(Command::Soak(soak)) => execute_soak(run, soak, output),
        #[cfg(feature = "flaws")]
        Some(Command::Teeth(teeth)) => crate::teeth::execute(run, teeth, output),
        None => match arguments.play.seed {
            Some(seed) => execute_seed(run, seed, &arguments.play, output),
            None => execute_seeds(run, &arguments.play, output),
        },
    }
}

fn execute_seed(run: &dyn Run, seed: u64, play: &Play, output: &mut dyn Write) -> io::Result<u8> {
    let case = Case { seed, with: with(play.with.as_ref()) };
    if !play.json {
        write!(output, "{}", case.options())?;
    }
    let ended = match (repeat(play), &play.trace_file) {
        (Repeat::Twice, _) => run_twice(run, &case),
        (Repeat::Once, Some(path)) => run_into_file(run, &case, path)?,
        (Repeat::Once, None) if play.trace => run_case(run, &case, &mut Trace::printing(output)),
        (Repeat::Once, None) => run_case(run, &case, &mut Trace::off()),
    };
    let is_passed = ended.outcome.is_passed();
    let code = ended.outcome.exit_code();
    let shrinking = if play.no_shrink { Shrinking::No } else { Shrinking::Bounded };
    match (is_passed, play.json) {
        (true, true) => json::passed(output, &case, &ended)?,
        (true, false) => text::passed(output, &case, &ended)?,
        (false, true) => json::failure(output, &Failure::look_into(run, case, ended, shrinking))?,
        (false, false) => text::tell_failure(output, run, case, ended, shrinking)?,
    }
    Ok(code)
}

fn run_into_file(run: &dyn Run, case: &Case, path: &Path) -> io::Result<Ended> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(named)?);
    let ended = run_case(run, case, &mut Trace::printing(&mut file));
    file.flush().map_err(named)?;
    Ok(ended)
}

fn execute_seeds(run: &dyn Run, play: &Play, output: &mut dyn Write) -> io::Result<u8> {
    let begun = Begun::now();
    let start = play.start.seed();
    let runs = match (play.runs, play.minutes) {
        (Some(runs), _) => runs,
        (None, Some(_)) => u64::MAX,
        (None, None) => arguments::RUNS,
    };
    let swarm = Swarm {
        with: with(play.with.as_ref()),
        repeat: repeat(play),
        jobs: usize::from(play.jobs),
        until: play.minutes.map(|minutes| begun.at + minutes),
        ..Swarm::new(seeds(start, runs))
    };
    if play.json {
        json::begun(output, &swarm)?;
    } else if play.start == Start::Random {
        text::begun(output, &swarm)?;
    }
    let mut progress = Progress::of_seeds(swarm.seeds.clone(), play.minutes);
    let tally = swarm.run(run, |_, _, tally| progress.show_tally(tally));
    // Before failures are looked into.
    let used = Used::since(&begun);
    progress.clear();
    for (index, (&seed, ended)) in tally.failed.iter().enumerate() {
        let is_shrunk = index == 0 && !play.no_shrink;
        let shrinking = if is_shrunk { Shrinking::Bounded } else { Shrinking::No };
        let case = Case { seed, with: swarm.with.clone() };
        if play.json {
            json::failure(output, &Failure::look_into(run, case, ended.clone(), shrinking))?;
        } else {
            write!(output, "{}", case.options())?;
            text::tell_failure(output, run, case, ended.clone(), shrinking)?;
        }
    }
    let summary = Summary { swarm: &swarm, tally: &tally, used };
    let tell = if play.json { json::summary } else { text::summary };
    tell(output, &summary)?;
    Ok(tally.exit_code())
}

fn execute_soak(run: &dyn Run, soak: &Soak, output: &mut dyn Write) -> io::Result<u8> {
    let begun = Begun::now();
    let swarm = Swarm {
        with: with(soak.with.as_ref()),
        jobs: usize::from(soak.jobs),
        until: Some(begun.at + soak.minutes),
        after_failure: AfterFailure::GoOn,
        ..Swarm::new(seeds(soak.start.seed(), u64::MAX))
    };
    let tell = if soak.json { json::begun } else { text::begun };
    tell(output, &swarm)?;
    let mut progress = Progress::of_seeds(swarm.seeds.clone(), Some(soak.minutes));
    let mut told = Ok(());
    let tally = swarm.run(run, |case, ended, tally| {
        if !ended.outcome.is_passed() && told.is_ok() {
            progress.clear();
            // Told at once: a soak may be ended before its time.
            let failure = Failure::as_it_is(case.clone(), ended.clone());
            let tell = if soak.json { json::failure } else { text::failure };
            told = tell(output, &failure).and_then(|()| output.flush());
        }
        progress.show_tally(tally);
    });
    let used = Used::since(&begun);
    progress.clear();
    told?;
    let summary = Summary { swarm: &swarm, tally: &tally, used };
    let tell = if soak.json { json::summary } else { text::report };
    tell(output, &summary)?;
    Ok(tally.exit_code())
}

/// What there is to say about seeds that were run.
struct Summary<'a> {
    swarm: &'a Swarm,
    tally: &'a Tally,
    used: Used,
}

/// When seeds were begun, and what the process had computed by then.
struct Begun {
    at: Instant,
    processor: Duration,
}

impl Begun {
    fn now() -> Self {
        Self { at: Instant::now(), processor: processor_time() }
    }
}

/// What seeds took.
#[derive(Clone, Copy)]
struct Used {
    /// As a clock on the wall shows it.
    time: Duration,
    /// Of all cores. What else the machine does is not in it.
    processor: Duration,
}

impl Used {
    fn since(begun: &Begun) -> Self {
        Self { time: begun.at.elapsed(), processor: processor_time().saturating_sub(begun.processor) }
    }
}

/// What the process has computed so far, on all cores.
fn processor_time() -> Duration {
    // Does not fail: the clock is there, and what it shows is not below zero.
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime)).unwrap_or_default()
}

impl Summary<'_> {
    /// Simulated seconds for each second of one core.
    fn speed(&self) -> f64 {
        self.tally.report.simulated.as_secs_f64() / self.used.processor.as_secs_f64().max(f64::EPSILON)
    }
}

/// So many seeds from the first, as far as there are any.
const fn seeds(start: u64, runs: u64) -> Range<u64> {
    start..start.saturating_add(runs)
}

fn with(overrides: Option<&Overrides>) -> Overrides {
    overrides.cloned().unwrap_or_default()
}

const fn repeat(play: &Play) -> Repeat {
    if play.check_determinism { Repeat::Twice } else { Repeat::Once }
}

#[cfg(test)]
mod tests;
