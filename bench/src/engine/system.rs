//! What every system under measurement does.

use std::hint::black_box;
use std::time::Duration;

use super::data::{Key, Put};
use crate::error::BenchError;

/// How a call ends.
pub(super) type Run<T> = Result<T, BenchError>;

/// A key/value store with its data in a directory of its own.
///
/// Each system does a whole batch in its own way, so that what it offers for many reads in a row (a transaction, a snapshot, a
/// multi-get) is used. Every read looks at the first and the last byte of the value.
pub(super) trait System {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// Reads the keys, one after the other.
    ///
    /// # Errors
    /// The system's, or that a key was not found.
    fn gets(&mut self, keys: &[Key]) -> Run<()>;

    /// From each key on reads so many keys and values, in order.
    ///
    /// # Errors
    /// The system's, or that there were fewer.
    fn ranges(&mut self, starts: &[Key], count: usize) -> Run<()>;

    /// Writes all of the puts, atomically; when this returns they survive a loss of power.
    ///
    /// # Errors
    /// The system's.
    fn put(&mut self, puts: &[Put<'_>]) -> Run<()>;

    /// Brings what was written into the form that reads like best.
    ///
    /// # Errors
    /// The system's.
    fn tidy(&mut self) -> Run<()>;

    /// Lets what runs in the background go on for so long.
    ///
    /// # Errors
    /// The system's.
    fn quiet(&mut self, time: Duration) -> Run<()>;

    /// Whether threads of its own still work on what it was given.
    ///
    /// # Errors
    /// The system's.
    fn is_busy(&self) -> Run<bool> {
        Ok(false)
    }

    /// Disk space that the data takes, in bytes.
    ///
    /// # Errors
    /// The file system's.
    fn disk_bytes(&self) -> Run<u64>;
}

/// A system that can have many reads under way.
pub(super) trait InFlight: System {
    /// Reads the keys with up to so many in flight at a time.
    ///
    /// # Errors
    /// As of [`System::gets`].
    fn gets_in_flight(&mut self, keys: &[Key], in_flight: usize) -> Run<()>;
}

/// Looks at a value as a reader does.
pub(super) fn look_at(value: &[u8]) {
    black_box((value.first().copied(), value.last().copied()));
}

/// Makes an error of what a system says.
pub(super) fn failed<E: std::fmt::Display>(system: &'static str) -> impl FnOnce(E) -> BenchError {
    move |error| BenchError::System { system, why: error.to_string() }
}

/// A key that was written is not there.
pub(super) fn not_found(system: &'static str) -> BenchError {
    BenchError::System { system, why: "a key that was written is not there".into() }
}
