//! The load: as many threads as the generator has cores, each pinned and with connections of its own.
//!
//! All connections are made before the first operation is sent, and all cores begin at the same moment. This thread
//! meanwhile collects what they count.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::collector::{Collector, Observer, Outcome};
use crate::core::Core;
use crate::error::BenchError;
use crate::keyspace::Keyspace;
use crate::ledger::Ledgered;
use crate::op::OpKind;
use crate::pace::Pace;
use crate::stats::{INTERVAL, Schedule, Second};
use crate::target::{Target, Writes};
use crate::workload::Mix;

/// From the moment all are connected to the first operation.
const RUN_UP: Duration = Duration::from_millis(20);

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The processors to make it on.
    pub(crate) cores: Vec<usize>,
    /// How many connections.
    pub(crate) connections: usize,
    /// Operations in flight on each.
    pub(crate) in_flight: u16,
    /// Keys of an operation.
    pub(crate) batch: usize,
    /// When they begin.
    pub(crate) pace: Pace,
    /// Which operations.
    pub(crate) mix: Mix,
    /// On which keys.
    pub(crate) keyspace: Arc<Keyspace>,
    /// What is recorded of it.
    pub(crate) ledger: Ledgered,
    /// Seconds before what is counted.
    pub(crate) warm_up: u32,
    /// Seconds that are counted; `None` until there are no more operations.
    pub(crate) seconds: Option<u32>,
    /// Repeats the choices of keys.
    pub(crate) seed: u64,
}

/// Makes the load.
///
/// # Errors
/// [`BenchError`] if it cannot be begun.
pub(crate) fn run<T: Target>(
    target: &Arc<T>,
    plan: &Plan,
    observer: &mut dyn Observer,
) -> Result<Outcome, BenchError> {
    assert!(!plan.cores.is_empty() && plan.connections > 0 && plan.in_flight > 0);
    let (seconds_to, seconds) = channel();
    let (ready_to, ready) = channel();
    let mut gates = Vec::new();
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for (index, &cpu) in plan.cores.iter().enumerate() {
        let (gate, opened) = channel();
        let (target, plan) = (Arc::clone(target), plan.clone());
        let (ready, seconds) = (ready_to.clone(), seconds_to.clone());
        let thread = thread::Builder::new().name(format!("load-{cpu}"));
        let thread = thread.spawn(move || sit(&target, &plan, index, &ready, &opened, seconds));
        threads.push(thread.map_err(|error| BenchError::core(cpu, &error))?);
        gates.push(gate);
    }
    drop((seconds_to, ready_to));
    // An early return drops the gates, and with them every thread ends.
    for _ in &threads {
        ready.recv().unwrap_or_else(|_| Err(BenchError::core(0, &"its thread ended")))?;
    }
    let schedule = plan.schedule(Instant::now() + RUN_UP);
    for gate in gates {
        let _ = gate.send(schedule);
    }
    let outcome = watch(&schedule, plan, &seconds, observer);
    for thread in threads {
        thread.join().map_err(|_| BenchError::core(0, &"its thread panicked"))?;
    }
    Ok(outcome)
}

impl Plan {
    fn schedule(&self, start: Instant) -> Schedule {
        Schedule { start, measure: start + self.warm_up * INTERVAL, seconds: self.seconds }
    }

    /// Whether any operation writes.
    pub(crate) fn writes(&self) -> Writes {
        if self.mix.has(OpKind::Write) { Writes::Some } else { Writes::None }
    }
}

/// Collects until all cores have ended.
fn watch(
    schedule: &Schedule,
    plan: &Plan,
    seconds: &Receiver<Second>,
    observer: &mut dyn Observer,
) -> Outcome {
    let mut collector = Collector::new(plan.cores.len(), plan.seconds);
    let (mut begins, mut ends) = (Some(schedule.measure), schedule.end());
    loop {
        let next = begins.or(ends).map_or(INTERVAL, |at| at.saturating_duration_since(Instant::now()));
        match seconds.recv_timeout(next) {
            Ok(second) => collector.take(second, observer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        if begins.take_if(|at| now >= *at).is_some() {
            observer.measurement_begins();
        } else if begins.is_none() && ends.take_if(|at| now >= *at).is_some() {
            observer.measurement_ends();
        }
    }
    if begins.is_some() {
        observer.measurement_begins();
    }
    if begins.is_some() || ends.is_some() || schedule.seconds.is_none() {
        observer.measurement_ends();
    }
    collector
        .finish(schedule.seconds.map_or_else(|| schedule.measure.elapsed(), |seconds| seconds * INTERVAL))
}

/// What one core's thread does.
fn sit<T: Target>(
    target: &Arc<T>,
    plan: &Plan,
    index: usize,
    ready: &Sender<Result<(), BenchError>>,
    opened: &Receiver<Schedule>,
    seconds: Sender<Second>,
) {
    let core = match Core::new(target, plan, index) {
        Ok(core) => core,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let _ = ready.send(Ok(()));
    // No schedule comes if another core cannot begin.
    if let Ok(schedule) = opened.recv() {
        thread::sleep(schedule.start.saturating_duration_since(Instant::now()));
        core.work(schedule, seconds);
    }
}
