//! The rows of the table: each knows its work, its systems and its bars.

mod data_set;
mod larger;
mod log;
mod open;
mod pauses;

pub(super) use self::data_set::data_set;
pub(super) use self::larger::larger;
pub(super) use self::log::log;
pub(super) use self::open::open;
pub(super) use self::pauses::pauses;
