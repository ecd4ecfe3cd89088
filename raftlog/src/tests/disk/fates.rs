//! What a chosen crash leaves of the operation that it came upon, and of all else that was not durable.

use mesh_base::checksum::xxh3;
use mesh_base::io::IoOp;

use super::{Disk, Hope, Pending, TEAR_BYTES, Volatile, apply, position};

/// Sectors that differ from what is on the disk, up to which every subset of them is tried.
const EVERY_SUBSET_SECTORS_MAX: usize = 5;

/// What became of the operation that would have been completed next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    /// Nothing of it.
    Undone,
    /// All of it, though nobody was told.
    Done,
    /// These sectors of a write, by their number within it.
    Torn(Vec<usize>),
}

/// What became of everything else that was not durable: other operations in flight, names, lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    Lost,
    Kept,
    /// Every other operation in flight, and the older half of the names.
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
        let Some(at) = self.choose() else { return Vec::new() };
        let (IoOp::Write { offset, data, .. }, Some(inode)) = (&self.pending[at].op, self.pending[at].inode)
        else {
            return Vec::new();
        };
        let bytes = &self.files[&inode].bytes;
        let changes = |index: &usize| {
            let start = position(*offset) + index * TEAR_BYTES;
            let written = &data[index * TEAR_BYTES..(index + 1) * TEAR_BYTES];
            bytes.get(start..start + TEAR_BYTES) != Some(written)
        };
        let changed: Vec<usize> = (0..data.len() / TEAR_BYTES).filter(changes).collect();
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
        let at = self.choose();
        self.chosen = None;
        let newest = at.map(|at| self.pending.remove(at));
        for (number, pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if rest == Rest::Kept || rest == Rest::Half && number % 2 == 1 {
                self.leave(end, &pending, None);
            }
        }
        let names = self.last_name_op;
        if let Some(newest) = newest {
            match last {
                Last::Undone => {}
                Last::Done => self.leave(end, &newest, None),
                Last::Torn(sectors) => self.leave(end, &newest, Some(sectors)),
            }
        }
        if end == End::Power {
            // A file system makes names durable in their order.
            let is_name = self.last_name_op > names;
            if is_name && *last == Last::Done {
                self.sync_names(self.last_name_op);
            }
            self.lose_power(rest);
        }
    }

    /// Leaves what an operation did, or these sectors of a write.
    fn leave(&mut self, end: End, pending: &Pending, sectors: Option<&[usize]>) {
        let IoOp::Write { offset, data, .. } = &pending.op else {
            let _ = self.perform(pending);
            return;
        };
        let Some(file) = pending.inode.and_then(|inode| self.files.get_mut(&inode)) else { return };
        for (sector, bytes) in data.chunks(TEAR_BYTES).enumerate() {
            if sectors.is_some_and(|sectors| !sectors.contains(&sector)) {
                continue;
            }
            let at = position(*offset) + sector * TEAR_BYTES;
            let room = &mut file.bytes[at..at + bytes.len()];
            if end == End::Process {
                file.volatile.push(Volatile { at, before: room.to_vec(), hope: Hope::Sync });
            } else {
                file.written_to = file.written_to.max(at + bytes.len());
            }
            room.copy_from_slice(bytes);
        }
    }

    /// Loses what is not durable, or some of it, or none.
    pub(crate) fn lose_power(&mut self, rest: Rest) {
        let kept = match rest {
            Rest::Lost => 0,
            Rest::Kept => self.journal.len(),
            Rest::Half => self.journal.len() / 2,
        };
        for (_, op) in std::mem::take(&mut self.journal).into_iter().take(kept) {
            apply(&mut self.durable_names, op);
        }
        self.names.clone_from(&self.durable_names);
        self.pending.clear();
        self.chosen = None;
        for file in self.files.values_mut() {
            for (number, Volatile { at, before, .. }) in
                std::mem::take(&mut file.volatile).into_iter().enumerate().rev()
            {
                if rest == Rest::Lost || rest == Rest::Half && number % 2 == 0 {
                    file.bytes[at..at + before.len()].copy_from_slice(&before);
                }
            }
            if rest == Rest::Lost {
                file.bytes.truncate(file.written_to);
            }
            file.written_to = file.bytes.len();
        }
    }

    /// Tells this disk's contents from others', what is not durable included.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut all = Vec::new();
        for (names, tag) in [(&self.names, 1_u64), (&self.durable_names, 2)] {
            for (name, inode) in names {
                let file = &self.files[inode];
                let volatile = file.volatile.iter().flat_map(|it| [it.at as u64, xxh3(&it.before)]);
                let parts = [tag, xxh3(name.name().as_bytes()), xxh3(&file.bytes), file.written_to as u64];
                parts.into_iter().chain(volatile).for_each(|part| all.extend_from_slice(&part.to_le_bytes()));
            }
        }
        xxh3(&all)
    }
}
