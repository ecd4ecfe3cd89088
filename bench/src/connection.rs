//! A connection under load: a number of slots, each with one operation at a time. The next begins when a slot is free (a closed loop),
//! and not before it is due (an open loop, see `pace`).
//!
//! A turn takes all answers off what one read brought, puts the next operations into the slots that became free, and sends
//! all requests with one write. What could not be done is sent again as the system asks for, until its time is up.
//!
//! Invariants:
//! - An operation's service time begins right before the write that sends it first, and ends right after the read that brought
//!   its answer, however often it was sent. Its response time begins when it was due.
//! - A slot is idle, sent or paused; what an answer names was sent, or else it is counted as a stray.
//! - In a turn nothing is allocated once buffers have grown to the size of what is sent and received.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant};

use crate::buffers::{Inbox, Outbox};
use crate::op::{Op, OpKind, Page, Sequel};
use crate::pace::Arrivals;
use crate::socket::{Interest, Poller, Received, Socket};
use crate::stats::{Recorder, Schedule};
use crate::tally::{Class, Times};
use crate::target::{Admission, Answer, Decoded, Found, Lane, Rest, Tag, Then};
use crate::workload::{Fed, Feed};

/// An operation that met errors for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The error of operations that were in flight on a connection that was lost, in place of a system's.
pub(crate) const CONNECTION_LOST: &str = "ConnectionLost";
/// The error of an answer that nothing in flight asked for.
pub(crate) const STRAY_ANSWER: &str = "StrayAnswer";

/// What the connections of one core share.
pub(crate) struct Shared {
    /// Counts.
    pub(crate) recorder: Recorder,
    /// When to begin and end.
    pub(crate) schedule: Schedule,
    /// Where every read lands first.
    pub(crate) scratch: Vec<u8>,
    /// Waits for all of them.
    pub(crate) poller: Poller,
    /// When the first of what has paused is to be sent again, or earlier.
    pub(crate) alarm: Option<Instant>,
    /// Connections that have a slot for their next operation, by when it is due.
    pub(crate) calls: BinaryHeap<Reverse<(Instant, usize)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Sent,
    Paused { until: Instant },
}

struct Slot {
    tag: Tag,
    state: State,
    op: Op,
    begun: Instant,
    /// In an open loop.
    due: Option<Instant>,
    /// When the read was due, or sent, that this write follows.
    whole_since: Option<Instant>,
}

impl Slot {
    fn new(number: u16, now: Instant) -> Self {
        let tag = Tag::first(number);
        Self { tag, state: State::Idle, op: Op::empty(), begun: now, due: None, whole_since: None }
    }

    /// What its operation took that is answered now.
    fn times(&self, now: Instant) -> Times {
        let service = now - self.begun;
        match self.due {
            Some(due) => Times { response: now - due, service: Some(service) },
            None => Times::closed(service),
        }
    }

    /// Takes a page of its range, and says whether another is to be asked for.
    fn turn_page(&mut self, found: Found, rest: Rest) -> Rest {
        self.op.items = self.op.items.saturating_sub(found.keys());
        if rest == Rest::None || self.op.items == 0 || found.keys() == 0 {
            return Rest::None;
        }
        self.op.page = Page::Next;
        Rest::Some
    }
}

/// How a turn left a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It goes on.
    GoesOn,
    /// All that was begun is answered, and nothing more is to be begun.
    Over,
    /// The connection is of no use any more; the lane wants another.
    Lost,
}

/// What there is between a lane's being connected and its being lost.
struct Wire<L> {
    socket: Socket,
    lane: L,
    interest: Interest,
}

/// See the module.
pub(crate) struct Connection<L> {
    number: usize,
    wire: Option<Wire<L>>,
    feed: Feed,
    slots: Vec<Slot>,
    /// Slots without an operation.
    idle: Vec<u16>,
    /// Slots whose operation is encoded and not sent yet, for the first time.
    fresh: Vec<u16>,
    /// Slots with an operation that is to be sent again later.
    paused: Vec<u16>,
    /// Slots with a write that follows its read.
    halfway: Vec<u16>,
    /// Operations that are sent and not answered.
    sent: usize,
    is_dry: bool,
    /// In an open loop.
    arrivals: Option<Arrivals>,
    /// Whether it is among those that are called when their next operation is due.
    is_called: bool,
    outbox: Outbox,
    inbox: Inbox,
    /// Since when operations are in flight and nothing was received.
    silent_since: Option<Instant>,
}

impl<L: Lane> Connection<L> {
    /// With so many slots; not connected yet. The poller knows it by its number.
    pub(crate) fn new(number: usize, feed: Feed, in_flight: u16) -> Self {
        let now = Instant::now();
        Self {
            number,
            wire: None,
            feed,
            slots: (0..in_flight).map(|number| Slot::new(number, now)).collect(),
            idle: (0..in_flight).rev().collect(),
            fresh: Vec::new(),
            paused: Vec::new(),
            halfway: Vec::new(),
            sent: 0,
            is_dry: false,
            arrivals: None,
            is_called: false,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            silent_since: None,
        }
    }

    /// The same in an open loop.
    pub(crate) fn with_arrivals(self, arrivals: Option<Arrivals>) -> Self {
        Self { arrivals, ..self }
    }

    /// The schedule begins.
    pub(crate) const fn start(&mut self, start: Instant) {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.start(start);
        }
    }

    /// Operations that were due before a moment and were not begun.
    pub(crate) fn overdue(&self, at: Instant) -> u64 {
        self.arrivals.as_ref().map_or(0, |arrivals| arrivals.overdue(at))
    }

    /// It was called, as [`Shared::calls`] says.
    pub(crate) fn called(&mut self, now: Instant, shared: &mut Shared) -> Turn {
        self.is_called = false;
        self.go_on(now, shared)
    }

    /// Takes a lane that is connected, and makes ready to send what was in flight.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(crate) fn connect(&mut self, lane: L, socket: Socket, poller: &Poller) -> io::Result<()> {
        poller.add(&socket, self.number)?;
        let wire = self.wire.insert(Wire { socket, lane, interest: Interest::Answers });
        self.outbox.clear();
        self.inbox.clear();
        self.silent_since = None;
        for slot in self.slots.iter().filter(|slot| slot.state == State::Sent) {
            self.feed.sent_again(&slot.op);
            wire.lane.encode(slot.tag, &slot.op, self.feed.keyspace(), self.outbox.tail());
        }
        Ok(())
    }

    /// Gives the lane of a lost connection away, to be connected again.
    pub(crate) fn disconnect(&mut self, recorder: &mut Recorder) -> Option<L> {
        if self.sent > 0 {
            recorder.retried(CONNECTION_LOST, self.sent as u64);
        }
        self.wire.take().map(|wire| wire.lane)
    }

    /// The lane of a connection that owes answers and is silent since before a moment.
    pub(crate) fn silent_since(&self, moment: Instant) -> Option<&L> {
        let wire = self.wire.as_ref()?;
        (self.silent_since? < moment).then_some(&wire.lane)
    }

    /// Ends the connection, as its next turn will find.
    pub(crate) fn hang_up(&self) {
        if let Some(wire) = &self.wire {
            wire.socket.hang_up();
        }
    }

    /// Operations that are begun and not over.
    pub(crate) fn unanswered(&self) -> usize {
        self.sent + self.paused.len() + self.halfway.len()
    }

    /// Reads, takes every whole answer, and goes on as [`Connection::go_on`].
    pub(crate) fn turn(&mut self, shared: &mut Shared) -> Turn {
        let Some(mut wire) = self.wire.take() else { return Turn::GoesOn };
        let taken = self.take(&mut wire, shared);
        self.wire = Some(wire);
        match taken {
            Some(now) => self.go_on(now, shared),
            None => Turn::Lost,
        }
    }

    /// Sends again what has paused for long enough, begins operations in the slots that have none, and writes.
    pub(crate) fn go_on(&mut self, now: Instant, shared: &mut Shared) -> Turn {
        let Some(mut wire) = self.wire.take() else { return Turn::GoesOn };
        self.resume(&mut wire.lane, now);
        self.refill(&mut wire.lane, now, shared);
        let is_over =
            self.fresh.len() + self.unanswered() == 0 && (self.is_dry || shared.schedule.is_over(now));
        let flushed = self.flush(&mut wire, &shared.poller);
        self.wire = Some(wire);
        match flushed {
            _ if is_over => Turn::Over,
            Ok(()) => Turn::GoesOn,
            Err(_) => Turn::Lost,
        }
    }

    fn resume(&mut self, lane: &mut L, now: Instant) {
        if self.paused.is_empty() {
            return;
        }
        let Self { slots, feed, outbox, sent, .. } = self;
        self.paused.retain(|&number| {
            let slot = slot(slots, usize::from(number));
            let is_due = matches!(slot.state, State::Paused { until } if until <= now);
            if is_due {
                slot.state = State::Sent;
                *sent += 1;
                feed.sent_again(&slot.op);
                lane.encode(slot.tag, &slot.op, feed.keyspace(), outbox.tail());
            }
            !is_due
        });
    }

    fn refill(&mut self, lane: &mut L, now: Instant, shared: &mut Shared) {
        while let Some(number) = self.halfway.pop() {
            if self.begin(lane, number) == Admission::NotYet {
                return self.halfway.push(number);
            }
        }
        if self.is_dry || shared.schedule.is_over(now) {
            return;
        }
        while let Some(number) = self.idle.pop() {
            if self.feed(number, now, shared) == Fed::Dry || self.begin(lane, number) == Admission::NotYet {
                return self.idle.push(number);
            }
        }
    }

    /// Puts the next operation into a slot, if there is one and it is due. One that was not admitted is still there.
    fn feed(&mut self, number: u16, now: Instant, shared: &mut Shared) -> Fed {
        let slot = slot(&mut self.slots, usize::from(number));
        if !slot.op.keys.is_empty() {
            return Fed::Op;
        }
        if let Some(arrivals) = &mut self.arrivals {
            let next = arrivals.next();
            if next > now {
                if !std::mem::replace(&mut self.is_called, true) {
                    // At the end it has to see that nothing more comes.
                    let at = shared.schedule.end().map_or(next, |end| end.min(next));
                    shared.calls.push(Reverse((at, self.number)));
                }
                return Fed::Dry;
            }
            slot.due = Some(arrivals.take());
        }
        let fed = self.feed.next(&mut slot.op);
        self.is_dry = fed == Fed::Dry;
        fed
    }

    /// Puts a slot's operation on its way, if the lane lets it.
    fn begin(&mut self, lane: &mut L, number: u16) -> Admission {
        let slot = slot(&mut self.slots, usize::from(number));
        let admission = lane.admit(slot.tag, slot.op.kind);
        if admission == Admission::Granted {
            slot.state = State::Sent;
            lane.encode(slot.tag, &slot.op, self.feed.keyspace(), self.outbox.tail());
            self.fresh.push(number);
        }
        admission
    }

    /// Writes what there is room for, and waits for room if there is too little. The time of what is written first begins
    /// now.
    fn flush(&mut self, wire: &mut Wire<L>, poller: &Poller) -> io::Result<()> {
        if !self.fresh.is_empty() {
            let now = Instant::now();
            self.sent += self.fresh.len();
            for number in self.fresh.drain(..) {
                slot(&mut self.slots, usize::from(number)).begun = now;
            }
        }
        if self.sent > 0 && self.silent_since.is_none() {
            self.silent_since = Some(Instant::now());
        }
        wire.lane.say(self.outbox.tail());
        self.outbox.flush(&wire.socket)?;
        let interest = if self.outbox.is_empty() { Interest::Answers } else { Interest::AnswersAndRoom };
        if interest != wire.interest {
            wire.interest = interest;
            poller.change(&wire.socket, self.number, interest)?;
        }
        Ok(())
    }

    /// Reads, and takes every whole answer. The time of the read, or `None` if the connection is of no use any more.
    fn take(&mut self, wire: &mut Wire<L>, shared: &mut Shared) -> Option<Instant> {
        // Taken out so that what they hold can be looked at while slots change.
        let (mut inbox, mut scratch) = (std::mem::take(&mut self.inbox), std::mem::take(&mut shared.scratch));
        let mut count = 0;
        let read = |into: &mut [u8]| {
            let received = wire.socket.receive(into)?;
            if let Received::Bytes(bytes) = received {
                count = bytes;
            }
            Ok(received)
        };
        let received = inbox.receive(&mut scratch, read).ok().flatten();
        let now = Instant::now();
        shared.recorder.look(now);
        let (mut is_usable, received) = (received.is_some(), received.unwrap_or_default());
        let mut rest = received;
        loop {
            match wire.lane.decode(rest) {
                Ok(Some(decoded)) => {
                    let (answer, behind) = rest.split_at_checked(decoded.length).unwrap_or((rest, &[]));
                    rest = behind;
                    self.audit(&wire.lane, &decoded, answer);
                    is_usable &= self.answered(&mut wire.lane, &decoded, now, shared);
                }
                Ok(None) => break,
                Err(_) => {
                    is_usable = false;
                    break;
                }
            }
        }
        let taken = received.len() - rest.len();
        inbox.keep_from(taken, &scratch);
        (self.inbox, shared.scratch) = (inbox, scratch);
        if count > 0 {
            self.silent_since = (self.sent > 0).then_some(now);
        }
        is_usable.then_some(now)
    }

    /// Shows what a read brought to whoever is to see it.
    fn audit(&self, lane: &L, decoded: &Decoded, answer: &[u8]) {
        let Some(audit) = self.feed.audit() else { return };
        let slot = self.slots.get(decoded.tag.slot()).filter(|slot| slot.tag == decoded.tag);
        if let (Some(slot), Answer::Read(_)) = (slot, decoded.answer) {
            let mut keys = slot.op.keys.iter();
            let mut each = |value: Option<&[u8]>| {
                if let Some(&key) = keys.next() {
                    audit.read(key, value, self.feed.keyspace());
                }
            };
            lane.values(answer, &mut each);
        }
    }

    /// Does what an answer asks for; whether the connection can still be used.
    fn answered(&mut self, lane: &mut L, decoded: &Decoded, now: Instant, shared: &mut Shared) -> bool {
        let (number, recorder) = (decoded.tag.slot(), &mut shared.recorder);
        let slot = self.slots.get_mut(number);
        let Some(slot) = slot.filter(|slot| slot.tag == decoded.tag && slot.state == State::Sent) else {
            recorder.failed(STRAY_ANSWER);
            return true;
        };
        let (kind, service) = (slot.op.kind, now - slot.begun);
        let mut is_usable = true;
        match decoded.answer {
            Answer::Read(found) if kind == OpKind::Read => {
                if found.right < found.keys() {
                    recorder.found(found);
                }
                if is_short(found, &slot.op) {
                    slot.op.keys.drain(..found.keys());
                    recorder.part(found.keys());
                    lane.encode(slot.tag, &slot.op, self.feed.keyspace(), self.outbox.tail());
                    return true;
                }
                recorder.done(Class::Reads, slot.op.keys.len(), slot.times(now));
                if slot.op.sequel == Sequel::Write {
                    self.go_halfway(lane, number);
                    return true;
                }
            }
            Answer::Scanned { found, rest } if kind == OpKind::Scan => {
                recorder.items(found.keys());
                recorder.found(found);
                if slot.turn_page(found, rest) == Rest::Some {
                    lane.encode(slot.tag, &slot.op, self.feed.keyspace(), self.outbox.tail());
                    return true;
                }
                recorder.done(Class::Scans, 1, slot.times(now));
            }
            Answer::Written if kind == OpKind::Write => {
                self.feed.acknowledged(&slot.op);
                recorder.done(Class::Writes, slot.op.keys.len(), slot.times(now));
                if let Some(since) = slot.whole_since {
                    recorder.whole(Class::Modifies, Times::closed(now - since));
                }
            }
            Answer::Read(_) | Answer::Scanned { .. } | Answer::Written => {
                recorder.failed(STRAY_ANSWER);
                return false;
            }
            Answer::Setback { name, then: Then::Again { after } } if service < PATIENCE => {
                recorder.retried(name, 1);
                let until = now + after;
                slot.state = State::Paused { until };
                shared.alarm = Some(shared.alarm.map_or(until, |alarm| alarm.min(until)));
                self.paused.push(low_bits(number));
                self.sent -= 1;
                return true;
            }
            // What was in flight is sent over the next connection.
            Answer::Setback { name, then: Then::Reopen } if service < PATIENCE => {
                recorder.retried(name, 1);
                return false;
            }
            Answer::Setback { name, then } => {
                recorder.failed(name);
                is_usable = then != Then::Reopen;
            }
        }
        lane.settle(slot.tag, kind);
        (slot.tag, slot.state) = (slot.tag.next(), State::Idle);
        (slot.due, slot.whole_since) = (None, None);
        slot.op.keys.clear();
        self.idle.push(low_bits(number));
        self.sent -= 1;
        is_usable
    }

    /// A read was answered that a write of the same key follows.
    fn go_halfway(&mut self, lane: &mut L, number: usize) {
        let slot = slot(&mut self.slots, number);
        lane.settle(slot.tag, OpKind::Read);
        (slot.tag, slot.state) = (slot.tag.next(), State::Idle);
        slot.whole_since = Some(slot.due.take().unwrap_or(slot.begun));
        self.feed.write_what_was_read(&mut slot.op);
        self.halfway.push(low_bits(number));
        self.sent -= 1;
    }

    /// When the first of what has paused is to be sent again; not while that is impossible.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.wire.as_ref()?;
        let paused = self.paused.iter().filter_map(|&number| self.slots.get(usize::from(number)));
        let until = paused.filter_map(|slot| match slot.state {
            State::Paused { until } => Some(until),
            State::Idle | State::Sent => None,
        });
        until.min()
    }
}

/// Whether the answer to a batch holds only its beginning, and some of it.
fn is_short(found: Found, op: &Op) -> bool {
    (1..op.keys.len()).contains(&found.keys())
}

#[allow(clippy::indexing_slicing, reason = "lists of slots hold numbers of slots")]
fn slot(slots: &mut [Slot], number: usize) -> &mut Slot {
    &mut slots[number]
}

/// A slot's number, of which there are at most as many as it holds.
fn low_bits(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
