//! What a store's file holds, told from its bytes alone: for tools that look at the files of a node that does not run.
//!
//! All of it reads through a function that answers the bytes at an offset, and goes on behind damage: nothing here needs
//! the store to open. What is read is checked as a store in use checks it.
//!
//! Deliberately absent: writing, and memory for pages. A tool reads each page once.

use bytes::Bytes;
use mesh_base::bytesio::Reader;
use mesh_base::io::{FileId, IoError, page_offset};
use mesh_base::{CheckpointNo, Namespace, PageNo, ReplicaIdentity, Revision};

use crate::cell::Payload;
use crate::error::StoreError;
use crate::key::{CellKey, KeyRef};
use crate::options::{PAGE_BYTES_MAX, PAGE_BYTES_MIN};
use crate::page::{Expected, HEADER_BYTES, PageKind, check, interior, leaf, slotted};
use crate::pointer::{Checksum, ExtentPointer, PagePointer};
use crate::store::{CheckpointInfo, Span, StorePart, Verify, VerifyReport, file_bytes};
use crate::superblock::{COPIES, COPY_BYTES, Copy, Superblock};
use crate::write::Attributes;

/// Answers bytes of the file, from an offset on; fewer only at its end.
pub type ReadAt<'a> = dyn FnMut(u64, usize) -> Result<Bytes, IoError> + 'a;

/// A copy of the superblock, as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopySurvey {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What is there.
    pub found: FoundCopy,
}

/// What was found where a copy belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FoundCopy {
    /// Nothing was ever written there.
    Empty,
    /// Bytes that are no superblock of this place.
    Damaged(&'static str),
    /// A superblock that this release cannot read.
    Newer {
        /// Its format.
        version: u16,
    },
    /// A whole one.
    Whole(Box<StoreImage>),
}

/// A checkpoint of a store, as its superblock copy describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreImage(Superblock);

/// A page as it is, whatever leads to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageSurvey {
    /// What it says it is.
    pub part: StorePart,
    /// Its height above the leaves.
    pub level: u8,
    /// The number it says it has.
    pub page: PageNo,
    /// The checkpoint that wrote it, as it says.
    pub checkpoint: CheckpointNo,
    /// The checksum of its bytes, which the pointer to it must have. An extent's is that of all of its pages.
    pub checksum: u64,
    /// What is wrong with it, as far as it can be told without the pointer to it.
    pub problem: Option<&'static str>,
    /// Its cells, in order, where it has some and they are sound.
    pub cells: Vec<CellSurvey>,
}

/// A cell of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CellSurvey {
    /// Its key; of a page above the leaves, the least that may be under it.
    pub key: CellKey,
    /// What it holds.
    pub holds: CellHolds,
}

/// What a cell holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CellHolds {
    /// A pointer to a page below.
    Child(PlaceSurvey),
    /// A deletion.
    Deletion,
    /// A value in the cell.
    Value {
        /// The value.
        value: Bytes,
        /// What it carries beside it.
        attributes: Attributes,
    },
    /// A value in extents.
    Large {
        /// Its length in bytes.
        bytes: usize,
        /// Where the extents are.
        extents: Vec<PlaceSurvey>,
        /// What it carries beside it.
        attributes: Attributes,
    },
}

/// Where something is, and what it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaceSurvey {
    /// Its page.
    pub page: PageNo,
    /// Its checksum.
    pub checksum: u64,
    /// The checkpoint that wrote it.
    pub checkpoint: CheckpointNo,
}

impl From<PagePointer> for PlaceSurvey {
    fn from(pointer: PagePointer) -> Self {
        Self { page: pointer.page, checksum: pointer.checksum.get(), checkpoint: pointer.checkpoint }
    }
}

/// Reads the copies of the superblock, in the order of their places.
///
/// # Errors
/// The file cannot be read.
pub fn copies(read: &mut ReadAt<'_>) -> Result<Vec<CopySurvey>, IoError> {
    let survey = |index: usize| {
        let offset = (index * PAGE_BYTES_MAX) as u64;
        let found = match Copy::read(&read(offset, COPY_BYTES)?, index) {
            Copy::Empty => FoundCopy::Empty,
            Copy::Damaged(what) => FoundCopy::Damaged(what),
            Copy::Newer { version, .. } => FoundCopy::Newer { version },
            Copy::Valid(superblock) if !has_possible_pages(&superblock) => {
                FoundCopy::Damaged("superblock copy with a page size that no store has")
            }
            Copy::Valid(superblock) => FoundCopy::Whole(Box::new(StoreImage(*superblock))),
        };
        Ok(CopySurvey { offset, found })
    };
    (0..COPIES).map(survey).collect()
}

/// The newest checkpoint among the copies.
#[must_use]
pub fn newest(copies: &[CopySurvey]) -> Option<&StoreImage> {
    let whole = copies.iter().filter_map(|copy| match &copy.found {
        FoundCopy::Whole(image) => Some(image.as_ref()),
        _ => None,
    });
    whole.max_by_key(|image| image.0.checkpoint)
}

fn has_possible_pages(superblock: &Superblock) -> bool {
    let page_bytes = superblock.page_bytes as usize;
    (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes) && page_bytes.is_power_of_two()
}

impl StoreImage {
    /// Whose store it is.
    #[must_use]
    pub const fn identity(&self) -> &ReplicaIdentity {
        &self.0.identity
    }

    /// The checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> CheckpointInfo {
        CheckpointInfo::of(&self.0)
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        self.0.page_bytes as usize
    }

    /// Longest key, in bytes.
    #[must_use]
    pub const fn key_bytes_max(&self) -> u32 {
        self.0.key_bytes_max
    }

    /// Where the tree begins.
    #[must_use]
    pub fn root(&self) -> PlaceSurvey {
        self.0.root.pointer.into()
    }

    /// Pages above the leaves on each way.
    #[must_use]
    pub const fn height(&self) -> u8 {
        self.0.root.level
    }

    /// Verifies all of it. `progress` is told, now and then, how many pages were reached and how many the file has.
    pub fn verify(&self, read: &mut ReadAt<'_>, progress: &mut dyn FnMut(u64, u64)) -> VerifyReport {
        let mut verify = Verify::new(self.0.clone());
        let mut steps = 0_u64;
        while let Some(work) = verify.next() {
            if steps.is_multiple_of(1024) {
                let (reached, all) = verify.progress();
                progress(reached, all);
            }
            steps += 1;
            let Some(Span { offset, length }) = verify.span_of(&work) else { continue };
            match read(offset, length) {
                Ok(bytes) => verify.check(&work, &bytes),
                Err(error) => verify.damaged(&work, error.to_string()),
            }
        }
        verify.finish()
    }

    /// Looks at a page by its number.
    ///
    /// # Errors
    /// The page cannot be read.
    pub fn page(&self, page: PageNo, read: &mut ReadAt<'_>) -> Result<PageSurvey, IoError> {
        let page_bytes = self.page_bytes();
        let bytes = read(page_offset(page, page_bytes), page_bytes)?;
        Ok(survey_page(&bytes, page_bytes))
    }

    /// Every version of a client's key, newest first, as far as it can be read.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the page that keeps it from being known; [`StoreError::Io`].
    pub fn versions(&self, key: &[u8], read: &mut ReadAt<'_>) -> Result<Vec<CellSurvey>, StoreError> {
        let mut found = Vec::new();
        // What is under a page is at most as deep as its level, so this ends whatever the pages say.
        let mut work = vec![(self.0.root.pointer, self.0.root.level)];
        while let Some((pointer, level)) = work.pop() {
            let page = self.read_page(&pointer, Expected::Node { level }, read)?;
            let cells = slotted::count(&page);
            if level == 0 {
                let keys = (0..cells).filter(|index| is_of(&leaf::cell(&page, *index).key, key));
                found.extend(keys.map(|index| survey_cell(&page, index)));
                continue;
            }
            let (first, last) = (KeyRef::newest(Namespace::USER, key), oldest(key));
            for index in (0..cells).rev() {
                let begins_behind = index > 0 && interior::separator(&page, index) > last;
                let ends_before = index + 1 < cells && interior::separator(&page, index + 1) <= first;
                if !begins_behind && !ends_before {
                    work.push((interior::pointer(&page, index), level - 1));
                }
            }
        }
        Ok(found)
    }

    fn read_page(
        &self,
        pointer: &PagePointer,
        expected: Expected,
        read: &mut ReadAt<'_>,
    ) -> Result<Bytes, StoreError> {
        let offset = page_offset(pointer.page, self.page_bytes());
        let length = file_bytes(pointer, expected, self.page_bytes());
        let bytes = read(offset, length)?;
        let corrupt = |what| StoreError::Corrupt { file: FileId::Store, offset, what };
        check::check(&bytes, length, pointer, expected).map_err(corrupt)?;
        Ok(bytes)
    }
}

fn is_of(found: &KeyRef<'_>, key: &[u8]) -> bool {
    found.namespace == Namespace::USER && found.key == key
}

const fn oldest(key: &[u8]) -> KeyRef<'_> {
    KeyRef { namespace: Namespace::USER, key, revision: Revision::ZERO }
}

/// The fields that every page begins with.
struct Header {
    kind: u8,
    level: u8,
    page: PageNo,
    checkpoint: CheckpointNo,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes.get(..HEADER_BYTES)?);
        let (kind, level) = (reader.u8()?, reader.u8()?);
        reader.bytes(6)?;
        Some(Self { kind, level, page: PageNo(reader.u64()?), checkpoint: CheckpointNo(reader.u64()?) })
    }

    const fn expected(&self) -> Option<(StorePart, Expected)> {
        Some(match self.kind {
            kind if kind == PageKind::Leaf as u8 => (StorePart::Leaf, Expected::Node { level: 0 }),
            kind if kind == PageKind::Interior as u8 && self.level > 0 => {
                (StorePart::Interior, Expected::Node { level: self.level })
            }
            kind if kind == PageKind::Bitmap as u8 => {
                (StorePart::Bitmap, Expected::Allocator(PageKind::Bitmap))
            }
            kind if kind == PageKind::BitmapIndex as u8 => {
                (StorePart::Index, Expected::Allocator(PageKind::BitmapIndex))
            }
            kind if kind == PageKind::Extent as u8 => {
                (StorePart::Extent, Expected::Extent { value_bytes: 0 })
            }
            _ => return None,
        })
    }
}

fn survey_page(bytes: &[u8], page_bytes: usize) -> PageSurvey {
    let checksum = Checksum::of(bytes);
    let header = Header::read(bytes);
    let expected = header.as_ref().and_then(Header::expected);
    let (page, checkpoint, level) = header
        .map_or((PageNo(0), CheckpointNo(0), 0), |header| (header.page, header.checkpoint, header.level));
    let (part, problem) = match expected {
        None if bytes.iter().all(|byte| *byte == 0) => (StorePart::Page, Some("zeros")),
        None => (StorePart::Page, Some("not a page, or one inside an extent")),
        Some((part, expected)) => {
            let pointer = PagePointer { page, checksum, checkpoint };
            (part, check::check(bytes, page_bytes, &pointer, expected).err())
        }
    };
    let has_cells = matches!(part, StorePart::Leaf | StorePart::Interior) && problem.is_none();
    let count = if has_cells { slotted::count(bytes) } else { 0 };
    let cells = (0..count).map(|index| match part {
        StorePart::Leaf => survey_cell(bytes, index),
        _ => CellSurvey {
            key: interior::separator(bytes, index).to_owned(),
            holds: CellHolds::Child(interior::pointer(bytes, index).into()),
        },
    });
    let cells = cells.collect();
    PageSurvey { part, level, page, checkpoint, checksum: checksum.get(), problem, cells }
}

/// A cell of a leaf that was checked.
fn survey_cell(page: &[u8], index: usize) -> CellSurvey {
    let cell = leaf::cell(page, index);
    let attributes = cell.attributes;
    let holds = match cell.payload {
        Payload::Tombstone => CellHolds::Deletion,
        Payload::Inline(value) => CellHolds::Value { value: Bytes::copy_from_slice(value), attributes },
        Payload::Large(list) => {
            let extents = list.iter().map(|ExtentPointer { pointer, .. }| pointer.into()).collect();
            CellHolds::Large { bytes: list.value_bytes, extents, attributes }
        }
    };
    CellSurvey { key: cell.key.to_owned(), holds }
}
