//! The files of a node that does not run, as `mesh-server verify` and `mesh-server inspect` look at them.
//!
//! Invariants:
//! - Nothing is written, made or removed, and no node starts meanwhile.
//! - Damage is what is looked for: none of it keeps the rest from being looked at.

mod files;
pub(super) mod log;
pub(super) mod store;

use std::path::{Path, PathBuf};

use mesh_base::io::FileId;
use mesh_base::{NodeId, ReplicaId, ShardId};

use self::files::Files;
use super::error::CliError;
use super::output::Output;
use crate::core::DirectoryKey;
use crate::host::DataLock;
use crate::node::identity::{self, FoundIdentity, IdentityState, IdentitySurvey};

/// A node's data directory.
pub(super) struct DataDirectory {
    pub(super) path: PathBuf,
    /// What its identity file holds; nothing if it cannot be read.
    pub(super) identity: Result<IdentitySurvey, String>,
    /// The replicas' directories there are, by shard and incarnation.
    pub(super) replicas: Vec<ReplicaDirectory>,
    _lock: DataLock,
}

/// The directory of one replica.
pub(super) struct ReplicaDirectory {
    pub(super) shard: ShardId,
    pub(super) replica: ReplicaId,
    /// Its name in the data directory.
    pub(super) name: String,
    /// Whether the node still has this incarnation.
    pub(super) standing: Standing,
    files: Files,
}

/// What a replica's directory is to its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It is used; or nothing says that it is not.
    InUse,
    /// It is of an incarnation that the node does not have any more.
    LeftOver,
    /// It was being made, and is made anew at the next start.
    InTheMaking,
}

impl DataDirectory {
    /// Takes a directory to look at.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        if !path.is_dir() {
            return Err(CliError::Usage(format!("--data {}: there is no such directory", path.display())));
        }
        let lock = DataLock::to_look(path)?;
        let identity = read_identity(path);
        let born = match &identity {
            Ok(IdentitySurvey { newest: Some((_, IdentityState::Born(born))), .. }) => Some(born),
            _ => None,
        };
        let standing = |replica: ReplicaId| match born {
            Some(born) if born.node.0 != replica.0 => Standing::LeftOver,
            Some(born) if born.files == identity::Files::Incomplete => Standing::InTheMaking,
            _ => Standing::InUse,
        };
        let mut replicas = Vec::new();
        let failed = |source| crate::host::HostError::Data { path: path.to_owned(), source };
        for entry in path.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((shard, replica)) = replica_of(&name) {
                let files = Files::of(&entry.path());
                replicas.push(ReplicaDirectory { shard, replica, standing: standing(replica), name, files });
            }
        }
        replicas.sort_by_key(|replica| (replica.shard, replica.replica));
        let is_nodes = path.join(DirectoryKey::Node.to_string()).is_dir();
        if !is_nodes && replicas.is_empty() {
            let why = format!(
                "--data {}: not the data directory of a node: there is no `node` in it and no replica of a shard",
                path.display()
            );
            return Err(CliError::Usage(why));
        }
        Ok(Self { path: path.to_owned(), identity, replicas, _lock: lock })
    }

    /// The node's name, as far as it is known.
    pub(super) fn node_name(&self) -> Option<String> {
        let (name, _) = self.identity.as_ref().ok()?.newest.as_ref()?;
        Some(name.as_str().to_owned())
    }

    /// The node's id and cluster, if it belongs to one and its identity can be read.
    pub(super) fn born(&self) -> Option<&identity::Born> {
        match &self.identity.as_ref().ok()?.newest.as_ref()?.1 {
            IdentityState::Born(born) => Some(born),
            _ => None,
        }
    }

    /// The shards of which the node should have a replica and there is no directory.
    pub(super) fn missing(&self) -> Vec<(ShardId, NodeId)> {
        let Some(born) = self.born().filter(|born| born.files == identity::Files::Complete) else {
            return Vec::new();
        };
        let has = |shard| self.replicas.iter().any(|it| it.shard == shard && it.standing == Standing::InUse);
        born.directory.shards().filter(|shard| !has(*shard)).map(|shard| (shard, born.node)).collect()
    }

    /// What is wrong with the identity, if it keeps the node from starting.
    pub(super) fn identity_problem(&self) -> Option<String> {
        let survey = match &self.identity {
            Ok(survey) => survey,
            Err(why) => return Some(why.clone()),
        };
        let newer = survey.copies.iter().find_map(|copy| match copy {
            FoundIdentity::Newer { format } => Some(format),
            _ => None,
        });
        if let Some(format) = newer {
            return Some(format!("written by a newer Mesh (format {format})"));
        }
        let is_damaged = survey.copies.contains(&FoundIdentity::Damaged);
        (survey.newest.is_none() && is_damaged)
            .then(|| format!("no valid copy at byte 0 or {}", identity::SLOT_BYTES))
    }
}

fn read_identity(data: &Path) -> Result<IdentitySurvey, String> {
    let path = data.join(DirectoryKey::Node.to_string());
    let read = Files::of(&path).read(FileId::Identity, 0, 2 * identity::SLOT_BYTES);
    read.map(|bytes| identity::survey(&bytes)).map_err(|error| error.detail)
}

/// The replica that a directory's name stands for.
fn replica_of(name: &str) -> Option<(ShardId, ReplicaId)> {
    let (shard, replica) = name.strip_prefix("shard-")?.split_once("-replica-")?;
    let key = (ShardId(shard.parse().ok()?), ReplicaId(replica.parse().ok()?));
    let (shard, replica) = key;
    (DirectoryKey::Replica { shard, replica }.to_string() == name).then_some(key)
}

/// Says on a terminal how far something long is.
pub(super) struct Progress<'a> {
    output: &'a mut Output,
    what: String,
}

impl<'a> Progress<'a> {
    pub(super) fn of(output: &'a mut Output, what: String) -> Self {
        Self { output, what }
    }

    /// So much of so much is done.
    pub(super) fn tell(&mut self, done: u64, all: u64) {
        let percent = done * 100 / all.max(1);
        self.output.progress(format_args!("{}: {percent} %", self.what));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.output.progress("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_node_gives_are_replicas() {
        assert_eq!(replica_of("shard-0003-replica-12"), Some((ShardId(3), ReplicaId(12))));
        for name in ["node", "LOCK", "shard-3-replica-12", "shard-0003-replica-x", "shard-0003-replica-012"] {
            assert_eq!(replica_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_directory_that_is_no_nodes_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (path, why) in [("", "not the data directory of a node"), ("none", "there is no such directory")]
        {
            let refused = DataDirectory::open(&directory.path().join(path)).err().unwrap().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
