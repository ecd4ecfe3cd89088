//! A client that retries: one operation at a time, under a session, at whatever node seems to lead.
//!
//! It does what a client library does and no more: the same write is sent again under the same number; only an answer that
//! says "certainly not applied", to every attempt, makes it so; an answer to no attempt means "unknown". Some clients take
//! such an answer for the end, so that it is put to the proof: a write that is tried again hides that it was a lie. Some
//! send a request to two nodes at once, and some go without waiting for the end, never to come back.
//!
//! What comes to its mind is in [`choosing`](super::choosing).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mesh_base::prng::Prng;
use mesh_base::{Instant, ReplicaId, SessionId, SessionSeq, ShardId, SlotEpoch};
use mesh_wire::{
    Envelope, Error, FrameDecoder, FrameWriter, OpenSession, ReplaceNode, Request, RequestId, Response,
    WriteContext,
};

use super::habits::{Habits, WhenDenied};
use super::keys::{Keyspace, Scope};
use super::lists::Lists;
use super::transactions::Memory;
use super::work::{Progress, Work, encode};
use crate::history::{ClientNo, History, Outcome, Stamp};
use crate::options::Options;

/// How often a client sends a write again that was answered "unknown": its session may be gone, and say so for ever.
const UNKNOWNS_MAX: u32 = 3;
/// How long a client keeps trying.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How long an attempt waits at most because others before it were too short: on a slow link no short one is ever answered.
const ATTEMPT_MAX: Duration = Duration::from_millis(200);
/// What the numbers of two clients differ by of which the one came in the other's place.
const GENERATION: u64 = 1000;

/// What a client wants of the world.
pub(super) enum Step {
    /// Send a frame to a node, and perhaps to another as well, and ask again after a time if the attempt with this number
    /// is still open.
    Send { node: usize, also: Option<usize>, frame: Bytes, attempt: u64, wait: Duration },
    /// Try again after a pause.
    Pause { attempt: u64, wait: Duration },
    /// The operation is over.
    Done,
}

/// Something that a client is to read at the end of a run.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// A key.
    Get(Bytes),
    /// All of a shard.
    Range(ShardId),
}

/// What a run's clients share.
pub(super) struct Shared {
    pub(super) keys: Keyspace,
    pub(super) options: Options,
}

/// A client.
pub(super) struct Client {
    /// Which of the run's clients it is.
    pub(super) place: usize,
    /// How many were in its place before.
    generation: u64,
    pub(super) prng: Prng,
    habits: Habits,
    sessions: BTreeMap<ShardId, Session>,
    openings: BTreeMap<ShardId, Opening>,
    leaders: BTreeMap<ShardId, usize>,
    next_stamp: u64,
    attempt: u64,
    current: Option<Operation>,
    /// What it was to read last, until it is read.
    wish: Option<Wish>,
    served: u64,
    /// Reads whose revision was compacted.
    compacted: u64,
    /// What it remembers of what it saw.
    pub(super) memory: Memory,
    /// What it has for itself, from when it first looks.
    pub(super) lists: Option<Lists>,
    /// What was wrong with an answer.
    complaint: Option<String>,
    /// What the last attempt that a node refused was refused with.
    refusal: Option<Error>,
    writer: FrameWriter,
}

struct Session {
    id: SessionId,
    next: SessionSeq,
}

/// The sessions that a client wants, or wanted, to open.
#[derive(Default)]
struct Opening {
    /// By which the shard knows the one whose answer did not come yet.
    nonce: Option<u64>,
    /// How many in all.
    count: usize,
}

struct Operation {
    work: Work,
    patience: Patience,
    begun: Instant,
    /// How long it waits for the next attempt.
    wait: Duration,
    /// The number of the write, once it was sent; its session cannot change after that.
    write: Option<(SessionId, SessionSeq)>,
    /// Whether a write was sent in an attempt whose end is not known.
    is_ambiguous: bool,
    /// Of the present attempt.
    sent: Sent,
    /// How often the write was answered "unknown".
    unknowns: u32,
}

/// How long a client goes on with a write whose end it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// As long as with anything.
    Bounded,
    /// Until it knows, as long as its session is there to say so.
    UntilKnown,
}

/// What an attempt sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sent {
    is_write: bool,
    /// To how many nodes that did not answer yet.
    open: u32,
}

impl Client {
    pub(super) fn new(place: usize, habits: Habits, prng: Prng) -> Self {
        Self {
            place,
            generation: 0,
            habits,
            prng,
            sessions: BTreeMap::new(),
            openings: BTreeMap::new(),
            leaders: BTreeMap::new(),
            next_stamp: 1,
            attempt: 0,
            current: None,
            wish: None,
            served: 0,
            compacted: 0,
            memory: Memory::default(),
            lists: None,
            complaint: None,
            refusal: None,
            writer: FrameWriter::new(),
        }
    }

    /// Operations that ended well.
    pub(super) const fn served(&self) -> u64 {
        self.served
    }

    /// How many reads it gave up because their revision was compacted.
    pub(super) const fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Sessions of a shard that it opened, or may have.
    pub(super) fn sessions_opened(&self, shard: ShardId) -> usize {
        self.openings.get(&shard).map_or(0, |opening| opening.count)
    }

    /// What the present or last operation was last refused with, if it was.
    pub(super) const fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// What was wrong with an answer, if anything was.
    pub(super) const fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    pub(super) const fn number(&self) -> ClientNo {
        ClientNo(self.place as u64 + self.generation * GENERATION)
    }

    pub(super) fn next_stamp(&mut self) -> Stamp {
        let stamp = Stamp((self.place as u64) << 32 | self.next_stamp);
        self.next_stamp += 1;
        stamp
    }

    /// Goes to a node first.
    pub(super) fn go_to(&mut self, shard: ShardId, node: usize) {
        self.leaders.insert(shard, node);
    }

    /// Begins to read what is wished for at the end of a run.
    pub(super) fn fulfil(
        &mut self,
        wish: Wish,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Step {
        let work = match &wish {
            Wish::Get(key) => self.get(key.clone(), now, shared, history),
            // As many items to a page as the server gives.
            Wish::Range(shard) => self.range(*shard, Scope::All, 0, now, shared, history),
        };
        self.wish = Some(wish);
        self.start(now, work, Patience::Bounded, shared)
    }

    /// Goes, never to come back, whatever becomes of what it asked for. Another comes in its place, with sessions of its
    /// own, and inherits the lists of which it was known what they are.
    pub(super) fn leave(&mut self) {
        self.attempt += 1;
        self.generation += 1;
        self.current = None;
        self.sessions.clear();
        self.leaders.clear();
        self.openings.values_mut().for_each(|opening| opening.nonce = None);
        self.lists.iter_mut().for_each(|lists| lists.ended(Outcome::Unknown));
    }

    /// What it was to read and has not.
    pub(super) const fn unfulfilled(&mut self) -> Option<Wish> {
        self.wish.take()
    }

    /// Whether it does nothing, and has nothing left to do.
    pub(super) const fn is_idle(&self) -> bool {
        self.current.is_none() && self.wish.is_none()
    }

    /// Sends a request for the first time.
    pub(super) fn start(&mut self, now: Instant, work: Work, patience: Patience, shared: &Shared) -> Step {
        assert!(self.current.is_none(), "one operation at a time");
        self.refusal = None;
        self.current = Some(Operation {
            work,
            patience,
            begun: now,
            wait: self.habits.patience,
            write: None,
            is_ambiguous: false,
            sent: Sent { is_write: false, open: 0 },
            unknowns: 0,
        });
        self.try_again(shared)
    }

    /// An attempt was not answered in time, or a pause is over.
    pub(super) fn alarm(
        &mut self,
        attempt: u64,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Option<Step> {
        if attempt != self.attempt {
            return None;
        }
        let current = self.current.as_mut()?;
        if std::mem::take(&mut current.sent.open) > 0 {
            current.is_ambiguous |= current.sent.is_write;
            current.wait = (current.wait * 2).min(ATTEMPT_MAX.max(self.habits.patience));
            self.leaders.remove(&current.work.shard);
        }
        let goes_on = current.patience == Patience::UntilKnown && current.is_ambiguous;
        if now.since(current.begun) >= PATIENCE && !goes_on {
            self.give_up(now, history);
            return Some(Step::Done);
        }
        Some(self.try_again(shared))
    }

    /// The connection with a node broke, and with it any answer that was to come.
    pub(super) fn cut_off_from(&mut self, node: usize) -> Option<Step> {
        let current = self.current.as_mut().filter(|current| current.sent.open > 0)?;
        let shard = current.work.shard;
        if self.leaders.get(&shard) != Some(&node) {
            return None;
        }
        current.is_ambiguous |= current.sent.is_write;
        current.sent.open -= 1;
        if current.sent.open > 0 {
            // The other node may say more.
            return None;
        }
        self.leaders.remove(&shard);
        Some(self.pause())
    }

    fn pause(&mut self) -> Step {
        let wait = Duration::from_millis(2 + self.prng.range(0..40));
        self.attempt += 1;
        Step::Pause { attempt: self.attempt, wait }
    }

    /// Sends the operation, or what has to come before it.
    fn try_again(&mut self, shared: &Shared) -> Step {
        self.attempt += 1;
        let Some(current) = &mut self.current else { return Step::Done };
        let shard = current.work.shard;
        let node = *self.leaders.entry(shard).or_insert_with(|| self.prng.index(shared.options.size.nodes));
        let nodes = shared.options.size.nodes;
        let twice = nodes > 1 && self.prng.chance_per_mille(shared.options.load.twice_per_mille);
        let also = twice.then(|| (node + 1 + self.prng.index(nodes - 1)) % nodes);
        let envelope = Envelope { request: RequestId(self.attempt), shard: Some(shard), epoch: SlotEpoch(1) };
        let is_write = current.work.is_write();
        current.sent = Sent { is_write: false, open: 1 + u32::from(also.is_some()) };
        let (attempt, wait) = (self.attempt, current.wait);
        if is_write && current.write.is_none() {
            let Some(session) = self.sessions.get_mut(&shard) else {
                let opening = self.openings.entry(shard).or_default();
                let nonce = *opening.nonce.get_or_insert_with(|| {
                    opening.count += 1;
                    self.prng.next_u64()
                });
                let open = Request::OpenSession(OpenSession { nonce });
                let frame = encode(&mut self.writer, &envelope, &open);
                return Step::Send { node, also, frame, attempt, wait };
            };
            current.write = Some((session.id, session.next));
            session.next = session.next.next();
        }
        let (session, seq) = current.write.unwrap_or_default();
        let write = WriteContext {
            session,
            seq,
            acknowledged_below: seq,
            deadline_ms: self.prng.choose(self.habits.write_deadlines_ms).copied().unwrap_or(1000),
            ..WriteContext::default()
        };
        current.sent.is_write = is_write;
        let frame = current.work.frame(&mut self.writer, &envelope, write);
        Step::Send { node, also, frame, attempt, wait }
    }

    /// An answer arrived.
    pub(super) fn receive(
        &mut self,
        node: usize,
        frame: &Bytes,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Option<Step> {
        let mut buffer = BytesMut::from(frame.chunk());
        let decoded = FrameDecoder::new().decode(&mut buffer);
        let Ok(Some(frame)) = decoded else { unreachable!("an answer is a frame: {decoded:?}") };
        if frame.header.envelope.request != RequestId(self.attempt) {
            return None;
        }
        let current = self.current.as_mut()?;
        let response = match frame.response() {
            Ok(response) => response,
            Err(error) => unreachable!("an answer is well formed: {error}"),
        };
        // This very sending is answered: what became of it is known.
        current.sent.open = current.sent.open.saturating_sub(1);
        let shard = current.work.shard;
        match response {
            Response::Error(error) => {
                current.is_ambiguous |= current.sent.is_write && !error.certainly_not_applied();
                if current.sent.open > 0 {
                    // The other node may say more.
                    return None;
                }
                self.leaders.insert(shard, node);
                Some(self.refused(&error, now, history))
            }
            Response::SessionOpened(opened) => {
                self.leaders.insert(shard, node);
                self.sessions.insert(shard, Session { id: opened.session, next: SessionSeq(1) });
                self.openings.entry(shard).or_default().nonce = None;
                Some(self.try_again(shared))
            }
            answer => {
                self.leaders.insert(shard, node);
                match current.work.take(&answer, now, shared, &mut self.memory, history) {
                    Ok(Progress::NextPage) => Some(self.try_again(shared)),
                    Ok(Progress::Done(outcome)) => {
                        self.finish(outcome);
                        Some(Step::Done)
                    }
                    Err(complaint) => {
                        self.complaint = Some(complaint);
                        None
                    }
                }
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.current = None;
        self.wish = None;
        self.served += 1;
        self.attempt += 1;
        self.lists.iter_mut().for_each(|lists| lists.ended(outcome));
    }

    fn refused(&mut self, error: &Error, now: Instant, history: &mut History) -> Step {
        self.refusal = Some(error.clone());
        let Some(current) = &mut self.current else { return Step::Done };
        let shard = current.work.shard;
        let is_denied = current.sent.is_write && !current.is_ambiguous;
        match error {
            Error::NotLeader { leader, .. } => {
                let known = leader.as_ref().and_then(|leader| node_number(&leader.address));
                match known {
                    Some(number) => self.leaders.insert(shard, number),
                    None => self.leaders.remove(&shard),
                };
            }
            // The write was not applied, and under this session none can be any more.
            Error::UnknownSession => {
                self.sessions.remove(&shard);
                current.write = None;
                current.is_ambiguous = false;
            }
            Error::Unknown if current.write.is_some() && current.unknowns < UNKNOWNS_MAX => {
                current.unknowns += 1;
            }
            Error::Unknown if current.write.is_some() => {
                self.sessions.remove(&shard);
                self.give_up(now, history);
                return Step::Done;
            }
            // An outcome as any other: whatever was sent before is answered so, too.
            Error::Conflict { key, revision } => {
                if !current.work.may_conflict(key, *revision) {
                    let what = format!("a transaction was refused for no reason: {error}");
                    self.complaint.get_or_insert(what);
                }
                current.is_ambiguous = false;
                self.give_up(now, history);
                return Step::Done;
            }
            Error::Compacted { .. } => {
                self.compacted += 1;
                self.give_up(now, history);
                return Step::Done;
            }
            Error::WrongShard { .. }
            | Error::Malformed { .. }
            | Error::TooLarge { .. }
            | Error::WrongType { .. }
            | Error::Internal { .. } => {
                unreachable!("the client asks properly: {error}")
            }
            _ => {
                self.leaders.remove(&shard);
            }
        }
        if is_denied && self.habits.denied == WhenDenied::GivesUp {
            self.give_up(now, history);
            return Step::Done;
        }
        self.pause()
    }

    /// The operation ends without an answer.
    fn give_up(&mut self, now: Instant, history: &mut History) {
        self.attempt += 1;
        let Some(current) = self.current.take() else { return };
        let outcome = if current.is_ambiguous { Outcome::Unknown } else { Outcome::NotApplied };
        let outcome = if current.work.is_write() { outcome } else { Outcome::Unknown };
        current.work.end(now, outcome, None, history);
        self.lists.iter_mut().for_each(|lists| lists.ended(outcome));
    }
}

/// Nodes of the simulation have addresses like `node-2:7700`.
fn node_number(address: &str) -> Option<usize> {
    address.strip_prefix("node-")?.split(':').next()?.parse().ok()
}

/// Where a node of the simulation is reached.
pub(super) fn address_of(node: usize) -> String {
    format!("node-{node}:7700")
}

/// Replaces the replicas of a wiped node: the operator's client.
pub(super) fn replace_request(writer: &mut FrameWriter, name: &str, lost: ReplicaId, request: u64) -> Bytes {
    let envelope = Envelope { request: RequestId(request), shard: Some(ShardId(0)), epoch: SlotEpoch(1) };
    encode(writer, &envelope, &Request::ReplaceNode(ReplaceNode { name, nonce: lost.0 }))
}
