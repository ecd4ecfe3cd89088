//! A process of a system that was started here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::programs::Program;
use crate::cpu::Server;
use crate::error::BenchError;

/// Lines of a process's output that are told when it fails.
const LAST_WORDS: usize = 12;

/// Processes that were started and not waited for yet: their numbers cannot be anyone else's.
static ALIVE: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn alive() -> MutexGuard<'static, Vec<Pid>> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all processes that were started, for a program that is about to end.
pub(crate) fn end_all() {
    for pid in alive().iter() {
        let _ = kill_process(*pid, Signal::KILL);
    }
}

/// How a process is started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// What to run.
    pub(crate) program: Program,
    /// With which arguments.
    pub(crate) arguments: Vec<String>,
    /// With which variables, beside those of this process.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// On which processors.
    pub(crate) cores: Vec<usize>,
    /// Where it runs and keeps its files.
    pub(crate) directory: PathBuf,
}

/// See the module. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    output: PathBuf,
}

impl Process {
    /// Starts one. From the main thread: the kernel ends the process when the thread that started it ends.
    ///
    /// # Errors
    /// [`BenchError::Peer`]
    pub(crate) fn start(start: &Start) -> Result<Self, BenchError> {
        let failed = |error: io::Error| start.program.failed(&error);
        fs::create_dir_all(&start.directory).map_err(failed)?;
        let output = start.directory.join("output");
        let file = File::options().create(true).append(true).open(&output).map_err(failed)?;
        let cores: Vec<_> = start.cores.iter().map(usize::to_string).collect();
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("launch").args([
            "--parent",
            &std::process::id().to_string(),
            "--cores",
            &cores.join(","),
        ]);
        command.arg("--").arg(start.program.path()).args(&start.arguments);
        command.envs(start.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(&start.directory).stdin(Stdio::null());
        command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        // Under the lock, so that a signal finds the process or it is not started.
        let mut alive = alive();
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_child(&child);
        alive.push(pid);
        Ok(Self { child, pid, output })
    }

    /// The process as one whose time is accounted for.
    pub(crate) fn server(&self) -> Option<Server> {
        Server::of(self.child.id())
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let mut alive = alive();
        let _ = self.child.wait();
        alive.retain(|pid| *pid != self.pid);
    }

    /// Stops it where it is, until [`Process::thaw`].
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn freeze(&self) -> Result<(), BenchError> {
        kill_process(self.pid, Signal::STOP).map_err(BenchError::host("SIGSTOP"))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn thaw(&self) -> Result<(), BenchError> {
        kill_process(self.pid, Signal::CONT).map_err(BenchError::host("SIGCONT"))
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        // Not waited for under its number's lock: it stays in the list until it is dropped, and its number stays its own until then.
        matches!(
            rustix::process::waitid(
                rustix::process::WaitId::Pid(self.pid),
                rustix::process::WaitIdOptions::EXITED
                    | rustix::process::WaitIdOptions::NOHANG
                    | rustix::process::WaitIdOptions::NOWAIT,
            ),
            Ok(Some(_)) | Err(_)
        )
    }

    /// The last that it said.
    pub(crate) fn last_words(&self) -> String {
        last_lines(&self.output)
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LAST_WORDS)..).unwrap_or_default().join("\n")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
