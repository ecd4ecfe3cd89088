//! Seeing to it that no core sleeps while it has something to do, and how much memory the process has.
//!
//! The executor goes to sleep with tasks that are ready if an event meant to interrupt them arrives just before the first
//! of them runs, and then sleeps until the next completion; with its own timers among those tasks, that may be never. The
//! interruptions by time are switched off for that reason; those by other threads cannot be. So one thread of the node
//! looks now and then whether every core still turns, as each does at least once per tick, and wakes those that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mesh_base::CoreId;

use super::mesh::Exchange;

/// How often the cores are looked at: several ticks.
const PERIOD: Duration = Duration::from_millis(100);

/// The memory is measured once in so many periods.
const MEMORY_PERIODS: u32 = 10;

/// The signs of life of a node's cores.
#[derive(Debug)]
pub(super) struct Pulse {
    turns: Vec<AtomicU64>,
    gone: AtomicUsize,
    resident_bytes: AtomicU64,
}

impl Pulse {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            turns: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            gone: AtomicUsize::new(0),
            resident_bytes: AtomicU64::new(0),
        }
    }

    /// A core begins a turn.
    pub(super) fn beat(&self, core: CoreId) {
        if let Some(turns) = self.turns.get(usize::from(core.0)) {
            turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A core will not turn again.
    pub(super) fn stop(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }

    /// The process's resident memory, as last measured.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.gone.load(Ordering::Relaxed) == self.turns.len()
    }
}

/// Wakes the cores that have not turned for a while, until all of them are gone.
pub(super) fn watch(pulse: &Pulse, exchange: &Arc<Exchange>) {
    let mut seen = vec![None; pulse.turns.len()];
    for round in 0_u32.. {
        if pulse.is_over() {
            break;
        }
        if round.is_multiple_of(MEMORY_PERIODS) {
            pulse.resident_bytes.store(resident_bytes(), Ordering::Relaxed);
        }
        thread::sleep(PERIOD);
        for ((core, turns), seen) in (0..).map(CoreId).zip(&pulse.turns).zip(&mut seen) {
            let now = Some(turns.load(Ordering::Relaxed));
            if *seen == now {
                tracing::debug!(core = core.0, "has not turned for a while, and is woken");
                exchange.wake(core);
            }
            *seen = now;
        }
    }
}

/// The memory that this process has resident; zero where that cannot be told.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|statm| {
        let resident = statm.split_ascii_whitespace().nth(1)?;
        resident.parse::<u64>().ok()
    });
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};
    use std::time::Instant;

    use super::*;
    use crate::host::mesh::MeshPort;

    struct Sleeper(AtomicBool);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_core_that_does_not_turn_is_woken_and_one_that_does_is_not() {
        let (pulse, exchange) = (Arc::new(Pulse::new(2)), Exchange::new(2));
        let [busy, asleep] = [0, 1].map(|core| {
            let sleeper = Arc::new(Sleeper(AtomicBool::new(false)));
            let port = MeshPort::new(CoreId(core), Arc::clone(&exchange));
            port.wake(Some(Waker::from(Arc::clone(&sleeper))));
            sleeper
        });
        let (watched, mailboxes) = (Arc::clone(&pulse), Arc::clone(&exchange));
        let watching = thread::spawn(move || watch(&watched, &mailboxes));
        let begun = Instant::now();
        while !asleep.0.load(Ordering::Relaxed) {
            assert!(begun.elapsed() < 100 * PERIOD, "not woken");
            pulse.beat(CoreId(0));
            thread::sleep(PERIOD / 50);
        }
        assert!(!busy.0.load(Ordering::Relaxed));
        pulse.stop();
        pulse.stop();
        watching.join().unwrap();
    }
}
