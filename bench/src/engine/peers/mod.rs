//! Other stores, each with the settings that its documentation gives for this work: the same durability (a put has survived a
//! loss of power when it returns), the same memory for its cache, no compression (the values are random).
//!
//! Built only with the feature `peers`; without it there is no one to measure beside.

#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod lmdb;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "peers")]
mod rocksdb;

use std::path::Path;

use super::flags::PeerName;
use super::system::{InFlight, Run, System};

/// Whether peers are built into this program.
pub(super) const ARE_BUILT_IN: bool = cfg!(feature = "peers");

/// A peer with its data in a new directory.
///
/// # Errors
/// The peer's.
#[cfg(feature = "peers")]
pub(super) fn open(peer: PeerName, directory: &Path, cache_bytes: usize) -> Run<Option<Box<dyn System>>> {
    let place = directory.join(format!("{peer:?}").to_lowercase());
    std::fs::create_dir_all(&place).map_err(super::system::failed("a peer"))?;
    Ok(Some(match peer {
        PeerName::Lmdb => Box::new(lmdb::Lmdb::new(&place)?),
        PeerName::RocksDb => Box::new(rocksdb::RocksDb::new(&place, cache_bytes, rocksdb::Reading::Cached)?),
        PeerName::Redb => Box::new(redb::Redb::new(&place, cache_bytes)?),
        PeerName::Fjall => Box::new(fjall::Fjall::new(&place, cache_bytes)?),
        PeerName::All | PeerName::None => return Ok(None),
    }))
}

/// RocksDB with its own cache and nothing else, for many reads at a time.
///
/// # Errors
/// RocksDB's.
#[cfg(feature = "peers")]
pub(super) fn open_direct(directory: &Path, cache_bytes: usize) -> Run<Option<Box<dyn InFlight>>> {
    let place = directory.join("rocksdb");
    std::fs::create_dir_all(&place).map_err(super::system::failed("a peer"))?;
    Ok(Some(Box::new(rocksdb::RocksDb::new(&place, cache_bytes, rocksdb::Reading::Direct)?)))
}

/// No one: peers are not built in.
///
/// # Errors
/// None.
#[cfg(not(feature = "peers"))]
pub(super) fn open(_: PeerName, _: &Path, _: usize) -> Run<Option<Box<dyn System>>> {
    Ok(None)
}

/// No one: peers are not built in.
///
/// # Errors
/// None.
#[cfg(not(feature = "peers"))]
pub(super) fn open_direct(_: &Path, _: usize) -> Run<Option<Box<dyn InFlight>>> {
    Ok(None)
}
