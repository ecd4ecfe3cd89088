//! A replica at work: raft, the log and the applied state, stepped together.
//!
//! A turn is many calls of the `on_*` methods and then one [`Replica::flush`], which proposes what was gathered, moves raft's
//! output to the log and the network, answers the writes that are committed by that, and applies what earlier turns found to be
//! committed: so neither the disk nor a client waits for the page store.
//!
//! Invariants:
//! - Between `ready()` and `advance_append_async()` raft is not touched.
//! - A message that promises something (an acknowledgement, a vote) leaves after the batch that makes the promise durable.
//! - `on_persist_ready` is called in the order of the readies, each after its batch is durable.
//! - Commands are evaluated only by a leader that has applied an entry of its own term, hence everything before it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mesh_base::flaw::{self, Flaw};
use mesh_base::{BatchSeq, Instant, LogIndex, Now, ReplicaId, ReplicaIdentity, Revision, Term, WallMillis};
use mesh_engine::effect::EntryBuilder;
use mesh_engine::{FetchId, Lookup, Misses, StoreEvent};
use mesh_raftlog::Log;
use mesh_wire::Error;
use raft::eraftpb::{ConfChangeType, Entry, HardState, Message, MessageType};
use raft::{RawNode, Ready};

use super::checkpointing::Checkpointing;
use super::command::Request;
use super::error::ShardError;
use super::history::History;
use super::leading::{Leading, Role};
use super::lease::{Lease, Promise};
use super::options::ShardOptions;
use super::output::{News, Output};
use super::overlay::Overlay;
use super::proposals::Proposals;
use super::reading::PendingRead;
use super::reads::Reads;
use super::receiving::Receiving;
use super::sending::Sending;
use super::startup::{BIRTH, Started};
use super::state::State;
use super::ticking::Stopping;
use super::upkeep::Tidying;
use super::writing::PendingWrite;
use crate::node::Directory;

/// A replica that serves.
pub(super) struct Replica {
    pub(super) identity: ReplicaIdentity,
    pub(super) options: Arc<ShardOptions>,
    pub(super) directory: Arc<Directory>,
    pub(super) raw: RawNode<Log>,
    pub(super) state: State,
    /// Committed and not yet applied.
    pub(super) committed: VecDeque<Entry>,
    /// The first of them waits for pages.
    pub(super) apply_is_parked: bool,
    /// Readies whose batch is not known to be durable.
    unpersisted: VecDeque<Unpersisted>,
    /// The hard state the log has, its commit index aside.
    logged_vote: HardState,
    /// The batch that made the term and the vote what they are.
    vote_batch: BatchSeq,
    pub(super) election_seed: u64,
    /// The role that was acted on.
    pub(super) role: Role,
    /// Where and when this replica became leader; `None` while it is not.
    pub(super) leading: Option<Leading>,
    /// What it promised to a leader.
    pub(super) promise: Promise,
    /// What it was promised as a leader.
    pub(super) lease: Lease,
    /// Whether it is to begin an election as soon as it may, being the one that should lead.
    pub(super) early_campaign: EarlyCampaign,
    /// The newest revision in the log, committed or not, or seen from others.
    pub(super) newest: Revision,
    pub(super) builder: EntryBuilder,
    /// The wall clock of the last evaluation.
    pub(super) evaluated_at: WallMillis,
    pub(super) proposals: Proposals,
    pub(super) overlay: Overlay,
    /// A membership change is proposed and not applied.
    pub(super) directory_pending: bool,
    /// Where in the log the last eviction of sessions went; until it is applied there is no other.
    pub(super) evicting: LogIndex,
    /// Writes that wait for evaluation: to the end of the turn, or until the leader is ready for it.
    pub(super) waiting: Vec<PendingWrite>,
    pub(super) reads: Reads<PendingRead>,
    /// What waits for pages, with the earlier fetches of its own, whose pages must stay until it is done.
    pub(super) parked: BTreeMap<FetchId, (Parked, Vec<FetchId>)>,
    /// The fetches of what is being resumed.
    carried: Vec<FetchId>,
    pub(super) checkpointing: Checkpointing,
    pub(super) sending: BTreeMap<ReplicaId, Sending>,
    /// Who was sent a chunk last.
    pub(super) sent_last: ReplicaId,
    pub(super) receiving: Receiving,
    pub(super) tidying: Tidying,
    /// The commit index that followers were told.
    commit_told: LogIndex,
    /// When the last leader was lost.
    pub(super) leaderless_since: Option<Instant>,
    pub(super) stopping: Option<Stopping>,
    /// While this replica leads.
    pub(super) history: History,
}

/// Whether a replica that should lead still has to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EarlyCampaign {
    Due,
    Over,
}

/// What waits for pages.
pub(super) enum Parked {
    Apply,
    Write(PendingWrite),
    Read(PendingRead),
    SaveRecords,
    Upkeep,
    Send(ReplicaId),
}

struct Unpersisted {
    number: u64,
    batch: BatchSeq,
    snapshot: bool,
    messages: Vec<Message>,
}

impl Replica {
    /// A replica whose log and state were recovered and brought to the same index.
    pub(super) fn new(
        identity: ReplicaIdentity,
        options: Arc<ShardOptions>,
        directory: Arc<Directory>,
        started: Started,
        election_seed: u64,
        now: Instant,
    ) -> Result<Self, ShardError> {
        let Started { mut log, state, newest, durable_conf } = started;
        log.set_conf_state(state.conf.clone());
        let config = options.raft_config(identity.replica, state.applied.index);
        let logged_vote = log.hard_state();
        let vote_batch = log.durable().seq();
        // Who never saw an election has acknowledged nobody.
        let saw_election = logged_vote.term > BIRTH.term.0;
        let promise = if saw_election { Promise::at_start(now) } else { Promise::NONE };
        let commit_told = LogIndex(logged_vote.commit);
        let mut raw = RawNode::new(&config, log, &options.raft_logger())?;
        raw.skip_bcast_commit(true);
        let mut replica = Self {
            checkpointing: Checkpointing::new(durable_conf),
            reads: Reads::new(identity.replica),
            receiving: Receiving::new(),
            tidying: Tidying::default(),
            identity,
            options,
            directory,
            raw,
            state,
            committed: VecDeque::new(),
            apply_is_parked: false,
            unpersisted: VecDeque::new(),
            logged_vote,
            vote_batch,
            election_seed,
            role: Role::NONE,
            leading: None,
            promise,
            lease: Lease::NONE,
            early_campaign: EarlyCampaign::Due,
            newest,
            builder: EntryBuilder::new(),
            evaluated_at: WallMillis(0),
            proposals: Proposals::new(election_seed),
            overlay: Overlay::new(election_seed),
            directory_pending: false,
            evicting: LogIndex(0),
            waiting: Vec::new(),
            parked: BTreeMap::new(),
            carried: Vec::new(),
            stopping: None,
            history: History::default(),
            sending: BTreeMap::new(),
            sent_last: ReplicaId(0),
            commit_told,
            leaderless_since: None,
        };
        replica.settle_election_timeout();
        Ok(replica)
    }

    /// The log.
    pub(super) fn log(&mut self) -> &mut Log {
        self.raw.mut_store()
    }

    /// Ends a turn.
    pub(super) fn flush(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        let through = self.last_committed();
        self.evaluate_waiting(now, out)?;
        self.propose_gathered(out)?;
        self.continue_install(now, out)?;
        if self.leading.is_some()
            && let Some(context) = self.reads.begin_round(now.monotonic)
        {
            if flaw::is_planted(Flaw::ReadWithoutQuorum) {
                let commit = self.commit();
                self.reads.prove(&context, commit);
            } else {
                self.raw.read_index(context);
            }
        }
        loop {
            self.acknowledge_persisted(now, out)?;
            while self.raw.has_ready() {
                self.handle_ready(now, out)?;
            }
            let before = self.state.applied.index;
            self.apply_committed(through, now, out)?;
            if self.state.applied.index == before && !self.raw.has_ready() && !self.is_persisted() {
                break;
            }
        }
        if self.may_apply() && !self.committed.is_empty() {
            out.want_another_turn();
        }
        self.settle_role(now, out);
        self.serve_proven_reads(now, out)?;
        self.begin_checkpoint_if_due(now, out)?;
        self.send_snapshots(now, out)?;
        self.continue_receiving(now, out)?;
        self.take_store_events(now, out)?;
        self.raw.mut_store().pump(&mut out.io);
        if !self.receiving.is_installing() {
            self.pace_checkpoint(now);
            self.state.store.pump(&mut out.io)?;
            if self.reads.has_ready(self.state.applied.index) {
                out.want_another_turn();
            }
        }
        Ok(())
    }

    fn handle_ready(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        let mut ready = self.raw.ready();
        for read in ready.take_read_states() {
            if let Some(sent) = self.reads.prove(&read.request_ctx, LogIndex(read.index)) {
                self.lease.extend(sent);
            }
        }
        let early = ready.take_messages();
        self.take_committed(ready.take_committed_entries(), out);
        let unpersisted = self.persist(&mut ready)?;
        self.unpersisted.push_back(unpersisted);
        self.raw.advance_append_async(ready);

        self.send(now, early, out)?;
        self.send_early_heartbeat_responses(now, out)
    }

    fn take_committed(&mut self, entries: Vec<Entry>, out: &mut Output) {
        for entry in &entries {
            self.answer_committed(LogIndex(entry.index), Term(entry.term), out);
        }
        self.committed.extend(entries);
    }

    /// Hands a ready's entries, hard state and snapshot to the log.
    fn persist(&mut self, ready: &mut Ready) -> Result<Unpersisted, ShardError> {
        let snapshot = !ready.snapshot().is_empty();
        if snapshot {
            let meta = ready.snapshot().get_metadata().clone();
            self.begin_install(&meta)?;
        }
        let entries = ready.take_entries();
        for entry in &entries {
            self.newest = self.newest.max(newest_revision_of(entry));
        }
        let hard_state = ready.hs().cloned();
        let vote_changed = hard_state
            .as_ref()
            .is_some_and(|hard| (hard.term, hard.vote) != (self.logged_vote.term, self.logged_vote.vote));
        // A commit index alone is not worth a write: it goes along with the next entries, or when it is asked for.
        let worth_writing = !entries.is_empty() || vote_changed || snapshot;
        if let Some(hard) = hard_state {
            self.logged_vote = hard;
        }
        let log = self.raw.mut_store();
        let batch =
            if worth_writing { log.append(entries, Some(&self.logged_vote))? } else { log.newest_batch() };
        if vote_changed {
            self.vote_batch = batch;
        }
        let (number, messages) = (ready.number(), ready.take_persisted_messages());
        Ok(Unpersisted { number, batch, snapshot, messages })
    }

    /// Makes the log's commit index durable, for a checkpoint that needs it.
    pub(super) fn log_commit_index(&mut self) -> Result<(), ShardError> {
        let hard = self.logged_vote.clone();
        self.log().append(Vec::new(), Some(&hard))?;
        Ok(())
    }

    fn is_persisted(&self) -> bool {
        let durable = self.raw.store().durable().seq();
        self.unpersisted.front().is_some_and(|first| {
            let is_durable = first.batch <= durable || flaw::is_planted(Flaw::AcknowledgeBeforeDurable);
            is_durable && !self.is_installing(first)
        })
    }

    /// Whether a snapshot is being taken in: raft's log begins behind what raft holds to be applied.
    pub(super) fn takes_in_snapshot(&self) -> bool {
        self.receiving.is_installing() || self.unpersisted.iter().any(|ready| ready.snapshot)
    }

    fn is_installing(&self, unpersisted: &Unpersisted) -> bool {
        unpersisted.snapshot && self.receiving.is_installing()
    }

    /// Tells raft what is durable, and sends what waited for it.
    fn acknowledge_persisted(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        while self.is_persisted() {
            let Some(first) = self.unpersisted.pop_front() else { break };
            self.raw.on_persist_ready(first.number);
            self.send(now, first.messages, out)?;
        }
        let applied = self.state.applied.index.0;
        // Not before raft knows the snapshot, and all before it, to be durable.
        if applied > self.raw.raft.raft_log.applied && !self.takes_in_snapshot() {
            self.raw.advance_apply_to(applied);
        }
        Ok(())
    }

    /// A response to a heartbeat promises nothing but the term and the vote: once those are durable it need not wait for
    /// the entries before it, or every heartbeat would wait for a disk.
    fn send_early_heartbeat_responses(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if self.vote_batch > self.raw.store().durable().seq() {
            return Ok(());
        }
        let term = self.logged_vote.term;
        let is_free = |message: &Message| {
            message.get_msg_type() == MessageType::MsgHeartbeatResponse && message.term == term
        };
        let waiting =
            self.unpersisted.iter_mut().flat_map(|ready| ready.messages.extract_if(.., |m| is_free(m)));
        let free: Vec<_> = waiting.collect();
        self.send(now, free, out)
    }

    fn send(&mut self, now: Now, messages: Vec<Message>, out: &mut Output) -> Result<(), ShardError> {
        for message in messages {
            match message.get_msg_type() {
                MessageType::MsgSnapshot => self.begin_sending(now, message, out)?,
                MessageType::MsgTimeoutNow => {
                    // From here on the other may be elected whatever anyone promised.
                    self.lease.give_up(Term(message.term));
                    out.raft(message);
                }
                _ => {
                    self.commit_told = self.commit_told.max(LogIndex(message.commit));
                    out.raft(message);
                }
            }
        }
        Ok(())
    }

    /// The last entry that is known to be committed.
    pub(super) fn commit(&self) -> LogIndex {
        LogIndex(self.raw.raft.raft_log.committed)
    }

    /// Tells followers of a commit index they have not heard of, when there is nothing else to tell them.
    pub(super) fn tell_commit(&mut self) {
        let commit = self.commit();
        if self.leading.is_some() && commit > self.commit_told {
            self.commit_told = commit;
            self.raw.ping();
        }
    }

    /// Whether the store takes entries at present.
    fn may_apply(&self) -> bool {
        !self.receiving.is_installing() && !self.apply_is_parked
    }

    /// The last entry that is known to be committed and is not applied.
    fn last_committed(&self) -> LogIndex {
        self.committed.back().map_or(self.state.applied.index, |entry| LogIndex(entry.index))
    }

    /// Applies committed entries up to one of them.
    fn apply_committed(&mut self, through: LogIndex, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if !self.may_apply() {
            return Ok(());
        }
        let before = self.state.applied.index;
        while let Some(entry) = self.next_committed(through) {
            match self.state.apply(&entry)? {
                Lookup::Ready(applied) => {
                    self.applied(now, &entry, applied, out)?;
                }
                Lookup::Miss(misses) => {
                    self.committed.push_front(entry);
                    self.park(&misses, Parked::Apply, out);
                    self.apply_is_parked = true;
                    break;
                }
            }
        }
        if self.state.applied.index > before {
            self.raw.advance_apply_to(self.state.applied.index.0);
            self.evaluate_waiting(now, out)?;
            self.propose_gathered(out)?;
        }
        Ok(())
    }

    fn next_committed(&mut self, through: LogIndex) -> Option<Entry> {
        if self.committed.len() > 1 && flaw::is_planted(Flaw::ApplyOutOfOrder) {
            return self.committed.pop_back();
        }
        self.committed.pop_front_if(|entry| entry.index <= through.0)
    }

    /// Keeps something until the pages that it misses have come.
    pub(super) fn park(&mut self, misses: &Misses, parked: Parked, out: &mut Output) {
        let fetch = self.state.store.fetch(misses, &mut out.io);
        self.parked.insert(fetch, (parked, std::mem::take(&mut self.carried)));
    }

    /// Gives up waiting for the pages of what is chosen.
    pub(super) fn unpark_if(&mut self, is_chosen: impl Fn(&Parked) -> bool) -> Vec<Parked> {
        let chosen: Vec<_> = self.parked.extract_if(.., |_, (parked, _)| is_chosen(parked)).collect();
        let unpark = |(fetch, (parked, fetches)): (FetchId, (Parked, Vec<FetchId>))| {
            fetches.into_iter().chain([fetch]).for_each(|fetch| self.state.store.release(fetch));
            parked
        };
        chosen.into_iter().map(unpark).collect()
    }

    /// What the store has to tell.
    pub(super) fn take_store_events(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        // What a store has to tell that is about to be replaced concerns nobody.
        while !self.receiving.is_installing()
            && let Some(event) = self.state.store.next_event()
        {
            let StoreEvent::Fetched(fetch) = event else {
                self.on_checkpoint_event(now, &event)?;
                continue;
            };
            let Some((parked, mut fetches)) = self.parked.remove(&fetch) else {
                self.state.store.release(fetch);
                continue;
            };
            fetches.push(fetch);
            self.carried = fetches;
            self.resume(now, parked, out)?;
            for fetch in std::mem::take(&mut self.carried) {
                self.state.store.release(fetch);
            }
        }
        Ok(())
    }

    /// Goes on with what waited for pages.
    fn resume(&mut self, now: Now, parked: Parked, out: &mut Output) -> Result<(), ShardError> {
        match parked {
            Parked::Apply => {
                self.apply_is_parked = false;
                self.apply_committed(self.last_committed(), now, out)
            }
            Parked::Write(write) => self.evaluate(now, write, None, out),
            Parked::Read(read) => self.serve(now, read, out),
            Parked::SaveRecords => {
                self.checkpointing.pages_came();
                self.begin_checkpoint_if_due(now, out)
            }
            Parked::Upkeep => self.resume_upkeep(out),
            Parked::Send(to) => self.resume_sending(now, to, out),
        }
    }

    fn applied(
        &mut self,
        now: Now,
        entry: &Entry,
        applied: super::state::Applied,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if let Some(change) = applied.conf_change {
            let change = change.to_raft();
            debug_assert!(change.get_change_type() != ConfChangeType::AddNode || change.node_id != 0);
            let conf = self.raw.apply_conf_change(&change)?;
            debug_assert!(
                raft_conf_is(&conf, &self.state.conf),
                "raft's configuration {conf:?} is not ours {:?}",
                self.state.conf
            );
            let conf = self.state.conf.clone();
            self.log().set_conf_state(conf);
            self.lease.end(now.monotonic);
            self.settle_election_timeout();
        }
        if let Some(directory) = applied.directory {
            self.directory_pending = false;
            out.news.push(News::Directory(directory));
        }
        self.answer_applied(now, LogIndex(entry.index), Term(entry.term), out);
        Ok(())
    }

    /// Tells everyone who waits that nothing more comes.
    pub(super) fn abandon(&mut self, error: &Error, out: &mut Output) {
        let mut reads = self.reads.take_all();
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|write| write.waiter);
        let mut waiters: Vec<_> = waiting.chain(self.proposals.abandon()).collect();
        for (parked, _) in std::mem::take(&mut self.parked).into_values() {
            match parked {
                Parked::Write(write) => waiters.push(write.waiter),
                Parked::Read(read) => reads.push(read),
                Parked::Apply | Parked::SaveRecords | Parked::Upkeep | Parked::Send(_) => {}
            }
        }
        reads.iter().for_each(|read| read.fail(error, out));
        out.fail_all(waiters, error);
    }

    /// How many requests wait here, what the replica itself waits for included.
    pub(super) fn requests_waiting(&self) -> usize {
        self.reads.len() + self.waiting.len() + self.parked.len() + self.proposals.waiters()
    }

    /// Bytes of entries that are gathered or proposed and not yet applied.
    pub(super) fn bytes_proposed(&self) -> usize {
        self.proposals.bytes() + self.builder.byte_size()
    }

    /// A request for which there is no room is refused at once.
    pub(super) fn is_overloaded(&self) -> bool {
        self.requests_waiting() >= self.options.requests_waiting_max
    }

    /// Hands a request to its half of the replica.
    pub(super) fn on_request(&mut self, now: Now, request: Request, out: &mut Output) {
        if self.leading.is_none() {
            let error = self.not_leader(now);
            out.fail(request.responder, &error);
        } else if self.is_overloaded() {
            out.fail(request.responder, &Error::Overloaded { retry_after_ms: 20 });
        } else {
            self.dispatch(now, request);
        }
    }
}

fn raft_conf_is(theirs: &raft::eraftpb::ConfState, ours: &raft::eraftpb::ConfState) -> bool {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    sorted(&theirs.voters) == ours.voters && sorted(&theirs.learners) == ours.learners
}

/// The newest revision that an entry assigns.
pub(super) fn newest_revision_of(entry: &Entry) -> Revision {
    if entry.data.is_empty() || entry.get_entry_type() != raft::eraftpb::EntryType::EntryNormal {
        return Revision::ZERO;
    }
    mesh_engine::effect::newest_revision(&entry.data)
}
