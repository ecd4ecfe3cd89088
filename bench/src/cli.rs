//! What may stand on the command line, and the help for it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::compare::{CompareFlags, RooflineFlags};
use crate::echo::EchoFlags;
use crate::engine::{CountFlags, EngineFlags};
use crate::error::BenchError;
use crate::failover::FailoverFlags;
use crate::fleet::LaunchFlags;
use crate::footprint::FootprintFlags;
use crate::load::{LOAD, LoadFlags};
use crate::machine;
use crate::rate::{RATES, RateFlags};
use crate::run::Sweep;
use crate::scale::ScaleFlags;
use crate::target::mesh::with_port;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a bar does not hold (--check), 2 wrong usage, 3 the run had errors that make its figures
worthless, 4 the system was not reached.";

const TIME: &str = "Time";
/// The heading of flags about when operations begin.
pub(crate) const RATE: &str = "The rate";
const PLACE: &str = "Who and where";
const OUTPUT: &str = "Output";

/// Measures Mesh.
#[derive(Parser, Debug)]
#[command(name = "mesh-bench", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Run(RunFlags),
    Compare(CompareFlags),
    Roofline(RooflineFlags),
    Failover(FailoverFlags),
    Footprint(FootprintFlags),
    Scale(ScaleFlags),
    Engine(EngineFlags),
    /// The part of `engine` that runs under callgrind.
    #[command(hide = true)]
    Count(CountFlags),
    /// Becomes a server that another command starts.
    #[command(hide = true)]
    Launch(LaunchFlags),
    /// A server that answers with as many bytes as Mesh, and does nothing else.
    #[command(hide = true)]
    Echo(EchoFlags),
}

/// Puts a running system under load and reports throughput, latency and processor time.
///
/// Every connection keeps a number of requests in flight and sends the next when an answer comes (a closed loop). Latency is
/// the service time: from the write that sends a request to the read that brings its answer, retries included.
///
/// With --rate requests are due at times that do not depend on answers (an open loop), and latency is the response time, from
/// when a request was due: what has to wait because others are slow is counted as slow. The service time stands beside it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  mesh-bench run                                            # 50 connections, a read at a time each
  mesh-bench run --workload put --in-flight 16 --cores 1    # writes, pipelined, from processor 1
  mesh-bench run --workload mixed --reads 95 --distribution zipfian --keys 1000000
  mesh-bench run --workload get --batch 100 --connections 4
  mesh-bench run --workload ycsb-e --connections 20         # ranges and inserts
  mesh-bench run --workload range --range-items 1000 --connections 4
  mesh-bench run --value-bytes 8388608 --keys 64 --connections 2
  mesh-bench run --rate 20000 --in-flight 16                # an open loop, latency from when a request was due
  mesh-bench run --rate 50% --arrivals uniform --plots plots
  mesh-bench run --sweep-rates 10%..90% --in-flight 16 --plots plots
  mesh-bench run --endpoints host1,host2,host3 --seconds 60 --json > figures.json

Keep the generator off the processors that are measured: pin the server with its own --cores.")]
pub(crate) struct RunFlags {
    #[command(flatten)]
    pub(crate) work: LoadFlags,
    /// Fill in all keys first, even if they are there.
    #[arg(long, help_heading = LOAD)]
    pub(crate) load: bool,
    #[command(flatten)]
    pub(crate) rate: RateFlags,
    /// Go through several rates, one after the other: a list, or percents from one to another in steps of ten.
    #[arg(long, value_name = "N,... or N%..N%", group = RATES, help_heading = RATE)]
    pub(crate) sweep_rates: Option<Sweep>,
    /// Seconds that are measured.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=86_400),
        help_heading = TIME
    )]
    pub(crate) seconds: u32,
    /// Seconds before that, which do not count.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(0..=3600),
        help_heading = TIME
    )]
    pub(crate) warm_up: u32,
    /// Nodes of the cluster; one that answers is enough.
    #[arg(
        long,
        env = "MESH_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:7700",
        value_parser = with_port,
        help_heading = PLACE
    )]
    pub(crate) endpoints: Vec<String>,
    /// Processors that make the load, a thread on each [default: the last that this process may use]
    #[arg(long, value_name = "LIST, as 0-3,6", help_heading = PLACE)]
    pub(crate) cores: Option<Cores>,
    /// Server processes whose time is accounted for [default: those on this host that listen at the cluster's addresses]
    #[arg(long, value_name = "PID,...", value_delimiter = ',', help_heading = PLACE)]
    pub(crate) server_pids: Option<Vec<u32>>,
    /// Report for programs: one JSON document with everything.
    #[arg(long, conflicts_with = "markdown", help_heading = OUTPUT)]
    pub(crate) json: bool,
    /// Report as a table in Markdown.
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) markdown: bool,
    /// Draw the latency by percentile and all second by second, or the latency by rate of a sweep, as SVG files in this directory.
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub(crate) plots: Option<PathBuf>,
}

impl RunFlags {
    /// What the flags say together that none says alone.
    ///
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        self.work.check()?;
        match &self.cores {
            Some(cores) => cores.check("--cores"),
            None => Ok(()),
        }
    }

    /// The processors that make the load.
    pub(crate) fn cores(&self) -> Vec<usize> {
        match &self.cores {
            Some(cores) => cores.list().to_vec(),
            None => vec![machine::allowed().last().copied().unwrap_or(0)],
        }
    }
}

/// Processors, written as `0-3,6`: in order, each once, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// The processors.
    pub(crate) fn list(&self) -> &[usize] {
        &self.0
    }

    /// Whether this process may use them all; `flag` is where they were named.
    ///
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self, flag: &str) -> Result<(), BenchError> {
        let allowed = machine::allowed();
        match self.0.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(BenchError::Usage(format!(
                "{flag}: this process may not use processor {cpu}, only {allowed:?}"
            ))),
            None => Ok(()),
        }
    }
}

/// More processors than any machine has.
const PROCESSORS_MAX: usize = 4096;

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a list of processors: write numbers and ranges, as 0-3,6");
        let mut cores = Vec::new();
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number =
                |text: &str| text.trim().parse().ok().filter(|&number: &usize| number < PROCESSORS_MAX);
            let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
            if first > last {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        cores.sort_unstable();
        cores.dedup();
        Ok(Self(cores))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(line: &str) -> Result<RunFlags, BenchError> {
        let cli = Cli::try_parse_from(format!("mesh-bench run {line}").split_whitespace());
        let Command::Run(flags) = cli.map_err(|error| BenchError::Usage(error.to_string()))?.command else {
            panic!("another command");
        };
        flags.check().map(|()| flags)
    }

    #[test]
    fn the_definition_is_sound_and_its_examples_parse() {
        Cli::command().debug_assert();
        let mut help = String::new();
        for command in ["run", "compare", "roofline", "failover", "footprint", "scale", "engine"] {
            help += &Cli::command().find_subcommand_mut(command).unwrap().render_long_help().to_string();
        }
        let examples: Vec<_> =
            help.lines().map(str::trim).filter(|line| line.starts_with("mesh-bench ")).collect();
        assert!(examples.len() > 8);
        for line in examples {
            let line = line.split(['#', '>']).next().unwrap_or_default();
            // The examples' processors may not be this machine's.
            let parsed = Cli::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn a_workload_has_its_share_of_reads() {
        for (line, reads) in
            [("", 100), ("--workload put", 0), ("--workload mixed", 50), ("--workload mixed --reads 5", 5)]
        {
            assert_eq!(run(line).unwrap().work.shares().reads, reads, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (line, words) in [
            ("--reads 5", "--workload mixed"),
            ("--batch 0", "from 1 to 4096"),
            ("--batch 4096 --value-bytes 8192", "at most 511 keys"),
            ("--value-bytes 9000000", "at most 8388608"),
            ("--cores 4000", "may not use processor 4000"),
            ("--cores 3-1", "as 0-3,6"),
            ("--in-flight 2000", "1..=1024"),
            ("--endpoints a:b", "HOST:PORT"),
            ("--json --markdown", "cannot be used with"),
            ("--rate 5 --sweep-rates 10%..20%", "cannot be used with"),
            ("--arrivals uniform", "--rate <N or N%>|--sweep-rates"),
        ] {
            let refused = run(line).unwrap_err();
            assert!(refused.to_string().contains(words), "{line}: {refused}");
            assert_eq!(refused.exit(), crate::error::Exit::Usage);
        }
    }

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!("6,0-3".parse(), Ok(Cores(vec![0, 1, 2, 3, 6])));
        assert_eq!("2,2".parse(), Ok(Cores(vec![2])));
        assert!("x".parse::<Cores>().is_err());
    }
}
