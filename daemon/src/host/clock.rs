//! The only place that reads a clock.

use std::time::SystemTime;

use mesh_base::{Instant, Now, WallMillis};
use rustix::time::{ClockId, clock_gettime};

/// Both clocks as they stand. The monotonic one counts while the machine sleeps (`CLOCK_BOOTTIME`): a promise that was
/// given before a suspend has run out after it.
#[must_use]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(boot.tv_nsec).unwrap_or(0);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now {
        monotonic: Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)),
        wall: WallMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_run_backwards_and_the_wall_clock_is_in_this_century() {
        let (first, second) = (now(), now());
        assert!(second.monotonic >= first.monotonic && first.monotonic > Instant::ZERO);
        assert!(first.wall.0 > 1_600_000_000_000);
    }
}
