//! The command line. `mesh` and `mesh-server` are one program under two names.
//!
//! Without a command it serves a node (`serve`); `dev` runs several in one process. The other commands ask a cluster as any
//! client would (`data`, `admin`, `status`), but for two that look at the files of a node that does not run (`verify`,
//! `inspect`).
//!
//! Invariants:
//! - What was asked for goes to stdout, and nothing else does; a value goes there byte for byte. Notes go to stderr.
//! - The exit code says what became of it, see `error`.
//! - Colours are for terminals only, and `NO_COLOR` turns them off.
//!
//! Deliberately absent: anything that a client library could not do as well, the running of nodes and the look at their
//! files aside.

mod admin;
mod args;
mod config;
mod data;
mod dev;
mod error;
mod inspect;
mod json;
mod key;
mod log;
mod machine;
mod offline;
mod output;
mod quantity;
mod serve;
mod status;
mod table;
mod terminal;
mod verify;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing::Level;

use self::args::{Cli, Command, NodeCommand};
use self::error::{CliError, Exit};
use self::output::{Format, Output};

/// Runs the program with the process's arguments, and says how the process is to end.
#[must_use]
pub fn run() -> ExitCode {
    run_with(std::env::args_os()).into()
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to stdout.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let serves = cli.command.is_none();
    log::log_to_stderr(&cli.log, if serves { Level::INFO } else { Level::WARN });
    let mut output = Output::new(if cli.client.json { Format::Json } else { Format::Text });
    match dispatch(&cli, &mut output) {
        Ok(exit) => exit,
        Err(error) => output.fail(&error),
    }
}

fn dispatch(cli: &Cli, output: &mut Output) -> Result<Exit, CliError> {
    let Some(command) = &cli.command else {
        if cli.node.is_empty() && called_as() != SERVER {
            let _ = Cli::command().print_help();
            return Ok(Exit::Usage);
        }
        return serve::serve(&cli.node, output);
    };
    if !cli.node.is_empty() {
        let why = "flags of a node (--node, --listen, --config ...) serve a node and go without a command";
        return Err(CliError::Usage(why.into()));
    }
    let client = &cli.client;
    match command {
        Command::Dev(flags) => dev::dev(flags, output),
        Command::Put(put) => data::put(client, put, output),
        Command::Get(get) => data::get(client, get, output),
        Command::Del(del) => data::delete(client, del, output),
        Command::Incr(incr) => data::increment(client, incr, output),
        Command::Range(range) => data::range(client, range, output),
        Command::Status => status::status(client, output),
        Command::Node { command: NodeCommand::Replace(replace) } => admin::replace(client, replace, output),
        Command::Verify(flags) => verify::verify(flags, output),
        Command::Inspect(flags) => inspect::inspect(flags, output),
        Command::Completions { shell } => admin::completions(*shell, output),
    }
}

/// The name under which the program is meant to serve.
const SERVER: &str = "mesh-server";

/// The name by which the program was called.
fn called_as() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or("mesh").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its path.
    fn commands(of: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for command in of.get_subcommands().filter(|command| command.get_name() != "help") {
            let path = format!("{path} {}", command.get_name());
            found.push((path.clone(), command.clone()));
            commands(command, &path, found);
        }
    }

    #[test]
    fn the_help_of_every_command_has_examples_that_parse() {
        let mut found = vec![("mesh".to_owned(), Cli::command())];
        commands(&Cli::command(), "mesh", &mut found);
        assert!(found.len() > 8);
        for (path, mut command) in found {
            let help = command.render_long_help().to_string();
            let (_, examples) =
                help.split_once("Examples:\n").unwrap_or_else(|| panic!("{path} has no examples"));
            let lines: Vec<_> =
                examples.lines().map(str::trim).filter(|line| line.starts_with("mesh")).collect();
            assert!(!lines.is_empty(), "{path} has no examples");
            for line in lines {
                let line = line.split(['#', '|', '>', '<']).next().unwrap_or_default().trim();
                let parsed = Cli::try_parse_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{path}: `{line}`: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_goes_without_the_flags_of_a_node() {
        let cli = Cli::try_parse_from(["mesh", "--node", "a", "get", "k"]).unwrap();
        let refused = dispatch(&cli, &mut Output::new(Format::Text));
        assert!(matches!(refused, Err(CliError::Usage(_))));
    }

    #[test]
    fn endpoints_and_timeout_may_stand_before_and_after_the_command() {
        for line in
            ["mesh --timeout 1s --endpoints a:1,b:2 get k", "mesh get k --timeout 1s --endpoints a:1,b:2"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.client.endpoints, ["a:1", "b:2"]);
            assert_eq!(cli.client.timeout, std::time::Duration::from_secs(1));
        }
    }
}
