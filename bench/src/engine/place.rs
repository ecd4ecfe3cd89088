//! Where a run keeps its data: a directory of its own, gone at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::statfs;

use super::system::{Run, failed};
use crate::error::BenchError;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The magic number of a file system in memory.
const TMPFS: u64 = 0x0102_1994;

/// A directory that goes with this value.
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes one below a directory that is there.
    ///
    /// # Errors
    /// [`BenchError::Usage`] where nothing that is written lasts; what failed.
    pub(super) fn new(below: &Path) -> Run<Self> {
        let kind = statfs(below).map_err(failed("--dir"))?.f_type;
        if u64::try_from(kind) == Ok(TMPFS) {
            let why = format!("--dir: {} is in memory, where nothing is durable", below.display());
            return Err(BenchError::Usage(why));
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = below.join(format!("mesh-bench-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(failed("--dir"))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A new directory in it.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn directory(&self, name: &str) -> Run<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir(&path).map_err(failed("--dir"))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            crate::progress::note(&format!("{} stays behind: {error}", self.0.display()));
        }
    }
}
