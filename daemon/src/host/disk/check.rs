//! Whether a file system can do what durability asks of it.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{OFlags, statfs};

use crate::host::error::HostError;

/// File systems that live in memory: some take `O_DIRECT` and keep nothing.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// File systems that write elsewhere what is written over: space that was taken once is no promise that the next write finds
/// any, and every append changes metadata.
const COPYING: [(u64, &str); 3] = [(0x9123_683e, "btrfs"), (0x2fc1_2fc1, "zfs"), (0xca45_1a4e, "bcachefs")];

/// Checks that files in the directory can be written past the page cache.
///
/// # Errors
/// [`HostError::NoDirectIo`], [`HostError::CopiesOnWrite`]; [`HostError::Data`] if no file can be made there at all.
pub(in crate::host) fn check_direct_io(directory: &Path) -> Result<(), HostError> {
    let unusable = |source| HostError::Data { path: directory.to_path_buf(), source };
    let kind = statfs(directory).map_err(|error| unusable(error.into()))?.f_type;
    let kind = u64::try_from(kind).unwrap_or_default();
    if let Some((_, name)) = IN_MEMORY.iter().find(|(magic, _)| *magic == kind) {
        return Err(HostError::NoDirectIo { path: directory.to_path_buf(), file_system: (*name).into() });
    }
    if let Some((_, name)) = COPYING.iter().find(|(magic, _)| *magic == kind) {
        return Err(HostError::CopiesOnWrite { path: directory.to_path_buf(), file_system: name });
    }
    let probe = directory.join(".probe");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default())
        .open(&probe);
    let _ = fs::remove_file(&probe);
    match opened {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(HostError::NoDirectIo {
            path: directory.to_path_buf(),
            file_system: format!("a file system of type {kind:#x}"),
        }),
        Err(error) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_memory_is_refused_by_name() {
        let shared = Path::new("/dev/shm");
        let in_memory = statfs(shared).is_ok_and(|found| u64::try_from(found.f_type) == Ok(0x0102_1994));
        if in_memory {
            let refused = check_direct_io(shared).unwrap_err().to_string();
            assert!(refused.contains("/dev/shm is on tmpfs") && refused.contains("--data"), "{refused}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let refused = check_direct_io(Path::new("/no/such/directory")).unwrap_err().to_string();
        assert!(refused.contains("/no/such/directory"), "{refused}");
    }
}
