//! `mesh dev`: a whole cluster in one process, for this host only.

use std::time::{Duration, Instant};

use mesh_base::limits::SNAPSHOT_BYTES_PER_SECOND;

use super::args::DevFlags;
use super::config::check;
use super::error::{CliError, Exit};
use super::machine::allowed_cpus;
use super::output::Output;
use super::quantity::MemorySize;
use super::serve::Running;
use crate::core::NodeName;
use crate::host::{HostError, PORT};
use crate::node::NodeConfig;
use crate::node::config::CORE_MEMORY_BYTES_MIN;

/// Nodes of one process find each other faster than this.
const PATIENCE: Duration = Duration::from_secs(3);

/// `mesh dev`
pub(super) fn dev(flags: &DevFlags, output: &mut Output) -> Result<Exit, CliError> {
    check_data(flags)?;
    let configs = configs(flags, &allowed_cpus())?;
    configs.iter().try_for_each(check)?;
    let nodes: Vec<_> = configs.iter().map(|node| format!("{} on {}", node.name, node.listen)).collect();
    let begun = Instant::now();
    let running = Running::start(configs).map_err(|error| in_words_of_dev(error, flags))?;
    output.note(format_args!("{}; data in {}", nodes.join(", "), flags.data.display()));
    running.until_stopped(PATIENCE, output, |output| {
        output.note(next_steps(flags, begun.elapsed().as_secs_f64()));
    })
}

/// A cluster keeps the number of nodes that it was born with.
fn check_data(flags: &DevFlags) -> Result<(), CliError> {
    let has_run = |name: &char| flags.data.join(name.to_string()).join("node/identity").exists();
    let born_with = ('a'..='z').filter(has_run).count();
    if born_with == 0 || born_with == usize::from(flags.nodes) {
        return Ok(());
    }
    let why = format!(
        "--nodes: {} holds a cluster of {born_with} node(s): say --nodes {born_with}, or choose another directory with --data",
        flags.data.display()
    );
    Err(CliError::Usage(why))
}

/// What is taken already is told with the flags that `mesh dev` has.
fn in_words_of_dev(error: CliError, flags: &DevFlags) -> CliError {
    let another = flags.port.checked_add(100).unwrap_or(PORT);
    match error {
        CliError::Host(HostError::AddressInUse { address }) => CliError::PortInUse { address, another },
        CliError::Host(HostError::InUse { path, pid, node }) => {
            CliError::DataInUse { path, parent: flags.data.clone(), pid, node, another }
        }
        other => other,
    }
}

/// The nodes' configurations: one core each, dealt out over the processors.
fn configs(flags: &DevFlags, cpus: &[usize]) -> Result<Vec<NodeConfig>, CliError> {
    let count = flags.nodes;
    if flags.port.checked_add(count - 1).is_none() {
        let why =
            format!("--port: {count} nodes need the ports from {} on, and 65535 is the last", flags.port);
        return Err(CliError::Usage(why));
    }
    let nodes: Vec<_> = (0..count).zip('a'..='z').map(|(number, name)| (number, name.to_string())).collect();
    let address = |number: u16| format!("127.0.0.1:{}", flags.port + number);
    let memory = flags.memory.map_or(CORE_MEMORY_BYTES_MIN * u64::from(count), |MemorySize(bytes)| bytes);
    let config = |(number, name): &(u16, String)| NodeConfig {
        name: NodeName::from(name.as_str()),
        listen: address(*number),
        advertise: address(*number),
        peers: nodes
            .iter()
            .filter(|(_, other)| other != name)
            .map(|(number, other)| (NodeName::from(other.as_str()), address(*number)))
            .collect(),
        data: flags.data.join(name),
        cpus: cpus.iter().copied().cycle().skip((*number).into()).take(1).collect(),
        shards: Some(count),
        memory_bytes: memory,
        snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND,
    };
    Ok(nodes.iter().map(config).collect())
}

/// What to type next.
fn next_steps(flags: &DevFlags, seconds: f64) -> String {
    let endpoints =
        if flags.port == PORT { String::new() } else { format!(" --endpoints 127.0.0.1:{}", flags.port) };
    format!(
        "ready after {seconds:.1} s. In another terminal:\n  \
         mesh{endpoints} put greeting hello\n  \
         mesh{endpoints} get greeting\n  \
         mesh{endpoints} status\n\
         Ctrl-C stops the cluster; its data stays in {}.",
        flags.data.display()
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn flags(line: &str) -> DevFlags {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Some(Command::Dev(flags)) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nodes_have_names_ports_and_processors_in_turn() {
        let nodes = configs(&flags("mesh dev --port 7800 --data /d"), &[4, 5]).unwrap();
        let [a, b, c] = <[NodeConfig; 3]>::try_from(nodes).unwrap();
        assert_eq!((a.name.as_str(), a.listen.as_str(), a.cpus), ("a", "127.0.0.1:7800", vec![4]));
        assert_eq!((c.listen.as_str(), c.cpus, c.shards), ("127.0.0.1:7802", vec![4], Some(3)));
        assert_eq!(b.data, std::path::Path::new("/d/b"));
        let peers: Vec<_> = b.peers.iter().map(|(name, address)| format!("{name}={address}")).collect();
        assert_eq!(peers, ["a=127.0.0.1:7800", "c=127.0.0.1:7802"]);
    }

    #[test]
    fn a_cluster_that_needs_more_ports_than_there_are_is_refused() {
        assert!(configs(&flags("mesh dev --port 65535"), &[0]).unwrap_err().to_string().contains("--port"));
        assert!(configs(&flags("mesh dev --port 65535 --nodes 1"), &[0]).is_ok());
        assert!(Cli::try_parse_from(["mesh", "dev", "--nodes", "0"]).is_err());
    }

    #[test]
    fn a_cluster_keeps_its_number_of_nodes() {
        let directory = tempfile::tempdir().unwrap();
        let line = format!("mesh dev --data {}", directory.path().display());
        assert!(check_data(&flags(&line)).is_ok());
        for name in ["a", "b", "c"] {
            std::fs::create_dir_all(directory.path().join(name).join("node/identity")).unwrap();
        }
        assert!(check_data(&flags(&line)).is_ok());
        let refused = check_data(&flags(&format!("{line} --nodes 5"))).unwrap_err();
        assert!(refused.to_string().contains("say --nodes 3"), "{refused}");
    }

    #[test]
    fn what_is_in_use_is_told_with_a_command_that_would_do() {
        let asked = flags("mesh dev --port 7800 --data ./d");
        let taken = HostError::InUse { path: "./d/a".into(), pid: "7".into(), node: "a".into() };
        let port = HostError::AddressInUse { address: "127.0.0.1:7801".into() };
        for (error, words) in [(taken, "./d/a is in use by process 7 (node a)"), (port, "127.0.0.1:7801")] {
            let told = in_words_of_dev(error.into(), &asked).to_string();
            assert!(told.contains(words), "{told}");
            let remedy = told.split('`').rfind(|part| part.contains("--port")).unwrap();
            assert!(Cli::try_parse_from(remedy.split(' ')).is_ok(), "{remedy}");
        }
    }

    #[test]
    fn the_next_steps_can_be_typed_as_they_stand() {
        for line in ["mesh dev", "mesh dev --port 9000"] {
            let steps = next_steps(&flags(line), 0.5);
            for step in steps.lines().map(str::trim).filter(|line| line.starts_with("mesh")) {
                assert!(Cli::try_parse_from(step.split(' ')).is_ok(), "{step}");
            }
        }
    }
}
