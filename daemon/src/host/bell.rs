//! Waking one task of the same core from another.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Rung by any task of the core, heard by the one that waits; rings in between are heard as one.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
    sleeper: Cell<Option<Waker>>,
}

impl Bell {
    /// Wakes whoever waits; if no one does, the next to wait does not have to.
    pub(super) fn ring(&self) {
        self.rung.set(true);
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Completes once the bell was rung.
    pub(super) async fn heard(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// The poll form of [`Bell::heard`].
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.rung.replace(false) {
            return Poll::Ready(());
        }
        let sleeper = match self.sleeper.take() {
            Some(sleeper) if sleeper.will_wake(cx.waker()) => sleeper,
            _ => cx.waker().clone(),
        };
        self.sleeper.set(Some(sleeper));
        Poll::Pending
    }
}

/// Lets the other tasks that are ready run first.
pub(super) async fn step_aside() {
    let mut stepped = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
