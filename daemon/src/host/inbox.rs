//! The events that wait for a core's turn.
//!
//! Invariants:
//! - What keeps the cluster together (ticks, completions, peers, other cores) is not held up by clients: it is taken
//!   first, and clients always get a part of the turn.
//! - A connection's requests, and the news that it is gone, stay in order.
//! - Connections are not read while too much waits here, so memory is bounded whatever clients and peers send. Peers are
//!   not held up by what clients sent, nor by messages to other cores that pile up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use mesh_base::limits::{CORE_EVENT_BYTES_WAITING_MAX, CORE_EVENTS_WAITING_MAX, TURN_EVENTS_MAX};

use super::bell::Bell;
use crate::core::CoreEvent;

/// The part of a turn that is kept for clients.
const REQUESTS_PER_TURN_MIN: usize = TURN_EVENTS_MAX / 4;

/// Whether a core's connections may be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intake {
    /// They may.
    Open,
    /// Something downstream is full.
    Shut,
}

/// Who wants to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    /// A client.
    Client,
    /// Another node.
    Peer,
}

/// See the module.
pub(super) struct Inbox {
    urgent: RefCell<VecDeque<CoreEvent>>,
    requests: RefCell<VecDeque<CoreEvent>>,
    urgent_bytes: Cell<usize>,
    request_bytes: Cell<usize>,
    /// Set by the turn when messages to other cores pile up.
    congested: Cell<bool>,
    readers: RefCell<Vec<(Sender, Waker)>>,
    bell: Bell,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            urgent: RefCell::default(),
            requests: RefCell::default(),
            urgent_bytes: Cell::new(0),
            request_bytes: Cell::new(0),
            congested: Cell::new(false),
            readers: RefCell::default(),
            bell: Bell::default(),
        }
    }

    /// Adds an event and wakes the turn.
    pub(super) fn push(&self, event: CoreEvent) {
        let (queue, bytes) = match event {
            CoreEvent::Request { .. } | CoreEvent::Disconnected { .. } => {
                (&self.requests, &self.request_bytes)
            }
            _ => (&self.urgent, &self.urgent_bytes),
        };
        bytes.set(bytes.get() + frame_bytes(&event));
        queue.borrow_mut().push_back(event);
        self.bell.ring();
    }

    /// Moves what one turn handles into `events`.
    pub(super) fn take(&self, events: &mut Vec<CoreEvent>) {
        let (mut urgent, mut requests) = (self.urgent.borrow_mut(), self.requests.borrow_mut());
        let for_urgent = TURN_EVENTS_MAX - requests.len().min(REQUESTS_PER_TURN_MIN);
        let urgent_count = urgent.len().min(for_urgent);
        let request_count = requests.len().min(TURN_EVENTS_MAX - urgent_count);
        take_from(&mut urgent, urgent_count, &self.urgent_bytes, events);
        take_from(&mut requests, request_count, &self.request_bytes, events);
        drop((urgent, requests));
        self.wake_readers();
    }

    /// Whether a turn has something to do.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.borrow().is_empty() && self.requests.borrow().is_empty()
    }

    /// Wakes the turn without an event.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    /// Completes when the bell was rung, by an event or otherwise.
    pub(super) fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        self.bell.poll(cx)
    }

    /// Says whether messages to other cores pile up.
    pub(super) fn set_congested(&self, intake: Intake) {
        self.congested.set(intake == Intake::Shut);
        self.wake_readers();
    }

    /// Completes when connections of the kind may be read.
    pub(super) async fn room(&self, sender: Sender) {
        poll_fn(|cx| match self.intake(sender) {
            Intake::Open => Poll::Ready(()),
            Intake::Shut => {
                self.readers.borrow_mut().push((sender, cx.waker().clone()));
                Poll::Pending
            }
        })
        .await;
    }

    fn intake(&self, sender: Sender) -> Intake {
        let (urgent, requests) = (self.urgent.borrow().len(), self.requests.borrow().len());
        let (urgent_bytes, request_bytes) = (self.urgent_bytes.get(), self.request_bytes.get());
        let full = match sender {
            Sender::Peer => urgent >= CORE_EVENTS_WAITING_MAX || urgent_bytes >= CORE_EVENT_BYTES_WAITING_MAX,
            Sender::Client => {
                self.congested.get()
                    || urgent + requests >= CORE_EVENTS_WAITING_MAX
                    || urgent_bytes + request_bytes >= CORE_EVENT_BYTES_WAITING_MAX
            }
        };
        if full { Intake::Shut } else { Intake::Open }
    }

    fn wake_readers(&self) {
        let open = |(sender, _): &mut (Sender, Waker)| self.intake(*sender) == Intake::Open;
        let woken: Vec<_> = self.readers.borrow_mut().extract_if(.., open).collect();
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

fn take_from(
    queue: &mut VecDeque<CoreEvent>,
    count: usize,
    waiting: &Cell<usize>,
    events: &mut Vec<CoreEvent>,
) {
    for event in queue.drain(..count) {
        waiting.set(waiting.get() - frame_bytes(&event));
        events.push(event);
    }
}

fn frame_bytes(event: &CoreEvent) -> usize {
    match event {
        CoreEvent::Request { frame, .. } | CoreEvent::Peer { frame, .. } => frame.payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ConnId;

    fn gone(number: u64) -> CoreEvent {
        CoreEvent::Disconnected { conn: ConnId(number) }
    }

    #[test]
    fn a_flood_of_clients_does_not_hold_up_a_tick() {
        let inbox = Inbox::new();
        (0..2000).for_each(|number| inbox.push(gone(number)));
        inbox.push(CoreEvent::Tick);
        let mut events = Vec::new();
        inbox.take(&mut events);
        assert!(matches!(events[0], CoreEvent::Tick));
        assert_eq!(events.len(), TURN_EVENTS_MAX);
        assert!(matches!(events[1], CoreEvent::Disconnected { conn: ConnId(0) }));
    }

    #[test]
    fn a_flood_of_peers_leaves_clients_a_part_of_the_turn() {
        let inbox = Inbox::new();
        (0..2000).for_each(|_| inbox.push(CoreEvent::Tick));
        (0..2000).for_each(|number| inbox.push(gone(number)));
        let mut events = Vec::new();
        inbox.take(&mut events);
        let ticks = events.iter().filter(|event| matches!(event, CoreEvent::Tick)).count();
        assert_eq!((ticks, events.len()), (TURN_EVENTS_MAX - REQUESTS_PER_TURN_MIN, TURN_EVENTS_MAX));
    }

    #[test]
    fn connections_are_not_read_while_too_much_waits() {
        let inbox = Inbox::new();
        (0..CORE_EVENTS_WAITING_MAX as u64).for_each(|number| inbox.push(gone(number)));
        assert_eq!(inbox.intake(Sender::Client), Intake::Shut);
        // What keeps the cluster together is read all the same.
        assert_eq!(inbox.intake(Sender::Peer), Intake::Open);
        inbox.take(&mut Vec::new());
        assert_eq!(inbox.intake(Sender::Client), Intake::Open);
        inbox.set_congested(Intake::Shut);
        assert_eq!((inbox.intake(Sender::Client), inbox.intake(Sender::Peer)), (Intake::Shut, Intake::Open));
        (0..CORE_EVENTS_WAITING_MAX).for_each(|_| inbox.push(CoreEvent::Tick));
        assert_eq!(inbox.intake(Sender::Peer), Intake::Shut);
    }
}
