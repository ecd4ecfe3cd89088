//! The file operations of what is measured here, and of the bare device beside it: both go through the same ring.

mod disk;
mod ring;

pub(super) use self::disk::{Disk, Written};
pub(super) use self::ring::{Request, Ring};
pub(super) use mesh_base::aligned::Aligned;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Whether a file is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    Existing,
    New,
}

/// When a completed write is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Durability {
    OnSync,
    OnCompletion,
}

/// Opens a file past the page cache.
pub(super) fn open_direct(path: &Path, presence: Presence, durability: Durability) -> io::Result<File> {
    let flags = match durability {
        Durability::OnSync => OFlags::DIRECT,
        Durability::OnCompletion => OFlags::DIRECT | OFlags::DSYNC,
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(presence == Presence::New)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}

/// Disk space that a file, or a directory with all in it, takes, in bytes.
pub(super) fn space_of(path: &Path) -> io::Result<u64> {
    /// The unit of a file's blocks, whatever the file system.
    const BLOCK_BYTES: u64 = 512;
    let found = std::fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(found.blocks() * BLOCK_BYTES);
    }
    std::fs::read_dir(path)?.map(|entry| space_of(&entry?.path())).sum()
}
