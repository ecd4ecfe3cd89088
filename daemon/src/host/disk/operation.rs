//! One operation, from submission to completion.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use glommio::io::DmaFile;
use mesh_base::io::{FileId, IoError, IoErrorKind, IoOp, IoValue};
use mesh_base::limits::SECTOR_BYTES;
use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};

use super::files::{Files, blocking, sync_directory};
use crate::core::DirectoryKey;
use crate::host::bell::step_aside;

/// Bytes that are copied before others get their turn.
const COPY_BYTES: usize = 256 * 1024;

/// Does it.
pub(super) async fn perform(files: &Files, directory: DirectoryKey, op: IoOp) -> Result<IoValue, IoError> {
    let (verb, file) = (op.verb(), op.file());
    let result = match files.ensure(directory).await {
        Ok(()) => attempt(files, directory, op).await,
        Err(error) => Err(error),
    };
    result.map_err(|error| IoError { kind: kind(&error), verb, file, detail: error.to_string() })
}

fn kind(error: &io::Error) -> IoErrorKind {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => IoErrorKind::NoSpace,
        ErrorKind::NotFound => IoErrorKind::NotFound,
        ErrorKind::AlreadyExists => IoErrorKind::Exists,
        _ => IoErrorKind::Device,
    }
}

async fn attempt(files: &Files, directory: DirectoryKey, op: IoOp) -> io::Result<IoValue> {
    match op {
        IoOp::List => {
            let path = files.directory(directory);
            return blocking(move || list(&path)).await.map(IoValue::Listing);
        }
        IoOp::Read { file, offset, length } => {
            let open = files.open(directory, file).await?;
            return read(open.get()?, offset, length).await.map(IoValue::Read);
        }
        IoOp::Write { file, offset, data } => {
            let open = files.open(directory, file).await?;
            write(open.get()?, offset, &data).await?;
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
        IoOp::Sync { file } => files.open(directory, file).await?.get()?.fdatasync().await?,
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
    Ok(IoValue::Done)
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

/// Writes all of it: the kernel may take a part, and is then given the rest.
async fn write(file: &DmaFile, offset: u64, data: &Bytes) -> io::Result<()> {
    assert!(data.len().is_multiple_of(SECTOR_BYTES) && offset.is_multiple_of(SECTOR_BYTES as u64));
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        let mut buffer = file.alloc_dma_buffer(rest.len());
        assert_eq!(buffer.len(), rest.len());
        for (to, from) in buffer.as_bytes_mut().chunks_mut(COPY_BYTES).zip(rest.chunks(COPY_BYTES)) {
            to.copy_from_slice(from);
            if rest.len() > COPY_BYTES {
                step_aside().await;
            }
        }
        let written = file.write_at(buffer, offset + done as u64).await?;
        assert!(written <= rest.len(), "more was written than was given");
        // Direct I/O goes on at a sector's start.
        let whole = written - written % SECTOR_BYTES;
        if whole == 0 {
            return Err(io::Error::new(ErrorKind::WriteZero, "the device takes no more"));
        }
        done += whole;
    }
    assert_eq!(done, data.len());
    Ok(())
}

/// Reads as much as there is: fewer bytes than asked for mean the end of the file, not a short read.
async fn read(file: &DmaFile, offset: u64, length: usize) -> io::Result<Bytes> {
    assert!(length.is_multiple_of(SECTOR_BYTES) && offset.is_multiple_of(SECTOR_BYTES as u64));
    let mut found = BytesMut::with_capacity(length);
    while found.len() < length {
        let part = file.read_at_aligned(offset + found.len() as u64, length - found.len()).await?;
        for chunk in part.chunks(COPY_BYTES) {
            found.extend_from_slice(chunk);
            if part.len() > COPY_BYTES {
                step_aside().await;
            }
        }
        // A file ends at a sector's end, or within one.
        if part.is_empty() || !part.len().is_multiple_of(SECTOR_BYTES) {
            break;
        }
    }
    Ok(found.freeze())
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
