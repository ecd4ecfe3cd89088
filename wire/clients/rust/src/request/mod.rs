//! Having a request done: finding its shard's leader, sending it there, and sending it again until it is done, cannot be
//! done, or time is up.
//!
//! Invariants:
//! - A write is sent again with the session and number that it had, so it is applied once. It gets a new session only
//!   when no sending of it can have been applied.
//! - A request is not sent again without a pause, but for the first times that a new place to send it to is known.
//! - While no leader is known nothing is sent: the wait is for news of the topology.
//!
//! Deliberately absent: what answers contain.

mod answers;
mod call;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_base::limits::{CLIENT_DEADLINE, CLIENT_PATIENCE, CLIENT_RETRY_PAUSE_MAX};
use mesh_base::{ShardId, SlotEpoch};
use mesh_wire::{Frame, Response};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::call::Mode;
pub(crate) use self::call::{Aim, Call, Deadline, Failure};
use crate::backoff::pause;
use crate::connection::{Answer, Connection, NotSent};
use crate::core::{Core, Target};
use crate::error::Tried;
use crate::opening::Entrance;
use crate::pool::NoConnection;
use crate::{Error, Topology};

/// The longest pause while a leader is awaited; news of one end it early.
const NEWS_PAUSE_MAX: Duration = Duration::from_millis(200);
/// New places that a request is sent to without a pause.
const HOPS_MAX: u32 = 3;

/// What keeps a request from being done, and what to do about it.
enum Setback {
    /// Go on at once.
    Now,
    /// Wait for news of the shard's leader, or until it is time to ask again.
    Leader { shard: ShardId, asked: Option<Target> },
    /// Wait for the same, until a node may be dialled again.
    Dial { shard: ShardId, asked: Target, until: Instant },
    /// Wait, this long at least.
    Busy { at_least: Duration },
    /// Wait for a newer slot map than this.
    SlotMap { epoch: SlotEpoch },
    /// Time is up.
    OutOfTime,
    /// It cannot be done.
    Failed(Error),
}

impl Core {
    /// Has a request done. The answer is a frame of another kind than an error.
    pub(crate) async fn perform(self: &Arc<Self>, call: &mut Call<'_>) -> Result<Frame, Failure> {
        loop {
            if self.pool.is_closed() {
                return Err(call.give_up(Error::Closed));
            }
            match self.attempt(call).await {
                Ok(frame) => return Ok(frame),
                Err(Setback::Now) => {}
                Err(Setback::Failed(error)) => return Err(call.give_up(error)),
                Err(Setback::OutOfTime) => return Err(call.out_of_time(self)),
                Err(setback) => Box::pin(self.wait(call, setback)).await?,
            }
            if Instant::now() >= call.deadline.at {
                return Err(call.out_of_time(self));
            }
        }
    }

    /// Sends a request once, and waits for its answer.
    async fn attempt(self: &Arc<Self>, call: &mut Call<'_>) -> Result<Frame, Setback> {
        let topology = self.view.topology();
        let (shard, epoch) = (call.aim.shard(&topology), topology.epoch());
        if call.mode == Mode::Write {
            self.number(call, shard).await?;
        }
        let Some(target) = self.target(&topology, shard) else {
            self.heard(call, shard, Error::NoQuorum { shard, why: "no leader is known".into() });
            return Err(Setback::Leader { shard, asked: None });
        };
        drop(topology);
        let connection = match self.shard(shard).next(target.node, self.settings.connections_per_core) {
            (_, Some(connection)) => connection,
            (stripe, None) => Box::pin(self.connect(call, shard, target, stripe)).await?,
        };
        let room = match connection.try_room(call.bytes) {
            Some(room) => room,
            None => match Box::pin(timeout_at(call.deadline.at, connection.room(call.bytes))).await {
                Ok(Ok(room)) => room,
                Ok(Err(_)) => return Err(after_loss(call, shard, target)),
                Err(_) => return Err(Setback::OutOfTime),
            },
        };
        let now = Instant::now();
        call.fill(self, now);
        match connection.send(room, Some(shard), epoch, &call.request, call.bytes) {
            Ok(answer) => {
                let frame = self.answered(call, shard, target, &connection, answer, now).await?;
                self.judge(call, shard, target, epoch, frame)
            }
            Err(NotSent::Lost(_)) => Err(after_loss(call, shard, target)),
            Err(NotSent::Invalid(error)) => Err(Setback::Failed(error.into())),
        }
    }

    /// Gives a write its session and number.
    async fn number(self: &Arc<Self>, call: &mut Call<'_>, shard: ShardId) -> Result<(), Setback> {
        if let Some(write) = &call.write {
            if write.shard() == shard {
                return Ok(());
            }
            if call.may_be_applied {
                // Its session is the other shard's, so whether it was applied cannot be asked for here.
                return Err(Setback::Failed(Error::Unknown { last: None }));
            }
        }
        call.write = None;
        let Some(session) = self.shard(shard).session.open() else {
            return Err(Box::pin(self.await_session(call, shard)).await);
        };
        call.write = session.try_begin();
        if call.write.is_some() {
            return Ok(());
        }
        Err(match Box::pin(timeout_at(call.deadline.at, session.begin())).await {
            Ok(write) => {
                call.write = Some(write);
                // What is known of the shard may be another thing by now.
                Setback::Now
            }
            Err(_) => Setback::OutOfTime,
        })
    }

    /// Waits until a session is open; one is opened if there is none.
    async fn await_session(self: &Arc<Self>, call: &mut Call<'_>, shard: ShardId) -> Setback {
        let (since, outcome) = match self.session(shard) {
            Entrance::Open => return Setback::Now,
            Entrance::Opening { since, outcome } => (since, outcome),
        };
        match timeout_at(call.deadline.at, outcome.wait()).await {
            Ok(Some(Ok(()))) => Setback::Now,
            Ok(Some(Err(error))) => Setback::Failed(error),
            Ok(None) => Setback::Busy { at_least: Duration::ZERO },
            Err(_) => {
                // What keeps the opening keeps this call, though it may have been heard before the call began.
                call.last = call.last.take().or_else(|| self.shard(shard).trouble_since(since));
                Setback::OutOfTime
            }
        }
    }

    /// Waits for a connection. Its making goes on if this is given up.
    async fn connect(
        self: &Arc<Self>,
        call: &mut Call<'_>,
        shard: ShardId,
        target: Target,
        stripe: usize,
    ) -> Result<Arc<Connection>, Setback> {
        let topology = self.view.topology();
        let leads_elsewhere =
            |known: &Topology| self.target(known, shard).is_some_and(|leads| leads.node != target.node);
        let mut connecting = pin!(self.pool.connect(&topology, target.node, shard, stripe));
        let mut asking = None;
        let came_of_it = loop {
            let until = call.deadline.at.min(Instant::now() + CLIENT_PATIENCE);
            tokio::select! {
                biased;
                came_of_it = &mut connecting => break came_of_it,
                () = self.view.wait(until, leads_elsewhere) => {}
            }
            // A node that hangs must not keep the call from learning that another leads now.
            if leads_elsewhere(&self.view.topology()) {
                return Err(Setback::Leader { shard, asked: Some(target) });
            }
            let endpoint = topology.node(target.node).map_or_else(String::new, |node| node.address.clone());
            let tried = Tried { endpoint, why: "it does not answer".into() };
            self.heard(call, shard, Error::Unreachable { tried: vec![tried] });
            if Instant::now() >= call.deadline.at {
                return Err(Setback::OutOfTime);
            }
            asking.get_or_insert_with(|| self.keeper.keep_asking());
        };
        match came_of_it {
            Ok(connection) => {
                self.shard(shard).use_connection(stripe, &connection);
                Ok(connection)
            }
            Err(NoConnection::Later { tried, until }) => {
                self.heard(call, shard, Error::Unreachable { tried: vec![tried] });
                Err(self.unreached(shard, target, until))
            }
            Err(NoConnection::Refused(error)) => Err(Setback::Failed(error)),
        }
    }

    /// A node could not be reached. If it was only said to lead, whoever the topology names may lead after all.
    fn unreached(&self, shard: ShardId, target: Target, until: Instant) -> Setback {
        self.drop_hint(shard, target.node);
        match self.target(&self.view.topology(), shard) {
            // That is no news, so it is not asked without a pause.
            Some(leads) if leads.term == target.term && leads.node != target.node => {
                Setback::Leader { shard, asked: Some(leads) }
            }
            _ => Setback::Dial { shard, asked: target, until },
        }
    }

    /// Waits for an answer, as long as it is to be expected.
    async fn answered(
        self: &Arc<Self>,
        call: &mut Call<'_>,
        shard: ShardId,
        target: Target,
        connection: &Arc<Connection>,
        mut answer: Answer,
        sent: Instant,
    ) -> Result<Frame, Setback> {
        let mut now = sent;
        loop {
            let until = call.deadline.at.min(now + CLIENT_PATIENCE);
            let why = match timeout_at(until, &mut answer).await {
                Ok(Ok(frame)) => return Ok(frame),
                Ok(Err(lost)) => format!("the connection was lost: {}", lost.why),
                Err(_) if until == call.deadline.at => {
                    call.lose_track();
                    return Err(Setback::OutOfTime);
                }
                Err(_) => {
                    self.suspect(connection);
                    now = Instant::now();
                    let leads = self.target(&self.view.topology(), shard);
                    if leads.is_some_and(|leads| leads.node != target.node) {
                        "it does not answer, and another node leads by now".into()
                    } else if call.mode == Mode::Repeatable && now >= sent + CLIENT_DEADLINE {
                        "it does not answer the request".into()
                    } else {
                        continue;
                    }
                }
            };
            call.lose_track();
            let tried = Tried { endpoint: connection.endpoint().to_owned(), why };
            self.heard(call, shard, Error::Unreachable { tried: vec![tried] });
            self.keeper.nudge();
            return Err(after_loss(call, shard, target));
        }
    }

    /// Waits until it makes sense to go on.
    async fn wait(&self, call: &mut Call<'_>, setback: Setback) -> Result<(), Failure> {
        call.failures += 1;
        let (failures, deadline) = (call.failures, call.deadline.at);
        let soon = |most| Instant::now() + self.dice.jitter(pause(failures, most));
        let news = |until: Instant, shard: ShardId, asked: Option<Target>| async move {
            let _asking = self.keeper.keep_asking();
            self.view.wait(until.min(deadline), |known| self.target(known, shard) != asked).await;
        };
        match setback {
            Setback::Leader { shard, asked } => news(soon(NEWS_PAUSE_MAX), shard, asked).await,
            Setback::Dial { shard, asked, until } => news(until, shard, Some(asked)).await,
            Setback::SlotMap { epoch } => {
                let _asking = self.keeper.keep_asking();
                let until = soon(NEWS_PAUSE_MAX).min(deadline);
                self.view.wait(until, |topology| topology.epoch() > epoch).await;
                if Instant::now() >= deadline {
                    return Err(call.out_of_time(self));
                }
                // What is not about keys is for its shard whatever slots it has.
                if matches!(call.aim, Aim::Shard(_)) && call.mode != Mode::Repeatable {
                    let lost_track = call.may_be_applied;
                    return Err(if lost_track {
                        call.give_up(Error::Unknown { last: None })
                    } else {
                        Failure::Rerouted
                    });
                }
            }
            Setback::Busy { at_least } => {
                let until = soon(CLIENT_RETRY_PAUSE_MAX).max(Instant::now() + self.dice.jitter(2 * at_least));
                if until >= deadline {
                    return Err(call.out_of_time(self));
                }
                sleep_until(until).await;
            }
            Setback::Now | Setback::OutOfTime | Setback::Failed(_) => {}
        }
        Ok(())
    }

    /// Keeps what was heard of a request: for its own end, and for others that wait for the same.
    fn heard(&self, call: &mut Call<'_>, shard: ShardId, error: Error) {
        self.shard(shard).note(error.clone());
        call.last = Some(error);
    }
}

/// A connection was lost: another is tried at once, but not again and again.
const fn after_loss(call: &mut Call<'_>, shard: ShardId, target: Target) -> Setback {
    call.losses += 1;
    if call.losses == 1 { Setback::Now } else { Setback::Leader { shard, asked: Some(target) } }
}

/// An answer of a kind that does not answer the request.
pub(crate) fn unexpected(answer: &Response<'_>) -> Error {
    Error::Protocol { what: format!("{} does not answer the request", answer.kind()) }
}
