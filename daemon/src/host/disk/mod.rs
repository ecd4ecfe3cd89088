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
//! Operations are unordered but for what the submitters wait for. A bounded number of each sort is under way at a time. What is
//! asked of an open file goes to the core's own `ring` at once; everything else is done by tasks, which give what is left of it
//! to the ring, too.
//!
//! Deliberately absent: retries, and any judgement of what is read.

mod check;
mod files;
mod operation;
mod ring;
#[cfg(test)]
mod tests;
mod transfers;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;
use mesh_base::io::{Completion, IoOp, Lane, Submission};
use mesh_base::limits::{LOG_OPS_IN_FLIGHT_MAX, STORE_OPS_IN_FLIGHT_MAX};

pub(super) use self::check::check_direct_io;
use self::files::Files;
use self::operation::Step;
use self::transfers::{Owner, Transfers};
use super::inbox::Inbox;
use super::sockets::Sockets;
use crate::core::{CoreEvent, DirectoryKey};

/// How often a directory that is to be removed is looked at while operations on it are under way.
const QUIET_PAUSE: Duration = Duration::from_millis(5);

/// The file operations of one core.
pub(super) struct Disk {
    files: Files,
    inbox: Rc<Inbox>,
    transfers: Transfers,
    logs: Workers,
    reads: Workers,
    others: Workers,
    /// Jobs that tasks do, or will.
    jobs: Cell<usize>,
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

impl Crew {
    const COUNT: usize = 3;

    /// How many of its operations are under way at a time.
    const fn operations_max(self) -> usize {
        match self {
            Self::Logs => LOG_OPS_IN_FLIGHT_MAX,
            Self::Reads | Self::Others => STORE_OPS_IN_FLIGHT_MAX,
        }
    }
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
    ///
    /// # Errors
    /// The kernel's, where it has no rings or forbids them.
    pub(super) fn new(data: PathBuf, inbox: Rc<Inbox>, sockets: &Rc<Sockets>) -> io::Result<Rc<Self>> {
        let disk = Rc::new(Self {
            files: Files::new(data),
            inbox,
            transfers: Transfers::new(sockets)?,
            logs: Workers::new(Crew::Logs.operations_max()),
            reads: Workers::new(Crew::Reads.operations_max()),
            others: Workers::new(Crew::Others.operations_max()),
            jobs: Cell::new(0),
            under_way: RefCell::default(),
        });
        glommio::spawn_local(Rc::clone(&disk).attend()).detach();
        Ok(disk)
    }

    /// Performs an operation; its completion goes to the inbox. To be flushed.
    pub(super) fn submit(self: &Rc<Self>, directory: DirectoryKey, submission: Submission) {
        let crew = match (submission.token.lane, &submission.op) {
            (Lane::Node | Lane::Log, _) => Crew::Logs,
            (Lane::Store, IoOp::Read { .. }) => Crew::Reads,
            _ => Crew::Others,
        };
        if let Some(transfer) = operation::at_once(&self.files, &self.transfers, directory, &submission.op) {
            self.begin(directory);
            self.transfers.give(Owner::new(directory, submission.token, crew, &submission.op), transfer);
            return;
        }
        self.give(crew, Job::Operation { directory, submission });
    }

    /// Has the kernel begin what was submitted.
    pub(super) fn flush(&self) {
        self.transfers.flush();
    }

    /// Takes what has ended, without asking the kernel.
    pub(super) fn look(&self) {
        while let Some((owner, result)) = self.transfers.ended() {
            self.complete(owner.directory, Completion { token: owner.token, result });
        }
    }

    /// Sees to it that what ends is taken when the core does nothing else.
    async fn attend(self: Rc<Self>) {
        let watched = self.transfers.watched();
        loop {
            watched.input().ready().await;
            watched.input().clear();
            self.look();
        }
    }

    fn complete(&self, directory: DirectoryKey, completion: Completion) {
        self.inbox.push(CoreEvent::Io { directory, completion });
        self.end(directory);
    }

    /// Removes a directory with everything in it, for good.
    pub(super) fn remove_directory(self: &Rc<Self>, directory: DirectoryKey) {
        self.give(Crew::Others, Job::RemoveDirectory { directory });
    }

    /// Whether anything is under way that only the executor's reactor can bring to an end.
    pub(super) fn needs_reactor(&self) -> bool {
        self.jobs.get() > 0
    }

    /// Whether a write of a log is under way: it will end soon, and somebody waits for it.
    pub(super) fn is_logging(&self) -> bool {
        self.transfers.under_way(Crew::Logs) > 0
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
        self.jobs.set(self.jobs.get() + 1);
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

    async fn work_on(self: &Rc<Self>, crew: Crew, job: Job) {
        let directory = job.directory();
        match job {
            Job::Operation { submission: Submission { token, op }, .. } => {
                let owner = Owner::new(directory, token, crew, &op);
                let result = match operation::perform(&self.files, &self.transfers, directory, op).await {
                    Ok(Step::Transfer(transfer)) => {
                        self.transfers.give(owner, transfer);
                        return self.flush();
                    }
                    Ok(Step::Done(value)) => Ok(value),
                    Err(error) => Err(error),
                };
                self.complete(directory, Completion { token, result });
            }
            Job::RemoveDirectory { .. } => {
                self.quiet(directory).await;
                if let Err(error) = self.files.remove_directory(directory).await {
                    tracing::warn!(%directory, %error, "a directory that is no longer needed stays behind");
                }
                self.end(directory);
            }
        }
    }
}

async fn work(disk: Rc<Disk>, crew: Crew) {
    while let Some(job) = disk.workers(crew).next().await {
        disk.work_on(crew, job).await;
        disk.jobs.set(disk.jobs.get() - 1);
    }
}
