//! Pins: checkpoints whose pages are kept, each a consistent image of the store at one index.

use std::collections::BTreeMap;

use mesh_base::CheckpointNo;
use mesh_base::flaw::{self, Flaw};

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
        if !flaw::is_planted(Flaw::ReusePinnedPages) {
            self.tree.allocator.keep(self.durable.checkpoint);
        }
        id
    }

    /// Takes a pin back.
    ///
    /// # Panics
    /// When it was taken back before: a bug of the caller.
    #[allow(clippy::expect_used, reason = "documented: a pin is taken back once")]
    pub fn unpin(&mut self, pin: PinId) {
        let pinned = self.pins.pins.remove(&pin).expect("unpinned twice");
        if !flaw::is_planted(Flaw::ReusePinnedPages) {
            self.let_go(pinned.checkpoint);
        }
    }

    /// Lets the pages go that a checkpoint alone refers to.
    pub(super) fn let_go(&mut self, checkpoint: CheckpointNo) {
        if let Some(available) = self.tree.allocator.let_go(checkpoint) {
            self.forget_reads(&available);
        }
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
