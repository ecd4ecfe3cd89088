//! One process per data directory.
//!
//! Invariant: the lock is the kernel's (`flock`), so it is gone when its holder is, however it died. Writes that the holder
//! had under way may end a little later: whoever opens a file waits for them. What the lock file says is for people.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::HostError;
use crate::core::NodeName;

const FILE: &str = "LOCK";

/// A data directory that this process alone may use, until dropped.
#[derive(Debug)]
pub(crate) struct DataLock {
    _file: Option<File>,
}

impl DataLock {
    /// Creates the directory if there is none, and takes its lock for a node.
    ///
    /// # Errors
    /// [`HostError::InUse`] if another holds it, [`HostError::Data`] if the directory cannot be used.
    pub(super) fn take(directory: &Path, node: &NodeName) -> Result<Self, HostError> {
        let failed = |source| HostError::Data { path: directory.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| HostError::Data { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(directory, &path)),
            Err(TryLockError::Error(source)) => return Err(HostError::Data { path, source }),
        }
        sign(&mut file, node).map_err(|source| HostError::Data { path, source })?;
        Ok(Self { _file: Some(file) })
    }

    /// Keeps nodes out of a directory that is only looked at. Nothing is written; several may look at a time. A directory
    /// without a lock file, as a copy may be, is nobody's.
    ///
    /// # Errors
    /// [`HostError::InUse`] if a node runs there, [`HostError::Data`] if the directory cannot be read.
    pub(crate) fn to_look(directory: &Path) -> Result<Self, HostError> {
        let path = directory.join(FILE);
        let failed = |path: &Path, source| HostError::Data { path: path.to_path_buf(), source };
        directory.read_dir().map_err(|source| failed(directory, source))?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { _file: None }),
            Err(source) => return Err(failed(&path, source)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(in_use(directory, &path)),
            Err(TryLockError::Error(source)) => Err(failed(&path, source)),
        }
    }
}

fn sign(file: &mut File, node: &NodeName) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{} {node}", std::process::id())
}

fn in_use(directory: &Path, path: &Path) -> HostError {
    let mut text = String::new();
    // The holder may be between truncating and writing: then its name is not known, and the lock is held all the same.
    let read = File::open(path).and_then(|file| file.take(256).read_to_string(&mut text));
    let mut words = match read {
        Ok(_) => text.split_whitespace(),
        Err(_) => "".split_whitespace(),
    };
    let mut next = || words.next().unwrap_or("?").to_owned();
    HostError::InUse { path: directory.to_path_buf(), pid: next(), node: next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("deep/data");
        let held = DataLock::take(&data, &NodeName::from("a")).unwrap();
        let refused = DataLock::take(&data, &NodeName::from("b")).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {} (node a)", std::process::id())), "{refused}");
        drop(held);
        DataLock::take(&data, &NodeName::from("b")).unwrap();
    }

    #[test]
    fn a_node_and_those_who_look_keep_each_other_out() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let nobodys = DataLock::to_look(data).unwrap();
        assert!(data.read_dir().unwrap().next().is_none(), "nothing was written");
        let held = DataLock::take(data, &NodeName::from("a")).unwrap();
        let refused = DataLock::to_look(data).unwrap_err().to_string();
        assert!(refused.contains("(node a)"), "{refused}");
        drop((held, nobodys));
        let looking = [DataLock::to_look(data).unwrap(), DataLock::to_look(data).unwrap()];
        assert!(matches!(DataLock::take(data, &NodeName::from("a")), Err(HostError::InUse { .. })));
        drop(looking);
        DataLock::take(data, &NodeName::from("a")).unwrap();
        assert!(matches!(DataLock::to_look(&data.join("none")), Err(HostError::Data { .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = DataLock::take(&file.join("data"), &NodeName::from("a")).unwrap_err();
        assert!(refused.to_string().contains("file/data"), "{refused}");
    }
}
