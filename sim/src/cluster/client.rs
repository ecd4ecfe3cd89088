//! A client that retries: one operation at a time, under a session, at whatever node seems to lead.
//!
//! It does what a client library does and no more: the same write is sent again under the same number; only an answer that
//! says "certainly not applied", to every attempt, makes it so; an answer to no attempt means "unknown". Some clients take
//! such an answer for the end, so that it is put to the proof: a write that is tried again hides that it was a lie.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mesh_base::prng::Prng;
use mesh_base::{Instant, ReplicaId, Revision, SessionId, SessionSeq, ShardId, SlotEpoch};
use mesh_server::router::SlotMap;
use mesh_wire::{
    Delete, Envelope, Error, FrameDecoder, FrameWriter, Get, OpenSession, Put, Range, ReadContext,
    ReplaceNode, Request, RequestId, Response, WriteContext,
};

use super::habits::{Habits, WhenDenied};
use crate::history::{Action, ClientNo, History, OpId, Outcome, RangeId, Stamp};

/// How often a client sends a write again that was answered "unknown": its session may be gone, and say so for ever.
const UNKNOWNS_MAX: u32 = 3;
/// How long a client keeps trying.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What a client wants of the world.
pub(super) enum Step {
    /// Send a frame to a node, and ask again after a time if the attempt with this number is still open.
    Send { node: usize, frame: Bytes, attempt: u64, wait: Duration },
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
    pub(super) keys: Vec<Bytes>,
    pub(super) slots: SlotMap,
    pub(super) nodes: usize,
    pub(super) value_bytes_max: usize,
    /// From where to where clients read ranges; nothing for no bound. All keys there are among `keys`.
    pub(super) ranges: (Bytes, Bytes),
}

/// One operation that a client is told to do.
pub(crate) enum Errand {
    /// Write these bytes, behind a stamp.
    Put(Bytes),
    /// Remove the value.
    Delete,
    /// Read the value.
    Get,
}

/// A client.
pub(super) struct Client {
    id: u64,
    prng: Prng,
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
    kind: Kind,
    shard: ShardId,
    begun: Instant,
    /// The number of the write, once it was sent; its session cannot change after that.
    write: Option<(SessionId, SessionSeq)>,
    /// Whether a write was sent in an attempt whose end is not known.
    is_ambiguous: bool,
    /// Whether the present attempt has sent the write and was not answered.
    is_write_open: bool,
    /// How often the write was answered "unknown".
    unknowns: u32,
}

enum Kind {
    Put { op: OpId, key: Bytes, value: Bytes },
    Delete { op: OpId, key: Bytes },
    Get { op: OpId, key: Bytes },
    Range { op: RangeId, pages: Pages },
}

/// A range read, page by page, all at the revision of the first.
struct Pages {
    reverse: bool,
    limit: u32,
    at: Revision,
    after: Option<Bytes>,
    found: Vec<(Bytes, Stamp, Revision)>,
}

impl Client {
    pub(super) fn new(id: usize, habits: Habits, prng: Prng) -> Self {
        Self {
            id: id as u64,
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
            refusal: None,
            writer: FrameWriter::new(),
        }
    }

    /// Operations that ended well.
    pub(super) const fn served(&self) -> u64 {
        self.served
    }

    /// Sessions of a shard that it opened, or may have.
    pub(super) fn sessions_opened(&self, shard: ShardId) -> usize {
        self.openings.get(&shard).map_or(0, |opening| opening.count)
    }

    /// What the present or last operation was last refused with, if it was.
    pub(super) const fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// Begins an operation of the caller's choice, at a node of the caller's choice if there is one.
    pub(super) fn run_errand(
        &mut self,
        now: Instant,
        key: Bytes,
        errand: Errand,
        at: Option<usize>,
        shared: &Shared,
        history: &mut History,
    ) -> (OpId, Step) {
        let client = ClientNo(self.id);
        let shard = shared.slots.shard_of_key(&key);
        let (op, kind) = match errand {
            Errand::Put(text) => {
                let stamp = self.next_stamp();
                let value = Bytes::from([&stamp.0.to_le_bytes(), text.as_ref()].concat());
                let op = history.invoke(now, client, key.clone(), Action::Put(stamp));
                (op, Kind::Put { op, key, value })
            }
            Errand::Delete => {
                let op = history.invoke(now, client, key.clone(), Action::Delete);
                (op, Kind::Delete { op, key })
            }
            Errand::Get => {
                let op = history.invoke(now, client, key.clone(), Action::Get);
                (op, Kind::Get { op, key })
            }
        };
        if let Some(node) = at {
            self.leaders.insert(shard, node);
        }
        (op, self.start(now, kind, shard, shared))
    }

    fn next_stamp(&mut self) -> Stamp {
        let stamp = Stamp(self.id << 32 | self.next_stamp);
        self.next_stamp += 1;
        stamp
    }

    /// Begins the next operation.
    pub(super) fn begin(&mut self, now: Instant, shared: &Shared, history: &mut History) -> Step {
        let client = ClientNo(self.id);
        let key = self.prng.choose(&shared.keys).cloned().unwrap_or_default();
        let mut shard = shared.slots.shard_of_key(&key);
        let kind = match self.prng.range(0..100) {
            0..45 => {
                let stamp = self.next_stamp();
                let value = self.value(stamp, shared.value_bytes_max);
                Kind::Put { op: history.invoke(now, client, key.clone(), Action::Put(stamp)), key, value }
            }
            45..55 => Kind::Delete { op: history.invoke(now, client, key.clone(), Action::Delete), key },
            55..90 => Kind::Get { op: history.invoke(now, client, key.clone(), Action::Get), key },
            _ => {
                shard = ShardId(u16::try_from(self.prng.index(shared.slots.ranges().len())).unwrap_or(0));
                let limit = u32::try_from(1 + self.prng.index(5)).unwrap_or(1);
                self.range(shard, limit, now, shared, history)
            }
        };
        self.start(now, kind, shard, shared)
    }

    /// Begins to read what is wished for at the end of a run.
    pub(super) fn fulfil(
        &mut self,
        wish: Wish,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Step {
        let (kind, shard) = match &wish {
            Wish::Get(key) => {
                let op = history.invoke(now, ClientNo(self.id), key.clone(), Action::Get);
                (Kind::Get { op, key: key.clone() }, shared.slots.shard_of_key(key))
            }
            // As many items to a page as the server gives.
            Wish::Range(shard) => (self.range(*shard, 0, now, shared, history), *shard),
        };
        self.wish = Some(wish);
        self.start(now, kind, shard, shared)
    }

    /// What it was to read and has not.
    pub(super) const fn unfulfilled(&mut self) -> Option<Wish> {
        self.wish.take()
    }

    /// Whether it does nothing, and has nothing left to do.
    pub(super) const fn is_idle(&self) -> bool {
        self.current.is_none() && self.wish.is_none()
    }

    fn range(
        &mut self,
        shard: ShardId,
        limit: u32,
        now: Instant,
        shared: &Shared,
        history: &mut History,
    ) -> Kind {
        let of_shard = shared.keys.iter().filter(|key| shared.slots.shard_of_key(key) == shard);
        let keys: Vec<_> = of_shard.cloned().collect();
        let reverse = self.prng.chance_per_mille(500);
        let pages = Pages { reverse, limit, at: Revision::ZERO, after: None, found: Vec::new() };
        Kind::Range { op: history.invoke_range(now, ClientNo(self.id), &keys), pages }
    }

    /// Sends an operation for the first time.
    fn start(&mut self, now: Instant, kind: Kind, shard: ShardId, shared: &Shared) -> Step {
        assert!(self.current.is_none(), "one operation at a time");
        self.refusal = None;
        self.current = Some(Operation {
            kind,
            shard,
            begun: now,
            write: None,
            is_ambiguous: false,
            is_write_open: false,
            unknowns: 0,
        });
        self.try_again(shared)
    }

    /// A value that carries its stamp.
    fn value(&mut self, stamp: Stamp, bytes_max: usize) -> Bytes {
        let mut value = BytesMut::zeroed(8 + self.prng.index(bytes_max.max(9) - 8));
        value.iter_mut().zip(stamp.0.to_le_bytes()).for_each(|(to, from)| *to = from);
        value.freeze()
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
        current.is_ambiguous |= std::mem::take(&mut current.is_write_open);
        self.leaders.remove(&current.shard);
        if now.since(current.begun) >= PATIENCE {
            self.give_up(now, history);
            return Some(Step::Done);
        }
        Some(self.try_again(shared))
    }

    /// Sends the operation, or what has to come before it.
    fn try_again(&mut self, shared: &Shared) -> Step {
        self.attempt += 1;
        let Some(current) = &mut self.current else { return Step::Done };
        let shard = current.shard;
        let node = *self.leaders.entry(shard).or_insert_with(|| self.prng.index(shared.nodes));
        let envelope = Envelope { request: RequestId(self.attempt), shard: Some(shard), epoch: SlotEpoch(1) };
        let is_write = matches!(current.kind, Kind::Put { .. } | Kind::Delete { .. });
        if is_write && current.write.is_none() {
            let Some(session) = self.sessions.get_mut(&shard) else {
                let opening = self.openings.entry(shard).or_default();
                let nonce = *opening.nonce.get_or_insert_with(|| {
                    opening.count += 1;
                    self.prng.next_u64()
                });
                let open = Request::OpenSession(OpenSession { nonce });
                let frame = encode(&mut self.writer, &envelope, &open);
                return Step::Send { node, frame, attempt: self.attempt, wait: self.habits.patience };
            };
            current.write = Some((session.id, session.next));
            session.next = session.next.next();
        }
        let ctx = ReadContext { deadline_ms: 2000, ..ReadContext::default() };
        let (session, seq) = current.write.unwrap_or_default();
        let write = WriteContext {
            session,
            seq,
            acknowledged_below: seq,
            deadline_ms: self.prng.choose(self.habits.write_deadlines_ms).copied().unwrap_or(1000),
            ..WriteContext::default()
        };
        current.is_write_open = is_write;
        let request = match &current.kind {
            Kind::Put { key, value, .. } => Request::Put(Put { ctx: write, key, value, ..Put::default() }),
            Kind::Delete { key, .. } => {
                let keys = [key.as_ref()];
                let delete = Request::Delete(Delete { ctx: write, keys: (&keys).into() });
                let frame = encode(&mut self.writer, &envelope, &delete);
                return Step::Send { node, frame, attempt: self.attempt, wait: self.habits.patience };
            }
            Kind::Get { key, .. } => Request::Get(Get { ctx, key, ..Get::default() }),
            Kind::Range { pages, .. } => Request::Range(Range {
                ctx,
                from: &shared.ranges.0,
                to: &shared.ranges.1,
                after: pages.after.as_deref(),
                limit: pages.limit,
                reverse: pages.reverse,
                at: pages.at,
                ..Range::default()
            }),
        };
        let frame = encode(&mut self.writer, &envelope, &request);
        Step::Send { node, frame, attempt: self.attempt, wait: self.habits.patience }
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
        let shard = current.shard;
        self.leaders.insert(shard, node);
        match response {
            Response::Error(error) => Some(self.refused(&error, now, history)),
            Response::SessionOpened(opened) => {
                self.sessions.insert(shard, Session { id: opened.session, next: SessionSeq(1) });
                self.openings.entry(shard).or_default().nonce = None;
                Some(self.try_again(shared))
            }
            Response::Range(page) => {
                let Kind::Range { pages, .. } = &mut current.kind else { return None };
                for found in page.items {
                    let stamp = stamp_of(found.item.value);
                    pages.found.push((Bytes::copy_from_slice(found.key), stamp, found.item.revision));
                    pages.after = Some(Bytes::copy_from_slice(found.key));
                }
                if pages.at == Revision::ZERO {
                    pages.at = page.revision;
                }
                if page.more && pages.at != Revision::ZERO {
                    return Some(self.try_again(shared));
                }
                self.finish(history, |kind, history| {
                    if let Kind::Range { op, pages } = kind {
                        check_order(&pages);
                        history.respond_range(now, op, &pages.found);
                    }
                })
            }
            Response::Written(written) => self.finish(history, |kind, history| {
                if let Kind::Put { op, .. } = kind {
                    history.respond(now, op, Outcome::Written(written.revision));
                }
            }),
            Response::Deleted(deleted) => self.finish(history, |kind, history| {
                if let Kind::Delete { op, .. } = kind {
                    let outcome = match deleted.deleted {
                        0 => Outcome::NothingRemoved,
                        _ => Outcome::Written(deleted.revision),
                    };
                    history.respond(now, op, outcome);
                }
            }),
            Response::Get(answer) => self.finish(history, |kind, history| {
                if let Kind::Get { op, .. } = kind {
                    let found = answer.item.map(|item| Outcome::Found(stamp_of(item.value), item.revision));
                    history.respond(now, op, found.unwrap_or(Outcome::Absent));
                }
            }),
            other => unreachable!("nobody asked for {other:?}"),
        }
    }

    fn finish(&mut self, history: &mut History, record: impl FnOnce(Kind, &mut History)) -> Option<Step> {
        let current = self.current.take()?;
        record(current.kind, history);
        self.wish = None;
        self.served += 1;
        self.attempt += 1;
        Some(Step::Done)
    }

    fn refused(&mut self, error: &Error, now: Instant, history: &mut History) -> Step {
        self.refusal = Some(error.clone());
        let Some(current) = &mut self.current else { return Step::Done };
        let shard = current.shard;
        // This very attempt is answered: what became of it is known.
        let was_write_open = std::mem::take(&mut current.is_write_open);
        current.is_ambiguous |= was_write_open && !error.certainly_not_applied();
        let is_denied = was_write_open && !current.is_ambiguous;
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
            Error::Compacted { .. } => {
                self.give_up(now, history);
                return Step::Done;
            }
            Error::WrongShard { .. }
            | Error::Malformed { .. }
            | Error::TooLarge { .. }
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
        let wait = Duration::from_millis(2 + self.prng.range(0..40));
        self.attempt += 1;
        Step::Pause { attempt: self.attempt, wait }
    }

    /// The operation ends without an answer.
    fn give_up(&mut self, now: Instant, history: &mut History) {
        self.attempt += 1;
        let Some(current) = self.current.take() else { return };
        let outcome = if current.is_ambiguous { Outcome::Unknown } else { Outcome::NotApplied };
        match current.kind {
            Kind::Put { op, .. } | Kind::Delete { op, .. } => history.respond(now, op, outcome),
            Kind::Get { op, .. } => history.respond(now, op, Outcome::Unknown),
            Kind::Range { op, .. } => history.abandon_range(now, op),
        }
    }
}

fn encode(writer: &mut FrameWriter, envelope: &Envelope, request: &Request<'_>) -> Bytes {
    match writer.frame(envelope, request) {
        Ok(frame) => frame,
        Err(error) => unreachable!("the client asks within limits: {error}"),
    }
}

fn stamp_of(value: &[u8]) -> Stamp {
    match value.first_chunk() {
        Some(bytes) => Stamp(u64::from_le_bytes(*bytes)),
        None => unreachable!("every value begins with its stamp"),
    }
}

fn check_order(pages: &Pages) {
    let ordered = pages.found.windows(2).all(|pair| match pair {
        [(a, ..), (b, ..)] if pages.reverse => a > b,
        [(a, ..), (b, ..)] => a < b,
        _ => true,
    });
    assert!(ordered, "a range is in order and has no key twice: {:?}", pages.found);
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
