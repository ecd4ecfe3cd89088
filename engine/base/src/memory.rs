//! A directory in memory: the I/O seam without a disk, for fuzz targets and for tests that need no faults.
//!
//! It does at once what it is asked, in order, and keeps it. Deliberately absent: crashes, delays, damage. Those are the
//! simulator's.

use std::collections::BTreeMap;

use crate::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoValue, Submission};

/// Files in memory.
#[derive(Clone, Default, Debug)]
pub struct MemoryDirectory {
    files: BTreeMap<FileId, Vec<u8>>,
    /// Bytes that one file may have; above it there is no space.
    file_bytes_max: usize,
}

impl MemoryDirectory {
    /// An empty directory.
    #[must_use]
    pub const fn new(file_bytes_max: usize) -> Self {
        Self { files: BTreeMap::new(), file_bytes_max }
    }

    /// The bytes of a file, if there is one.
    #[must_use]
    pub fn bytes(&self, file: FileId) -> Option<&[u8]> {
        self.files.get(&file).map(Vec::as_slice)
    }

    /// Puts a file there, in the place of another if there is one.
    pub fn put(&mut self, file: FileId, bytes: Vec<u8>) {
        self.files.insert(file, bytes);
    }

    /// The files there are.
    pub fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.files.keys().copied()
    }

    /// Does an operation.
    pub fn perform(&mut self, submission: Submission) -> Completion {
        let Submission { token, op } = submission;
        let error = |kind| IoError { kind, verb: op.verb(), file: op.file(), detail: format!("{kind:?}") };
        Completion { token, result: self.result(&op).map_err(error) }
    }

    fn result(&mut self, op: &IoOp) -> Result<IoValue, IoErrorKind> {
        let end_of = |offset: u64, length: u64| {
            let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
            end.filter(|end| *end <= self.file_bytes_max).ok_or(IoErrorKind::NoSpace)
        };
        match op {
            IoOp::List => {
                let lengths = self.files.iter().map(|(file, bytes)| (*file, bytes.len() as u64));
                return Ok(IoValue::Listing(lengths.collect()));
            }
            IoOp::Create { file } if self.files.contains_key(file) => return Err(IoErrorKind::Exists),
            IoOp::Create { file } => self.put(*file, Vec::new()),
            IoOp::Allocate { file, offset, length } => {
                let end = end_of(*offset, *length)?;
                let bytes = self.file(*file)?;
                bytes.resize(bytes.len().max(end), 0);
            }
            IoOp::Write { file, offset, data } => {
                let end = end_of(*offset, data.len() as u64)?;
                let bytes = self.file(*file)?;
                bytes.resize(bytes.len().max(end), 0);
                if let Some(room) = bytes.get_mut(end - data.len()..end) {
                    room.copy_from_slice(data);
                }
            }
            IoOp::Read { file, offset, length } => {
                let bytes = self.file(*file)?;
                let start = usize::try_from(*offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = start.saturating_add(*length).min(bytes.len());
                return Ok(IoValue::Read(bytes.get(start..end).unwrap_or_default().to_vec().into()));
            }
            IoOp::Truncate { file, length } => {
                let length = usize::try_from(*length).unwrap_or(usize::MAX);
                self.file(*file)?.truncate(length);
            }
            IoOp::Sync { file } => drop(self.file(*file)?),
            IoOp::Rename { from, to } => {
                let bytes = self.files.remove(from).ok_or(IoErrorKind::NotFound)?;
                self.put(*to, bytes);
            }
            IoOp::Remove { file } => drop(self.files.remove(file)),
            IoOp::SyncDirectory => {}
        }
        Ok(IoValue::Done)
    }

    fn file(&mut self, file: FileId) -> Result<&mut Vec<u8>, IoErrorKind> {
        self.files.get_mut(&file).ok_or(IoErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::io::{IoPort, IoQueue, Lane};

    fn perform(directory: &mut MemoryDirectory, op: IoOp) -> Result<IoValue, IoErrorKind> {
        let mut io = IoQueue::new();
        IoPort::new(Lane::Store).submit(&mut io, op);
        let submission = io.drain().next().unwrap();
        directory.perform(submission).result.map_err(|error| error.kind)
    }

    #[test]
    fn a_file_is_made_written_read_and_given_another_name() {
        let mut directory = MemoryDirectory::new(1 << 20);
        let (file, to) = (FileId::StagedStore, FileId::Store);
        let data = Bytes::from(vec![7; 4096]);
        assert_eq!(perform(&mut directory, IoOp::Create { file }), Ok(IoValue::Done));
        assert_eq!(perform(&mut directory, IoOp::Create { file }), Err(IoErrorKind::Exists));
        perform(&mut directory, IoOp::Write { file, offset: 8192, data: data.clone() }).unwrap();
        perform(&mut directory, IoOp::Rename { from: file, to }).unwrap();
        let read = perform(&mut directory, IoOp::Read { file: to, offset: 8192, length: 8192 });
        assert_eq!(read, Ok(IoValue::Read(data)), "as far as the file goes");
        assert_eq!(perform(&mut directory, IoOp::List), Ok(IoValue::Listing(vec![(to, 12_288)])));
        perform(&mut directory, IoOp::Remove { file: to }).unwrap();
        assert_eq!(perform(&mut directory, IoOp::Sync { file: to }), Err(IoErrorKind::NotFound));
    }

    #[test]
    fn a_file_that_would_be_too_long_finds_no_space() {
        let mut directory = MemoryDirectory::new(8192);
        let file = FileId::Store;
        perform(&mut directory, IoOp::Create { file }).unwrap();
        for offset in [8192, 1 << 62] {
            let full = perform(&mut directory, IoOp::Allocate { file, offset, length: 4096 });
            assert_eq!(full, Err(IoErrorKind::NoSpace));
        }
        assert_eq!(directory.bytes(file).map(<[u8]>::len), Some(0));
    }
}
