//! The operations under way, found by what they are about.
//!
//! Invariants:
//! - A token names one operation of its owner.
//! - Two writes over the same bytes are never under way together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use mesh_base::io::{FileId, IoOp, IoToken, IoValue};

use super::DiskOpNo;
use super::file::{ChangeNo, InFlightWrite};
use super::names::InodeNo;

#[derive(Clone, Debug)]
pub(super) struct InFlight<O> {
    pub(super) owner: O,
    pub(super) token: IoToken,
    pub(super) op: IoOp,
    /// The file that the name stood for when the operation was submitted.
    pub(super) target: Option<InodeNo>,
    /// A sync covers the changes before this.
    pub(super) before: ChangeNo,
    /// A read or listing that was drawn to happen at its start.
    pub(super) early: Option<IoValue>,
}

impl<O> InFlight<O> {
    pub(super) fn as_write(&self) -> Option<InFlightWrite> {
        let IoOp::Write { file, offset, ref data } = self.op else { return None };
        self.target.map(|_| InFlightWrite { offset, data: data.clone(), durability: file.durability() })
    }

    /// The file and the bytes that are written, if any are.
    fn written(&self) -> Option<(InodeNo, Range<u64>)> {
        let IoOp::Write { offset, ref data, .. } = self.op else { return None };
        Some((self.target?, offset..offset + data.len() as u64))
    }

    fn takes_a_name_away(&self) -> bool {
        matches!(self.op, IoOp::Remove { .. } | IoOp::Rename { .. })
    }
}

/// All operations of a disk that are under way.
#[derive(Clone, Debug)]
pub(super) struct Operations<O> {
    all: BTreeMap<DiskOpNo, InFlight<O>>,
    tokens: BTreeSet<(O, IoToken)>,
    /// The writes, by where they begin.
    writes: BTreeMap<(O, InodeNo, u64), DiskOpNo>,
    /// Those that take names away.
    takers: BTreeSet<DiskOpNo>,
}

impl<O: Copy + Ord + fmt::Debug> Operations<O> {
    pub(super) const fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            tokens: BTreeSet::new(),
            writes: BTreeMap::new(),
            takers: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, op: DiskOpNo) -> Option<&InFlight<O>> {
        self.all.get(&op)
    }

    /// Adds an operation, whose number is above all before.
    ///
    /// # Panics
    /// When its token is in use, or another write is under way over the same bytes: bugs of the caller.
    pub(super) fn insert(&mut self, op: DiskOpNo, operation: InFlight<O>) {
        let (owner, token) = (operation.owner, operation.token);
        assert!(self.tokens.insert((owner, token)), "{owner:?}: {token:?} is in flight already");
        if let Some((inode, bytes)) = operation.written() {
            let (is_alone, file) = (self.over(owner, inode, &bytes).next().is_none(), operation.op.file());
            assert!(is_alone, "{owner:?}: two writes in flight over bytes {bytes:?} of {file:?}");
            self.writes.insert((owner, inode, bytes.start), op);
        }
        if operation.takes_a_name_away() {
            self.takers.insert(op);
        }
        self.all.insert(op, operation);
    }

    pub(super) fn remove(&mut self, op: DiskOpNo) -> Option<InFlight<O>> {
        let operation = self.all.remove(&op)?;
        self.tokens.remove(&(operation.owner, operation.token));
        if let Some((inode, bytes)) = operation.written() {
            self.writes.remove(&(operation.owner, inode, bytes.start));
        }
        self.takers.remove(&op);
        Some(operation)
    }

    /// Takes all of them, in the order of their submission.
    pub(super) fn take(&mut self) -> Vec<InFlight<O>> {
        std::mem::replace(self, Self::new()).all.into_values().collect()
    }

    /// Forgets those of one owner.
    pub(super) fn forget(&mut self, owner: O) {
        let own: Vec<DiskOpNo> = self.of(owner).map(|(op, _)| op).collect();
        for op in own {
            self.remove(op);
        }
    }

    /// The files that operations of one owner are about.
    pub(super) fn targets(&self, owner: O) -> impl Iterator<Item = InodeNo> + '_ {
        self.of(owner).filter_map(|(_, operation)| operation.target)
    }

    /// Whether a name of one owner is being taken away.
    pub(super) fn takes_away(&self, owner: O, name: FileId) -> bool {
        let takers = self.takers.iter().filter_map(|op| self.all.get(op));
        takers.filter(|operation| operation.owner == owner).any(|operation| match &operation.op {
            IoOp::Remove { file } => *file == name,
            IoOp::Rename { from, to } => *from == name || *to == name,
            _ => false,
        })
    }

    /// The writes under way over some bytes of a file, in the order of their submission.
    pub(super) fn writes_over(&self, owner: O, inode: InodeNo, bytes: &Range<u64>) -> Vec<InFlightWrite> {
        let mut over: Vec<DiskOpNo> = self.over(owner, inode, bytes).collect();
        over.sort_unstable();
        over.into_iter().filter_map(|op| self.all.get(&op)?.as_write()).collect()
    }

    fn of(&self, owner: O) -> impl Iterator<Item = (DiskOpNo, &InFlight<O>)> + '_ {
        self.all.iter().filter(move |(_, operation)| operation.owner == owner).map(|(op, it)| (*op, it))
    }

    /// They lie apart, so those that begin before the end of the bytes end in the order in which they begin.
    fn over<'a>(
        &'a self,
        owner: O,
        inode: InodeNo,
        bytes: &'a Range<u64>,
    ) -> impl Iterator<Item = DiskOpNo> + 'a {
        let begun = self.writes.range((owner, inode, 0)..(owner, inode, bytes.end)).rev();
        let reaches = |op: &DiskOpNo| {
            let written = self.all.get(op).and_then(InFlight::written);
            written.is_some_and(|(_, written)| written.end > bytes.start)
        };
        begun.map(|(_, op)| *op).take_while(reaches)
    }
}
