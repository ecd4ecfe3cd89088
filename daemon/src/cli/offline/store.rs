//! The page store of a replica, looked at.

use bytes::Bytes;
use mesh_base::io::{FileId, IoError, IoErrorKind};
use mesh_base::{CheckpointNo, PageNo};
use mesh_engine::inspect::{self, CellSurvey, CopySurvey, PageSurvey, StoreImage};
use mesh_engine::{StoreError, VerifyReport};

use super::{Progress, ReplicaDirectory};

/// A page store's file.
pub(crate) struct StoreFile<'a> {
    replica: &'a ReplicaDirectory,
    pub(crate) file: FileId,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// What is where its superblock's copies belong.
    pub(crate) copies: Vec<CopySurvey>,
}

/// Whether a snapshot is to take the live store's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Install {
    Decided,
    None,
}

impl<'a> StoreFile<'a> {
    /// Looks for the store that a start would open: the staged one, if the log decided that it is to be the live one.
    ///
    /// # Errors
    /// The file cannot be read; [`IoErrorKind::NotFound`] if there is none.
    pub(crate) fn of(replica: &'a ReplicaDirectory, install: Install) -> Result<Self, IoError> {
        let files = replica.files.list()?;
        let length = |wanted| files.iter().find(|(file, _)| *file == wanted).map(|(_, bytes)| *bytes);
        let staged = length(FileId::StagedStore).filter(|_| install == Install::Decided);
        let (file, bytes) = match (staged, length(FileId::Store)) {
            (Some(bytes), _) => (FileId::StagedStore, bytes),
            (None, Some(bytes)) => (FileId::Store, bytes),
            (None, None) => {
                let (kind, detail) = (IoErrorKind::NotFound, "there is no such file".to_owned());
                return Err(IoError { kind, verb: "open", file: Some(FileId::Store), detail });
            }
        };
        let copies = inspect::copies(&mut |offset, length| replica.files.read(file, offset, length))?;
        Ok(Self { replica, file, bytes, copies })
    }

    /// The newest checkpoint in it.
    pub(crate) fn image(&self) -> Option<&StoreImage> {
        inspect::newest(&self.copies)
    }

    /// Verifies the newest checkpoint, if there is one.
    pub(crate) fn verify(&self, progress: &mut Progress<'_>) -> Option<VerifyReport> {
        let mut read = |offset, length| self.read(offset, length);
        Some(self.image()?.verify(&mut read, &mut |done, all| progress.tell(done, all)))
    }

    /// A page, and the checkpoint it was looked for in.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn page(&self, page: PageNo) -> Option<Result<PageSurvey, IoError>> {
        Some(self.image()?.page(page, &mut |offset, length| self.read(offset, length)))
    }

    /// The versions of a key at the newest checkpoint, if there is one.
    pub(crate) fn versions(&self, key: &[u8]) -> Option<Result<Vec<CellSurvey>, StoreError>> {
        Some(self.image()?.versions(key, &mut |offset, length| self.read(offset, length)))
    }

    /// The checkpoint of the newest copy; 0 without one.
    pub(crate) fn checkpoint(&self) -> CheckpointNo {
        self.image().map_or(CheckpointNo(0), |image| image.checkpoint().checkpoint)
    }

    fn read(&self, offset: u64, length: usize) -> Result<Bytes, IoError> {
        self.replica.files.read(self.file, offset, length)
    }
}
