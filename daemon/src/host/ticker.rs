//! The beat of a core: a timer of the kernel's among the core's sockets.
//!
//! A timer of the executor is armed and given up with operations of its own for every beat, which is most of what a core does that
//! has nothing to do. This one is armed once.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::sockets::{Sockets, Watched};

/// See the module.
pub(super) struct Ticker {
    /// Closed before what watches it is given up.
    timer: OwnedFd,
    watched: Watched,
}

impl Ticker {
    /// Beats from now on.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(period: Duration, sockets: &Rc<Sockets>) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK.union(TimerfdFlags::CLOEXEC))?;
        let watched = sockets.watch_over(&timer)?;
        let period = Timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
        let beats = Itimerspec { it_interval: period, it_value: period };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &beats)?;
        Ok(Self { timer, watched })
    }

    /// Completes at the next beat. Beats that nobody waited for are one.
    pub(super) async fn beat(&self) {
        self.watched.input().ready().await;
        self.watched.input().clear();
        // The kernel begins the next period when the timer is read, and lets it end as if it had begun in time.
        let _ = rustix::io::read(&self.timer, &mut [0; size_of::<u64>()]);
    }
}
