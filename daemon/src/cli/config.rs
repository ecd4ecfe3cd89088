//! From flags and the configuration file to a node's configuration.
//!
//! Invariant: a flag overrides the file, the file overrides the default, and a key that the file should not have is an
//! error.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use mesh_base::limits::SNAPSHOT_BYTES_PER_SECOND;
use serde::Deserialize;

use super::args::NodeFlags;
use super::error::CliError;
use super::machine;
use super::quantity::{CpuList, MemorySize};
use crate::core::NodeName;
use crate::host::PORT;
use crate::node::NodeConfig;
use crate::node::config::CORE_MEMORY_BYTES_MIN;

/// The keys of a configuration file: the names of the flags.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct File {
    node: Option<String>,
    listen: Option<String>,
    peers: Option<Peers>,
    data: Option<PathBuf>,
    cores: Option<CpuList>,
    shards: Option<u16>,
    memory: Option<MemorySize>,
    #[serde(rename = "snapshot-rate")]
    snapshot_rate: Option<MemorySize>,
    advertise: Option<String>,
}

/// Peers in a file: as on the command line, or as a list.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum Peers {
    List(Vec<String>),
    Line(String),
}

impl From<Peers> for Vec<String> {
    fn from(peers: Peers) -> Self {
        match peers {
            Peers::List(list) => list,
            Peers::Line(line) => line.split(',').map(str::to_owned).collect(),
        }
    }
}

/// A node's configuration, checked.
pub(super) fn node_config(flags: &NodeFlags) -> Result<NodeConfig, CliError> {
    let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let flags = flags.clone();
    let Some(name) = flags.node.or(file.node) else {
        return Err(CliError::Usage(
            "--node is missing: give the node a name, as `mesh-server --node a`; --help tells more".into(),
        ));
    };
    let listen = flags.listen.or(file.listen).unwrap_or_else(|| format!(":{PORT}"));
    let listen = with_port(&listen).map_err(|why| CliError::Usage(format!("--listen: {why}")))?;
    let peers = flags.peers.or(file.peers.map(Into::into)).unwrap_or_default();
    let peers = peers.iter().map(|peer| read_peer(peer)).collect::<Result<_, _>>()?;
    let advertise = match flags.advertise.or(file.advertise) {
        Some(address) => with_port(&address).map_err(|why| CliError::Usage(format!("--advertise: {why}")))?,
        None => advertised(&listen),
    };
    let data = flags.data.or(file.data).unwrap_or_else(|| Path::new("mesh-data").join(&name));
    let cpus = flags.cores.or(file.cores).map_or_else(machine::allowed_cpus, |CpuList(cpus)| cpus);
    let memory =
        flags.memory.or(file.memory).map_or_else(|| default_memory(cpus.len()), |MemorySize(bytes)| bytes);
    let config = NodeConfig {
        name: NodeName::from(name.as_str()),
        listen,
        advertise,
        peers,
        data,
        cpus,
        shards: flags.shards.or(file.shards),
        memory_bytes: memory,
        snapshot_bytes_per_second: flags
            .snapshot_rate
            .or(file.snapshot_rate)
            .map_or(SNAPSHOT_BYTES_PER_SECOND, |MemorySize(bytes)| bytes),
    };
    check(&config)?;
    Ok(config)
}

/// Whether a node can run so on this machine.
pub(super) fn check(config: &NodeConfig) -> Result<(), CliError> {
    config.validate().map_err(CliError::Usage)?;
    let allowed = machine::allowed_cpus();
    if let Some(cpu) = config.cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        let allowed = allowed.join(",");
        let why = format!("--cores: this process may not use processor {cpu}, only {allowed}");
        return Err(CliError::Usage(why));
    }
    // Replicas share the memory, whatever cores they are on; each has to hold its largest entry.
    let least = CORE_MEMORY_BYTES_MIN * u64::from(config.shards.unwrap_or_default());
    if config.memory_bytes < least {
        let (shards, least) = (config.shards.unwrap_or_default(), MemorySize(least));
        return Err(CliError::Usage(format!("--memory: {shards} shards (--shards) need at least {least}")));
    }
    if let Some(bytes) = machine::memory_bytes().filter(|bytes| config.memory_bytes > *bytes) {
        let (asked, there) = (MemorySize(config.memory_bytes), MemorySize(bytes));
        return Err(CliError::Usage(format!("--memory: {asked} is more than the {there} that there are")));
    }
    Ok(())
}

fn read(path: &Path) -> Result<File, CliError> {
    let text = fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| CliError::Usage(format!("--config {}: {error}", path.display())))
}

/// `NAME=HOST:PORT`, or a bare `NAME` that the node looks up.
fn read_peer(peer: &str) -> Result<(NodeName, String), CliError> {
    let peer = peer.trim();
    let (name, address) = peer.split_once('=').unwrap_or((peer, peer));
    let wrong = |why: &str| {
        CliError::Usage(format!("--peers: `{peer}`: {why}; write NAME=HOST:PORT, or a bare NAME"))
    };
    if name.is_empty() {
        return Err(wrong("it has no name"));
    }
    if address == name && !peer.contains('=') {
        return Ok((NodeName::from(name), name.to_owned()));
    }
    let address = with_port(address).map_err(|why| wrong(&why))?;
    if address.starts_with(':') {
        return Err(wrong("it has no host"));
    }
    Ok((NodeName::from(name), address))
}

/// An address with a port: that of a node unless it has one.
fn with_port(address: &str) -> Result<String, String> {
    let address = address.trim();
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(address.to_owned());
    }
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => return Ok(format!("[{ip}]:{PORT}")),
        Ok(IpAddr::V4(ip)) => return Ok(format!("{ip}:{PORT}")),
        Err(_) => {}
    }
    let (host, port) = match address.rsplit_once(':') {
        None if address.is_empty() => return Err("the address is empty".into()),
        None => return Ok(format!("{address}:{PORT}")),
        Some(parts) => parts,
    };
    if host.contains([':', '/', '=', ' ']) {
        return Err(format!("`{address}` is not an address"));
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(address.to_owned()),
        Err(_) => Err(format!("`{port}` is not a port, a number up to 65535")),
    }
}

/// Where a node that listens so is reached, unless the operator says.
fn advertised(listen: &str) -> String {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, ""));
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if host.is_empty() || ip.is_ok_and(|ip| ip.is_unspecified()) {
        return format!("{}:{port}", machine::network_address());
    }
    listen.to_owned()
}

/// A quarter of the machine's memory, and never less than the cores need.
fn default_memory(cores: usize) -> u64 {
    let quarter = machine::memory_bytes().unwrap_or_default() / 4;
    quarter.max(CORE_MEMORY_BYTES_MIN * cores as u64)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn config(line: &str) -> Result<NodeConfig, CliError> {
        node_config(&Cli::try_parse_from(format!("mesh {line}").split_whitespace()).unwrap().node)
    }

    fn refusal(line: &str) -> String {
        config(line).unwrap_err().to_string()
    }

    fn with_file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mesh.toml");
        fs::write(&path, text).unwrap();
        let flag = format!("--config {}", path.display());
        (directory, flag)
    }

    #[test]
    fn a_name_is_enough_for_a_node() {
        let node = config("--node a").unwrap();
        assert_eq!((node.name.as_str(), node.listen.as_str()), ("a", ":7700"));
        assert_eq!(node.data, Path::new("mesh-data/a"));
        assert!(node.advertise.ends_with(":7700") && node.advertise.len() > 5);
        assert_eq!(node.cpus, machine::allowed_cpus());
        assert!(node.peers.is_empty() && node.shards.is_none());
        assert!(refusal("--listen :1").contains("--node"));
    }

    #[test]
    fn flags_say_what_the_node_is_like() {
        let line = "--node b --listen 127.0.0.1:7701 --peers a=h1:1,c,d=h4 --data /d --cores 0 --shards 2 --memory 256MiB";
        let node = config(line).unwrap();
        let peers: Vec<_> =
            node.peers.iter().map(|(name, address)| (name.as_str(), address.as_str())).collect();
        assert_eq!(peers, [("a", "h1:1"), ("c", "c"), ("d", "h4:7700")]);
        assert_eq!((node.advertise.as_str(), node.memory_bytes), ("127.0.0.1:7701", 256 << 20));
        assert_eq!((node.cpus, node.shards), (vec![0], Some(2)));
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let text = "node = \"a\"\nlisten = \":1234\"\npeers = [\"b=h:1\", \"c\"]\ncores = \"0\"\nmemory = \"1GiB\"\n";
        let (_kept, flag) = with_file(text);
        let node = config(&format!("{flag} --listen 127.0.0.1:99")).unwrap();
        assert_eq!(
            (node.name.as_str(), node.listen.as_str(), node.memory_bytes),
            ("a", "127.0.0.1:99", 1 << 30)
        );
        assert_eq!(node.peers.len(), 2);
        let (_kept, flag) = with_file("node = \"a\"\npeers = \"b=h:1,c\"\n");
        assert_eq!(config(&flag).unwrap().peers.len(), 2);
    }

    #[test]
    fn a_file_with_a_wrong_key_or_value_is_refused_by_name() {
        let (_kept, flag) = with_file("node = \"a\"\nlisen = \":1\"\n");
        let why = refusal(&flag);
        assert!(why.contains("mesh.toml") && why.contains("lisen") && why.contains("listen"), "{why}");
        let (_kept, flag) = with_file("node = \"a\"\nmemory = \"lots\"\n");
        let why = refusal(&flag);
        assert!(why.contains("memory") && why.contains("as 4GiB"), "{why}");
        assert!(refusal("--config /no/such/file").contains("/no/such/file"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_flag_and_the_remedy() {
        for (line, flag, word) in [
            ("--node a/b", "--node", "letters"),
            ("--node a --listen nowhere:x", "--listen", "port"),
            ("--node a --advertise h:99999", "--advertise", "65535"),
            ("--node a --peers a=h:1", "--peers", "itself"),
            ("--node a --peers b=:1", "--peers", "no host"),
            ("--node a --peers =h:1", "--peers", "no name"),
            ("--node a --peers b=h:1,b=h:2", "--peers", "twice"),
            ("--node a --shards 0", "--shards", "between"),
            ("--node a --cores 0 --memory 1MiB", "--memory", "at least"),
            ("--node a --cores 0 --shards 8 --memory 256MiB", "--memory", "8 shards"),
            ("--node a --cores 0 --memory 1000TiB", "--memory", "more than"),
            ("--node a --cores 4000 --memory 1GiB", "--cores", "4000"),
        ] {
            let why = refusal(line);
            assert!(why.contains(flag) && why.contains(word), "{line}: {why}");
        }
    }

    #[test]
    fn a_node_that_listens_everywhere_is_reached_at_the_hosts_address() {
        for listen in [":7", "0.0.0.0:7", "[::]:7"] {
            let address: SocketAddr = advertised(listen).parse().unwrap();
            assert!(!address.ip().is_unspecified() && address.port() == 7, "{listen}");
        }
        assert_eq!(advertised("host:7"), "host:7");
        assert_eq!(with_port("::1"), Ok("[::1]:7700".into()));
    }
}
