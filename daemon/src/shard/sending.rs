//! Snapshots to replicas that the log cannot bring up: the cells of a pinned checkpoint, in chunks, then raft's message.
//!
//! A leader offers one, and the receiver says where the chunks shall begin. That place is wherever it is: at the start, or
//! where a transfer of the same checkpoint broke off. While the checkpoint is pinned the sending can go on, over any break
//! of the link, after a restart of the receiver, and though another leads meanwhile: a checkpoint is the state at one
//! committed index, whoever leads, and a new leader whose log goes on from that index finishes what it did not begin.
//!
//! Invariants:
//! - The checkpoint that is sent is pinned, and the log is kept from its index on, while it is sent: until the receiver came
//!   no further for `snapshot_resume_within`, or caught up. Where disk space runs short nothing is kept or begun.
//! - raft is told how each snapshot it asked for ended. Its own message leaves only when the receiver has the whole, and
//!   names that one.
//! - The receiver is part of the configuration that the snapshot carries; raft would drop it silently otherwise.

use std::ops::Bound;

use mesh_base::flaw::{self, Flaw};
use mesh_base::{Instant, LogIndex, Now, ReplicaId};
use mesh_engine::{KeyRange, Lookup, PinId, SnapshotSource};
use mesh_raftlog::{HoldId, Space};
use raft::eraftpb::{Message, Snapshot};
use raft::{ProgressState, SnapshotStatus as RaftStatus};

use super::configuration;
use super::error::ShardError;
use super::output::Output;
use super::replica::{Parked, Replica};
use super::snapshot::{Ack, AckStatus, Chunk, Offer, Place};
use super::stream::Stream;

/// Offers without an answer after which raft is told that the snapshot was not sent.
const OFFERS_MAX: u32 = 8;

/// A snapshot on its way to one replica.
#[derive(Debug)]
pub(super) struct Sending {
    source: SnapshotSource,
    snapshot: Snapshot,
    /// raft's own message, for the end; nothing while raft does not wait for this one.
    request: Option<Message>,
    pin: Option<PinId>,
    hold: HoldId,
    stage: Stage,
    stream: Stream,
    pages: Pages,
    last_heard: Instant,
    /// When the receiver last came further.
    progressed: Instant,
    last_offered: Instant,
    /// Offers since the receiver was heard.
    offers: u32,
    /// What the receiver was last known to have.
    matched: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The receiver has not said where to begin.
    Offered,
    Streaming,
    /// The receiver is being sent another one, by another replica.
    Elsewhere,
    /// The receiver has everything up to this index; the log is kept until it has caught up.
    Delivered(LogIndex),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pages {
    There,
    /// Those of the next chunk are being read.
    Awaited,
}

impl Sending {
    /// Chunks that are sent and not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.stream.under_way()
    }

    fn wants_a_chunk(&self) -> bool {
        let is_ready = self.stage == Stage::Streaming && self.pages == Pages::There && self.pin.is_some();
        is_ready && self.stream.next().is_some()
    }

    fn is_of(&self, ack: &Ack) -> bool {
        (self.source.replica, self.source.checkpoint, self.source.applied)
            == (ack.to, ack.checkpoint, ack.index)
    }
}

impl Replica {
    /// raft wants a snapshot sent. It gets the one that is being sent already, or else the newest checkpoint, which is no
    /// older than the one it knows of.
    pub(super) fn begin_sending(
        &mut self,
        now: Now,
        message: Message,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let to = ReplicaId(message.to);
        if let Some(sending) = self.sending.get_mut(&to).filter(|sending| sending.pin.is_some()) {
            sending.request = Some(message);
            sending.offers = 0;
            self.offer(now, to, out);
            return Ok(());
        }
        // Of one that was delivered its index: the receiver may have that already when it is offered this one.
        let delivered = self.sending.get(&to).and_then(|sending| match sending.stage {
            Stage::Delivered(index) => Some(index),
            Stage::Offered | Stage::Streaming | Stage::Elsewhere => None,
        });
        let kept = delivered.map(|index| self.log().hold(index));
        self.end_sending(to);
        let is_member = configuration::contains(&self.checkpointing.durable_conf, to);
        if !is_member || self.is_short_of_space() {
            if !is_member {
                self.checkpointing.want();
            }
            if let Some(kept) = kept {
                self.log().release(kept);
            }
            if !flaw::is_planted(Flaw::ForgetFailedSnapshot) {
                self.raw.report_snapshot(to.0, RaftStatus::Failure);
            }
            return Ok(());
        }
        let snapshot = self.durable_snapshot();
        let checkpoint = self.state.store.checkpoint();
        let (applied, term) = (checkpoint.applied, checkpoint.term);
        let replica = self.identity.replica;
        let sending = Sending {
            source: SnapshotSource { replica, checkpoint: checkpoint.checkpoint, applied, term },
            snapshot,
            request: Some(message),
            pin: Some(self.state.store.pin()),
            hold: kept.unwrap_or_else(|| self.log().hold(applied)),
            stage: Stage::Offered,
            stream: Stream::new(),
            pages: Pages::There,
            last_heard: now.monotonic,
            progressed: now.monotonic,
            last_offered: now.monotonic,
            offers: 0,
            matched: 0,
        };
        tracing::info!(shard = %self.identity.shard, %to, index = %applied, "sends a snapshot");
        self.sending.insert(to, sending);
        self.offer(now, to, out);
        Ok(())
    }

    /// The newest durable checkpoint as raft knows snapshots.
    fn durable_snapshot(&self) -> Snapshot {
        let meta = self.state.store.checkpoint();
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = meta.applied.0;
        metadata.term = meta.term.0;
        metadata.set_conf_state(self.checkpointing.durable_conf.clone());
        snapshot
    }

    /// Offers raft the newest checkpoint, or takes one if raft wants a newer.
    pub(super) fn offer_snapshot(&mut self) {
        let Some((index, to)) = self.log().take_snapshot_request() else { return };
        let applied = self.state.store.checkpoint().applied;
        let known = configuration::contains(&self.checkpointing.durable_conf, to);
        if applied >= index && applied >= self.raw.store().first_index().prev() && known {
            let snapshot = self.durable_snapshot();
            self.log().offer_snapshot(snapshot);
        } else {
            self.checkpointing.want();
        }
    }

    /// Tells a receiver that there is a snapshot for it.
    fn offer(&mut self, now: Now, to: ReplicaId, out: &mut Output) {
        let least = self.raw.store().first_index().prev();
        let Some(sending) = self.sending.get_mut(&to) else { return };
        sending.last_offered = now.monotonic;
        sending.offers += 1;
        let (source, snapshot) = (sending.source, sending.snapshot.clone());
        Offer { to, source, least, snapshot }.send(self.identity.shard, out);
    }

    /// Whether nothing may be kept for others.
    fn is_short_of_space(&self) -> bool {
        self.raw.store().space() == Space::Full || self.checkpointing.is_out_of_space()
    }

    /// Goes on with every sending.
    pub(super) fn send_snapshots(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        self.offer_snapshot();
        let receivers: Vec<_> = self.sending.keys().copied().collect();
        for to in receivers {
            self.watch_sending(now, to, out);
        }
        if let Some(to) = self.next_receiver()
            && out.sending.take()
        {
            self.sent_last = to;
            self.send_chunk(now, to, out)?;
            if self.next_receiver().is_some() {
                out.sending.want();
            }
        }
        Ok(())
    }

    /// Whose turn it is to be sent a chunk.
    fn next_receiver(&self) -> Option<ReplicaId> {
        let behind = (Bound::Excluded(self.sent_last), Bound::Unbounded);
        let mut in_turn = self.sending.range(behind).chain(&self.sending);
        in_turn.find(|(_, sending)| sending.wants_a_chunk()).map(|(to, _)| *to)
    }

    /// Makes the next chunk, or has its pages read.
    fn send_chunk(&mut self, now: Now, to: ReplicaId, out: &mut Output) -> Result<(), ShardError> {
        let Some(sending) = self.sending.get_mut(&to) else { return Ok(()) };
        let (Some(pin), Some(from)) = (sending.pin, sending.stream.next()) else { return Ok(()) };
        let range = KeyRange::starting_at(Some(from));
        match self.state.store.scan_cells(pin, range, self.options.snapshot_chunk_bytes)? {
            Lookup::Miss(misses) => {
                sending.pages = Pages::Awaited;
                self.park(&misses, Parked::Send(to), out);
            }
            Lookup::Ready(chunk) => {
                sending.stream.sent(now.monotonic, Place::of(chunk.next.as_ref()));
                out.sending.spend(chunk.bytes.len());
                let (source, snapshot) = (sending.source, sending.snapshot.clone());
                Chunk { to, source, snapshot, bytes: chunk.bytes }.send(self.identity.shard, out);
            }
        }
        Ok(())
    }

    /// The pages of the next chunk came. They stay for this moment alone: the chunk is made whoever's turn it is.
    pub(super) fn resume_sending(
        &mut self,
        now: Now,
        to: ReplicaId,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let Some(sending) = self.sending.get_mut(&to) else { return Ok(()) };
        sending.pages = Pages::There;
        if sending.wants_a_chunk() { self.send_chunk(now, to, out) } else { Ok(()) }
    }

    /// Offers again what is not answered in time; gives up at last; ends what has done its work.
    fn watch_sending(&mut self, now: Now, to: ReplicaId, out: &mut Output) {
        let is_member = configuration::contains(&self.state.conf, to);
        let (patience, within) = (self.options.snapshot_patience, self.options.snapshot_resume_within);
        if self.is_short_of_space() {
            self.fail_sending(to);
            self.end_sending(to);
            return;
        }
        let Some(sending) = self.sending.get_mut(&to) else { return };
        if let Stage::Delivered(index) = sending.stage {
            self.watch_delivered(now, to, index);
            return;
        }
        let is_stuck = sending.stage != Stage::Elsewhere && now.monotonic.since(sending.progressed) >= within;
        if !is_member || is_stuck {
            self.fail_sending(to);
            self.end_sending(to);
            return;
        }
        let silence = now.monotonic.since(sending.last_heard);
        if sending.request.is_none() {
            if silence >= within || sending.pin.is_none() {
                self.end_sending(to);
            }
            return;
        }
        if silence.min(now.monotonic.since(sending.last_offered)) < patience {
            return;
        }
        if sending.offers < OFFERS_MAX {
            self.offer(now, to, out);
        } else {
            tracing::warn!(shard = %self.identity.shard, %to, "a snapshot's receiver does not answer");
            self.fail_sending(to);
        }
    }

    /// A receiver has the whole: raft and the log bring it up from there.
    fn watch_delivered(&mut self, now: Now, to: ReplicaId, index: LogIndex) {
        let Some(sending) = self.sending.get_mut(&to) else { return };
        let progress = self.raw.raft.prs().get(to.0);
        let matched = progress.map_or(u64::MAX, |progress| progress.matched);
        let awaits = progress.is_some_and(|it| it.state == ProgressState::Snapshot);
        if matched > sending.matched {
            sending.matched = matched;
            sending.last_heard = now.monotonic;
        }
        let silence = now.monotonic.since(sending.last_heard);
        if awaits {
            if matched >= index.0 {
                // It took in an older one than raft asked for, and raft would wait for that for ever.
                self.raw.report_snapshot(to.0, RaftStatus::Failure);
            } else if silence >= self.options.snapshot_patience {
                // The message, or the answer to it, was lost.
                self.raw.report_snapshot(to.0, RaftStatus::Finish);
            }
            return;
        }
        // The log is kept until the receiver has caught up, and has all of it that a checkpoint makes dispensable; or has
        // long made no progress.
        let has_the_old = matched >= self.raw.store().least_checkpoint().applied.get();
        if self.is_caught_up(to) && has_the_old || silence >= self.options.snapshot_resume_within {
            self.end_sending(to);
        }
    }

    /// A receiver tells how far it is.
    pub(super) fn on_ack(&mut self, now: Now, ack: Ack, out: &mut Output) {
        let (to, patience) = (ack.from, self.options.snapshot_patience);
        let Some(sending) = self.sending.get_mut(&to).filter(|sending| sending.is_of(&ack)) else { return };
        if matches!(sending.stage, Stage::Delivered(_)) {
            return;
        }
        sending.last_heard = now.monotonic;
        sending.offers = 0;
        match ack.status {
            AckStatus::Ok(place) => {
                if sending.stream.acknowledge(place) {
                    sending.progressed = now.monotonic;
                }
            }
            AckStatus::Resume(place) if sending.pin.is_some() => {
                if sending.stage != Stage::Streaming || !sending.stream.is_at(&place) {
                    sending.progressed = now.monotonic;
                }
                sending.stage = Stage::Streaming;
                sending.stream.resume(now.monotonic, place, patience);
            }
            AckStatus::Done(held) if sending.request.is_some() => self.deliver(to, held, out),
            AckStatus::Elsewhere(held) if sending.request.is_some() => {
                sending.stage = Stage::Elsewhere;
                self.keep_only_the_log(to, LogIndex(held.get_metadata().index));
            }
            // What it was sent elsewhere came to nothing; raft asks for another one of ours.
            AckStatus::Resume(_) | AckStatus::Failed => {
                self.fail_sending(to);
                self.end_sending(to);
            }
            AckStatus::Done(_) | AckStatus::Elsewhere(_) => self.end_sending(to),
        }
    }

    /// A receiver has the whole of a snapshot: raft is to take it in.
    fn deliver(&mut self, to: ReplicaId, held: Snapshot, out: &mut Output) {
        let index = LogIndex(held.get_metadata().index);
        self.keep_only_the_log(to, index);
        let Some(sending) = self.sending.get_mut(&to) else { return };
        sending.stage = Stage::Delivered(index);
        // raft hears that it is taken in from the receiver itself; what it sends before that is refused.
        if let Some(mut message) = sending.request.take() {
            message.set_snapshot(held);
            out.raft(message);
        }
    }

    /// Of what a sending holds the log is still needed, from an index on, and the checkpoint is not.
    fn keep_only_the_log(&mut self, to: ReplicaId, index: LogIndex) {
        self.unpark_sending(to);
        let hold = self.log().hold(index);
        let Some(sending) = self.sending.get_mut(&to) else { return };
        let (pin, hold) = (sending.pin.take(), std::mem::replace(&mut sending.hold, hold));
        sending.stream = Stream::new();
        self.log().release(hold);
        if let Some(pin) = pin {
            self.state.store.unpin(pin);
        }
    }

    /// Tells raft, if it waits for the snapshot, that it was not sent. It may still be gone on with. Of one that was delivered,
    /// whose receiver has not answered, raft waits for that answer, which may have been lost.
    fn fail_sending(&mut self, to: ReplicaId) {
        let Some(sending) = self.sending.get_mut(&to) else { return };
        let is_delivered = matches!(sending.stage, Stage::Delivered(_));
        let progress = self.raw.raft.prs().get(to.0);
        let is_awaited = is_delivered && progress.is_some_and(|it| it.state == ProgressState::Snapshot);
        if sending.request.take().is_some() || is_awaited {
            self.raw.report_snapshot(to.0, RaftStatus::Failure);
        }
    }

    fn unpark_sending(&mut self, to: ReplicaId) {
        self.unpark_if(|parked| matches!(parked, Parked::Send(receiver) if *receiver == to));
        if let Some(sending) = self.sending.get_mut(&to) {
            sending.pages = Pages::There;
        }
    }

    /// Lets go of everything that a sending holds. The pages that it waits for are not those of the next one.
    fn end_sending(&mut self, to: ReplicaId) {
        self.unpark_sending(to);
        if let Some(sending) = self.sending.remove(&to) {
            if let Some(pin) = sending.pin {
                self.state.store.unpin(pin);
            }
            self.log().release(sending.hold);
        }
    }

    /// Another leads: raft waits no more for what is sent here. Whoever receives it may have the rest of it.
    pub(super) fn forget_requests_for_snapshots(&mut self) {
        let receivers: Vec<_> = self.sending.keys().copied().collect();
        for to in receivers {
            match self.sending.get_mut(&to) {
                Some(sending) if sending.pin.is_some() => sending.request = None,
                _ => self.end_sending(to),
            }
        }
    }

    /// The store whose checkpoints are sent is about to be replaced.
    pub(super) fn end_all_sendings(&mut self) {
        let receivers: Vec<_> = self.sending.keys().copied().collect();
        receivers.into_iter().for_each(|to| self.end_sending(to));
    }
}
