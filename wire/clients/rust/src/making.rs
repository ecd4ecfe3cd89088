//! Something that a task of its own makes: it goes on whoever waits for it, and when nobody does.
//!
//! Invariants:
//! - The making does not depend on those who wait for it: on how long they do, nor on their being polled.
//! - The task ends when its [`Making`] is dropped.
//!
//! Deliberately absent: keeping what was made, and making it again.

use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A making, under way or over.
#[derive(Debug)]
pub(crate) struct Making<T> {
    outcome: watch::Receiver<Option<T>>,
    task: AbortHandle,
}

impl<T: Clone + Send + Sync + 'static> Making<T> {
    /// Begins it. `work` gives nothing when it gives up. Called inside a tokio runtime.
    pub(crate) fn begin(work: impl Future<Output = Option<T>> + Send + 'static) -> Self {
        let (tell, outcome) = watch::channel(None);
        let task = tokio::spawn(async move { tell.send_replace(work.await) }).abort_handle();
        Self { outcome, task }
    }

    /// Whether its outcome is still to come.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.task.is_finished() && self.outcome.borrow().is_none()
    }

    /// Its outcome to come.
    pub(crate) fn outcome(&self) -> Outcome<T> {
        Outcome(self.outcome.clone())
    }
}

impl<T> Drop for Making<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The outcome to come of a [`Making`].
#[derive(Debug)]
pub(crate) struct Outcome<T>(watch::Receiver<Option<T>>);

impl<T: Clone> Outcome<T> {
    /// Waits for it; nothing if the making was given up.
    pub(crate) async fn wait(mut self) -> Option<T> {
        let outcome = self.0.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_goes_on_while_nobody_is_polled_and_all_who_wait_learn_its_outcome() {
        let (go_on, may_go_on) = oneshot::channel();
        let making = Making::begin(async move { may_go_on.await.ok() });
        let waiting = making.outcome().wait();
        assert!(timeout(Duration::from_millis(1), making.outcome().wait()).await.is_err());
        assert!(making.is_under_way());
        go_on.send(7).unwrap();
        assert_eq!(making.outcome().wait().await, Some(7));
        assert!(!making.is_under_way());
        drop(making);
        assert_eq!(waiting.await, Some(7));
    }

    #[tokio::test]
    async fn one_that_is_given_up_is_over_and_has_no_outcome() {
        let making = Making::<u8>::begin(async { None });
        assert_eq!(making.outcome().wait().await, None);
        tokio::task::yield_now().await;
        assert!(!making.is_under_way());
    }

    #[tokio::test]
    async fn its_task_ends_when_it_is_dropped() {
        let (held, is_dropped) = oneshot::channel::<()>();
        let making = Making::<u8>::begin(async move {
            std::future::pending::<()>().await;
            drop(held);
            None
        });
        let waiting = making.outcome();
        tokio::task::yield_now().await;
        drop(making);
        assert_eq!(waiting.wait().await, None);
        assert!(is_dropped.await.is_err());
    }
}
