//! Checksums of pages that a checkpoint has sealed, for the pointers that were copied before they were known.
//!
//! A page's checksum can be computed only when the checkpoint comes to it, but the tree goes on meanwhile: a copy of a
//! frozen interior page, made for the next checkpoint, may hold pointers to frozen children that are not sealed yet.
//!
//! Invariants:
//! - An interior page that is dirty for checkpoint n has unsealed pointers only to pages of checkpoints n and n - 1.
//!   Pages of n have them until they are sealed themselves. A page that is copied has every pointer resolved that can
//!   be, and by then the checkpoint before the one it was frozen for is known in full.
//! - So the checksums of two checkpoints suffice: those of the one that runs (or ran last) and of the one before it.

use std::collections::HashMap;

use mesh_base::{CheckpointNo, PageNo};

use crate::pointer::{Checksum, PagePointer};

#[derive(Default)]
struct Generation {
    checkpoint: CheckpointNo,
    checksums: HashMap<PageNo, Checksum>,
}

/// The checksums of two checkpoints.
#[derive(Default)]
pub(crate) struct Sealed {
    newest: Generation,
    previous: Generation,
}

impl Sealed {
    /// A checkpoint begins: the one before the last is no longer needed.
    pub(crate) fn begin(&mut self, checkpoint: CheckpointNo) {
        let newest = Generation { checkpoint, checksums: HashMap::new() };
        self.previous = std::mem::replace(&mut self.newest, newest);
    }

    /// A page of the running checkpoint was sealed.
    pub(crate) fn insert(&mut self, page: PageNo, checksum: Checksum) {
        self.newest.checksums.insert(page, checksum);
    }

    /// The same pointer with its checksum, if that is known by now.
    pub(crate) fn resolve(&self, pointer: PagePointer) -> PagePointer {
        if pointer.checksum.is_sealed() {
            return pointer;
        }
        let generation =
            [&self.newest, &self.previous].into_iter().find(|one| one.checkpoint == pointer.checkpoint);
        let checksum = generation.and_then(|generation| generation.checksums.get(&pointer.page).copied());
        PagePointer { checksum: checksum.unwrap_or(Checksum::UNSEALED), ..pointer }
    }
}
