//! The directory of a run: made for it, and gone with it, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process::end_all;
use crate::error::BenchError;

/// What a shell reports of a program that a signal ended, less the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;
/// Between attempts to remove a directory.
const ENDING_PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    path: PathBuf,
    made: AtomicU32,
}

impl Room {
    /// A directory below another one. From here on a signal ends the processes that were started, removes the directory and
    /// ends this program.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(below: &Path) -> Result<Self, BenchError> {
        let path = below.join(format!("mesh-bench-{}", std::process::id()));
        let path = std::path::absolute(path).map_err(BenchError::host("--dir"))?;
        fs::create_dir_all(&path).map_err(BenchError::host("--dir"))?;
        let room = Self { path, made: AtomicU32::new(0) };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(BenchError::host("signals"))?;
        let path = room.path.clone();
        let watch = move || {
            if let Some(signal) = signals.forever().next() {
                end_all();
                // Processes that are ending may still make files.
                while fs::remove_dir_all(&path).is_err() && path.exists() {
                    thread::sleep(ENDING_PAUSE);
                }
                std::process::exit(ENDED_BY_SIGNAL + signal);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(watch).map_err(BenchError::host("signals"))?;
        Ok(room)
    }

    /// A name that was not given before, for a directory that is not there yet.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}-{}", self.made.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
