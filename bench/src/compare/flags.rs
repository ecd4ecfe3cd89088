//! What may stand behind `mesh-bench compare`, and what all commands that start systems have.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::session::Lengths;
use crate::cli::Cores;
use crate::error::BenchError;
use crate::fleet::programs::{NamedProgram, Programs};
use crate::fleet::systems::SystemName;
use crate::load::LoadFlags;
use crate::rate::{RATES, RateFlags};
use crate::table::Form;

const WHO: &str = "The systems";
const HOW: &str = "How long";
const OUTPUT: &str = "Output";

/// Where systems run and what runs them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = WHO)]
pub(crate) struct FleetFlags {
    /// Processors of the servers.
    #[arg(long, value_name = "LIST, as 0-3,6", default_value = "0")]
    pub(crate) server_cores: Cores,
    /// Processors that make the load, a thread on each.
    #[arg(long, value_name = "LIST, as 0-3,6", default_value = "1")]
    pub(crate) generator_cores: Cores,
    /// Where to make the data, on the file system that is to be measured; removed at the end.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Mesh's server [default: beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) mesh_server: Option<PathBuf>,
    /// A peer's program, where it is neither in PATH nor in a Python package.
    #[arg(long, value_name = "NAME=PATH", num_args = 1)]
    pub(crate) peer_bin: Vec<NamedProgram>,
}

impl FleetFlags {
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if let Some(path) = self.programs().wrong() {
            let why = "is no program: name the file itself, not a script that runs it";
            return Err(BenchError::Usage(format!("{} {why}", path.display())));
        }
        self.server_cores.check("--server-cores")?;
        self.generator_cores.check("--generator-cores")
    }

    /// The programs of systems.
    pub(crate) fn programs(&self) -> Programs {
        Programs::new(&self.peer_bin, self.mesh_server.as_deref())
    }
}

/// How long systems are measured, and how often.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = HOW)]
pub(crate) struct PaceFlags {
    /// Rounds.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) rounds: u16,
    /// Seconds that are measured of each system in each round.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub(crate) seconds: u32,
    /// Seconds before that, which do not count.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=3600)
    )]
    pub(crate) warm_up: u32,
}

/// In what form figures are told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct FormFlags {
    /// Report for programs: one JSON document with every round.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Report as a table in Markdown.
    #[arg(long)]
    markdown: bool,
}

/// How a comparison is told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct TellFlags {
    #[command(flatten)]
    form: FormFlags,
    /// Exit with code 1 if a bar that was measured does not hold.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Starts systems, puts the same load on each, and shows them side by side.
///
/// Each round goes through all systems, in another order each time: a system is started in a fresh directory, filled, put under
/// load, read back and ended. Figures are medians of the rounds. Every acknowledged write must be there afterwards. A system
/// that is not installed is named, with the command that installs it, and left out.
///
/// With --rate requests are due at times that do not depend on answers (an open loop), and latency is from when one was due. A
/// percent is of what each system itself reaches in a closed loop, measured first.
///
/// With --bars, goes through the fixed loads of Mesh's bars instead, against everything that they name, and says which hold.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  mesh-bench compare                                                  # gets, one in flight, against redis
  mesh-bench compare --systems mesh,redis-aof,valkey-aof,etcd --workload put --in-flight 16
  mesh-bench compare --systems mesh-3,etcd-3 --server-cores 0,1 --connections 256 --workload put
  mesh-bench compare --systems mesh,memcached --batch 50 --rounds 5 --seconds 10 --markdown
  mesh-bench compare --systems mesh,redis-aof --workload put --in-flight 16 --rate 50%
  mesh-bench compare --systems mesh,etcd --peer-bin etcd=/opt/etcd/etcd --json > figures.json
  mesh-bench compare --bars --check                                   # a quarter of an hour
  mesh-bench compare --bars --parts single --rounds 5
  mesh-bench compare --bars --parts endurance --check                 # eleven minutes")]
pub(crate) struct CompareFlags {
    /// Whom to compare; ratios are to the first of Mesh.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "mesh,redis", help_heading = WHO)]
    pub(crate) systems: Vec<SystemName>,
    #[command(flatten)]
    pub(crate) fleet: FleetFlags,
    #[command(flatten)]
    pub(crate) work: LoadFlags,
    #[command(flatten)]
    pub(crate) rate: RateFlags,
    #[command(flatten)]
    pub(crate) pace: PaceFlags,
    /// Go through Mesh's bars; the load is theirs.
    #[arg(long, conflicts_with = RATES, help_heading = HOW)]
    pub(crate) bars: bool,
    /// Only some of the bars [default: all but endurance]
    #[arg(long, value_name = "PART,...", value_delimiter = ',', requires = "bars", help_heading = HOW)]
    pub(crate) parts: Vec<Part>,
    #[command(flatten)]
    pub(crate) tell: TellFlags,
}

/// Holds Mesh against the least that its work takes, on this machine.
///
/// For gets and puts on one processor: a bare echo of as many bytes on the executor that Mesh is built on, in rounds that alternate with
/// Mesh's, and the fraction of the echo's rate that Mesh reaches. For one put at a time: the echo's round trip and an append that
/// the device has before it is answered. And the bare device: appends with O_DSYNC and random reads past the page cache.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  mesh-bench roofline
  mesh-bench roofline --dir /data/bench --rounds 5 --seconds 10 --json > roofline.json
  mesh-bench roofline --server-cores 2 --generator-cores 3 --check")]
pub(crate) struct RooflineFlags {
    #[command(flatten)]
    pub(super) fleet: FleetFlags,
    #[command(flatten)]
    pub(super) pace: PaceFlags,
    #[command(flatten)]
    pub(super) tell: TellFlags,
}

/// A part of the bars.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// One node on one processor, against Redis and a bare echo.
    Single,
    /// Three and five nodes, against etcd.
    Cluster,
    /// The leader is killed or stopped.
    Failover,
    /// Memory, start, idle time.
    Footprint,
    /// One node on one processor at half of its most for ten minutes, against its first minute.
    Endurance,
}

impl PaceFlags {
    /// Of one load.
    pub(crate) const fn lengths(self) -> Lengths {
        Lengths { warm_up: self.warm_up, seconds: self.seconds }
    }

    pub(crate) fn rounds(self) -> usize {
        usize::from(self.rounds)
    }
}

impl FormFlags {
    /// The form that is wanted.
    pub(crate) const fn form(&self) -> Form {
        match self {
            Self { json: true, .. } => Form::Json,
            Self { markdown: true, .. } => Form::Markdown,
            Self { markdown: false, .. } => Form::Text,
        }
    }
}

impl TellFlags {
    /// The form of a table.
    pub(crate) const fn form(&self) -> Form {
        self.form.form()
    }
}

impl CompareFlags {
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        self.fleet.check()?;
        self.work.check()?;
        let shares = self.work.shares();
        if shares.scans + shares.inserts > 0 {
            let why = "the systems are compared by reads and writes of keys that are there, and read back";
            return Err(BenchError::Usage(format!("--workload {}: {why}", self.work.workload.name())));
        }
        Ok(())
    }

    /// Whether a part of the bars is wanted.
    pub(crate) fn wants(&self, part: Part) -> bool {
        if self.parts.is_empty() { part != Part::Endurance } else { self.parts.contains(&part) }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn compare(line: &str) -> Result<CompareFlags, String> {
        let cli = Cli::try_parse_from(format!("mesh-bench compare {line}").split_whitespace());
        let Command::Compare(flags) = cli.map_err(|error| error.to_string())?.command else {
            panic!("another command");
        };
        Ok(flags)
    }

    #[test]
    fn systems_are_compared_at_a_rate_and_bars_have_their_own() {
        assert!(!compare("--rate 20000").unwrap().rate.needs_most());
        assert!(compare("--rate 50% --arrivals uniform").unwrap().rate.needs_most());
        for (line, words) in [
            ("--bars --rate 50%", "cannot be used with"),
            ("--arrivals uniform", "--rate <N or N%>"),
            ("--sweep-rates 10%..90%", "unexpected argument"),
            ("--parts endurance", "--bars"),
        ] {
            let refused = compare(line).unwrap_err();
            assert!(refused.contains(words), "{line}: {refused}");
        }
    }

    #[test]
    fn the_part_that_takes_ten_minutes_is_done_only_where_it_is_named() {
        let all = [Part::Single, Part::Cluster, Part::Failover, Part::Footprint, Part::Endurance];
        let wanted = |line| {
            let flags = compare(line).unwrap();
            all.into_iter().filter(|&part| flags.wants(part)).collect::<Vec<_>>()
        };
        assert_eq!(wanted("--bars"), all[..4]);
        assert_eq!(wanted("--bars --parts endurance"), [Part::Endurance]);
        assert_eq!(wanted("--bars --parts single,endurance"), [Part::Single, Part::Endurance]);
    }
}
