//! Letting the reactor look at what has completed.
//!
//! The executor asks the kernel for completions only when no task is ready. A task that always has something to do must
//! therefore stop now and then for something that only the reactor can bring.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use glommio::io::PollableFd;

/// Something that is ready as soon as the reactor looks.
pub(super) struct Breath {
    ready: PollableFd<UnixStream>,
    /// Keeps the other end ready.
    _other: UnixStream,
}

impl Breath {
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let (ready, mut other) = UnixStream::pair()?;
        // Never read, so always there to be read.
        other.write_all(&[0])?;
        Ok(Rc::new(Self { ready: PollableFd::new(ready)?, _other: other }))
    }

    /// Completes when the reactor has looked.
    pub(super) async fn take(&self) {
        // An error comes from the reactor as well.
        let _ = self.ready.readable().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use glommio::LocalExecutorBuilder;
    use glommio::timer::Timer;

    use super::*;

    #[test]
    fn a_task_that_is_always_ready_and_takes_a_breath_does_not_keep_the_core_to_itself() {
        let executor = LocalExecutorBuilder::default()
            .io_memory(0)
            .preempt_timer(Duration::from_secs(3600))
            .make()
            .unwrap();
        executor.run(async {
            let breath = Breath::new().unwrap();
            let done = Rc::new(Cell::new(false));
            let other = Rc::clone(&done);
            glommio::spawn_local(async move {
                Timer::new(Duration::from_millis(20)).await;
                other.set(true);
            })
            .detach();
            let begun = Instant::now();
            while !done.get() {
                assert!(begun.elapsed() < Duration::from_secs(10), "no one else ran");
                breath.take().await;
            }
        });
    }
}
