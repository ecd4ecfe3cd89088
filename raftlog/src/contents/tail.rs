//! The entries in memory: those after the last noted checkpoint, which raft asks for without waiting.

use std::collections::VecDeque;

use mesh_base::LogIndex;
use raft::eraftpb::Entry;

use crate::format::record::entry_record_bytes;

/// The newest entries of the log, without a gap, up to its last.
#[derive(Debug)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    /// The index of the next entry.
    next: LogIndex,
    /// Bytes of the entries' records.
    bytes: u64,
}

impl Tail {
    /// No entries; the next has this index.
    pub(crate) const fn new(next: LogIndex) -> Self {
        Self { entries: VecDeque::new(), next, bytes: 0 }
    }

    /// The index of the first entry in memory; of the next one if there is none.
    pub(crate) fn first(&self) -> LogIndex {
        LogIndex(self.next.0 - self.entries.len() as u64)
    }

    /// Bytes of the entries in the log.
    pub(crate) const fn record_bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.next.0, "entries follow each other");
        self.next = self.next.next();
        self.bytes += entry_record_bytes(&entry) as u64;
        self.entries.push_back(entry);
    }

    /// Puts the entries right before the first of these before them.
    pub(crate) fn follow(&mut self, older: Self) {
        assert_eq!(older.next, self.first(), "entries follow each other");
        let newer = std::mem::replace(self, older);
        newer.entries.into_iter().for_each(|entry| self.push(entry));
    }

    /// Forgets the entry of this index and all behind it; the next entry has this index.
    pub(crate) fn cut_from(&mut self, index: LogIndex) {
        while self.next > index {
            match self.entries.pop_back() {
                Some(entry) => {
                    self.bytes -= entry_record_bytes(&entry) as u64;
                    self.next = self.next.prev();
                }
                None => self.next = index,
            }
        }
    }

    /// Forgets the entries up to this one.
    pub(crate) fn trim_to(&mut self, index: LogIndex) {
        while self.first() <= index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry_record_bytes(&entry) as u64;
        }
        if self.entries.is_empty() {
            self.entries.shrink_to(64);
        }
    }

    /// The entries of `low..high`, as many as the bytes allow and at least one, or `None` if some are not in memory.
    pub(crate) fn slice(&self, low: LogIndex, high: LogIndex, bytes_max: Option<u64>) -> Option<Vec<Entry>> {
        let skip = usize::try_from(low.0.checked_sub(self.first().0)?).ok()?;
        let count = usize::try_from(high.0.saturating_sub(low.0)).ok()?;
        Some(limited(self.entries.iter().skip(skip).take(count), bytes_max))
    }

    /// The entry of this index, if it is in memory.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0.checked_sub(self.first().0)?).ok()?)
    }

    /// Bytes of the entries.
    pub(crate) fn entry_bytes(&self) -> usize {
        let records = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        records.saturating_add(self.entries.len() * size_of::<Entry>())
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entry_bytes() + (self.entries.capacity() - self.entries.len()) * size_of::<Entry>()
    }
}

/// Copies entries while raft's own measure of their size allows it; at least the first.
pub(crate) fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: Option<u64>) -> Vec<Entry> {
    let mut bytes = 0;
    let mut taken: Vec<Entry> = entries
        .take_while(|entry| {
            // Never more than raft's measure, which then decides: this only spares the copying of what is cut.
            let within = bytes_max.is_none_or(|most| bytes <= most);
            bytes += (entry.data.len() + entry.context.len()) as u64;
            within
        })
        .cloned()
        .collect();
    raft::util::limit_size(&mut taken, bytes_max);
    taken
}
