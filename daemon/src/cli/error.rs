//! Why a command failed, and how the process ends.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use mesh_client::Error as ClientError;

use crate::host::HostError;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// What was asked for is done.
    Done,
    /// The key does not exist.
    NotFound,
    /// The command line is wrong.
    Usage,
    /// The cluster answered with an error.
    Refused,
    /// The cluster could not be reached in time.
    Unreachable,
    /// A node could not run, or not go on.
    NodeFailed,
    /// Files of a node are damaged.
    Damaged,
    /// A condition did not hold.
    Conflict,
}

impl Exit {
    /// The process's exit code.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotFound => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::NodeFailed => 5,
            Self::Damaged => 6,
            Self::Conflict => 7,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The command line, or a configuration file, is wrong.
    #[error("{0}")]
    Usage(String),
    /// The cluster, or the library, says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A node cannot run.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A node cannot go on.
    #[error("node {node}: {reason}")]
    Fatal {
        /// The node.
        node: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// A cluster for development cannot have its ports.
    #[error(
        "address {address} is in use by another program, or by another `mesh dev`; choose other ports, as \
         `mesh dev --port {another}`"
    )]
    PortInUse {
        /// The address of the first node that cannot have its own.
        address: String,
        /// A port that is not among those tried.
        another: u16,
    },
    /// A cluster for development is running on the same files.
    #[error(
        "data directory {} is in use by process {pid} (node {node}): another `mesh dev` runs there; stop it, or run this \
         one beside it, as `mesh dev --data {}-2 --port {another}`",
        path.display(),
        parent.display()
    )]
    DataInUse {
        /// The node's data directory.
        path: PathBuf,
        /// The cluster's.
        parent: PathBuf,
        /// The process that holds it.
        pid: String,
        /// The node that it runs there.
        node: String,
        /// A port that is not among those asked for.
        another: u16,
    },
    /// A file cannot be read.
    #[error("--config {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// What was asked for cannot be told, because the files of a node cannot be read.
    #[error("{file}: {why}")]
    Unreadable {
        /// The file or the directory, from the data directory on.
        file: String,
        /// What keeps it from being read.
        why: String,
    },
    /// Stdin or stdout failed, or the system refused something the program needs.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

impl CliError {
    /// Makes an error of one of the system's.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// The error's name, for programs.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Usage(_) => "Usage",
            Self::Client(error) => error.name(),
            Self::Host(_) => "Host",
            Self::Fatal { .. } => "Fatal",
            Self::PortInUse { .. } => "PortInUse",
            Self::DataInUse { .. } => "DataInUse",
            Self::File { .. } => "File",
            Self::Unreadable { .. } => "Unreadable",
            Self::Io { .. } => "Io",
        }
    }

    /// How the process ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::File { .. } => Exit::Usage,
            Self::Client(error) => exit_of(error),
            Self::Unreadable { .. } => Exit::Damaged,
            Self::Host(_)
            | Self::Fatal { .. }
            | Self::PortInUse { .. }
            | Self::DataInUse { .. }
            | Self::Io { .. } => Exit::NodeFailed,
        }
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::NoEndpoints
        | ClientError::BadEndpoint { .. }
        | ClientError::EmptyKey
        | ClientError::TooLarge { .. }
        | ClientError::Cursor { .. } => Exit::Usage,
        ClientError::Unreachable { .. }
        | ClientError::DeadlineExceeded { .. }
        | ClientError::Unknown { last: None } => Exit::Unreachable,
        ClientError::Conflict { .. } => Exit::Conflict,
        // A write that was cut off, or whose last news was that nobody answers.
        ClientError::Unknown { last: Some(error) } | ClientError::Partial { error, .. } => exit_of(error),
        _ => Exit::Refused,
    }
}

#[cfg(test)]
mod tests {
    use mesh_client::{CursorFlaw, ShardId, Tried};

    use super::*;

    #[test]
    fn exit_codes_tell_who_is_to_act() {
        let unreachable =
            || ClientError::Unreachable { tried: vec![Tried { endpoint: "a:1".into(), why: "no".into() }] };
        let no_quorum = ClientError::NoQuorum { shard: ShardId(0), why: "no".into() };
        for (error, code) in [
            (ClientError::EmptyKey, 2),
            (ClientError::Cursor { flaw: CursorFlaw::Malformed }, 2),
            (no_quorum, 3),
            (ClientError::NoSpace, 3),
            (ClientError::Conflict { key: mesh_client::Bytes::new(), revision: mesh_client::Revision(1) }, 7),
            (unreachable(), 4),
            (ClientError::Unknown { last: None }, 4),
            (ClientError::Unknown { last: Some(Box::new(unreachable())) }, 4),
            (ClientError::Unknown { last: Some(Box::new(ClientError::NoSpace)) }, 3),
        ] {
            assert_eq!(CliError::from(error.clone()).exit().code(), code, "{error}");
        }
        assert_eq!(CliError::Usage("no".into()).exit().code(), 2);
        assert_eq!(CliError::Fatal { node: "a".into(), reason: "no".into() }.exit().code(), 5);
    }
}
