//! One core of the generator: a pinned thread that waits for all of its connections at once.
//!
//! Invariants:
//! - Every connection that is ready gets one turn, and then the kernel is asked again: a fast one does not keep the others
//!   waiting.
//! - Nothing but the wait for sockets waits here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use mesh_base::limits::CLIENT_PATIENCE;
use mesh_base::prng::Prng;

use crate::connection::{Connection, Shared, Turn};
use crate::error::BenchError;
use crate::generator::Plan;
use crate::machine::pin;
use crate::opener::Opener;
use crate::pace::{Arrivals, Seat};
use crate::socket::Poller;
use crate::stats::{Recorder, Schedule, Second};
use crate::target::{LaneSpec, PartitionId, Target};
use crate::workload::Feed;

/// Bytes that one read takes off a socket.
const READ_BYTES: usize = 256 * 1024;
/// How long the connections of the beginning may take.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// How often a core looks after what happens without answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A connection that owes answers and is silent for so long has it asked whether its partition is served elsewhere now,
const PATIENCE: Duration = CLIENT_PATIENCE;
/// again after this time,
const SURVEY_EVERY: Duration = Duration::from_millis(100);
/// and is made anew in any case when it is silent for so long.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long answers are waited for when no more operations are begun.
const GRACE: Duration = Duration::from_secs(3);
/// Where there is no end, no answer for so long is one.
const STALL_MAX: Duration = Duration::from_secs(20);
/// As good as no time limit for what ends with the run.
const WHOLE_RUN: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often connections that are being made are asked for.
const OPENED_EVERY: Duration = Duration::from_millis(1);

/// See the module.
pub(crate) struct Core<T: Target> {
    target: Arc<T>,
    connections: Vec<Connection<T::Lane>>,
    poller: Poller,
    opener: Opener<T>,
}

impl<T: Target> Core<T> {
    /// Pins this thread and makes the connections of the plan that are this core's.
    ///
    /// # Errors
    /// [`BenchError`]
    pub(crate) fn new(target: &Arc<T>, plan: &Plan, index: usize) -> Result<Self, BenchError> {
        let cpu = plan.cores.get(index).copied().unwrap_or_default();
        let failed = |error: io::Error| BenchError::core(cpu, &error);
        let mut prng = Prng::new(plan.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Before this thread is pinned: those that it starts are not to be.
        let mut opener = Opener::new(target, prng.fork());
        let until = Instant::now() + OPEN_MAX;
        let own = (index..plan.connections).step_by(plan.cores.len());
        let mut connections = Vec::new();
        for (number, among_all) in own.enumerate() {
            let partition = PartitionId(among_all % target.partitions());
            let feed = Feed::new(&plan.keyspace, partition, plan.mix.clone(), plan.batch, prng.fork())
                .with_ledger(plan.ledger.clone());
            let seat = Seat { number: among_all, of: plan.connections };
            let arrivals = Arrivals::new(plan.pace, seat, prng.fork());
            connections.push(Connection::new(number, feed, plan.in_flight).with_arrivals(arrivals));
            let lane = target.lane(LaneSpec {
                partition,
                writes: plan.writes(),
                in_flight: plan.in_flight,
                value_bytes: plan.keyspace.value_bytes(),
                prng: unrepeated(&mut prng),
            });
            opener.open(number, lane, until);
        }
        pin(cpu).map_err(failed)?;
        let mut core =
            Self { target: Arc::clone(target), connections, poller: Poller::new().map_err(failed)?, opener };
        while let Some(opened) = core.opener.wait() {
            let socket = opened.socket?;
            if let Some(connection) = core.connections.get_mut(opened.number) {
                connection.connect(opened.lane, socket, &core.poller).map_err(failed)?;
            }
        }
        Ok(core)
    }

    /// Keeps the connections busy from the schedule's start to its end.
    pub(crate) fn work(self, schedule: Schedule, seconds: Sender<Second>) {
        let Self { target, mut connections, poller, opener } = self;
        connections.iter_mut().for_each(|connection| connection.start(schedule.start));
        let shared = Shared {
            recorder: Recorder::new(schedule, seconds),
            schedule,
            scratch: vec![0; READ_BYTES],
            poller,
            alarm: None,
            calls: BinaryHeap::new(),
        };
        let is_over = vec![false; connections.len()];
        Work { target, connections, opener, shared, left: is_over.len(), is_over }.run();
    }
}

/// A core that works.
struct Work<T: Target> {
    target: Arc<T>,
    connections: Vec<Connection<T::Lane>>,
    opener: Opener<T>,
    shared: Shared,
    /// Whether a connection has nothing more to do, by its number.
    is_over: Vec<bool>,
    /// Connections that have.
    left: usize,
}

impl<T: Target> Work<T> {
    fn run(mut self) {
        let (mut look, mut ready) = (Look::new(Instant::now()), Vec::new());
        for number in 0..self.connections.len() {
            self.go_on(number, look.at);
        }
        while self.left > 0 {
            self.shared.poller.wait(self.patience(look.at), &mut ready);
            for &number in &ready {
                let turn =
                    self.connections.get_mut(number).map(|connection| connection.turn(&mut self.shared));
                self.turned(number, turn);
            }
            let now = Instant::now();
            self.take_opened(now);
            self.resume(now);
            self.call(now);
            if now >= look.at && self.look(&mut look, now) == Looked::Late {
                break;
            }
        }
        let unanswered = self.connections.iter().map(Connection::unanswered).sum::<usize>();
        let end = self.shared.schedule.end();
        let overdue =
            end.map_or(0, |end| self.connections.iter().map(|connection| connection.overdue(end)).sum());
        self.shared.recorder.finish(Instant::now(), unanswered as u64, overdue);
    }

    /// How long to wait for sockets.
    fn patience(&self, look_at: Instant) -> Duration {
        let next = self.shared.alarm.map_or(look_at, |alarm| alarm.min(look_at));
        let next = self.shared.calls.peek().map_or(next, |Reverse((due, _))| next.min(*due));
        let patience = next.saturating_duration_since(Instant::now());
        if self.opener.under_way() > 0 { patience.min(OPENED_EVERY) } else { patience }
    }

    fn go_on(&mut self, number: usize, now: Instant) {
        let turn = self.connections.get_mut(number).map(|connection| connection.go_on(now, &mut self.shared));
        self.turned(number, turn);
    }

    /// Sees to a connection after its turn.
    fn turned(&mut self, number: usize, turn: Option<Turn>) {
        match turn {
            Some(Turn::Over) => {
                if let Some(is_over) = self.is_over.get_mut(number) {
                    self.left -= usize::from(!std::mem::replace(is_over, true));
                }
            }
            Some(Turn::Lost) => {
                let connection = self.connections.get_mut(number);
                let lane = connection.and_then(|connection| connection.disconnect(&mut self.shared.recorder));
                if let Some(lane) = lane {
                    self.opener.open(number, lane, Instant::now() + WHOLE_RUN);
                }
            }
            Some(Turn::GoesOn) | None => {}
        }
    }

    /// Lets connections that were lost and made anew go on.
    fn take_opened(&mut self, now: Instant) {
        if self.opener.under_way() == 0 {
            return;
        }
        while let Some(opened) = self.opener.take() {
            let Some(connection) = self.connections.get_mut(opened.number) else { continue };
            // One that is refused for good leaves its operations unanswered, which the report tells.
            let Ok(socket) = opened.socket else { continue };
            if connection.connect(opened.lane, socket, &self.shared.poller).is_ok() {
                // What has paused meanwhile is looked at anew.
                self.shared.alarm = Some(now);
                self.go_on(opened.number, now);
            }
        }
    }

    /// Sends what has paused for long enough.
    fn resume(&mut self, now: Instant) {
        if self.shared.alarm.is_none_or(|alarm| now < alarm) {
            return;
        }
        for number in 0..self.connections.len() {
            if self.connections.get(number).is_some_and(|connection| connection.alarm().is_some()) {
                self.go_on(number, now);
            }
        }
        self.shared.alarm = self.connections.iter().filter_map(Connection::alarm).min();
    }

    /// Has connections begin operations that are due now.
    fn call(&mut self, now: Instant) {
        while let Some(&Reverse((due, number))) = self.shared.calls.peek()
            && due <= now
        {
            self.shared.calls.pop();
            let connection = self.connections.get_mut(number);
            let turn = connection.map(|connection| connection.called(now, &mut self.shared));
            self.turned(number, turn);
        }
    }

    /// Looks after what happens without answers: seconds that pass, connections that are silent, the end.
    fn look(&mut self, look: &mut Look, now: Instant) -> Looked {
        look.at = now + LOOK_EVERY;
        self.shared.recorder.look(now);
        let answered = self.shared.recorder.answered();
        if answered != look.answered {
            (look.answered, look.answered_at) = (answered, now);
        }
        self.look_after_silence(look, now);
        let is_late = match self.shared.schedule.end() {
            Some(end) => now >= end + GRACE,
            None => now >= look.answered_at + STALL_MAX,
        };
        if is_late { Looked::Late } else { Looked::InTime }
    }

    /// Ends connections that are silent because someone else serves their partition by now, or for too long.
    fn look_after_silence(&self, look: &mut Look, now: Instant) {
        let Some((patience, longest)) = now.checked_sub(PATIENCE).zip(now.checked_sub(SILENCE_MAX)) else {
            return;
        };
        let mut wonders = false;
        for connection in &self.connections {
            let Some(lane) = connection.silent_since(patience) else { continue };
            wonders = true;
            if self.target.has_moved(lane) || connection.silent_since(longest).is_some() {
                connection.hang_up();
            }
        }
        if wonders && now >= look.survey_at {
            look.survey_at = now + SURVEY_EVERY;
            self.target.survey();
        }
    }
}

/// What a core remembers between two looks.
struct Look {
    /// When the next one is due.
    at: Instant,
    /// Before which nobody is asked again who serves what.
    survey_at: Instant,
    answered: u64,
    answered_at: Instant,
}

/// Whether a core should wait for what is unanswered.
#[derive(PartialEq, Eq)]
enum Looked {
    InTime,
    Late,
}

impl Look {
    const fn new(now: Instant) -> Self {
        Self { at: now, survey_at: now, answered: 0, answered_at: now }
    }
}

/// Numbers that another run with the same seed does not have: sessions of runs must not be taken for each other's.
fn unrepeated(prng: &mut Prng) -> Prng {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let run = now.as_nanos() ^ u128::from(std::process::id()).rotate_left(64);
    #[allow(clippy::cast_possible_truncation, reason = "the low half of a number that was folded")]
    let folded = (run ^ (run >> 64)) as u64;
    Prng::new(prng.next_u64() ^ folded)
}
