//! The names of one directory: which are durable, and which changes of them are only visible.
//!
//! Invariant: the visible names are the durable names after all changes of the journal, in order.

use std::collections::{BTreeMap, BTreeSet};

use mesh_base::io::FileId;
use mesh_base::prng::Prng;

use super::file::ChangeNo;

/// A file apart from its name. Never used again within its directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct InodeNo(u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NameChange {
    Create { file: FileId, inode: InodeNo },
    Rename { from: FileId, to: FileId, inode: InodeNo },
    Remove { file: FileId, inode: InodeNo },
}

#[derive(Clone, Default, Debug)]
pub(super) struct Names {
    durable: BTreeMap<FileId, InodeNo>,
    visible: BTreeMap<FileId, InodeNo>,
    journal: Vec<(ChangeNo, NameChange)>,
    next_change: ChangeNo,
    next_inode: InodeNo,
}

impl Names {
    pub(super) fn find(&self, file: FileId) -> Option<InodeNo> {
        self.visible.get(&file).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (FileId, InodeNo)> + '_ {
        self.visible.iter().map(|(&file, &inode)| (file, inode))
    }

    pub(super) const fn next_inode(&self) -> InodeNo {
        self.next_inode
    }

    pub(super) const fn next_change(&self) -> ChangeNo {
        self.next_change
    }

    /// The files that a name stands for, or may after a crash. Some come more than once.
    pub(super) fn reachable(&self) -> impl Iterator<Item = InodeNo> + '_ {
        let named = self.visible.values().chain(self.durable.values()).copied();
        named.chain(self.journal.iter().map(|(_, change)| change.inode()))
    }

    pub(super) fn apply(&mut self, change: NameChange) {
        if let NameChange::Create { inode, .. } = change {
            assert_eq!(inode, self.next_inode, "an inode out of turn");
            self.next_inode = InodeNo(inode.0 + 1);
        }
        change.apply_to(&mut self.visible);
        self.journal.push((self.next_change, change));
        self.next_change = ChangeNo(self.next_change.0 + 1);
    }

    /// Makes the changes before `before` durable.
    pub(super) fn sync(&mut self, before: ChangeNo) {
        let covered = self.journal.partition_point(|(number, _)| *number < before);
        for (_, change) in self.journal.drain(..covered) {
            change.apply_to(&mut self.durable);
        }
    }

    /// Power is lost: what is not durable is kept or dropped. Either the journal is cut at a point, as by a file system
    /// that commits in order, or each change is drawn by itself and takes the later ones of its names along (and so of
    /// its file, which each change finds under a name of the one before). Returns how many changes were dropped.
    pub(super) fn lose_power(&mut self, prng: &mut Prng) -> u64 {
        let journal = std::mem::take(&mut self.journal);
        let cut = prng.chance_per_mille(500).then(|| prng.index(journal.len() + 1));
        let mut cut_names = BTreeSet::new();
        let mut dropped = 0;
        for (position, (_, change)) in journal.into_iter().enumerate() {
            let is_kept = match cut {
                Some(cut) => position < cut,
                None => {
                    let follows = change.names().any(|name| cut_names.contains(&name));
                    !follows && prng.chance_per_mille(500)
                }
            };
            if is_kept {
                change.apply_to(&mut self.durable);
            } else {
                cut_names.extend(change.names());
                dropped += 1;
            }
        }
        self.visible.clone_from(&self.durable);
        dropped
    }
}

impl NameChange {
    fn apply_to(self, names: &mut BTreeMap<FileId, InodeNo>) {
        match self {
            Self::Create { file, inode } => {
                names.insert(file, inode);
            }
            Self::Rename { from, to, inode } => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Self::Remove { file, .. } => {
                names.remove(&file);
            }
        }
    }

    fn names(self) -> impl Iterator<Item = FileId> {
        let (first, second) = match self {
            Self::Create { file, .. } | Self::Remove { file, .. } => (file, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    const fn inode(self) -> InodeNo {
        match self {
            Self::Create { inode, .. } | Self::Rename { inode, .. } | Self::Remove { inode, .. } => inode,
        }
    }
}
