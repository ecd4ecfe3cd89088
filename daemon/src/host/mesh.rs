//! Messages between the cores of a node.
//!
//! Every core has one mailbox. What a turn sends to another core is put there in one go at the turn's end, under one
//! lock that is held for a move, with one wake.
//!
//! Invariants:
//! - Nothing is lost, and what one core sends another arrives in order.
//! - A mailbox is bounded. What does not fit stays with the sender, which stops reading its connections until the
//!   receiver has made room and woken it: the origin of the load is slowed down, not the core.
//! - No core waits for another: a full mailbox never stops a turn, so no two can stop each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use mesh_base::CoreId;
use mesh_base::limits::{MESH_MESSAGES_WAITING_MAX, TURN_EVENTS_MAX};

use super::inbox::Intake;
use super::net::HandedOver;
use crate::core::MeshMessage;

/// What cores, and whoever runs the node, put into a mailbox.
pub(super) enum Parcel {
    /// A message of the pure server.
    Message {
        /// The sender.
        from: CoreId,
        /// The message.
        message: MeshMessage,
    },
    /// A connection whose shard the receiver owns.
    Connection(Box<HandedOver>),
    /// The operator wants the node to stop.
    Stop,
    /// Every core has stopped: end the thread.
    Leave,
}

/// The mailboxes of a node's cores.
pub(super) struct Exchange {
    mailboxes: Vec<Mailbox>,
}

#[derive(Default)]
struct Mailbox {
    /// Set after parcels were put in, cleared before they are taken out.
    has_mail: AtomicBool,
    state: Mutex<MailboxState>,
}

#[derive(Default)]
struct MailboxState {
    parcels: VecDeque<Parcel>,
    /// Senders that have more than fitted.
    refused: Vec<CoreId>,
    receiver: Option<Waker>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        // A panicking core takes the process down, so a poisoned lock is never seen by a working one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the receiver, if it has not been woken since it last looked.
    fn announce(&self) {
        if !self.has_mail.swap(true, Ordering::AcqRel) {
            let receiver = self.lock().receiver.clone();
            if let Some(receiver) = receiver {
                receiver.wake();
            }
        }
    }
}

impl Exchange {
    /// Empty mailboxes for so many cores.
    pub(super) fn new(cores: usize) -> Arc<Self> {
        Arc::new(Self { mailboxes: (0..cores).map(|_| Mailbox::default()).collect() })
    }

    /// How many cores there are.
    pub(super) fn cores(&self) -> usize {
        self.mailboxes.len()
    }

    /// Puts the same parcel, made anew for each, into every mailbox, whatever is in it already.
    pub(super) fn post_to_all(&self, parcel: impl Fn() -> Parcel) {
        for mailbox in &self.mailboxes {
            mailbox.lock().parcels.push_back(parcel());
            mailbox.announce();
        }
    }

    /// Wakes a core, whether or not it seems to know that there is something to do.
    pub(super) fn wake(&self, core: CoreId) {
        let mailbox = self.mailboxes.get(usize::from(core.0));
        let receiver = mailbox.and_then(|mailbox| mailbox.lock().receiver.clone());
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// Moves as many parcels as fit, in order. The sender is woken when there is room for those that did not.
    fn post(&self, to: CoreId, from: CoreId, parcels: &mut VecDeque<Parcel>) {
        let Some(mailbox) = self.mailboxes.get(usize::from(to.0)) else {
            debug_assert!(false, "{to:?} does not exist");
            parcels.clear();
            return;
        };
        {
            let mut state = mailbox.lock();
            let room = MESH_MESSAGES_WAITING_MAX.saturating_sub(state.parcels.len());
            let fitting = parcels.len().min(room);
            state.parcels.extend(parcels.drain(..fitting));
            if !parcels.is_empty() && !state.refused.contains(&from) {
                state.refused.push(from);
            }
        }
        mailbox.announce();
    }
}

/// One core's end of the exchange.
pub(super) struct MeshPort {
    own: CoreId,
    exchange: Arc<Exchange>,
    outboxes: RefCell<Vec<VecDeque<Parcel>>>,
    waiting: Cell<usize>,
}

impl MeshPort {
    pub(super) fn new(own: CoreId, exchange: Arc<Exchange>) -> Self {
        assert!(usize::from(own.0) < exchange.cores());
        let outboxes = RefCell::new((0..exchange.cores()).map(|_| VecDeque::new()).collect());
        Self { own, exchange, outboxes, waiting: Cell::new(0) }
    }

    /// The cores of the node.
    pub(super) fn cores(&self) -> usize {
        self.exchange.cores()
    }

    /// Sends at the next [`MeshPort::flush`].
    pub(super) fn send(&self, to: CoreId, parcel: Parcel) {
        match self.outboxes.borrow_mut().get_mut(usize::from(to.0)) {
            Some(outbox) => {
                outbox.push_back(parcel);
                self.waiting.set(self.waiting.get() + 1);
            }
            None => debug_assert!(false, "{to:?} does not exist"),
        }
    }

    /// Delivers what was sent, and says whether the connections of this core may be read: not while too much of it
    /// could not be delivered.
    pub(super) fn flush(&self) -> Intake {
        if self.waiting.get() == 0 {
            return Intake::Open;
        }
        let mut left = 0;
        for (core, outbox) in (0..).map(CoreId).zip(self.outboxes.borrow_mut().iter_mut()) {
            if !outbox.is_empty() {
                self.exchange.post(core, self.own, outbox);
                left += outbox.len();
            }
        }
        self.waiting.set(left);
        if left >= MESH_MESSAGES_WAITING_MAX { Intake::Shut } else { Intake::Open }
    }

    /// Whether [`MeshPort::receive`] may bring something, or there may be room where there was none.
    pub(super) fn has_mail(&self) -> bool {
        self.mailbox().is_some_and(|mailbox| mailbox.has_mail.load(Ordering::Acquire))
    }

    /// Takes what came, up to a turn's worth.
    pub(super) fn receive(&self, parcels: &mut Vec<Parcel>) {
        let Some(mailbox) = self.mailbox() else { return };
        if !mailbox.has_mail.swap(false, Ordering::AcqRel) {
            return;
        }
        let refused = {
            let mut state = mailbox.lock();
            let count = state.parcels.len().min(TURN_EVENTS_MAX);
            parcels.extend(state.parcels.drain(..count));
            if !state.parcels.is_empty() {
                mailbox.has_mail.store(true, Ordering::Release);
            }
            std::mem::take(&mut state.refused)
        };
        for sender in refused {
            if let Some(mailbox) = self.exchange.mailboxes.get(usize::from(sender.0)) {
                mailbox.announce();
            }
        }
    }

    /// Says who is woken when something comes.
    pub(super) fn wake(&self, receiver: Option<Waker>) {
        if let Some(mailbox) = self.mailbox() {
            mailbox.lock().receiver = receiver;
        }
    }

    fn mailbox(&self) -> Option<&Mailbox> {
        self.exchange.mailboxes.get(usize::from(self.own.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(parcel: &Parcel) -> u64 {
        match parcel {
            Parcel::Message { message: MeshMessage::StatusAsk { question }, .. } => *question,
            _ => panic!("not a question"),
        }
    }

    fn question(question: u64) -> Parcel {
        Parcel::Message { from: CoreId(0), message: MeshMessage::StatusAsk { question } }
    }

    #[test]
    fn a_full_mailbox_loses_nothing_keeps_the_order_and_shuts_the_intake_of_the_sender() {
        let exchange = Exchange::new(2);
        let (sender, receiver) =
            (MeshPort::new(CoreId(0), Arc::clone(&exchange)), MeshPort::new(CoreId(1), exchange));
        let total = 3 * MESH_MESSAGES_WAITING_MAX as u64;
        (0..total).for_each(|number| sender.send(CoreId(1), question(number)));
        assert_eq!(sender.flush(), Intake::Shut);
        let mut received = Vec::new();
        let mut turns_of_sender = 0;
        while received.len() < usize::try_from(total).unwrap() {
            assert!(receiver.has_mail());
            receiver.receive(&mut received);
            if sender.has_mail() {
                sender.receive(&mut Vec::new());
                sender.flush();
                turns_of_sender += 1;
            }
        }
        assert!(turns_of_sender > 0, "the sender is woken when there is room");
        assert_eq!(sender.flush(), Intake::Open);
        assert!(received.iter().map(number).eq(0..total));
        assert!(
            !receiver.has_mail() || {
                receiver.receive(&mut received);
                !receiver.has_mail()
            }
        );
    }

    #[test]
    fn a_core_is_woken_by_another_thread() {
        let exchange = Exchange::new(2);
        let to = Arc::clone(&exchange);
        let receiver = std::thread::spawn(move || {
            let executor = glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap();
            executor.run(async move {
                let port = MeshPort::new(CoreId(1), to);
                let mut received = Vec::new();
                std::future::poll_fn(|cx| {
                    port.wake(Some(cx.waker().clone()));
                    while port.has_mail() {
                        port.receive(&mut received);
                    }
                    if received.len() < 1000 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
                })
                .await;
                port.wake(None);
                received.iter().map(number).eq(0..1000)
            })
        });
        let sender = MeshPort::new(CoreId(0), exchange);
        for number in 0..1000 {
            sender.send(CoreId(1), question(number));
            sender.flush();
        }
        assert!(receiver.join().unwrap());
    }
}
