//! What a program asks of a cluster: one type for each operation, with its options, done by awaiting it.

mod batch;
mod delete;
mod get;
mod guard;
mod increment;
mod put;

use std::pin::Pin;
use std::time::Duration;

use mesh_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

pub use self::batch::{DeleteMany, GetMany, PutMany};
pub use self::delete::{Delete, DeletePrevious};
pub use self::get::Get;
pub use self::increment::Increment;
pub use self::put::{Put, PutPrevious};
use crate::request::{Deadline, Failure};
use crate::{Cluster, Error, Result};

/// A call under way.
pub type Pending<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// What every call may be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) deadline: Option<Duration>,
}

impl<'c> Options<'c> {
    pub(crate) const fn of(cluster: &'c Cluster) -> Self {
        Self { cluster, deadline: None }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.deadline.unwrap_or(self.cluster.core().settings.deadline))
    }
}

/// The option that every call has.
macro_rules! deadline {
    () => {
        /// How long to go on trying; the cluster handle's deadline unless set.
        pub const fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.options.deadline = Some(deadline);
            self
        }
    };
}
use deadline;

/// Whether a key is one, before anything is sent.
fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::EmptyKey);
    }
    at_most("key bytes", key.len(), KEY_BYTES_MAX)
}

/// Whether a value may be as large as it is, before anything is sent.
fn check_value(value: &[u8]) -> Result<()> {
    at_most("value bytes", value.len(), VALUE_BYTES_MAX)
}

fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<()> {
    let (limit, actual) = (limit as u64, actual as u64);
    if actual > limit { Err(Error::TooLarge { what: what.into(), limit, actual }) } else { Ok(()) }
}

/// The error of a request for the shard of one key.
fn of_one_key(failure: Failure) -> Error {
    match failure {
        Failure::Error(error) => error,
        Failure::Rerouted => Error::NotReady { why: "slots are moving".into() },
    }
}

/// A write was answered with something that does not say what became of it.
pub(crate) fn not_told(error: impl Into<Error>) -> Error {
    Error::Unknown { last: Some(Box::new(error.into())) }
}
