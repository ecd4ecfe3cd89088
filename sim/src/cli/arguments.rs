//! What can be asked for.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::overrides::{self, Overrides};

/// Seeds that are run when nothing says how many.
pub(super) const RUNS: u64 = 100;

/// Where seeds from the operating system end: a number that can be typed, and far from where seeds run out.
const RANDOM_SEEDS: u64 = 1 << 40;

const EXAMPLES: &str = "\
Examples:
  mesh-sim --runs 500 --jobs 2                   500 seeds, until one fails
  mesh-sim --start random --minutes 4 --jobs 2   for four minutes, from a seed that nobody tried before
  mesh-sim --seed 42                             one seed, again and always the same
  mesh-sim --seed 42 --trace-file trace.txt      with every step
  mesh-sim --seed 42 --with nodes=1,crashes=off  the same without crashes, on one node
  mesh-sim --runs 200 --check-determinism        each seed twice, step by step and draw by draw
  mesh-sim soak --minutes 60 --jobs 2            for an hour, whatever fails, with all figures";

const SOAK_EXAMPLES: &str = "\
Examples:
  mesh-sim soak --minutes 60 --jobs 2              for an hour
  mesh-sim soak --minutes 480 --start 1 --json     for a night, from seed 1, for a script";

/// Simulates clusters, each a function of its seed, until one breaks a promise.
///
/// Exit codes: 0 all passed, 1 a promise was broken, 2 usage, 3 a cluster did not come to life again, 4 a panic,
/// 5 two runs of a seed differed.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(name = "mesh-sim", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do instead of running seeds until one fails.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Which seeds to run, and how.
    #[command(flatten)]
    pub play: Play,
}

/// What else there is to do.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Command {
    /// Run seeds for a time, whatever fails, and tell all figures
    Soak(Soak),
    /// Plant deliberate bugs, and count the seeds until the checkers find each
    #[cfg(feature = "flaws")]
    Teeth(crate::teeth::Arguments),
}

/// Seeds until one fails.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Play {
    /// Run this seed alone
    #[arg(long, value_name = "SEED", conflicts_with_all = ["start", "runs", "minutes", "jobs"])]
    pub seed: Option<u64>,
    /// The first seed; "random" takes one from the operating system
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub start: Start,
    /// How many seeds, from the first [default: 100, or as many as there is time for]
    #[arg(long, value_name = "COUNT")]
    pub runs: Option<u64>,
    /// Begin no more seeds after so many minutes
    #[arg(long, value_parser = minutes)]
    pub minutes: Option<Duration>,
    /// How many seeds at a time
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// How every run differs from what its seed draws, such as nodes=3,crashes=off
    #[arg(long, value_name = "OPTION=VALUE,...", long_help = with_help())]
    pub with: Option<Overrides>,
    /// Run each seed twice and compare every step and every draw
    #[arg(long)]
    pub check_determinism: bool,
    /// Print every step of the seed
    #[arg(long, requires = "seed", conflicts_with_all = ["json", "check_determinism"])]
    pub trace: bool,
    /// Write every step of the seed to a file
    #[arg(long, value_name = "FILE", requires = "seed", conflicts_with_all = ["trace", "check_determinism"])]
    pub trace_file: Option<PathBuf>,
    /// Do not look for a smaller run of the first failure
    #[arg(long)]
    pub no_shrink: bool,
    /// Print one JSON document for each failure and one in the end
    #[arg(long)]
    pub json: bool,
}

/// Seeds for a time.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = SOAK_EXAMPLES)]
pub struct Soak {
    /// Begin no more seeds after so many minutes
    #[arg(long, value_parser = minutes)]
    pub minutes: Duration,
    /// The first seed; "random" takes one from the operating system
    #[arg(long, value_name = "SEED", default_value = "random")]
    pub start: Start,
    /// How many seeds at a time
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// How every run differs from what its seed draws, such as nodes=3,crashes=off
    #[arg(long, value_name = "OPTION=VALUE,...", long_help = with_help())]
    pub with: Option<Overrides>,
    /// Print one JSON document for each failure and one with all figures
    #[arg(long)]
    pub json: bool,
}

/// The first of the seeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// This one.
    Seed(u64),
    /// One that the operating system draws.
    Random,
}

impl Start {
    /// The seed; another one each time if it is random.
    #[must_use]
    pub fn seed(self) -> u64 {
        match self {
            Self::Seed(seed) => seed,
            // The keys of the standard library's hasher come from the operating system.
            Self::Random => RandomState::new().hash_one(0) % RANDOM_SEEDS,
        }
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            _ => text.parse().map(Self::Seed).map_err(|_| "neither a number nor \"random\"".to_owned()),
        }
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number of minutes".to_owned())?;
    match Duration::try_from_secs_f64(minutes * 60.0) {
        Ok(duration) if duration > Duration::ZERO && minutes <= 1e6 => Ok(duration),
        _ => Err("not between 0 and a million minutes".to_owned()),
    }
}

fn with_help() -> String {
    let names: Vec<&str> = overrides::names().collect();
    format!(
        "How every run differs from what its seed draws, such as nodes=3,crashes=off,hostile=1200ms. What a seed draws is \
         printed with --seed and as \"options\" of --json. There are: {}",
        names.join(", ")
    )
}
