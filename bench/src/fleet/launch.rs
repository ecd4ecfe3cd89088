//! `mesh-bench launch`: becomes a server's process, pinned and bound to the life of the program that started it.
//!
//! Both can only be done safely by a process to itself, so a copy of this program does it before it becomes the server. The
//! process keeps its number.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cli::Cores;
use crate::error::{BenchError, Exit};

/// What to become.
#[derive(Args, Clone, Debug)]
pub(crate) struct LaunchFlags {
    /// The process that this one must not outlive.
    #[arg(long, value_name = "PID")]
    pub(crate) parent: u32,
    /// Processors to run on.
    #[arg(long, value_name = "LIST")]
    pub(crate) cores: Cores,
    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}

/// Becomes the program. Returns only if that cannot be.
///
/// # Errors
/// The system's.
pub(crate) fn launch(flags: &LaunchFlags) -> Result<Exit, BenchError> {
    let mut set = CpuSet::new();
    flags.cores.list().iter().for_each(|&cpu| set.set(cpu));
    sched_setaffinity(None, &set).map_err(BenchError::host("its processors"))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(BenchError::host("its end"))?;
    // Whoever died before the signal was asked for sends none.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(flags.parent) {
        return Err(BenchError::Usage("--parent: it is gone".into()));
    }
    let [program, arguments @ ..] = flags.command.as_slice() else {
        return Err(BenchError::Usage("no program".into()));
    };
    Err(BenchError::host("its program")(Command::new(program).args(arguments).exec()))
}
