//! Pins: checkpoints whose pages are kept, each a consistent image of the store at one index.

use std::collections::BTreeMap;

use mesh_base::CheckpointNo;

use super::Store;
use super::checkpoint::CheckpointInfo;
use crate::superblock::Superblock;

/// Names a pin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PinId(u64);

/// The pins of a store. They do not survive a restart.
#[derive(Default)]
pub(super) struct Pins {
    last: u64,
    pins: BTreeMap<PinId, Superblock>,
}

impl Pins {
    pub(super) fn checkpoints(&self) -> Vec<CheckpointNo> {
        self.pins.values().map(|superblock| superblock.checkpoint).collect()
    }

    #[allow(clippy::expect_used, reason = "documented: a pin is used only between pin and unpin")]
    pub(super) fn superblock(&self, pin: PinId) -> &Superblock {
        self.pins.get(&pin).expect("pin was taken back")
    }
}

impl Store {
    /// Pins the newest durable checkpoint: its pages are kept until [`Store::unpin`].
    pub fn pin(&mut self) -> PinId {
        self.pins.last += 1;
        let id = PinId(self.pins.last);
        self.pins.pins.insert(id, self.durable.clone());
        id
    }

    /// Takes a pin back.
    ///
    /// # Panics
    /// When it was taken back before: a bug of the caller.
    pub fn unpin(&mut self, pin: PinId) {
        assert!(self.pins.pins.remove(&pin).is_some(), "unpinned twice");
        let available = self.tree.allocator.unpinned(&self.pins.checkpoints());
        self.forget_reads(&available);
    }

    /// The checkpoint that a pin holds.
    ///
    /// # Panics
    /// When the pin was taken back: a bug of the caller.
    #[must_use]
    pub fn pinned(&self, pin: PinId) -> CheckpointInfo {
        CheckpointInfo::of(self.pins.superblock(pin))
    }
}
