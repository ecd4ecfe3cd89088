//! What reading answers: versions, values, and the pages that are missing.

use mesh_base::{Namespace, Revision};

use crate::cell::{Cell, ExtentList, Payload};
use crate::frames::Frames;
use crate::page::{Expected, extent};
use crate::pointer::PagePointer;

/// An operation's answer, or the pages it misses; then it has changed nothing and is called again once they are there.
#[derive(Debug)]
pub enum Lookup<T> {
    /// The answer.
    Ready(T),
    /// The pages to fetch first.
    Miss(Misses),
}

impl<T> Lookup<T> {
    /// The answer, if it is there.
    pub fn ready(self) -> Option<T> {
        match self {
            Self::Ready(answer) => Some(answer),
            Self::Miss(_) => None,
        }
    }

    /// The same with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Ready(answer) => Lookup::Ready(change(answer)),
            Self::Miss(misses) => Lookup::Miss(misses),
        }
    }
}

/// Pages that an operation misses. To be handed to [`crate::Store::fetch`] of the same store.
#[derive(Clone, Debug)]
pub struct Misses {
    /// The allocator's count of reuses when this was made: later the numbers may mean other pages.
    pub(crate) stamp: u64,
    pub(crate) wants: Vec<PageWant>,
}

/// One page that is missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageWant {
    pub(crate) pointer: PagePointer,
    pub(crate) expected: Expected,
}

impl Misses {
    pub(crate) const fn none(stamp: u64) -> Self {
        Self { stamp, wants: Vec::new() }
    }

    pub(crate) fn add(&mut self, want: PageWant) {
        if !self.wants.iter().any(|known| known.pointer.page == want.pointer.page) {
            self.wants.push(want);
        }
    }

    /// Whether nothing is missed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// How many pages and extents are missed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.wants.len()
    }

    /// Adds what another operation on the same store misses.
    pub fn merge(&mut self, other: &Self) {
        self.stamp = self.stamp.min(other.stamp);
        other.wants.iter().for_each(|want| self.add(*want));
    }
}

/// How much of a version a read wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// With its value: one that is kept apart in extents is fetched.
    Value,
    /// Without: the value may come along if it lies beside the key.
    Head,
}

/// What a key is at a revision.
#[derive(Clone, Copy, Debug)]
pub enum KeyAt<'a> {
    /// It has a value.
    Live(Version<'a>),
    /// It was deleted, and the tombstone is still there.
    Deleted {
        /// When.
        revision: Revision,
    },
    /// It has no version there.
    Absent,
}

impl<'a> KeyAt<'a> {
    /// The live version, if there is one.
    #[must_use]
    pub const fn live(self) -> Option<Version<'a>> {
        match self {
            Self::Live(version) => Some(version),
            Self::Deleted { .. } | Self::Absent => None,
        }
    }

    /// The revision of the newest change: of the version or of the tombstone.
    #[must_use]
    pub const fn revision(&self) -> Option<Revision> {
        match self {
            Self::Live(version) => Some(version.revision),
            Self::Deleted { revision } => Some(*revision),
            Self::Absent => None,
        }
    }
}

/// One live version of a key.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// When it was written.
    pub revision: Revision,
    /// What it carries beside the value.
    pub attributes: crate::Attributes,
    /// Its value.
    pub value: Value<'a>,
}

/// A value, in the pages it lies in.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(ValueParts<'a>);

#[derive(Clone, Copy)]
enum ValueParts<'a> {
    Inline(&'a [u8]),
    Large { list: ExtentList<'a>, frames: &'a Frames },
    Unread { bytes: usize },
}

impl std::fmt::Debug for ValueParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Large { list, .. } => write!(f, "{} bytes in extents", list.value_bytes),
            Self::Unread { bytes } => write!(f, "{bytes} bytes not read"),
        }
    }
}

impl<'a> Value<'a> {
    /// Bytes of the value.
    #[must_use]
    pub const fn len(&self) -> usize {
        match &self.0 {
            ValueParts::Inline(bytes) => bytes.len(),
            ValueParts::Large { list, .. } => list.value_bytes,
            ValueParts::Unread { bytes } => *bytes,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its bytes are here. With [`Want::Value`] they are.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        !matches!(self.0, ValueParts::Unread { .. })
    }

    /// Its bytes, in parts; none if it was not read.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (inline, large) = match self.0 {
            ValueParts::Inline(bytes) => (Some(bytes), None),
            ValueParts::Large { list, frames } => (None, Some((list, frames))),
            ValueParts::Unread { .. } => (None, None),
        };
        let large = large.into_iter().flat_map(|(list, frames)| {
            list.iter().filter_map(|part| {
                frames.get(part.pointer.page).map(|bytes| extent::value(bytes, part.value_bytes as usize))
            })
        });
        inline.into_iter().chain(large)
    }

    /// Its bytes, if they lie in one piece.
    #[must_use]
    pub const fn as_slice(&self) -> Option<&'a [u8]> {
        match self.0 {
            ValueParts::Inline(bytes) => Some(bytes),
            ValueParts::Large { .. } | ValueParts::Unread { .. } => None,
        }
    }

    /// A copy of its bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(if self.is_read() { self.len() } else { 0 });
        self.parts().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }
}

impl<'a> KeyAt<'a> {
    /// What a cell says of its key. Extents must be resident if the value is wanted; those that are not are missed.
    #[inline]
    pub(crate) fn of_cell(cell: &Cell<'a>, want: Want, frames: &'a Frames) -> Result<Self, Vec<PageWant>> {
        let parts = match cell.payload {
            Payload::Tombstone => return Ok(Self::Deleted { revision: cell.key.revision }),
            Payload::Inline(bytes) => ValueParts::Inline(bytes),
            Payload::Large(list) if want == Want::Head => ValueParts::Unread { bytes: list.value_bytes },
            Payload::Large(list) => {
                let missing: Vec<_> = missing_extents(&list, frames).collect();
                if !missing.is_empty() {
                    return Err(missing);
                }
                ValueParts::Large { list, frames }
            }
        };
        Ok(Self::Live(Version {
            revision: cell.key.revision,
            attributes: cell.attributes,
            value: Value(parts),
        }))
    }
}

/// The extents of a value that are not resident.
pub(crate) fn missing_extents<'a>(
    list: &ExtentList<'a>,
    frames: &'a Frames,
) -> impl Iterator<Item = PageWant> + use<'a> {
    list.iter().filter(|extent| !frames.contains(extent.pointer.page)).map(|extent| PageWant {
        pointer: extent.pointer,
        expected: Expected::Extent { value_bytes: extent.value_bytes },
    })
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanDirection {
    /// By ascending key.
    Forward,
    /// By descending key.
    Reverse,
}

/// A scan over the keys of a range as they are at a revision. Deleted keys are passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanRequest<'a> {
    /// Where.
    pub namespace: Namespace,
    /// The least key of the range.
    pub start: &'a [u8],
    /// The range ends before this key; nothing is the namespace's end.
    pub end: Option<&'a [u8]>,
    /// Which way.
    pub direction: ScanDirection,
    /// As of when.
    pub at: Revision,
    /// With values or without.
    pub want: Want,
    /// Keys to visit at most.
    pub items_max: usize,
    /// The scan ends once keys and values visited reach this many bytes, after at least one item.
    pub bytes_max: usize,
}

/// How far a scan came.
#[derive(Debug)]
pub struct ScanOutcome {
    /// Keys visited.
    pub items: usize,
    /// Bytes of keys and values visited.
    pub bytes: usize,
    /// Why it ended.
    pub end: ScanEnd,
}

/// Why a scan ended.
#[derive(Debug)]
pub enum ScanEnd {
    /// The range is done.
    Complete,
    /// A limit was reached, or the scan passed over more garbage than one call should.
    Limit {
        /// What is left of the range.
        rest: ScanRest,
    },
    /// Pages are missing. What was visited stays visited.
    Miss {
        /// What is left of the range.
        rest: ScanRest,
        /// What to fetch before going on.
        misses: Misses,
    },
}

/// What is left of a scan's range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRest {
    /// The least key left.
    pub start: Vec<u8>,
    /// The rest ends before this key; nothing is the namespace's end.
    pub end: Option<Vec<u8>>,
}

impl ScanRest {
    /// The request for the rest, alike in everything but the range. The limits begin anew.
    #[must_use]
    pub fn request<'a>(&'a self, original: &ScanRequest<'a>) -> ScanRequest<'a> {
        ScanRequest { start: &self.start, end: self.end.as_deref(), ..*original }
    }
}
