//! One operation, from submission to completion, or to where the ring takes it over.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use mesh_base::aligned::Aligned;
use mesh_base::io::{FileId, IoError, IoErrorKind, IoOp, IoValue};
use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};

use super::files::{Files, blocking, sync_directory};
use super::ring::Request;
use super::transfers::{COPY_BYTES, Transfer, Transfers};
use crate::core::DirectoryKey;
use crate::host::bell::step_aside;

/// How far it came.
pub(super) enum Step {
    /// To its end.
    Done(IoValue),
    /// The ring is to do it.
    Transfer(Transfer),
}

/// What the ring can do at once: the file is open, and little is to be copied.
pub(super) fn at_once(
    files: &Files,
    transfers: &Transfers,
    directory: DirectoryKey,
    op: &IoOp,
) -> Option<Transfer> {
    let request = match op {
        IoOp::Read { offset, length, .. } => {
            Request::Read { offset: *offset, memory: Aligned::zeroed(*length) }
        }
        IoOp::Write { offset, data, .. } if data.len() <= COPY_BYTES => {
            let mut memory = transfers.memory(data.len());
            memory.bytes_mut().copy_from_slice(data);
            Request::Write { offset: *offset, memory }
        }
        IoOp::Sync { .. } => Request::Sync,
        _ => return None,
    };
    Some(Transfer { file: files.opened(directory, op.file()?)?, request })
}

/// Does it, or all that the ring cannot.
pub(super) async fn perform(
    files: &Files,
    transfers: &Transfers,
    directory: DirectoryKey,
    op: IoOp,
) -> Result<Step, IoError> {
    let (verb, file) = (op.verb(), op.file());
    let result = match files.ensure(directory).await {
        Ok(()) => attempt(files, transfers, directory, op).await,
        Err(error) => Err(error),
    };
    result.map_err(|error| error_of(&error, verb, file))
}

/// What whoever submitted it is told.
pub(super) fn error_of(error: &io::Error, verb: &'static str, file: Option<FileId>) -> IoError {
    IoError { kind: kind(error), verb, file, detail: error.to_string() }
}

fn kind(error: &io::Error) -> IoErrorKind {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => IoErrorKind::NoSpace,
        ErrorKind::NotFound => IoErrorKind::NotFound,
        ErrorKind::AlreadyExists => IoErrorKind::Exists,
        _ => IoErrorKind::Device,
    }
}

async fn attempt(
    files: &Files,
    transfers: &Transfers,
    directory: DirectoryKey,
    op: IoOp,
) -> io::Result<Step> {
    match op {
        IoOp::List => {
            let path = files.directory(directory);
            return Ok(Step::Done(IoValue::Listing(blocking(move || list(&path)).await?)));
        }
        IoOp::Read { file, offset, length } => {
            let request = Request::Read { offset, memory: Aligned::zeroed(length) };
            return Ok(Step::Transfer(Transfer { file: files.open(directory, file).await?, request }));
        }
        IoOp::Write { file, offset, data } => {
            let request = Request::Write { offset, memory: copy(transfers, &data).await };
            return Ok(Step::Transfer(Transfer { file: files.open(directory, file).await?, request }));
        }
        IoOp::Sync { file } => {
            let file = files.open(directory, file).await?;
            return Ok(Step::Transfer(Transfer { file, request: Request::Sync }));
        }
        IoOp::Create { file } => files.create(directory, file).await?,
        IoOp::Allocate { file, offset, length } => {
            let descriptor = files.open(directory, file).await?.descriptor()?;
            blocking(move || {
                all_or_nothing(&descriptor, |descriptor| {
                    fallocate(descriptor, FallocateFlags::empty(), offset, length).map_err(io::Error::from)
                })
            })
            .await?;
        }
        IoOp::Truncate { file, length } => {
            let descriptor = files.open(directory, file).await?.descriptor()?;
            blocking(move || shorten(&descriptor, length)).await?;
        }
        IoOp::Rename { from, to } => {
            files.forget(directory, from);
            files.forget(directory, to);
            let (from, to) = (files.path(directory, from), files.path(directory, to));
            blocking(move || fs::rename(from, to)).await?;
        }
        IoOp::Remove { file } => {
            files.forget(directory, file);
            let path = files.path(directory, file);
            blocking(move || match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                result => result,
            })
            .await?;
        }
        IoOp::SyncDirectory => {
            let path = files.directory(directory);
            blocking(move || sync_directory(&path)).await?;
        }
    }
    Ok(Step::Done(IoValue::Done))
}

/// Lengthens a file, or leaves its length as it was where there is no space: the kernel may have taken a part by then, and who
/// asks for more than there is, again and again, would keep the disk full for everyone else. Nobody writes behind the end of a
/// file meanwhile.
pub(super) fn all_or_nothing(
    descriptor: &OwnedFd,
    lengthen: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<()> {
    let before = u64::try_from(fstat(descriptor)?.st_size).map_err(io::Error::other)?;
    let result = lengthen(descriptor);
    if let Err(error) = &result
        && kind(error) == IoErrorKind::NoSpace
    {
        // Also where it seems to be no longer: some take blocks behind the end first.
        ftruncate(descriptor, before)?;
    }
    result
}

/// Cuts a file off behind a length, if it is longer.
fn shorten(descriptor: &OwnedFd, length: u64) -> io::Result<()> {
    let is_longer = u64::try_from(fstat(descriptor)?.st_size).is_ok_and(|now| now > length);
    if is_longer { ftruncate(descriptor, length).map_err(io::Error::from) } else { Ok(()) }
}

/// Puts bytes where direct I/O wants them.
async fn copy(transfers: &Transfers, data: &Bytes) -> Aligned {
    let mut memory = transfers.memory(data.len());
    for (to, from) in memory.bytes_mut().chunks_mut(COPY_BYTES).zip(data.chunks(COPY_BYTES)) {
        to.copy_from_slice(from);
        if data.len() > COPY_BYTES {
            step_aside().await;
        }
    }
    memory
}

fn list(directory: &Path) -> io::Result<Vec<(FileId, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(file) = name.to_str().and_then(FileId::from_name) {
            found.push((file, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
