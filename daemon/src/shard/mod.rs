//! A shard's replica as a state machine: events in, effects out. Pure.
//!
//! [`Shard::step`] takes one event, [`Shard::flush`] ends a turn of them; what is to be done collects in an [`Output`]. No
//! clock, file, socket, thread or randomness is touched here: time comes with each call, and the one random number a
//! replica needs, the seed of its election timeouts, was drawn for it.

mod checkpointing;
pub mod command;
pub mod configuration;
mod error;
mod history;
mod inspection;
mod installing;
mod leading;
mod lease;
mod levels;
pub mod messages;
mod options;
mod output;
pub mod overlay;
pub mod proposals;
mod reading;
pub mod reads;
mod receiving;
mod remedy;
mod replica;
mod sending;
pub mod sessions;
pub mod snapshot;
mod staging;
mod startup;
mod state;
pub mod status;
mod stream;
mod ticking;
mod transacting;
pub mod transaction;
mod upkeep;
mod writing;

use std::sync::Arc;

use mesh_base::io::{Completion, Lane};
use mesh_base::limits::SPACE_PATIENCE;
use mesh_base::prng::Prng;
use mesh_base::{Instant, LogIndex, Now, ReplicaId, ReplicaIdentity, Revision, ShardId, Term};
use mesh_raftlog::Space;
use mesh_wire::Error;
use raft::StateRole;
use raft::eraftpb::Message;

pub use self::command::Request;
pub use self::error::ShardError;
pub use self::history::HistoryOptions;
pub use self::inspection::{Inspection, ReplicaState, StatePart};
pub use self::levels::Level;
pub use self::options::ShardOptions;
pub use self::output::{Again, News, Output, PeerMessage, PeerSend, Share};
pub use self::startup::Birth;
pub use self::status::ShardStatus;

use self::replica::Replica;
use self::snapshot::{Ack, Chunk, Offer};
use self::startup::{Creating, Progress, Starting};
use self::status::{Condition, Role};
use crate::core::NodeName;
use crate::node::Directory;

/// One thing that happened to a replica.
#[derive(Debug)]
pub enum ShardEvent {
    /// Make the replica's files.
    Create(Birth),
    /// Read them and serve.
    Open,
    /// A client asks something.
    Request(Request),
    /// Another replica's message, checked.
    Raft(Message),
    /// A leader has a snapshot for this replica.
    Offer(Offer),
    /// A part of a snapshot.
    Chunk(Chunk),
    /// A receiver's progress.
    Ack(Ack),
    /// A file operation ended.
    Io(Completion),
    /// A tick's period passed.
    Tick,
    /// The membership is this from now on.
    Directory(Arc<Directory>),
    /// A node asks for its id (shard 0), or tells its address where there is no attempt.
    Admit {
        /// The node.
        name: NodeName,
        /// Its address.
        address: String,
        /// Its attempt to join.
        attempt: Option<u64>,
    },
}

/// One replica.
pub struct Shard {
    identity: ReplicaIdentity,
    options: Arc<ShardOptions>,
    directory: Arc<Directory>,
    prng: Prng,
    phase: Phase,
    stop: StopWish,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StopWish {
    No,
    Yes,
}

/// What a replica begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beginning {
    Creation(Birth),
    Opening,
}

enum Phase {
    Idle,
    Creating(Box<Creating>),
    Created,
    Starting(Box<Starting>),
    /// There was no space to begin. It is tried again from that time on.
    NoSpace {
        again_at: Instant,
        beginning: Beginning,
    },
    Serving(Box<Replica>),
    Damaged(String),
    Stopped,
}

impl Shard {
    /// A replica whose files are not touched yet.
    #[must_use]
    pub const fn new(
        identity: ReplicaIdentity,
        options: Arc<ShardOptions>,
        directory: Arc<Directory>,
        prng: Prng,
    ) -> Self {
        Self { identity, options, directory, prng, phase: Phase::Idle, stop: StopWish::No }
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.identity.shard
    }

    /// The incarnation.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.identity.replica
    }

    /// A look into the replica, once it serves.
    #[must_use]
    pub fn inspect(&self) -> Option<Inspection<'_>> {
        match &self.phase {
            Phase::Serving(replica) => Some(Inspection::new(replica)),
            _ => None,
        }
    }

    /// Whether its files were just made.
    #[must_use]
    pub const fn is_created(&self) -> bool {
        matches!(self.phase, Phase::Created)
    }

    /// Whether nothing more will come of it.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Damaged(_) | Phase::Idle | Phase::Created)
    }

    /// The newest revision the replica knows of.
    #[must_use]
    pub fn newest_revision(&self) -> Revision {
        match &self.phase {
            Phase::Serving(replica) => replica.newest,
            _ => Revision::ZERO,
        }
    }

    /// A revision was assigned elsewhere: those assigned here from now on are above it.
    pub fn observe(&mut self, revision: Revision) {
        if let Phase::Serving(replica) = &mut self.phase {
            replica.newest = replica.newest.max(revision);
        }
    }

    /// Takes one event.
    pub fn step(&mut self, now: Now, event: ShardEvent, out: &mut Output) {
        let result = match event {
            ShardEvent::Create(birth) => {
                self.create(birth, out);
                Ok(())
            }
            ShardEvent::Open => {
                self.open(out);
                Ok(())
            }
            ShardEvent::Directory(directory) => {
                out.set_epoch(directory.slots().epoch());
                self.directory = Arc::clone(&directory);
                if let Phase::Serving(replica) = &mut self.phase {
                    replica.directory = directory;
                }
                Ok(())
            }
            ShardEvent::Request(request) => {
                self.on_request(now, request, out);
                Ok(())
            }
            ShardEvent::Io(completion) => self.on_completion(now, completion, out),
            ShardEvent::Tick if matches!(self.phase, Phase::NoSpace { .. }) => {
                self.look_for_space(now.monotonic, out);
                Ok(())
            }
            event => match &mut self.phase {
                Phase::Serving(replica) => on_serving(replica, now, event, out),
                _ => Ok(()),
            },
        };
        self.settle(result, out);
    }

    /// Ends a turn.
    pub fn flush(&mut self, now: Now, out: &mut Output) {
        let Phase::Serving(replica) = &mut self.phase else { return };
        if self.stop == StopWish::Yes {
            replica.stop(now, out);
            if out.news.iter().any(|news| matches!(news, News::Stopped)) {
                self.phase = Phase::Stopped;
                return;
            }
        }
        let result = replica.flush(now, out);
        self.settle(result, out);
    }

    /// Asks it to stop: to hand over leadership and write a checkpoint. [`News::Stopped`] says when it is done.
    pub fn stop(&mut self) {
        self.stop = StopWish::Yes;
        if !matches!(self.phase, Phase::Serving(_) | Phase::Damaged(_)) {
            // What was not finished is begun anew at the next start.
            self.phase = Phase::Stopped;
        }
    }

    /// Takes the replica out for good.
    pub fn give_up(&mut self, reason: String, out: &mut Output) {
        tracing::error!(shard = %self.identity.shard, reason, "the replica takes no further part");
        if let Phase::Serving(replica) = &mut self.phase {
            replica.abandon(&Error::Damaged { what: reason.clone().into() }, out);
        }
        out.news.push(News::Leader { leader: None, term: 0 });
        out.news.push(News::Damaged(reason.clone()));
        self.phase = Phase::Damaged(reason);
    }

    fn settle(&mut self, result: Result<(), ShardError>, out: &mut Output) {
        if let Err(error) = result {
            let directory = crate::core::DirectoryKey::Replica {
                shard: self.identity.shard,
                replica: self.identity.replica,
            };
            let remedy = remedy::remedy(&error, &self.identity, &self.directory);
            self.give_up(format!("{directory}: {error}; {remedy}"), out);
        }
    }

    fn create(&mut self, birth: Birth, out: &mut Output) {
        if !matches!(self.phase, Phase::Idle | Phase::NoSpace { .. }) {
            return;
        }
        let creating = Creating::start(
            self.identity,
            Arc::clone(&self.options),
            Arc::clone(&self.directory),
            birth,
            self.prng.fork(),
            &mut out.io,
        );
        self.phase = Phase::Creating(Box::new(creating));
    }

    fn open(&mut self, out: &mut Output) {
        if !matches!(self.phase, Phase::Idle | Phase::Created | Phase::NoSpace { .. }) {
            return;
        }
        let starting =
            Starting::start(self.identity, Arc::clone(&self.options), self.prng.fork(), &mut out.io);
        self.phase = Phase::Starting(Box::new(starting));
    }

    fn on_request(&mut self, now: Now, request: Request, out: &mut Output) {
        let error = match &mut self.phase {
            Phase::Serving(replica) => return replica.on_request(now, request, out),
            Phase::Damaged(reason) => Error::Damaged { what: reason.clone().into() },
            Phase::Stopped => Error::ShuttingDown,
            Phase::NoSpace { .. } => Error::NoSpace,
            Phase::Idle | Phase::Creating(_) | Phase::Created | Phase::Starting(_) => {
                Error::NotReady { why: "the shard's replica on this node is starting".into() }
            }
        };
        out.fail(request.responder, &error);
    }

    fn on_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        match &mut self.phase {
            Phase::Creating(creating) => match creating.complete(completion, &mut out.io) {
                Ok(Progress::Pending) => Ok(()),
                Ok(Progress::Done) => {
                    self.phase = Phase::Created;
                    out.news.push(News::Created);
                    Ok(())
                }
                Err(error) => {
                    let beginning = Beginning::Creation(creating.birth());
                    self.wait_for_space(now.monotonic, error, beginning, out)
                }
            },
            Phase::Starting(starting) => {
                let started = match starting.complete(completion, &mut out.io) {
                    Ok(None) => return Ok(()),
                    Ok(Some(started)) => started,
                    Err(error) => return self.wait_for_space(now.monotonic, error, Beginning::Opening, out),
                };
                let mut replica = Replica::new(
                    self.identity,
                    Arc::clone(&self.options),
                    Arc::clone(&self.directory),
                    started,
                    self.prng.next_u64(),
                    now.monotonic,
                )?;
                if let Some(directory) = &replica.state.directory {
                    out.news.push(News::Directory(Arc::clone(directory)));
                }
                replica.campaign_early(now, out)?;
                self.phase = Phase::Serving(Box::new(replica));
                Ok(())
            }
            Phase::Serving(replica) => replica.on_completion(now, completion, out),
            // What ends after the replica is out concerns nobody.
            Phase::Idle | Phase::Created | Phase::NoSpace { .. } | Phase::Damaged(_) | Phase::Stopped => {
                Ok(())
            }
        }
    }

    fn look_for_space(&mut self, now: Instant, out: &mut Output) {
        match self.phase {
            Phase::NoSpace { again_at, .. } if again_at > now => {}
            Phase::NoSpace { beginning: Beginning::Creation(birth), .. } => self.create(birth, out),
            _ => self.open(out),
        }
    }

    /// A full disk is no reason to be out: nothing that counts was changed, and it is tried again. Any other error is.
    fn wait_for_space(
        &mut self,
        now: Instant,
        error: ShardError,
        beginning: Beginning,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if !error.is_no_space() {
            return Err(error);
        }
        let shard = self.identity.shard;
        let reason = format!("shard {shard} cannot start, its disk is full ({error}): free some space");
        tracing::warn!(%shard, %error, "no space to begin: trying again");
        out.news.push(News::Waiting(reason));
        self.phase = Phase::NoSpace { again_at: now + SPACE_PATIENCE, beginning };
        Ok(())
    }

    /// What the replica reports of itself.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        let idle = |condition| ShardStatus::idle(self.identity.shard, self.identity.replica, condition);
        match &self.phase {
            Phase::Serving(replica) => replica.status(),
            Phase::Damaged(reason) => idle(Condition::Damaged(reason.clone())),
            Phase::Stopped => idle(Condition::Stopped),
            Phase::Idle
            | Phase::Creating(_)
            | Phase::Created
            | Phase::Starting(_)
            | Phase::NoSpace { .. } => idle(Condition::Recovering),
        }
    }
}

fn on_serving(
    replica: &mut Replica,
    now: Now,
    event: ShardEvent,
    out: &mut Output,
) -> Result<(), ShardError> {
    match event {
        ShardEvent::Raft(message) => replica.on_raft_message(now, message, out),
        ShardEvent::Offer(offer) => {
            replica.on_offer(now, offer, out);
            Ok(())
        }
        ShardEvent::Chunk(chunk) => {
            replica.on_chunk(now, chunk, out);
            Ok(())
        }
        ShardEvent::Ack(ack) => {
            replica.on_ack(now, ack, out);
            Ok(())
        }
        ShardEvent::Tick => replica.tick(now, out),
        ShardEvent::Admit { name, address, attempt } => replica.on_admission(&name, &address, attempt, out),
        ShardEvent::Create(_)
        | ShardEvent::Open
        | ShardEvent::Request(_)
        | ShardEvent::Io(_)
        | ShardEvent::Directory(_) => Ok(()),
    }
}

impl Replica {
    fn on_completion(
        &mut self,
        now: Now,
        completion: Completion,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        match completion.token.lane {
            Lane::Log => {
                let events = self.raw.mut_store().complete(completion, &mut out.io)?;
                if let Some(error) = events.damage {
                    // Whoever needs what is lost gets a snapshot.
                    tracing::error!(shard = %self.identity.shard, %error, "old entries of the log are lost");
                }
                for context in events.fetched {
                    self.raw.on_entries_fetched(context);
                }
                Ok(())
            }
            Lane::Store => self.on_store_completion(now, completion, out),
            Lane::StagedStore | Lane::Replica => self.on_staged_completion(now, completion, out),
            Lane::Node => Ok(()),
        }
    }

    fn status(&self) -> ShardStatus {
        let log = self.raw.store();
        let raft = &self.raw.raft;
        let checkpoint = self.state.store.checkpoint();
        let statistics = self.state.store.statistics();
        let replicas = |ids: &[u64]| ids.iter().map(|&id| ReplicaId(id)).collect();
        let is_learner = self.state.conf.learners.contains(&self.identity.replica.0);
        let condition = if self.receiving.is_busy() {
            Condition::ReceivingSnapshot
        } else if log.space() == Space::Full || self.checkpointing.is_out_of_space() {
            Condition::ReadOnly
        } else {
            Condition::Serving
        };
        ShardStatus {
            shard: self.identity.shard,
            replica: self.identity.replica,
            role: match raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Candidate => Role::Candidate,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Follower if is_learner => Role::Learner,
                StateRole::Follower => Role::Follower,
            },
            condition,
            term: Term(raft.term),
            leader: self.leader_node(),
            commit: LogIndex(raft.raft_log.committed),
            applied: self.state.applied.index,
            first_index: log.first_index(),
            last_index: log.last_index(),
            checkpoint: checkpoint.checkpoint,
            checkpoint_applied: checkpoint.applied,
            store_bytes: statistics.file_pages * self.options.store.page_bytes as u64,
            keys: statistics.keys,
            log_bytes: log.disk_bytes(),
            log_damages: log.damages(),
            resident_bytes: (statistics.resident_bytes + log.memory_bytes()) as u64,
            dirty_bytes: statistics.dirty_bytes as u64,
            sessions: u32::try_from(self.state.sessions.len()).unwrap_or(u32::MAX),
            voters: replicas(&self.state.conf.voters),
            learners: replicas(&self.state.conf.learners),
        }
    }
}
