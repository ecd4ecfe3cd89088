//! Which nodes run on this host, for this user: each leaves its name and address in the user's runtime directory.
//!
//! Invariants:
//! - An entry is alive while its node holds the lock on it. Whoever meets one that is not locked may remove it, so
//!   nothing is left of a process that was killed.
//! - The directory belongs to this user alone; another's is not read, so that no one can redirect a node's peers.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::core::NodeName;

/// The directory of the entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registry {
    directory: PathBuf,
}

/// A node that runs on this host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RunningNode {
    /// Its name.
    pub name: NodeName,
    /// Where it is reached from this host (`host:port`).
    pub address: String,
    /// Its process.
    pub pid: u32,
    /// Its data directory.
    pub data: PathBuf,
}

/// This process's entry; taken back when dropped.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
    _file: File,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // An entry that stays behind is not locked, and so is passed over.
        let _ = fs::remove_file(&self.path);
    }
}

impl Registry {
    /// The registry of the user that this process runs as: `$XDG_RUNTIME_DIR/mesh`, or `/tmp/mesh-UID`.
    ///
    /// # Errors
    /// The directory cannot be made, or is another user's.
    pub fn of_user() -> io::Result<Self> {
        let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(runtime) if !runtime.is_empty() => PathBuf::from(runtime).join("mesh"),
            _ => PathBuf::from(format!("/tmp/mesh-{}", rustix::process::getuid().as_raw())),
        };
        Self::at(directory)
    }

    /// A registry in a directory, which is made if there is none.
    ///
    /// # Errors
    /// The directory cannot be made, or is open to another user.
    pub fn at(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let found = fs::symlink_metadata(&directory)?;
        let own = found.uid() == rustix::process::getuid().as_raw();
        if !own || !found.is_dir() || found.mode() & 0o077 != 0 {
            let why = format!("{} is not a directory of this user alone (mode 0700)", directory.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Self { directory })
    }

    /// Leaves an entry for a node of this process.
    ///
    /// # Errors
    /// The entry cannot be written.
    pub fn announce(&self, name: &NodeName, address: &str, data: &Path) -> io::Result<Announcement> {
        let pid = std::process::id();
        let path = self.directory.join(format!("{name}.{pid}"));
        // Locked before it has its name: no one ever meets it unlocked.
        let unnamed = self.directory.join(format!("{name}.{pid}~"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unnamed)?;
        file.lock()?;
        write!(file, "{address}\n{}\n", data.display())?;
        fs::rename(&unnamed, &path)?;
        Ok(Announcement { path, _file: file })
    }

    /// The address of a node of this name, if one runs on this host.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<String> {
        self.running().into_iter().find(|node| node.name.as_str() == name).map(|node| node.address)
    }

    /// Every node that runs on this host, ordered by name.
    #[must_use]
    pub fn running(&self) -> Vec<RunningNode> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mut found: Vec<_> = entries.flatten().filter_map(|entry| alive(&entry.path())).collect();
        found.sort();
        found
    }
}

/// The node of an entry; `None`, with the entry removed, if it is no longer running.
fn alive(path: &Path) -> Option<RunningNode> {
    let file_name = path.file_name()?.to_str()?;
    let (name, pid) = file_name.rsplit_once('.').filter(|(name, _)| !name.is_empty())?;
    let pid = pid.parse().ok()?;
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) => {
            let _ = fs::remove_file(path);
            return None;
        }
        Err(TryLockError::Error(_)) => return None,
    }
    let text = io::read_to_string(file).ok()?;
    let (address, data) = text.split_once('\n')?;
    let data = PathBuf::from(data.trim_end_matches('\n'));
    Some(RunningNode { name: NodeName::from(name), address: address.to_owned(), pid, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(directory: &tempfile::TempDir) -> Registry {
        Registry::at(directory.path().join("mesh")).unwrap()
    }

    #[test]
    fn a_node_is_found_by_its_name_while_it_runs() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory);
        let b = registry.announce(&NodeName::from("b"), "127.0.0.1:7701", Path::new("/data/b")).unwrap();
        let a = registry.announce(&NodeName::from("a"), "127.0.0.1:7700", Path::new("/data/a")).unwrap();
        assert_eq!(registry.lookup("b").as_deref(), Some("127.0.0.1:7701"));
        let names: Vec<_> = registry.running().into_iter().map(|node| node.name.to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        drop((a, b));
        assert_eq!(registry.running(), []);
        assert_eq!(fs::read_dir(directory.path().join("mesh")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_behind_is_passed_over_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory);
        let stale = directory.path().join("mesh/a.4194305");
        fs::write(&stale, "127.0.0.1:7700\n/data/a\n").unwrap();
        assert_eq!(registry.lookup("a"), None);
        assert!(!stale.exists());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("mesh");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Registry::at(open).is_err());
    }
}
