//! What a chosen crash leaves of the operation that it came upon, and of all else that was not durable.

use bytes::Bytes;
use mesh_base::checksum::xxh3;
use mesh_base::io::{FileId, IoOp, Submission};

use super::{Change, Disk, SECTOR, put};

/// Sectors that differ from what is on the disk, up to which every subset of them is tried.
const EVERY_SUBSET_SECTORS_MAX: usize = 5;

/// What became of the operation that would have been done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    /// Nothing of it.
    Undone,
    /// All of it, though nobody was told.
    Done,
    /// These sectors of a write, by their number within it.
    Torn(Vec<usize>),
}

/// What became of everything else that was not durable: unsynced writes and truncations, other operations in flight, names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    Lost,
    Kept,
    /// Every other unsynced write or truncation, and no name.
    Half,
}

/// What ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Power: only what is durable is left.
    Power,
    /// The process: what is not durable can still be read.
    Process,
}

impl Disk {
    /// The ways in which the next operation can be torn, if it is a write: of the sectors that it changes, every subset
    /// where they are few, else parts from the front, from the back, and every other one.
    pub(crate) fn ways_to_tear(&mut self) -> Vec<Last> {
        let Some(IoOp::Write { file, offset, data }) = self.next().cloned() else { return Vec::new() };
        let Some(file) = self.file(file) else { return Vec::new() };
        let changes = |index: &usize| {
            let start = offset as usize + index * SECTOR;
            let written = &data[index * SECTOR..(index + 1) * SECTOR];
            file.durable.get(start..start + SECTOR) != Some(written)
        };
        let changed: Vec<usize> = (0..data.len() / SECTOR).filter(changes).collect();
        let count = changed.len();
        let of = |is_kept: &dyn Fn(usize) -> bool| {
            changed.iter().enumerate().filter(|(at, _)| is_kept(*at)).map(|(_, sector)| *sector).collect()
        };
        let subsets: Vec<Vec<usize>> = if count <= EVERY_SUBSET_SECTORS_MAX {
            (1..(1_usize << count).saturating_sub(1)).map(|kept| of(&|at| kept >> at & 1 == 1)).collect()
        } else {
            let fronts = [1, count / 2, count - 1];
            let parts = fronts.iter().flat_map(|cut| [of(&|at| at < *cut), of(&|at| at >= *cut)]);
            parts.chain([of(&|at| at % 2 == 0), of(&|at| at % 2 == 1)]).collect()
        };
        subsets.into_iter().map(Last::Torn).collect()
    }

    /// Ends everything, with the next operation's fate chosen and that of the rest.
    pub(crate) fn end(&mut self, end: End, last: &Last, rest: Rest) {
        if let Some(index) = self.choose() {
            self.chosen = None;
            let (submitted, Submission { op, .. }) = self.in_flight.swap_remove(index);
            self.end_last(submitted, op, last, end);
        }
        for (submitted, Submission { op, .. }) in std::mem::take(&mut self.in_flight) {
            // Whatever a sync in flight did is among the fates of the writes before it.
            if rest == Rest::Kept && !matches!(op, IoOp::Sync { .. } | IoOp::Read { .. }) {
                let _ = self.execute(submitted, &op);
            }
        }
        if end == End::Power {
            self.lose_power(rest);
        }
    }

    fn end_last(&mut self, submitted: u64, op: IoOp, last: &Last, end: End) {
        match (last, op) {
            (Last::Done, IoOp::Write { file, offset, data }) if end == End::Power => {
                let all: Vec<usize> = (0..data.len() / SECTOR).collect();
                self.put_sectors(file, offset as usize, &data, &all);
            }
            (Last::Done, op @ (IoOp::Create { .. } | IoOp::Rename { .. } | IoOp::Remove { .. }))
                if end == End::Power =>
            {
                let _ = self.execute(submitted, &op);
                self.durable_names.clone_from(&self.names);
            }
            (Last::Done, IoOp::Truncate { file, length }) if end == End::Power => {
                if let Some(file) = self.file(file) {
                    file.durable.truncate(usize::try_from(length).unwrap());
                }
            }
            (Last::Done, op) => {
                let _ = self.execute(submitted, &op);
            }
            (Last::Torn(sectors), IoOp::Write { file, offset, data }) => {
                self.put_sectors(file, offset as usize, &data, sectors);
            }
            (Last::Undone | Last::Torn(_), _) => {}
        }
    }

    /// Makes sectors of a write durable.
    fn put_sectors(&mut self, file: FileId, offset: usize, data: &Bytes, sectors: &[usize]) {
        let Some(file) = self.file(file) else { return };
        for sector in sectors {
            let at = sector * SECTOR;
            put(&mut file.durable, offset + at, &data[at..at + SECTOR]);
        }
    }

    /// Loses what is not durable, or some of it, or none.
    pub(crate) fn lose_power(&mut self, rest: Rest) {
        if rest == Rest::Kept {
            self.durable_names.clone_from(&self.names);
        }
        self.names.clone_from(&self.durable_names);
        self.in_flight.clear();
        self.chosen = None;
        for file in self.files.values_mut() {
            for (number, (_, change)) in std::mem::take(&mut file.unsynced).into_iter().enumerate() {
                if rest == Rest::Kept || rest == Rest::Half && number % 2 == 1 {
                    change.make(&mut file.durable);
                }
            }
            file.visible.clone_from(&file.durable);
        }
    }

    /// Tells this disk's contents from others', what is not durable included.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut all = Vec::new();
        for (names, tag) in [(&self.names, 1_u64), (&self.durable_names, 2)] {
            for (name, inode) in names {
                let file = &self.files[inode];
                let parts = [tag, xxh3(name.name().as_bytes()), xxh3(&file.visible), xxh3(&file.durable)];
                parts.iter().for_each(|part| all.extend_from_slice(&part.to_le_bytes()));
            }
        }
        xxh3(&all)
    }

    /// Whether a write to a part of a file is on its way to being durable.
    pub(crate) fn has_unsynced(&self, file: FileId, range: std::ops::Range<usize>) -> bool {
        let file = self.names.get(&file).map(|inode| &self.files[inode]);
        let is_there = |change: &Change| matches!(change, Change::Write(offset, _) if range.contains(offset));
        file.is_some_and(|file| file.unsynced.iter().any(|(_, change)| is_there(change)))
    }

    /// Whether there is a file of this name.
    pub(crate) fn holds(&self, file: FileId) -> bool {
        self.names.contains_key(&file)
    }
}
