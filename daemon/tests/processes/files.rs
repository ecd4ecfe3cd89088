//! The files of a node that does not run, as their format pages have them, and changes to them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mesh_base::checksum::{crc32, xxh3};

/// The unit of the log.
const SECTOR_BYTES: usize = 4096;
/// A page of the store, as the server makes it.
pub(crate) const PAGE_BYTES: usize = 8192;
/// Where the pages of a store begin.
const PAGES_AT: usize = 65_536;
/// Between the copies of a superblock,
const COPY_STRIDE: usize = 16_384;
/// and the length of one.
const COPY_BYTES: usize = 4096;
/// Between the copies of an identity.
const SLOT_BYTES: usize = 65_536;

/// A change that was made to a file.
#[must_use]
pub(crate) struct Change {
    path: PathBuf,
    pub(crate) offset: u64,
    before: Vec<u8>,
}

impl Change {
    /// Overwrites a part of a file.
    pub(crate) fn make(path: &Path, offset: usize, bytes: &[u8]) -> Self {
        let (offset, mut before) = (offset as u64, vec![0; bytes.len()]);
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.read_exact_at(&mut before, offset).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        file.sync_all().unwrap();
        Self { path: path.to_owned(), offset, before }
    }

    /// Flips the lowest bit of a byte.
    pub(crate) fn flip(path: &Path, offset: usize) -> Self {
        let mut byte = [0];
        File::open(path).unwrap().read_exact_at(&mut byte, offset as u64).unwrap();
        Self::make(path, offset, &[byte[0] ^ 1])
    }

    /// Puts back what was there.
    pub(crate) fn undo(self) {
        let _ = Self::make(&self.path, usize::try_from(self.offset).unwrap(), &self.before);
    }
}

/// The number at a place.
fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..BYTES].copy_from_slice(&bytes[at..at + BYTES]);
    u64::from_le_bytes(number)
}

/// The segments of a replica's log, oldest first.
pub(crate) fn segments(replica: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(replica).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    segments.sort();
    segments
}

/// Where the batches of a segment begin that have entries; others have hardly any bytes that count.
pub(crate) fn batches(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).unwrap();
    let (salt, mut at, mut batches) = (number::<8>(&bytes, 56), SECTOR_BYTES, Vec::new());
    while bytes.len() >= at + SECTOR_BYTES
        && bytes[at..].starts_with(b"MLB\xB1")
        && number::<8>(&bytes, at + 16) == salt
    {
        let payload = usize::try_from(number::<4>(&bytes, at + 44)).unwrap();
        if payload > 100 {
            batches.push(at);
        }
        at += (80 + payload).next_multiple_of(SECTOR_BYTES);
    }
    batches
}

/// Where the copies of a store's superblock begin, the newest first.
pub(crate) fn superblocks(store: &Path) -> Vec<usize> {
    let bytes = fs::read(store).unwrap();
    let mut copies: Vec<_> = (0..4).map(|copy| copy * COPY_STRIDE).collect();
    copies.sort_by_key(|at| std::cmp::Reverse(number::<8>(&bytes, at + 48)));
    copies
}

/// Where the copies of an identity begin, the newest first.
pub(crate) fn identities(identity: &Path) -> Vec<usize> {
    let bytes = fs::read(identity).unwrap();
    let mut copies = vec![0, SLOT_BYTES];
    copies.sort_by_key(|at| std::cmp::Reverse(number::<8>(&bytes, at + 8)));
    copies
}

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Leaf = 1,
    Interior = 2,
    Bitmap = 3,
    BitmapIndex = 4,
    Extent = 5,
}

/// Where the pages of a kind begin that hold certain bytes, those included that no checkpoint refers to any more.
pub(crate) fn pages(store: &Path, kind: Kind, content: &[u8]) -> Vec<usize> {
    let bytes = fs::read(store).unwrap();
    let is_page = |at: &usize| {
        let page = &bytes[*at..*at + PAGE_BYTES];
        page[0] == kind as u8 && number::<8>(page, 8) == (at / PAGE_BYTES) as u64
    };
    let holds = |at: &usize| {
        let page = &bytes[*at..*at + PAGE_BYTES];
        content.is_empty() || page.windows(content.len()).any(|window| window == content)
    };
    (PAGES_AT..bytes.len()).step_by(PAGE_BYTES).filter(is_page).filter(holds).collect()
}

/// Makes a segment's header say that a newer release is needed to read it.
pub(crate) fn make_segment_newer(segment: &Path) -> Change {
    let mut header = fs::read(segment).unwrap();
    header.truncate(SECTOR_BYTES);
    header[8..12].copy_from_slice(&[2, 0, 2, 0]);
    header[12..16].fill(0);
    let checksum = crc32(&[&header]);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    Change::make(segment, 0, &header)
}

/// Makes the newest superblock say so.
pub(crate) fn make_superblock_newer(store: &Path) -> Change {
    let at = superblocks(store)[0];
    let mut copy = fs::read(store).unwrap()[at..at + COPY_BYTES].to_vec();
    copy[8..12].copy_from_slice(&[2, 0, 2, 0]);
    let checksum = xxh3(&copy[..COPY_BYTES - 8]);
    copy[COPY_BYTES - 8..].copy_from_slice(&checksum.to_le_bytes());
    Change::make(store, at, &copy)
}

/// Makes the newest copy of an identity say so.
pub(crate) fn make_identity_newer(identity: &Path) -> Change {
    let at = identities(identity)[0];
    let mut copy = fs::read(identity).unwrap()[at..at + SLOT_BYTES].to_vec();
    copy[4..8].copy_from_slice(&[2, 0, 2, 0]);
    let payload = usize::try_from(number::<4>(&copy, 16)).unwrap();
    let checksum = crc32(&[&copy[..20], &copy[24..24 + payload]]);
    copy[20..24].copy_from_slice(&checksum.to_le_bytes());
    Change::make(identity, at, &copy)
}
