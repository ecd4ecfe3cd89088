//! The files of a core's replicas: what components submit is done here, past the page cache.
//!
//! Invariants:
//! - Every submission completes exactly once, and nothing gives up on one: a write that were abandoned could still
//!   reach the disk.
//! - A write to a file that is durable on completion goes through a descriptor with `O_DSYNC`; every read and write
//!   through one with `O_DIRECT`.
//! - A file's descriptor is forgotten before the file is renamed or removed, so a name never leads to another's file.
//! - A directory's own name is durable before the first operation on it completes, and the directory is not removed while
//!   one is under way.
//!
//! Operations are unordered but for what the submitters wait for. A bounded number of each sort is under way at a time.
//!
//! Deliberately absent: retries, and any judgement of what is read.

mod check;
mod files;
mod operation;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;
use mesh_base::io::{Completion, IoOp, Lane, Submission};
use mesh_base::limits::{LOG_OPS_IN_FLIGHT_MAX, STORE_OPS_IN_FLIGHT_MAX};

pub(super) use self::check::check_direct_io;
use self::files::Files;
use super::inbox::Inbox;
use crate::core::{CoreEvent, DirectoryKey};

/// How often a directory that is to be removed is looked at while operations on it are under way.
const QUIET_PAUSE: Duration = Duration::from_millis(5);

/// The file operations of one core.
pub(super) struct Disk {
    files: Files,
    inbox: Rc<Inbox>,
    logs: Workers,
    reads: Workers,
    others: Workers,
    /// How many operations on each directory were submitted and have not completed.
    under_way: RefCell<BTreeMap<DirectoryKey, usize>>,
}

/// Tasks that live as long as the core, and the work they share.
struct Workers {
    jobs: RefCell<VecDeque<Job>>,
    idle: RefCell<Vec<Waker>>,
    count: Cell<usize>,
    count_max: usize,
    closed: Cell<bool>,
}

/// Who does a job: an append waits for no page, and a page that a request needs for no checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Crew {
    /// Logs and the node's identity.
    Logs,
    /// Pages of live stores that are read.
    Reads,
    /// Checkpoints, snapshots, removals.
    Others,
}

enum Job {
    Operation { directory: DirectoryKey, submission: Submission },
    RemoveDirectory { directory: DirectoryKey },
}

impl Job {
    const fn directory(&self) -> DirectoryKey {
        match self {
            Self::Operation { directory, .. } | Self::RemoveDirectory { directory } => *directory,
        }
    }
}

impl Workers {
    const fn new(count_max: usize) -> Self {
        Self {
            jobs: RefCell::new(VecDeque::new()),
            idle: RefCell::new(Vec::new()),
            count: Cell::new(0),
            count_max,
            closed: Cell::new(false),
        }
    }

    /// The next job; `None` when there will be none.
    async fn next(&self) -> Option<Job> {
        poll_fn(|cx| {
            if let Some(job) = self.jobs.borrow_mut().pop_front() {
                return Poll::Ready(Some(job));
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            self.idle.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Disk {
    /// The files below a data directory.
    pub(super) fn new(data: PathBuf, inbox: Rc<Inbox>) -> Rc<Self> {
        Rc::new(Self {
            files: Files::new(data),
            inbox,
            logs: Workers::new(LOG_OPS_IN_FLIGHT_MAX),
            reads: Workers::new(STORE_OPS_IN_FLIGHT_MAX),
            others: Workers::new(STORE_OPS_IN_FLIGHT_MAX),
            under_way: RefCell::default(),
        })
    }

    /// Performs an operation; its completion goes to the inbox.
    pub(super) fn submit(self: &Rc<Self>, directory: DirectoryKey, submission: Submission) {
        let crew = match (submission.token.lane, &submission.op) {
            (Lane::Node | Lane::Log, _) => Crew::Logs,
            (Lane::Store, IoOp::Read { .. }) => Crew::Reads,
            _ => Crew::Others,
        };
        self.give(crew, Job::Operation { directory, submission });
    }

    /// Removes a directory with everything in it, for good.
    pub(super) fn remove_directory(self: &Rc<Self>, directory: DirectoryKey) {
        self.give(Crew::Others, Job::RemoveDirectory { directory });
    }

    /// Whether every operation has completed.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.borrow().is_empty()
    }

    fn begin(&self, directory: DirectoryKey) {
        *self.under_way.borrow_mut().entry(directory).or_default() += 1;
    }

    fn end(&self, directory: DirectoryKey) {
        let mut under_way = self.under_way.borrow_mut();
        match under_way.get_mut(&directory) {
            Some(count) if *count > 1 => *count -= 1,
            found => {
                assert!(found.is_some(), "an operation ends once");
                under_way.remove(&directory);
            }
        }
    }

    /// Completes when nothing but the asking job is under way in a directory.
    async fn quiet(&self, directory: DirectoryKey) {
        while self.under_way.borrow().get(&directory).is_some_and(|&count| count > 1) {
            Timer::new(QUIET_PAUSE).await;
        }
    }

    /// Closes every file, and ends the workers once nothing is left to do.
    pub(super) fn close(&self) {
        self.files.forget_all();
        for workers in [&self.logs, &self.reads, &self.others] {
            workers.closed.set(true);
            workers.idle.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }

    const fn workers(&self, crew: Crew) -> &Workers {
        match crew {
            Crew::Logs => &self.logs,
            Crew::Reads => &self.reads,
            Crew::Others => &self.others,
        }
    }

    fn give(self: &Rc<Self>, crew: Crew, job: Job) {
        self.begin(job.directory());
        let workers = self.workers(crew);
        workers.jobs.borrow_mut().push_back(job);
        let idle = workers.idle.borrow_mut().pop();
        if let Some(idle) = idle {
            idle.wake();
        } else if workers.count.get() < workers.count_max {
            workers.count.set(workers.count.get() + 1);
            glommio::spawn_local(work(Rc::clone(self), crew)).detach();
        }
    }
}

async fn work(disk: Rc<Disk>, crew: Crew) {
    while let Some(job) = disk.workers(crew).next().await {
        let directory = job.directory();
        match job {
            Job::Operation { submission: Submission { token, op }, .. } => {
                let result = operation::perform(&disk.files, directory, op).await;
                disk.inbox.push(CoreEvent::Io { directory, completion: Completion { token, result } });
            }
            Job::RemoveDirectory { .. } => {
                disk.quiet(directory).await;
                if let Err(error) = disk.files.remove_directory(directory).await {
                    tracing::warn!(%directory, %error, "a directory that is no longer needed stays behind");
                }
            }
        }
        disk.end(directory);
    }
}
