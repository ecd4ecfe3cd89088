//! Reading keys in order, over all shards: each shard's pages are fetched ahead and merged.
//!
//! Invariants:
//! - Items come in the order of their keys, each key once.
//! - All pages of one shard are read at one revision, that of its first page.
//! - What is held is bounded: two pages of each shard, whose size follows from the number of shards.

mod bounds;
mod cursor;
mod items;
mod lane;

pub use self::bounds::Range;
pub use self::cursor::{Cursor, CursorFlaw};
pub use self::items::Items;
