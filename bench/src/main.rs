//! `mesh-bench`: puts a system under load and says what it does.
//!
//! A run goes through these rooms in order: `cli`, `load` and `rate` say what is wanted, `target` reaches the system and says where keys
//! belong, `keyspace` lays out keys and values, `run` sees to it that they are there and has `generator` make the load
//! with threads (`core`) and their connections (`connection`), which `workload` feeds, `collector` puts together what they counted (`stats`, `tally`), and
//! `report` tells it. `filling` goes once through all keys, before a load and after it.
//!
//! Commands with rooms of their own: `compare` puts other systems beside Mesh, and the least that work takes, `failover` takes their leaders away, `footprint` weighs idle
//! ones, `scale` goes through cores, shards and loads of Mesh; all four start systems by `fleet`, and one of them is this program as an `echo`. A `ledger` knows what was acknowledged. `engine` is the page store and the log without a
//! server. Where there are bars, `table` holds and judges them.
//!
//! Invariants:
//! - The generator costs less for an operation than the system does, and says so when it was the bottleneck.
//! - The report goes to stdout, and nothing else does.
//!
//! Deliberately absent: the client library. It would be measured as well.

mod buffers;
mod cli;
mod collector;
mod columns;
mod compare;
mod connection;
mod core;
mod cpu;
mod distribution;
mod echo;
mod engine;
mod error;
mod failover;
mod filling;
mod fleet;
mod footprint;
mod generator;
mod keyspace;
mod ledger;
mod load;
mod machine;
mod op;
mod opener;
mod pace;
mod plot;
mod progress;
mod rate;
mod report;
mod run;
mod scale;
mod socket;
mod stats;
mod table;
mod tally;
mod target;
mod workload;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to stdout.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let result = match &cli.command {
        Command::Run(flags) => run::run(flags),
        Command::Compare(flags) => compare::run(flags),
        Command::Roofline(flags) => compare::roofline::run(flags),
        Command::Scale(flags) => scale::run(flags),
        Command::Engine(flags) => engine::run(flags),
        Command::Count(flags) => engine::count(flags),
        Command::Failover(flags) => failover::run(flags),
        Command::Footprint(flags) => footprint::run(flags),
        Command::Launch(flags) => fleet::launch(flags),
        Command::Echo(flags) => echo::run(flags),
    };
    let exit = result.unwrap_or_else(|error| {
        // If stderr is closed, the exit code is all that is left to say.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        error.exit()
    });
    exit.into()
}
