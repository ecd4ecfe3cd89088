//! Commands on nodes, and on the program itself.

use clap::CommandFactory;
use serde::Serialize;

use super::args::{Cli, ClientFlags, Replace};
use super::called_as;
use super::data::{connect, wait};
use super::error::{CliError, Exit};
use super::output::{Format, Output};

#[derive(Serialize)]
struct ReplacedDocument<'a> {
    name: &'a str,
    node: u64,
    replica: u64,
    state: String,
}

/// `mesh node replace`
pub(super) fn replace(flags: &ClientFlags, replace: &Replace, output: &mut Output) -> Result<Exit, CliError> {
    let name = &replace.name;
    let replaced = wait(async {
        let (cluster, _) = connect(flags).await?;
        Ok(cluster.replace_node(name).await?)
    })?;
    match output.format() {
        Format::Text => {
            output.line(format_args!("the place of node {name} is free: its id is now {}", replaced.node))?;
            output.hint(format_args!(
                "Start an empty node of that name, with the others as its peers:\n  \
                 mesh-server --node {name} --peers NAME=HOST:PORT,...\n\
                 It catches up by itself; `mesh status` shows how far it is."
            ));
        }
        Format::Json => output.document(&ReplacedDocument {
            name,
            node: replaced.node.0,
            replica: replaced.replica.0,
            state: replaced.state.to_string(),
        })?,
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// `mesh completions`
pub(super) fn completions(shell: clap_complete::Shell, output: &mut Output) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), called_as(), &mut script);
    output.bytes(&script)?;
    output.flush()?;
    Ok(Exit::Done)
}
