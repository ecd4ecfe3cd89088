//! Instructions of an operation: the figure that does not drift with the machine's other work.
//!
//! The program runs itself under `valgrind --tool=callgrind`, once with no operation after the load and once with many. The
//! difference is what the operations took. Counted are instructions of the program alone: no kernel, no device.

use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use mesh_engine::StoreOptions;

use super::data::{Data, Key};
use super::flags::{EngineFlags, RowName};
use super::resident::{ResidentLog, ResidentStore};
use super::server::ResidentServer;
use super::system::{Run, failed};
use crate::error::{BenchError, Exit};
use crate::progress::show;
use crate::table::{Rounds, Row, Unit};

const NAME: &str = "the count of instructions";
/// Keys in the store: a tree of three levels.
const KEYS: u32 = 30_000;
/// Operations of the longer run.
const OPERATIONS: u32 = 2000;
const RANGE_KEYS: u32 = 100;

/// What `mesh-bench count` does under callgrind; of no use without.
#[derive(Args, Clone, Debug)]
pub(crate) struct CountFlags {
    /// What to do after the load.
    #[arg(long)]
    work: Work,
    /// How often.
    #[arg(long)]
    operations: u32,
    /// Bytes of a page.
    #[arg(long)]
    page_bytes: usize,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Work {
    /// A point lookup.
    Get,
    /// An entry of one put: encoded, appended to the log, validated, applied.
    Put,
    /// An entry of 64 puts: validated and applied.
    Apply,
    /// A range of 100 keys.
    Range,
    /// A read by a client, of 16 in a turn: from its frame to its answer's.
    ServerGet,
    /// A write by a client, of 16 in a turn: the same.
    ServerPut,
}

impl Work {
    const ALL: [Self; 6] = [Self::Get, Self::Put, Self::Apply, Self::Range, Self::ServerGet, Self::ServerPut];

    const fn in_words(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put: encode, append, validate, apply",
            Self::Apply => "apply of a batch of 64, for each key",
            Self::Range => "range of 100 keys",
            Self::ServerGet => "get of a client, 16 in a turn",
            Self::ServerPut => "put of a client, 16 in a turn",
        }
    }

    /// Keys of one operation's entry.
    const fn batch(self) -> u32 {
        match self {
            Self::Apply => 64,
            Self::ServerGet | Self::ServerPut => 16,
            Self::Get | Self::Put | Self::Range => 1,
        }
    }
}

/// The part that runs under callgrind.
///
/// # Errors
/// The store's.
pub(crate) fn count(flags: &CountFlags) -> Result<Exit, BenchError> {
    let mut data = Data::new(KEYS, 1);
    let (keys, value) = (data.load_order(), data.value().to_vec());
    if matches!(flags.work, Work::ServerGet | Work::ServerPut) {
        return count_of_server(flags, &mut data, &keys, &value);
    }
    let mut store = ResidentStore::load(flags.page_bytes, &keys, &value).map_err(failed(NAME))?;
    let mut log = ResidentLog::new().map_err(failed(NAME))?;
    for _ in 0..flags.operations / flags.work.batch() {
        let keys: Vec<Key> = match flags.work {
            Work::Range => data.starts(1, RANGE_KEYS),
            _ => data.keys(flags.work.batch() as usize),
        };
        let Some(first) = keys.first() else { continue };
        match flags.work {
            Work::Get => drop(store.get(first).map_err(failed(NAME))?),
            Work::Range => drop(store.range(first, RANGE_KEYS as usize).map_err(failed(NAME))?),
            Work::Put => {
                let entry = store.entry(&keys, &value);
                log.append(entry.clone()).map_err(failed(NAME))?;
                store.apply(&entry).map_err(failed(NAME))?;
            }
            Work::Apply => {
                let entry = store.entry(&keys, &value);
                store.apply(&entry).map_err(failed(NAME))?;
            }
            Work::ServerGet | Work::ServerPut => {}
        }
    }
    Ok(Exit::Done)
}

fn count_of_server(
    flags: &CountFlags,
    data: &mut Data,
    keys: &[Key],
    value: &[u8],
) -> Result<Exit, BenchError> {
    let mut server = ResidentServer::load(keys, value).map_err(failed(NAME))?;
    for _ in 0..flags.operations / flags.work.batch() {
        let keys = data.keys(flags.work.batch() as usize);
        let done = match flags.work {
            Work::ServerGet => server.get(&keys),
            _ => server.put(&keys, value),
        };
        done.map_err(failed(NAME))?;
    }
    Ok(Exit::Done)
}

/// The row of the table; nothing where valgrind is not installed.
///
/// # Errors
/// A run under callgrind failed.
pub(super) fn row(flags: &EngineFlags) -> Run<Option<Row>> {
    if !flags.wants(RowName::Instructions) || !is_there() {
        return Ok(None);
    }
    let page_bytes = flags.page_bytes.first().copied().unwrap_or(StoreOptions::default().page_bytes);
    let operations = if flags.quick { OPERATIONS / 10 } else { OPERATIONS };
    let mut rounds = Rounds::new("instructions of an operation (callgrind)", Unit::Instructions);
    for work in Work::ALL {
        show(&format!("counting the instructions of {}", work.in_words()));
        let (without, with) = (collected(work, 0, page_bytes)?, collected(work, operations, page_bytes)?);
        let done = operations / work.batch() * work.batch();
        rounds.add(&format!("Mesh, {}", work.in_words()), (with - without) / f64::from(done.max(1)));
    }
    rounds.note(format!("{KEYS} keys in memory, pages of {page_bytes} bytes, right after a checkpoint; drawing keys is included"));
    Ok(Some(rounds.row()))
}

/// Whether callgrind can be run.
pub(super) fn is_there() -> bool {
    let version =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Instructions of a run, as callgrind says at its end.
fn collected(work: Work, operations: u32, page_bytes: usize) -> Run<f64> {
    let program = std::env::current_exe().map_err(failed(NAME))?;
    let work = work.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["count", "--work", &work])
        .args(["--operations", &operations.to_string(), "--page-bytes", &page_bytes.to_string()])
        .output()
        .map_err(failed(NAME))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = instructions(&said).filter(|_| output.status.success());
    collected.ok_or_else(|| failed(NAME)(said.lines().last().unwrap_or("valgrind says nothing")))
}

/// The number behind `Collected :`.
fn instructions(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.split_once("Collected :")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_says_what_it_collected() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
        assert_eq!(instructions(said).map(|count| count.to_string()), Some("1234567".to_owned()));
        assert_eq!(instructions("valgrind: no such program"), None);
    }

    #[test]
    fn everything_that_is_counted_can_be_done() {
        for work in Work::ALL {
            let flags = CountFlags { work, operations: 64, page_bytes: 8192 };
            assert_eq!(count(&flags).unwrap(), Exit::Done);
        }
    }
}
