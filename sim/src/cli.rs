//! The command line of a simulator: which seeds, how, and what to print of them.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::driver::{self, Outcome, Repeat, Run};
use crate::options;
use crate::trace::Trace;

/// Simulates clusters, each a function of its seed, until one breaks a promise.
///
/// Exit codes: 0 all passed, 1 a promise was broken, 2 usage, 3 a cluster did not come to life again, 4 a panic,
/// 5 a run was not a function of its seed.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(name = "mesh-sim", version)]
pub struct Arguments {
    /// Run this seed alone
    #[arg(long, value_name = "SEED", conflicts_with_all = ["start", "runs", "jobs"])]
    pub seed: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub start: u64,
    /// How many seeds, from the first
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub runs: u64,
    /// How many seeds at a time
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Print every step of the seed
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// Run each seed twice and compare the runs step by step
    #[arg(long, conflicts_with = "trace")]
    pub twice: bool,
}

/// The whole program: arguments from the process, output to it.
pub fn main(run: &dyn Run) -> ExitCode {
    // Ends the process with 2 if they are wrong.
    let arguments = Arguments::parse();
    driver::keep_panics_silent();
    let mut output = io::stdout().lock();
    match execute(run, &arguments, &mut output).and_then(|code| output.flush().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        // Nobody is left to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs what the arguments ask for and returns the exit code: that of the failure with the lowest seed.
///
/// # Errors
/// What the output reports.
pub fn execute(run: &dyn Run, arguments: &Arguments, output: &mut dyn Write) -> io::Result<u8> {
    match arguments.seed {
        Some(seed) => execute_seed(run, seed, arguments, output),
        None => execute_seeds(run, arguments, output),
    }
}

fn execute_seed(run: &dyn Run, seed: u64, arguments: &Arguments, output: &mut dyn Write) -> io::Result<u8> {
    write!(output, "{}", options::draw(seed).0)?;
    let outcome = match repeat(arguments) {
        Repeat::Twice => driver::run_seed_twice(run, seed),
        Repeat::Once if arguments.trace => driver::run_seed(run, seed, &mut Trace::printing(output)),
        Repeat::Once => driver::run_seed(run, seed, &mut Trace::off()),
    };
    writeln!(output, "seed {seed} {outcome}")?;
    Ok(outcome.exit_code())
}

fn execute_seeds(run: &dyn Run, arguments: &Arguments, output: &mut dyn Write) -> io::Result<u8> {
    let Arguments { start, runs, jobs, .. } = *arguments;
    let seeds = start..start.saturating_add(runs);
    let (passed, failed) = driver::run_seeds(run, seeds, usize::from(jobs), repeat(arguments));
    for (&seed, outcome) in &failed {
        write!(output, "{}", options::draw(seed).0)?;
        writeln!(output, "seed {seed} {outcome}")?;
        let how = if matches!(outcome, Outcome::Diverged(_)) { "--twice" } else { "--trace" };
        writeln!(output, "replay with: mesh-sim --seed {seed} {how}")?;
    }
    writeln!(output, "{passed} passed, {} failed, from seed {start}", failed.len())?;
    Ok(failed.values().next().map_or(0, Outcome::exit_code))
}

const fn repeat(arguments: &Arguments) -> Repeat {
    if arguments.twice { Repeat::Twice } else { Repeat::Once }
}

#[cfg(test)]
mod tests {
    use mesh_base::Instant;
    use mesh_base::prng::Prng;

    use super::*;
    use crate::driver::Failure;
    use crate::options::Options;

    struct FailsAt(u64);

    impl Run for FailsAt {
        fn run(&self, options: &Options, _root: Prng, trace: &mut Trace<'_>) -> Result<(), Failure> {
            trace.step(Instant(1), format_args!("the only step"));
            if options.seed == self.0 { Err(Failure::Liveness("stuck".into())) } else { Ok(()) }
        }
    }

    fn simulate(line: &[&str]) -> (u8, String) {
        let arguments = Arguments::try_parse_from([&["mesh-sim"], line].concat()).unwrap();
        let mut output = Vec::new();
        let code = execute(&FailsAt(12), &arguments, &mut output).unwrap();
        (code, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_command_that_replays_a_failing_seed_is_printed() {
        let (code, output) = simulate(&["--start", "5", "--runs", "50", "--jobs", "2"]);
        assert_eq!(code, 3);
        assert!(output.contains("seed          12\n"), "its options: {output}");
        assert!(
            output.contains("seed 12 not live: stuck\nreplay with: mesh-sim --seed 12 --trace\n"),
            "{output}"
        );
    }

    #[test]
    fn seeds_that_pass_are_counted() {
        let (code, output) = simulate(&["--start", "20", "--runs", "10", "--twice"]);
        assert_eq!((code, output.as_str()), (0, "10 passed, 0 failed, from seed 20\n"));
    }

    #[test]
    fn one_seed_is_traced_on_request() {
        let (code, output) = simulate(&["--seed", "12", "--trace"]);
        assert_eq!(code, 3);
        assert!(output.contains("0.000000s the only step\nseed 12 not live: stuck\n"), "{output}");
        assert!(!simulate(&["--seed", "12"]).1.contains("the only step"));
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        for line in [&["--trace"][..], &["--seed", "1", "--runs", "2"], &["--jobs", "0"], &["--seed", "x"]] {
            let error = Arguments::try_parse_from([&["mesh-sim"], line].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
