//! The files of one directory of a node that does not run, read and never written.
//!
//! Invariant: whatever is asked for, nothing on the disk changes. What a recovery would write, make or remove is taken as
//! done and forgotten, so that it comes to its end and says what it found.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoError, IoErrorKind, IoOp, IoValue, Submission};

/// The files of one directory.
pub(super) struct Files {
    path: PathBuf,
    open: RefCell<BTreeMap<FileId, File>>,
}

impl Files {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), open: RefCell::new(BTreeMap::new()) }
    }

    /// The files that are Mesh's, and their lengths in bytes, in the order of their ids.
    pub(super) fn list(&self) -> Result<Vec<(FileId, u64)>, IoError> {
        let failed = |error: io::Error| described(&IoOp::List, &error);
        let mut files = Vec::new();
        for entry in self.path.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(file) = entry.file_name().to_str().and_then(FileId::from_name) {
                files.push((file, entry.metadata().map_err(failed)?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Bytes of a file; fewer only at its end.
    pub(super) fn read(&self, file: FileId, offset: u64, length: usize) -> Result<Bytes, IoError> {
        let op = IoOp::Read { file, offset, length };
        self.read_at(file, offset, length).map_err(|error| described(&op, &error))
    }

    fn read_at(&self, file: FileId, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut open = self.open.borrow_mut();
        let file = match open.entry(file) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(File::open(self.path.join(file.name()))?),
        };
        // What is not in the file is not asked for: a length that damage brought may be any.
        let rest = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        let mut filled = 0;
        while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            match file.read_at(room, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }

    /// Does what only reads, and pretends to do all else.
    pub(super) fn perform(&self, submission: Submission) -> Completion {
        let Submission { token, op } = submission;
        let result = match op {
            IoOp::List => self.list().map(IoValue::Listing),
            IoOp::Read { file, offset, length } => self.read(file, offset, length).map(IoValue::Read),
            _ => Ok(IoValue::Done),
        };
        Completion { token, result }
    }
}

fn described(op: &IoOp, error: &io::Error) -> IoError {
    let kind = match error.kind() {
        ErrorKind::NotFound => IoErrorKind::NotFound,
        _ => IoErrorKind::Device,
    };
    IoError { kind, verb: op.verb(), file: op.file(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use mesh_base::io::{IoPort, IoQueue, Lane};

    use super::*;

    #[test]
    fn reading_changes_nothing_and_neither_does_anything_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("store"), [7; 5000]).unwrap();
        std::fs::write(directory.path().join("other"), "x").unwrap();
        let files = Files::of(directory.path());
        assert_eq!(files.list().unwrap(), [(FileId::Store, 5000)]);
        assert_eq!(files.read(FileId::Store, 4096, 4096).unwrap(), [7; 904][..]);
        assert!(files.read(FileId::Store, u64::MAX - 4095, usize::MAX).unwrap().is_empty());
        assert_eq!(files.read(FileId::StagedStore, 0, 1).unwrap_err().kind, IoErrorKind::NotFound);
        let (mut io, mut port) = (IoQueue::new(), IoPort::new(Lane::Log));
        let file = FileId::Store;
        port.submit(&mut io, IoOp::Write { file, offset: 0, data: Bytes::from(vec![1; 4096]) });
        port.submit(&mut io, IoOp::Rename { from: file, to: FileId::StagedStore });
        port.submit(&mut io, IoOp::Remove { file });
        for submission in io.drain() {
            assert_eq!(files.perform(submission).result, Ok(IoValue::Done));
        }
        assert_eq!(std::fs::read(directory.path().join("store")).unwrap(), [7; 5000]);
    }
}
