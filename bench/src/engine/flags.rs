//! What may stand behind `mesh-bench engine`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::BenchError;

const WHAT: &str = "What is measured";
const HOW: &str = "How long";
const OUTPUT: &str = "Output";

/// Measures the page store and the log, without a server, beside other stores and the bare device.
///
/// Rounds are interleaved: each goes through all systems, in another order each time, and a figure is the median of them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  mesh-bench engine --dir /data/bench                    # every row, against the peers that are built in
  mesh-bench engine --rows get,put-1 --peers lmdb        # some of it
  mesh-bench engine --rows get,put-64,size --page-bytes 4096,8192,16384 --peers none
  mesh-bench engine --quick                              # does everything once, says nothing
  mesh-bench engine --check --markdown table.md          # exit code 1 if a bar does not hold")]
pub(crate) struct EngineFlags {
    /// Rows of the table.
    #[arg(long, value_name = "ROW,...", value_delimiter = ',', help_heading = WHAT)]
    pub(super) rows: Vec<RowName>,
    /// Whom to measure beside: all, none, or some.
    #[arg(long, value_name = "PEER,...", value_delimiter = ',', default_value = "all", help_heading = WHAT)]
    pub(super) peers: Vec<PeerName>,
    /// Page sizes of Mesh, each measured as a system of its own. In pages of 4096 bytes keys have 1 KiB at most.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "8192",
        value_parser = page_bytes,
        help_heading = WHAT
    )]
    pub(super) page_bytes: Vec<usize>,
    /// Keys, of 16 bytes, with values of 256 bytes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(1000..=100_000_000),
        help_heading = WHAT
    )]
    pub(super) keys: u32,
    /// Repeats the choices of keys and values.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = WHAT)]
    pub(super) seed: u64,
    /// Where to make the data; several GiB on the file system that is to be measured, removed at the end.
    #[arg(long, value_name = "PATH", default_value = ".", help_heading = WHAT)]
    pub(super) dir: PathBuf,
    /// Rounds of each row.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=1000),
        help_heading = HOW
    )]
    pub(super) rounds: u16,
    /// Seconds of one system in one round.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds, help_heading = HOW)]
    pub(super) slice: f64,
    /// Seconds of quiet after the load, before sizes are taken.
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds, help_heading = HOW)]
    pub(super) quiet: f64,
    /// A smoke test: few keys, one round, short slices; its figures mean nothing.
    #[arg(long, help_heading = HOW)]
    pub(super) quick: bool,
    /// Exit with code 1 if a bar that was measured does not hold.
    #[arg(long, help_heading = OUTPUT)]
    pub(super) check: bool,
    /// Report for programs: one JSON document with every round.
    #[arg(long, help_heading = OUTPUT)]
    pub(super) json: bool,
    /// Write the table as a page of Markdown, too.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) markdown: Option<PathBuf>,
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum RowName {
    /// Disk space after a random load and a quiet time.
    Size,
    /// Random get, in memory, one thread.
    Get,
    /// Ranges of 100 keys from a random start.
    Range,
    /// Durable random puts in batches of 64.
    #[value(name = "put-64")]
    Put64,
    /// Durable random puts one by one, beside a bare `O_DSYNC` append.
    #[value(name = "put-1")]
    Put1,
    /// The slowest of a thousand puts while checkpoints run.
    Pauses,
    /// Random get from data of four times the memory, 16 in flight.
    Larger,
    /// Log appends of 64 KiB, beside bare ones.
    Log,
    /// Open after a clean stop, with much data and with little.
    Open,
    /// Instructions of an operation; only where valgrind is installed.
    Instructions,
}

/// A store to measure beside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum PeerName {
    /// Every one that is built in.
    All,
    /// No one.
    None,
    Lmdb,
    #[value(name = "rocksdb")]
    RocksDb,
    Redb,
    Fjall,
}

impl EngineFlags {
    /// What the flags say together that none says alone.
    ///
    /// # Errors
    /// [`BenchError::Usage`]
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let alone = [PeerName::All, PeerName::None];
        if self.peers.len() > 1 && self.peers.iter().any(|peer| alone.contains(peer)) {
            return Err(BenchError::Usage("--peers: `all` and `none` stand alone".into()));
        }
        Ok(())
    }

    pub(super) fn wants(&self, row: RowName) -> bool {
        self.rows.is_empty() || self.rows.contains(&row)
    }

    pub(super) fn wants_peer(&self, peer: PeerName) -> bool {
        self.peers.contains(&PeerName::All) || self.peers.contains(&peer)
    }

    pub(super) fn slice(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.05 } else { self.slice })
    }

    pub(super) fn quiet(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.1 } else { self.quiet })
    }

    pub(super) fn rounds(&self) -> usize {
        if self.quick { 1 } else { usize::from(self.rounds) }
    }

    pub(super) fn keys(&self) -> u32 {
        if self.quick { self.keys.min(20_000) } else { self.keys }
    }
}

fn page_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ (4096 | 8192 | 16384)) => Ok(bytes),
        _ => Err("a page has 4096, 8192 or 16384 bytes".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "from 0.01 to 86400 seconds".into())
}
