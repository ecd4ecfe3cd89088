//! A value that is made when it is first needed, by one of those who need it, and made anew when it is no good any more.
//!
//! Invariant: at most one making is under way. If whoever makes it gives up, the next of those who wait goes on.

use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use crate::sync::lock;

/// A value made once, until it is retired.
#[derive(Debug)]
pub(crate) struct Single<T> {
    current: Mutex<Arc<OnceCell<T>>>,
}

impl<T: Clone> Single<T> {
    pub(crate) fn new() -> Self {
        Self { current: Mutex::new(Arc::new(OnceCell::new())) }
    }

    /// The value, if it is made already.
    pub(crate) fn peek(&self) -> Option<T> {
        lock(&self.current).get().cloned()
    }

    /// The value; makes it if there is none.
    pub(crate) async fn get<E>(&self, make: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let current = Arc::clone(&lock(&self.current));
        current.get_or_try_init(|| make).await.cloned()
    }

    /// Puts a value in place, whatever is there.
    pub(crate) fn put(&self, value: T) {
        *lock(&self.current) = Arc::new(OnceCell::new_with(Some(value)));
    }

    /// Takes the value out of use if `is_bad`: whoever asks from now on gets a new one.
    pub(crate) fn retire(&self, is_bad: impl FnOnce(&T) -> bool) {
        let mut current = lock(&self.current);
        if current.get().is_some_and(is_bad) {
            *current = Arc::new(OnceCell::new());
        }
    }
}
