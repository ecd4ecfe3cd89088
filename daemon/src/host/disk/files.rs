//! Where files lie, and their open descriptors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{DmaFile, OpenOptions};
use glommio::sync::OnceCell;
use mesh_base::io::{FileId, WriteDurability};
use mesh_base::limits::SECTOR_BYTES;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::core::DirectoryKey;

/// An open file; opened once, however many operations ask for it at the same time.
#[derive(Default)]
pub(super) struct OpenFile(OnceCell<DmaFile>);

impl OpenFile {
    /// The file; it is open once [`Files::open`] or [`Files::create`] returned this.
    pub(super) fn get(&self) -> io::Result<&DmaFile> {
        self.0.get().ok_or_else(|| io::Error::other("the file is not open"))
    }

    /// A descriptor of its own, for another thread.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.get()?.as_fd().try_clone_to_owned()
    }
}

/// The files below one data directory.
pub(super) struct Files {
    data: PathBuf,
    /// Directories that are known to be there, durably.
    directories: RefCell<BTreeSet<DirectoryKey>>,
    open: RefCell<BTreeMap<(DirectoryKey, FileId), Rc<OpenFile>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    Existing,
    New,
}

impl Files {
    pub(super) const fn new(data: PathBuf) -> Self {
        Self { data, directories: RefCell::new(BTreeSet::new()), open: RefCell::new(BTreeMap::new()) }
    }

    /// The path of a directory.
    pub(super) fn directory(&self, key: DirectoryKey) -> PathBuf {
        self.data.join(key.to_string())
    }

    /// The path of a file.
    pub(super) fn path(&self, key: DirectoryKey, file: FileId) -> PathBuf {
        self.directory(key).join(file.name())
    }

    /// Makes sure that a directory is there, durably.
    pub(super) async fn ensure(&self, key: DirectoryKey) -> io::Result<()> {
        if self.directories.borrow().contains(&key) {
            return Ok(());
        }
        let (directory, data) = (self.directory(key), self.data.clone());
        blocking(move || {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
                Err(error) => return Err(error),
            }
            sync_directory(&data)
        })
        .await?;
        self.directories.borrow_mut().insert(key);
        Ok(())
    }

    /// A file that is open already.
    pub(super) fn opened(&self, key: DirectoryKey, file: FileId) -> Option<Rc<OpenFile>> {
        let open = self.open.borrow();
        open.get(&(key, file)).filter(|slot| slot.get().is_ok()).map(Rc::clone)
    }

    /// Opens a file, or finds it open.
    pub(super) async fn open(&self, key: DirectoryKey, file: FileId) -> io::Result<Rc<OpenFile>> {
        let slot = Rc::clone(self.open.borrow_mut().entry((key, file)).or_default());
        if slot.0.get().is_none() {
            let path = self.path(key, file);
            slot.0
                .get_or_try_init(|| async {
                    let opened = open(&path, file.durability(), Opening::Existing).await?;
                    await_former_writes(&opened).await?;
                    Ok::<_, io::Error>(opened)
                })
                .await?;
        }
        Ok(slot)
    }

    /// Makes an empty file, and opens it.
    pub(super) async fn create(&self, key: DirectoryKey, file: FileId) -> io::Result<()> {
        self.forget(key, file);
        let made = open(&self.path(key, file), file.durability(), Opening::New).await?;
        let slot = OpenFile::default();
        let set = slot.0.set(made);
        assert!(set.is_ok(), "the slot is new");
        self.open.borrow_mut().insert((key, file), Rc::new(slot));
        Ok(())
    }

    /// Lets go of a file's descriptor; operations that are under way keep it as long as they need it.
    pub(super) fn forget(&self, key: DirectoryKey, file: FileId) {
        self.open.borrow_mut().remove(&(key, file));
    }

    /// Lets go of every descriptor.
    pub(super) fn forget_all(&self) {
        self.open.borrow_mut().clear();
    }

    /// Removes a directory with everything in it, durably.
    pub(super) async fn remove_directory(&self, key: DirectoryKey) -> io::Result<()> {
        self.open.borrow_mut().retain(|(directory, _), _| *directory != key);
        self.directories.borrow_mut().remove(&key);
        let (directory, data) = (self.directory(key), self.data.clone());
        blocking(move || match fs::remove_dir_all(&directory) {
            Ok(()) => sync_directory(&data),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
        .await
    }
}

async fn open(path: &Path, durability: WriteDurability, opening: Opening) -> io::Result<DmaFile> {
    // Direct I/O itself is set by the executor's file.
    let flags = match durability {
        WriteDurability::OnCompletion => OFlags::DSYNC,
        WriteDurability::OnSync => OFlags::empty(),
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(opening == Opening::New)
        .mode(0o600)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .dma_open(path)
        .await
        .map_err(io::Error::from)
}

/// A process that was killed may have left direct writes under way, and its lock is free before they have ended. Taking
/// space that is taken already changes nothing, and waits for them.
async fn await_former_writes(file: &DmaFile) -> io::Result<()> {
    let descriptor = file.as_fd().try_clone_to_owned()?;
    blocking(move || {
        // Where this is not supported, or there is no space, nothing is lost.
        let _ = fallocate(descriptor, FallocateFlags::KEEP_SIZE, 0, SECTOR_BYTES as u64);
        Ok(())
    })
    .await
}

/// Runs what the kernel offers no other way on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    glommio::executor().spawn_blocking(work).await
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
