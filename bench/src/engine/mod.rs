//! `mesh-bench engine`: the page store and the log without a server around them, beside other stores and the bare device.
//!
//! `flags` says what is wanted. `rows` are the table's, each with its work and its bars; the systems that do the work are behind
//! `system`: `replica` is Mesh (the real store and log, driven by one thread over `files`), `peers` are the others, `bare` is the
//! device alone. `counting` counts instructions of a store in memory (`resident`) and of a server without a host (`server`). The table
//! with its bars is `crate::table`.
//!
//! Invariants:
//! - A figure is compared only with figures of the same run, and rounds of the systems are interleaved.
//! - Durability, checks and caches are those that the systems are used with; none is loosened for a figure.
//! - `unsafe` is in `files/ring` and, where peers are built in, in the opening of LMDB.
//!
//! Deliberately absent: the network, raft and sessions. `mesh-bench run` measures those.

pub(crate) mod bare;
mod counting;
mod data;
mod files;
mod flags;
mod peers;
mod place;
mod replica;
mod resident;
mod rows;
mod server;
mod system;

use std::fs;
use std::io::Write;

pub(crate) use self::counting::{CountFlags, count};
pub(crate) use self::flags::EngineFlags;
use self::flags::{PeerName, RowName};
use self::system::{Run, failed};
use crate::error::{BenchError, Exit};
use crate::machine::Machine;
use crate::progress::show;
use crate::table::{Form, Table};

/// Measures what the flags want, and reports.
///
/// # Errors
/// Why there is no table.
pub(crate) fn run(flags: &EngineFlags) -> Result<Exit, BenchError> {
    flags.check()?;
    let machine = Machine::look();
    let mut rows = rows::data_set(flags)?;
    rows.extend(rows::pauses(flags)?);
    rows.extend(rows::larger(flags)?);
    rows.extend(rows::log(flags)?);
    rows.extend(rows::open(flags)?);
    rows.extend(counting::row(flags)?);
    let table = Table {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        machine,
        rounds: flags.rounds(),
        seconds_of_a_slice: flags.slice().as_secs_f64(),
        rows,
        notes: notes(flags),
    };
    show("");
    report(flags, &table)?;
    Ok(if flags.check && table.fails() { Exit::BarFails } else { Exit::Done })
}

fn report(flags: &EngineFlags, table: &Table) -> Run<()> {
    if let Some(path) = &flags.markdown {
        fs::write(path, table.render(Form::Markdown)?).map_err(failed("--markdown"))?;
    }
    let page = table.render(if flags.json { Form::Json } else { Form::Text })?;
    Ok(std::io::stdout().write_all(page.as_bytes())?)
}

fn notes(flags: &EngineFlags) -> Vec<String> {
    let mut notes = Vec::new();
    if !peers::ARE_BUILT_IN && !flags.peers.contains(&PeerName::None) {
        notes.push(
            "LMDB, RocksDB, redb and fjall are not built in (cargo feature `peers`) and were not measured"
                .into(),
        );
    }
    if flags.wants(RowName::Instructions) && !counting::is_there() {
        notes.push("valgrind is not installed: instructions were not counted".into());
    }
    if flags.quick {
        notes.push("A smoke test: these figures mean nothing".into());
    }
    notes
}
