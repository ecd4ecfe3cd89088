//! The life of a core: wait until something happened, gather a bounded batch, read the clocks, step the server once, do
//! what it says; and again.
//!
//! Invariants:
//! - The clocks are read after the batch was gathered: what the server sees never happened after "now".
//! - A tick comes at most once per turn; those that a stall swallowed are not made up for.
//! - Between two turns every other task that is ready has run, and the reactor has looked for completions not long ago,
//!   however much other cores send.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::time::Duration;

use glommio::timer::Timer;
use mesh_base::limits::TURN_EVENTS_MAX;
use mesh_base::{CoreId, Instant, Now};
use rustix::thread::sched_yield;

use super::bell::step_aside;
use super::breath::Breath;
use super::clock;
use super::disk::Disk;
use super::doorbell::Doorbell;
use super::inbox::Inbox;
use super::link::Links;
use super::mesh::{Exchange, MeshPort, Parcel};
use super::net::{Flush, Port};
use super::server::Server;
use super::sockets::{Sockets, Word};
use super::ticker::Ticker;
use super::watch::Pulse;
use crate::core::{ConnId, CoreEffect, CoreEvent, Notice};

/// How long a core may go on before the reactor is let in, while something is under way that only the reactor can bring,
const REACTOR_AWAITED_MAX: Duration = Duration::from_millis(1);
/// and otherwise: the executor's timers are as exact as this.
const REACTOR_UNSEEN_MAX: Duration = Duration::from_millis(20);
/// How long a core looks for more after it had something to do, before it goes to sleep: to wake takes about as long.
const LINGER: Duration = Duration::from_micros(50);
/// The same while a write of a log is under way, which ends soon and which somebody waits for.
const LINGER_FOR_LOG: Duration = Duration::from_micros(200);
/// Tasks that a word passes through from the socket to the turn, at most.
const HANDS_MAX: usize = 3;
/// How long connections and files may take to close when the core has stopped.
const CLOSING_TIMEOUT: Duration = Duration::from_millis(200);

/// How a core ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Everything it had to write is durable.
    Orderly,
    /// It was told to leave, or ran out of time, before that.
    Cut,
}

/// What the cores of a node have in common.
pub(super) struct Shared {
    pub(super) exchange: Arc<Exchange>,
    /// Cores that have stopped.
    pub(super) stopped: AtomicUsize,
    pub(super) pulse: Pulse,
}

/// Everything around the server of one core.
pub(super) struct Turn<S> {
    pub(super) own: CoreId,
    pub(super) server: Rc<RefCell<S>>,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Rc<Inbox>,
    pub(super) mesh: Rc<MeshPort>,
    pub(super) port: Rc<Port>,
    pub(super) links: Rc<Links>,
    pub(super) disk: Rc<Disk>,
    pub(super) sockets: Rc<Sockets>,
    pub(super) breath: Rc<Breath>,
    pub(super) notices: Sender<Notice>,
    /// The memory that the server was last told of.
    pub(super) resident_bytes: Cell<u64>,
    /// Whether the server has more to do.
    pub(super) again: Cell<bool>,
    /// When it last had something to do that more may follow on.
    pub(super) busy_at: Cell<Instant>,
    /// How long it may take from the order to stop to the end.
    pub(super) stop_timeout: Duration,
}

/// What a core hears from, beside its connections and files.
pub(super) struct Sources {
    pub(super) listener: TcpListener,
    pub(super) ticker: Ticker,
    pub(super) doorbell: Doorbell,
}

/// What is made anew every turn, and the memory for it kept.
#[derive(Default)]
struct Batch {
    parcels: Vec<Parcel>,
    events: Vec<CoreEvent>,
    effects: Vec<CoreEffect>,
    /// Connections that got answers.
    answered: Vec<ConnId>,
}

/// Whether a core slept in the executor until it had something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    Asleep,
    Awake,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Serving,
    Stopping { deadline: Instant },
    Stopped { deadline: Instant },
    Left(Ending),
}

impl<S: Server> Turn<S> {
    /// Runs the core until the node has stopped.
    pub(super) async fn live(self, sources: Sources) -> Ending {
        let Sources { listener, ticker, doorbell } = sources;
        let mut accepting = Some(glommio::spawn_local(Rc::clone(&self.port).accept(listener)));
        let tick = Rc::new(Cell::new(false));
        let ticking = glommio::spawn_local(beat(ticker, Rc::clone(&tick), Rc::clone(&self.inbox)));
        self.mesh.wake(Some(doorbell.waker()));
        let listening = glommio::spawn_local(hear(doorbell, Rc::clone(&self.inbox)));
        let mut batch = Batch::default();
        let mut phase = Phase::Serving;
        self.server.borrow_mut().start(clock::now(), &mut batch.effects);
        self.perform(&mut batch, &mut phase);
        let mut reactor_seen = clock::now().monotonic;
        let ending = loop {
            if let Phase::Left(ending) = phase {
                break ending;
            }
            if phase != Phase::Serving
                && let Some(accepting) = accepting.take()
            {
                // New connections go to nodes that stay.
                accepting.cancel().await;
            }
            let rest = self.something_to_do(&tick).await;
            let now = self.turn(&tick, &mut batch, &mut phase).monotonic;
            if rest == Rest::Asleep {
                reactor_seen = now;
            }
            self.sockets.look();
            self.disk.look();
            let unseen_max = if self.disk.needs_reactor() { REACTOR_AWAITED_MAX } else { REACTOR_UNSEEN_MAX };
            if now.since(reactor_seen) > unseen_max {
                self.breath.take().await;
                reactor_seen = now;
            } else {
                step_aside().await;
            }
        };
        ticking.cancel().await;
        listening.cancel().await;
        self.close().await;
        self.mesh.wake(None);
        ending
    }

    async fn something_to_do(&self, tick: &Cell<bool>) -> Rest {
        let mut hands = 0;
        while !self.has_work(tick) {
            if hands < HANDS_MAX {
                step_aside().await;
                hands += 1;
            } else if self.disk.needs_reactor() {
                self.rung(tick).await;
                return Rest::Asleep;
            } else {
                if self.linger(tick) == Word::None {
                    self.sockets.doze();
                    self.disk.look();
                }
                hands = 0;
            }
        }
        Rest::Awake
    }

    /// Looks on for a moment without going to sleep, and lets others have the processor between two looks.
    fn linger(&self, tick: &Cell<bool>) -> Word {
        let time = if self.disk.is_logging() { LINGER_FOR_LOG } else { LINGER };
        let end = self.busy_at.get() + time;
        while clock::now().monotonic < end {
            self.disk.look();
            if self.sockets.look() == Word::Some || self.has_work(tick) {
                return Word::Some;
            }
            sched_yield();
        }
        Word::None
    }

    fn has_work(&self, tick: &Cell<bool>) -> bool {
        tick.get() || self.again.get() || self.mesh.has_mail() || !self.inbox.is_empty()
    }

    /// Sleeps in the executor until there is work.
    async fn rung(&self, tick: &Cell<bool>) {
        poll_fn(|cx| {
            while !self.has_work(tick) {
                if self.inbox.poll_rung(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    fn turn(&self, tick: &Cell<bool>, batch: &mut Batch, phase: &mut Phase) -> Now {
        self.shared.pulse.beat(self.own);
        debug_assert!(batch.events.is_empty() && batch.effects.is_empty() && batch.answered.is_empty());
        if tick.replace(false) {
            batch.events.push(CoreEvent::Tick);
            let resident_bytes = self.shared.pulse.resident_bytes();
            if self.resident_bytes.replace(resident_bytes) != resident_bytes {
                batch.events.push(CoreEvent::Memory { resident_bytes });
            }
        }
        let own_events = batch.events.len();
        self.mesh.receive(&mut batch.parcels);
        for parcel in batch.parcels.drain(..) {
            self.unpack(parcel, &mut batch.events, phase);
        }
        self.inbox.take(&mut batch.events);
        debug_assert!(batch.events.len() <= 2 * TURN_EVENTS_MAX + 2);
        let now = clock::now();
        if batch.events.len() > own_events {
            self.busy_at.set(now.monotonic);
        }
        let again = self.again.replace(false);
        if again || !batch.events.is_empty() {
            self.server.borrow_mut().step(now, &mut batch.events, &mut batch.effects);
            assert!(batch.events.is_empty(), "a step handles every event");
        }
        self.perform(batch, phase);
        if let Phase::Stopping { deadline } | Phase::Stopped { deadline } = *phase
            && now.monotonic >= deadline
        {
            *phase = Phase::Left(Ending::Cut);
        }
        now
    }

    fn unpack(&self, parcel: Parcel, events: &mut Vec<CoreEvent>, phase: &mut Phase) {
        match parcel {
            Parcel::Message { from, message } => events.push(CoreEvent::Mesh { from, message }),
            Parcel::Connection(handed) => self.port.take_over(*handed),
            Parcel::Stop => {
                if *phase == Phase::Serving {
                    *phase = Phase::Stopping { deadline: clock::now().monotonic + self.stop_timeout };
                    events.push(CoreEvent::Stop);
                }
            }
            Parcel::Leave => {
                let ending =
                    if matches!(phase, Phase::Stopped { .. }) { Ending::Orderly } else { Ending::Cut };
                *phase = Phase::Left(ending);
            }
        }
    }

    fn perform(&self, batch: &mut Batch, phase: &mut Phase) {
        for effect in batch.effects.drain(..) {
            match effect {
                CoreEffect::Io { directory, submission } => self.disk.submit(directory, submission),
                CoreEffect::Reply { conn, frame } => {
                    if self.port.reply(conn, frame) == Flush::Due {
                        batch.answered.push(conn);
                    }
                }
                CoreEffect::Peer { to, class, shard, frame } => self.links.send(&to, class, shard, frame),
                CoreEffect::Mesh { to, message } => {
                    self.mesh.send(to, Parcel::Message { from: self.own, message });
                }
                CoreEffect::Dial { nodes } => self.links.dial(nodes),
                CoreEffect::RemoveDirectory { directory } => self.disk.remove_directory(directory),
                CoreEffect::Again => {
                    self.again.set(true);
                    self.inbox.ring();
                }
                // No one listens any more: the node is going down.
                CoreEffect::Notice(notice) => drop(self.notices.send(notice)),
                CoreEffect::Stopped => self.stopped(phase),
            }
        }
        // The device begins while answers are sent.
        self.disk.flush();
        for conn in batch.answered.drain(..) {
            self.port.flush(conn);
        }
        self.inbox.set_congested(self.mesh.flush());
    }

    /// The last core that stops lets all of them leave: until then each may be needed by another.
    fn stopped(&self, phase: &mut Phase) {
        let deadline = match *phase {
            Phase::Stopping { deadline } => deadline,
            // Another core told this one before the operator's word arrived.
            Phase::Serving => clock::now().monotonic + self.stop_timeout,
            Phase::Stopped { .. } | Phase::Left(_) => {
                debug_assert!(false, "a core stops once");
                return;
            }
        };
        *phase = Phase::Stopped { deadline };
        let cores = self.mesh.cores();
        if self.shared.stopped.fetch_add(1, Ordering::AcqRel) + 1 == cores {
            self.shared.exchange.post_to_all(|| Parcel::Leave);
        }
    }

    /// Ends what is open, so that nothing of the node is left in a process that goes on.
    async fn close(&self) {
        self.port.close();
        self.links.close();
        let mut left = CLOSING_TIMEOUT;
        let step = Duration::from_millis(2);
        while (self.port.open() > 0 || !self.disk.is_idle()) && !left.is_zero() {
            Timer::new(step).await;
            left = left.saturating_sub(step);
        }
        self.disk.close();
        // The descriptors are closed by the executor on its next round.
        Timer::new(step).await;
    }
}

/// Lets the turn know that another thread rang.
async fn hear(doorbell: Doorbell, inbox: Rc<Inbox>) {
    loop {
        doorbell.rung().await;
        inbox.ring();
    }
}

/// Lets the turn know of every tick.
async fn beat(ticker: Ticker, tick: Rc<Cell<bool>>, inbox: Rc<Inbox>) {
    loop {
        ticker.beat().await;
        tick.set(true);
        inbox.ring();
    }
}
