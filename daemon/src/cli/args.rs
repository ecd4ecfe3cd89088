//! What may stand on the command line, and the help for it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mesh_client::{Cursor, Revision};

use super::key::{self, Key};
use super::log::LogFilter;
use super::quantity::{CpuList, MemorySize, parse_duration};

const EXAMPLES: &str = "\
Examples:
  mesh dev                                     # a cluster of three nodes in this terminal
  mesh put greeting hello                      # then, in another
  mesh get greeting
  mesh-server --node a --peers b=host2,c=host3 # a node of a real cluster

Keys may hold any bytes: \\xHH stands for the byte with that number and \\\\ for a backslash,
in what is typed and in what is printed. Put such a key in single quotes.

Exit codes: 0 done, 1 not found, 2 wrong usage, 3 the cluster answered with an error,
4 it could not be reached in time, 5 a node could not run, 6 files of a node are damaged,
7 a condition did not hold.";

const NODE: &str = "Serve a node (without a command)";
const CLIENT: &str = "Ask a cluster";
const OUTPUT: &str = "Output";
const CONDITIONS: &str = "Conditions";

/// Mesh: a replicated key/value store.
///
/// Commands ask a cluster. Without a command, --node and the other flags of a node make this process serve one; `mesh` and
/// `mesh-server` are the same program.
#[derive(Parser, Debug)]
#[command(name = "mesh", version, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) node: NodeFlags,
    #[command(flatten)]
    pub(super) client: ClientFlags,
    #[command(flatten)]
    pub(super) log: LogFlags,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What makes the process serve a node.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = NODE)]
pub(super) struct NodeFlags {
    /// The node's name, kept for ever: letters, digits, `-`, `_` and `.`.
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// Where to listen, for clients and nodes alike [default: :7700]
    #[arg(long, value_name = "[HOST]:PORT")]
    pub(super) listen: Option<String>,
    /// The other nodes of the cluster, as NAME=HOST:PORT. A bare NAME is a host on port 7700 or else a node that runs on
    /// this host. None: a cluster of one node.
    #[arg(long, value_name = "NAME=HOST:PORT,...", value_delimiter = ',')]
    pub(super) peers: Option<Vec<String>>,
    /// Where the node keeps its files [default: ./mesh-data/NAME]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Processors to run on, one core each [default: all that this process may use]
    #[arg(long, value_name = "LIST, as 0-3,6")]
    pub(super) cores: Option<CpuList>,
    /// Shards of a cluster that is to be born, the same on every node [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(super) shards: Option<u16>,
    /// Memory to use at most [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE, as 4GiB")]
    pub(super) memory: Option<MemorySize>,
    /// Bytes in a second that each core sends, at most, to nodes that fell far behind [default: 32MiB]
    #[arg(long, value_name = "SIZE, as 32MiB")]
    pub(super) snapshot_rate: Option<MemorySize>,
    /// The address by which nodes and clients reach this node [default: of --listen, or this host's on the network]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) advertise: Option<String>,
    /// A file with any of these as `name = value` lines (TOML). Flags override it.
    #[arg(long, value_name = "FILE.toml")]
    pub(super) config: Option<PathBuf>,
}

impl NodeFlags {
    /// Whether none was given.
    pub(super) const fn is_empty(&self) -> bool {
        let Self { node, listen, peers, data, cores, shards, memory, snapshot_rate, advertise, config } =
            self;
        node.is_none()
            && listen.is_none()
            && peers.is_none()
            && data.is_none()
            && cores.is_none()
            && shards.is_none()
            && memory.is_none()
            && snapshot_rate.is_none()
            && advertise.is_none()
            && config.is_none()
    }
}

/// What all commands that ask a cluster have.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = CLIENT)]
pub(super) struct ClientFlags {
    /// Nodes of the cluster; one that answers is enough.
    #[arg(
        long,
        global = true,
        env = "MESH_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:7700"
    )]
    pub(super) endpoints: Vec<String>,
    /// How long to go on trying.
    #[arg(long, global = true, value_name = "TIME, as 5s or 300ms", default_value = "5s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    /// Output for programs: one JSON document, or one a line where there are many.
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub(super) json: bool,
}

/// What the program says of its workings.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct LogFlags {
    /// Events to log on stderr: a level, or levels of parts [default: warn; info when serving a node]
    #[arg(long, global = true, env = "MESH_LOG", value_name = "LEVEL", hide_env_values = true)]
    pub(super) log: Option<LogFilter>,
    /// Log as JSON, an event a line.
    #[arg(long, global = true)]
    pub(super) log_json: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Dev(DevFlags),
    Put(Put),
    Get(Get),
    Del(Del),
    Incr(Incr),
    Range(RangeFlags),
    /// Shows how every node and shard is.
    #[command(after_help = "\
Examples:
  mesh status
  mesh status --json | jq '.nodes[].name'
  mesh --endpoints host1,host2 status")]
    Status,
    /// Works on the nodes of a cluster.
    #[command(after_help = "\
Examples:
  mesh node replace b")]
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    Verify(VerifyFlags),
    Inspect(InspectFlags),
    /// Prints the completions of a shell.
    #[command(after_help = "\
Examples:
  mesh completions bash > /etc/bash_completion.d/mesh
  mesh completions zsh > ~/.zfunc/_mesh
  mesh completions fish > ~/.config/fish/completions/mesh.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs a cluster in this process, for development: ready in a second, gone with Ctrl-C; its data stays.
///
/// Node a listens on the port, node b on the next one, and so on, for this host only. Each node has one core and each leads
/// a shard.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh dev
  mesh dev --nodes 1 --port 7800 --data /var/tmp/mesh
  mesh put greeting hello      # in another terminal")]
pub(super) struct DevFlags {
    /// How many nodes, named a, b, c and so on.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=26))]
    pub(super) nodes: u16,
    /// Where the nodes keep their files, each in a directory of its name.
    #[arg(long, value_name = "DIR", default_value = "./mesh-data")]
    pub(super) data: PathBuf,
    /// The first node's port.
    #[arg(long, value_name = "PORT", default_value_t = 7700, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: u16,
    /// Memory of each node [default: 96MiB for each shard, of which there are as many as nodes]
    #[arg(long, value_name = "SIZE, as 512MiB")]
    pub(super) memory: Option<MemorySize>,
}

/// Checks the files of a node that does not run, and says exactly what is damaged and what is intact.
///
/// The whole of every page store and log is read: each page against its checksum and the order of keys, each batch against
/// its own, and both against each other. Nothing is changed, and while it runs the node does not start. A node that runs is
/// not checked. Exit code: 0 if all is intact, 6 if anything is damaged.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh-server verify --data ./mesh-data/a
  mesh-server verify --data /var/lib/mesh --json | jq '.replicas[].damage[]'")]
pub(super) struct VerifyFlags {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
}

/// Prints what the files of a node that does not run hold, without judging it.
///
/// Superblock copies, tree, space and revisions of each page store; segments of each log. It goes on behind damage, as far
/// as anything can be read. Nothing is changed, and while it runs the node does not start. Exit code: 0, 1 if the key is in no
/// checkpoint, 6 if damage keeps what was asked for from being told.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh-server inspect --data ./mesh-data/a
  mesh-server inspect --data ./mesh-data/a --shard 0 --page 16
  mesh-server inspect --data ./mesh-data/a --key greeting        # every version of a key
  mesh-server inspect --data ./mesh-data/a --json | jq .log")]
pub(super) struct InspectFlags {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Only the replica of this shard.
    #[arg(long, value_name = "SHARD")]
    pub(super) shard: Option<u16>,
    /// Only one page of the page store, and all that is in it.
    #[arg(long, value_name = "PAGE", conflicts_with = "key")]
    pub(super) page: Option<u64>,
    /// Only the versions of one key; `\xHH` stands for a byte, `\\` for a backslash.
    #[arg(long, value_name = "KEY", value_parser = key::parser())]
    pub(super) key: Option<Key>,
}

/// Writes a key.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh put greeting hello
  mesh put config < config.json
  mesh put config - < config.json
  mesh put odd -- --value-with-dashes
  mesh put leader host1 --if-absent            # exit code 7 if it exists
  mesh put config new --if-revision 54720582100451328 --previous
  mesh put 'id\\x00\\xff' binary-key")]
pub(super) struct Put {
    /// The key; `\xHH` stands for a byte, `\\` for a backslash.
    #[arg(value_parser = key::parser())]
    pub(super) key: Key,
    /// The value, as it stands; read from stdin, byte for byte, if it is absent or `-`.
    pub(super) value: Option<OsString>,
    #[command(flatten)]
    pub(super) conditions: Conditions,
    /// Only if the key does not exist.
    #[arg(long, group = "condition", help_heading = CONDITIONS)]
    pub(super) if_absent: bool,
    /// Print what the key held before.
    #[arg(long)]
    pub(super) previous: bool,
}

/// What a key has to be for a write to be done. Exit code 7 if it is not.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = CONDITIONS)]
pub(super) struct Conditions {
    /// Only if this is the revision of the key's last change, as `mesh get --json` tells it; 0 for a key that must not exist.
    #[arg(long, value_name = "REVISION", group = "condition")]
    pub(super) if_revision: Option<u64>,
    /// Only if the key was written so many times since it came to be.
    #[arg(long, value_name = "N", group = "condition")]
    pub(super) if_version: Option<u64>,
    /// Only if the key exists.
    #[arg(long, group = "condition")]
    pub(super) if_exists: bool,
}

/// What is asked of a key that has to exist, or may have to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    Revision(Revision),
    Version(u64),
    Exists,
}

impl Conditions {
    /// The condition, if there is one; there is at most one.
    pub(super) fn asked(self) -> Option<Condition> {
        let revision = self.if_revision.map(|revision| Condition::Revision(Revision(revision)));
        let version = self.if_version.map(Condition::Version);
        revision.or(version).or(self.if_exists.then_some(Condition::Exists))
    }
}

/// Prints the value of a key, byte for byte. Exit code 1 if the key does not exist.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh get greeting
  mesh get config > config.json
  mesh get greeting --json
  mesh get greeting --rev 54720582100451328    # as it was then")]
pub(super) struct Get {
    /// The key; `\xHH` stands for a byte, `\\` for a backslash.
    #[arg(value_parser = key::parser())]
    pub(super) key: Key,
    /// As it was at a revision, which lies a minute back at most.
    #[arg(long, value_name = "REVISION")]
    pub(super) rev: Option<u64>,
}

/// Adds to the number that a key holds, in decimal digits, and prints the sum. A key that does not exist counts as 0.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh incr visits
  mesh incr stock -3
  mesh incr visits 10 --json")]
pub(super) struct Incr {
    /// The key; `\xHH` stands for a byte, `\\` for a backslash.
    #[arg(value_parser = key::parser())]
    pub(super) key: Key,
    /// How much is added.
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    pub(super) delta: i64,
}

/// Deletes keys. Exit code 1 if none of them existed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh del greeting
  mesh del a b c
  mesh del leader --if-revision 54720582100451328")]
pub(super) struct Del {
    /// The keys; `\xHH` stands for a byte, `\\` for a backslash.
    #[arg(required = true, value_name = "KEY", value_parser = key::parser())]
    pub(super) keys: Vec<Key>,
    #[command(flatten)]
    pub(super) conditions: Conditions,
}

/// Prints keys and values in order, one a line, with a tab between.
///
/// What would not be readable is written as `\xHH`, and a backslash as `\\`: in single quotes, a key can be pasted into
/// any other command as it stands. Use --json for programs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh range                           # all keys
  mesh range a n                       # from a up to, and without, n
  mesh range --prefix users/ --limit 10
  mesh range --prefix logs/ --reverse --keys-only
  mesh range --json | jq -r .key")]
pub(super) struct RangeFlags {
    /// The first key.
    #[arg(value_parser = key::parser())]
    pub(super) from: Option<Key>,
    /// The key to stop before.
    #[arg(value_parser = key::parser())]
    pub(super) to: Option<Key>,
    /// All keys that begin so.
    #[arg(long, conflicts_with = "from", value_parser = key::parser())]
    pub(super) prefix: Option<Key>,
    /// Stop after so many.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Go on behind an earlier range, which said so at its end.
    #[arg(long)]
    pub(super) cursor: Option<Cursor>,
    /// Keys alone.
    #[arg(long)]
    pub(super) keys_only: bool,
    /// From the last key back.
    #[arg(long)]
    pub(super) reverse: bool,
}

/// What can be done to nodes.
#[derive(Subcommand, Debug)]
pub(super) enum NodeCommand {
    Replace(Replace),
}

/// Gives the place of a lost node to an empty one of the same name.
///
/// First stop the lost node for good, then run this, then start an empty node of that name (on another machine or with an
/// empty data directory). It catches up by itself; `mesh status` shows how far it is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mesh node replace b
  mesh-server --node b --peers a=host1,c=host3   # then start the empty node")]
pub(super) struct Replace {
    /// The node's name.
    pub(super) name: String,
}
