//! Snapshots: a pinned checkpoint as a stream of chunks, and a store made from them.
//!
//! Invariants:
//! - A chunk says which part of the key order it covers, [from, next), and holds every cell of it. So the receiver
//!   knows that nothing was lost or came twice, and a part of the order can be asked for by itself.
//! - A chunk is taken whole or not at all, and nothing of it is believed before all of it was checked.

use std::collections::BTreeSet;

use bytes::Bytes;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum;
use mesh_base::io::{FileId, page_offset};

use super::{PinId, SnapshotSource, Store};
use crate::cell::{self, Cell, Payload, flag};
use crate::error::StoreError;
use crate::key::{CellKey, KEY_FIXED_BYTES, KeyRef};
use crate::page::{Expected, extent, interior, leaf, slotted};
use crate::pointer::ExtentPointer;
use crate::read::{Lookup, Misses, PageWant, missing_extents};
use crate::tree::{ChildAt, MissAt, Seek, Touch, TreeView};
use crate::write::{CellWrite, Change};

/// The version of the encoding that this release writes.
const CHUNK_FORMAT: u16 = 1;
/// The least reader that what this release writes asks for.
const CHUNK_MIN_READER: u16 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"MCHK");
const FLAG_LAST: u16 = 1;
/// Where the flags are, and the keys of the range.
const FLAGS_OFFSET: usize = 8;
const COVER_OFFSET: usize = 16;
const CHECKSUM_BYTES: usize = 8;
/// Bytes before the cells, the keys of the range aside.
const HEAD_BYTES_MAX: usize = COVER_OFFSET + 2 * KEY_FIXED_BYTES;

/// A part of the key order.
#[derive(Clone, Copy, Default, Debug)]
pub struct KeyRange<'a> {
    /// Where it begins; nothing is at the very start.
    pub from: Option<&'a CellKey>,
    /// Where it ends, before this key; nothing is at the very end.
    pub to: Option<&'a CellKey>,
}

impl<'a> KeyRange<'a> {
    /// From a key on to the very end.
    #[must_use]
    pub const fn starting_at(from: Option<&'a CellKey>) -> Self {
        Self { from, to: None }
    }
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotChunk {
    /// The encoded chunk.
    pub bytes: Bytes,
    /// Where the next one of the range begins; nothing after the last.
    pub next: Option<CellKey>,
}

impl SnapshotChunk {
    /// The part of the key order that a chunk says it covers, and its end: nothing is at the very end. It is for whoever
    /// keeps chunks in order until they are taken in; nothing of it has been checked.
    #[must_use]
    pub fn covered(chunk: &[u8]) -> Option<(CellKey, Option<CellKey>)> {
        let mut reader = Reader::new(chunk.get(COVER_OFFSET..)?);
        let is_last = Reader::new(chunk.get(FLAGS_OFFSET..)?).u16()? & FLAG_LAST != 0;
        let from = KeyRef::decode(&mut reader)?.to_owned();
        let next = if is_last { None } else { Some(KeyRef::decode(&mut reader)?.to_owned()) };
        Some((from, next))
    }
}

/// How far a snapshot was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IngestProgress {
    /// More chunks are to come.
    More,
    /// That was the last one.
    Complete,
}

/// Where the next chunk must begin; nothing where none is awaited.
#[derive(Default)]
pub(super) struct Ingest {
    expected: Option<CellKey>,
}

impl Store {
    /// The first cells of a range of a pinned checkpoint, as a chunk of about `bytes_max` bytes, of at least one cell
    /// if there is one: all namespaces, all versions, tombstones, whole values. The chunks of a range cover all of it, up
    /// to its end, so those of adjacent ranges join.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where keys are not in order: the chunk would be refused, or the stream never end;
    /// [`StoreError::Poisoned`].
    ///
    /// # Panics
    /// When the pin was taken back, or the range ends where it begins or before: bugs of the caller.
    pub fn scan_cells(
        &self,
        pin: PinId,
        range: KeyRange<'_>,
        bytes_max: usize,
    ) -> Result<Lookup<SnapshotChunk>, StoreError> {
        self.check_usable()?;
        let view = self.tree.view_of(self.pins.superblock(pin).root);
        let from = range.from.map_or(KeyRef::FIRST, CellKey::as_ref);
        let to = range.to.map(CellKey::as_ref);
        assert!(to.is_none_or(|to| from < to), "a range without keys");
        let mut gathering = Gathering { view, cells: Vec::new(), body_bytes: 0, bytes_max };
        Ok(match gathering.gather(&from, to.as_ref()) {
            Ok(next) => {
                let end = next.as_ref().map(CellKey::as_ref).or(to);
                let bytes = gathering.encode(&from, end.as_ref());
                Lookup::Ready(SnapshotChunk { bytes, next })
            }
            Err(Stop::Misses(wants)) => {
                let mut misses = Misses::none(view.stamp);
                wants.into_iter().for_each(|want| misses.add(want));
                Lookup::Miss(misses)
            }
            Err(Stop::Disorder) => {
                let offset = page_offset(view.root.pointer.page, self.tree.options.page_bytes);
                let what = "keys under this page are not in order";
                return Err(StoreError::Corrupt { file: self.file, offset, what });
            }
        })
    }

    /// An empty staged store is to be made from a snapshot. Every checkpoint of it says so, until it is promoted.
    ///
    /// # Panics
    /// When it is not an empty staged store: a bug of the caller.
    pub fn begin_ingest(&mut self, source: SnapshotSource) {
        assert!(
            self.file == FileId::StagedStore && self.tree.cells == 0,
            "{} is not to be filled",
            self.file
        );
        self.source = Some(source);
        self.ingest.expected = Some(KeyRef::FIRST.to_owned());
    }

    /// A staged store was opened again: finds out how far it is, which is behind its last cell. Chunks are taken in from
    /// there on.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    ///
    /// # Panics
    /// When it is not made from a snapshot: a bug of the caller.
    pub fn resume_ingest(&mut self) -> Result<Lookup<()>, StoreError> {
        self.check_usable()?;
        assert!(self.source.is_some(), "{} is not made from a snapshot", self.file);
        Ok(self.tree.last_key().map(|last| {
            self.ingest.expected = Some(last.map_or_else(|| KeyRef::FIRST.to_owned(), CellKey::successor));
        }))
    }

    /// The snapshot that a staged store is made from.
    #[must_use]
    pub const fn source(&self) -> Option<SnapshotSource> {
        self.source
    }

    /// Where the next chunk must begin; nothing if none is awaited.
    #[must_use]
    pub const fn ingested_to(&self) -> Option<&CellKey> {
        self.ingest.expected.as_ref()
    }

    /// Takes in the next chunk of a snapshot, in order, beginning with the first. Checkpoints may be taken between
    /// chunks, to bound what is dirty; the last one carries the snapshot's applied index.
    ///
    /// # Errors
    /// [`StoreError::MalformedChunk`], [`StoreError::NewerEncoding`], [`StoreError::TooLarge`] and
    /// [`StoreError::ChunkOutOfPlace`], with nothing changed; [`StoreError::Poisoned`].
    pub fn ingest(&mut self, chunk: &[u8]) -> Result<Lookup<IngestProgress>, StoreError> {
        self.check_usable()?;
        let chunk = Chunk::read(chunk)?;
        if self.ingest.expected.as_ref().map(CellKey::as_ref) != Some(chunk.from) {
            return Err(StoreError::ChunkOutOfPlace {
                found: Box::new(chunk.from.to_owned()),
                expected: self.ingest.expected.clone().map(Box::new),
            });
        }
        let done = self.tree.append(&chunk.writes)?;
        self.tree.frames.evict();
        Ok(done.map(|()| {
            self.ingest.expected = chunk.next.map(|next| next.to_owned());
            if chunk.next.is_some() { IngestProgress::More } else { IngestProgress::Complete }
        }))
    }
}

/// A chunk in the making: its cells, left where they are until all of them are there.
struct Gathering<'a> {
    view: TreeView<'a>,
    cells: Vec<Cell<'a>>,
    /// What the cells take in the chunk.
    body_bytes: usize,
    bytes_max: usize,
}

/// Why a chunk cannot be made.
enum Stop {
    /// These pages are not in memory.
    Misses(Vec<PageWant>),
    /// Keys of a leaf are not where they belong. No fault of a disk does that: its pages are as they were written.
    Disorder,
}

impl<'a> Gathering<'a> {
    /// Gathers cells of a range; where the rest begins.
    fn gather(&mut self, from: &KeyRef<'_>, to: Option<&KeyRef<'_>>) -> Result<Option<CellKey>, Stop> {
        let is_behind = |key: &KeyRef<'_>| to.is_some_and(|to| key >= to);
        let mut target = *from;
        loop {
            let found = self.view.descend(&Seek::At(target), Touch::Scan);
            let found = found.map_err(|miss| Stop::Misses(self.ahead(&miss)))?;
            let (first, _) = leaf::lower_bound(found.page, &target);
            if !is_ordered(found.page, first, &target, found.upper().as_ref()) {
                return Err(Stop::Disorder);
            }
            for index in first..slotted::count(found.page) {
                let cell = leaf::cell(found.page, index);
                if is_behind(&cell.key) {
                    return Ok(None);
                }
                if !self.cells.is_empty() && self.body_bytes + cell_bytes(&cell) > self.bytes_max {
                    return Ok(Some(cell.key.to_owned()));
                }
                if let Err(mut wants) = self.add(cell) {
                    self.ahead_in_leaf(found.page, index, &mut wants);
                    return Err(Stop::Misses(wants));
                }
            }
            let Some(upper) = found.upper().filter(|upper| !is_behind(upper)) else { return Ok(None) };
            target = upper;
        }
    }

    fn add(&mut self, cell: Cell<'a>) -> Result<(), Vec<PageWant>> {
        if let Payload::Large(list) = &cell.payload {
            let missing: Vec<PageWant> = missing_extents(list, self.view.frames).collect();
            if !missing.is_empty() {
                return Err(missing);
            }
            for part in list.iter() {
                self.view.frames.get_once(part.pointer.page);
            }
        }
        self.body_bytes += cell_bytes(&cell);
        self.cells.push(cell);
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation, reason = "keys and values are within their limits, which fit")]
    fn write_cell(&self, cell: &Cell<'_>, out: &mut Vec<u8>) {
        let flags = cell::attribute_flags(&cell.attributes, cell.key.revision);
        let tombstone = if cell.is_tombstone() { flag::TOMBSTONE } else { 0 };
        out.put_u16(flags | tombstone);
        cell.key.encode(out);
        cell::write_attributes(out, &cell.attributes, flags);
        match cell.payload {
            Payload::Tombstone => {}
            Payload::Inline(value) => {
                out.put_u32(value.len() as u32);
                out.put_bytes(value);
            }
            Payload::Large(list) => {
                out.put_u32(list.value_bytes as u32);
                list.iter().for_each(|part| self.write_extent(&part, out));
            }
        }
    }

    fn write_extent(&self, part: &ExtentPointer, out: &mut Vec<u8>) {
        if let Some(bytes) = self.view.frames.peek(part.pointer.page) {
            out.put_bytes(extent::value(bytes, part.value_bytes as usize));
        }
    }

    /// The missing extents of the cells after one that the chunk has room for, so that they are read together.
    fn ahead_in_leaf(&self, page: &[u8], index: usize, wants: &mut Vec<PageWant>) {
        let mut bytes = self.body_bytes;
        for index in index..slotted::count(page) {
            let cell = leaf::cell(page, index);
            bytes += cell_bytes(&cell);
            if bytes > self.bytes_max {
                break;
            }
            if let Payload::Large(list) = &cell.payload {
                let known: BTreeSet<_> = wants.iter().map(|want| want.pointer.page).collect();
                let missing = missing_extents(list, self.view.frames);
                wants.extend(missing.filter(|want| !known.contains(&want.pointer.page)));
            }
        }
    }

    /// The missing page, and the leaves after it that the chunk has room for.
    fn ahead(&self, miss: &MissAt<'_>) -> Vec<PageWant> {
        let mut wants = vec![miss.want];
        if let (Some(ChildAt { parent, index, .. }), Expected::Node { level: 0 }) =
            (miss.place, miss.want.expected)
        {
            let count = self.bytes_max.saturating_sub(self.body_bytes) / parent.len();
            let pointers =
                (index + 1..slotted::count(parent)).take(count).map(|at| interior::pointer(parent, at));
            let missing = pointers.filter(|pointer| !self.view.frames.contains(pointer.page));
            wants.extend(missing.map(|pointer| PageWant {
                pointer: self.view.sealed.resolve(pointer),
                expected: Expected::Node { level: 0 },
            }));
        }
        wants
    }

    #[allow(clippy::cast_possible_truncation, reason = "a chunk has fewer cells than bytes")]
    fn encode(&self, from: &KeyRef<'_>, next: Option<&KeyRef<'_>>) -> Bytes {
        let keys_bytes = from.key.len() + next.map_or(0, |next| next.key.len());
        let mut out = Vec::with_capacity(HEAD_BYTES_MAX + keys_bytes + self.body_bytes + CHECKSUM_BYTES);
        out.put_u32(MAGIC);
        out.put_u16(CHUNK_FORMAT);
        out.put_u16(CHUNK_MIN_READER);
        out.put_u16(if next.is_some() { 0 } else { FLAG_LAST });
        out.put_u16(0);
        out.put_u32(self.cells.len() as u32);
        from.encode(&mut out);
        if let Some(next) = next {
            next.encode(&mut out);
        }
        let head_bytes = out.len();
        self.cells.iter().for_each(|cell| self.write_cell(cell, &mut out));
        assert_eq!(out.len() - head_bytes, self.body_bytes, "cells take what they were reckoned to");
        out.put_u64(checksum::xxh3(&out));
        out.into()
    }
}

/// Whether the cells of a leaf from `first` on ascend, from `target` on and below `upper`.
fn is_ordered(page: &[u8], first: usize, target: &KeyRef<'_>, upper: Option<&KeyRef<'_>>) -> bool {
    let keys = (first..slotted::count(page)).map(|index| leaf::cell(page, index).key);
    let is_within = |key: KeyRef<'_>| target <= &key && upper.is_none_or(|upper| key < *upper);
    keys.clone().is_sorted_by(|a, b| a < b)
        && keys.clone().next().is_none_or(is_within)
        && keys.clone().next_back().is_none_or(is_within)
        && upper.is_none_or(|upper| target < upper)
}

/// What a cell takes in a chunk.
fn cell_bytes(cell: &Cell<'_>) -> usize {
    let flags = cell::attribute_flags(&cell.attributes, cell.key.revision);
    let value = match &cell.payload {
        Payload::Tombstone => 0,
        Payload::Inline(value) => 4 + value.len(),
        Payload::Large(list) => 4 + list.value_bytes,
    };
    2 + KEY_FIXED_BYTES + cell.key.key.len() + cell::attribute_bytes(&cell.attributes, flags) + value
}

/// A chunk that was checked.
struct Chunk<'a> {
    from: KeyRef<'a>,
    next: Option<KeyRef<'a>>,
    writes: Vec<CellWrite<'a>>,
}

impl<'a> Chunk<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let malformed = |what| StoreError::MalformedChunk { what };
        let body_bytes =
            bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(malformed("shorter than its checksum"))?;
        let (body, stored) = bytes.split_at(body_bytes);
        let mut reader = Reader::new(body);
        if reader.u32() != Some(MAGIC) {
            return Err(malformed("not a chunk"));
        }
        let (Some(version), Some(min_reader)) = (reader.u16(), reader.u16()) else {
            return Err(malformed("shorter than its header"));
        };
        if min_reader > CHUNK_FORMAT {
            let supported = CHUNK_FORMAT;
            return Err(StoreError::NewerEncoding { what: "snapshot chunk", version, min_reader, supported });
        }
        if Reader::new(stored).u64() != Some(checksum::xxh3(body)) {
            return Err(malformed("wrong checksum"));
        }
        let chunk =
            Self::read_body(&mut reader).ok_or(malformed("fields beyond its end, or unknown flags"))?;
        if !reader.is_empty() {
            return Err(malformed("bytes after the last cell"));
        }
        if !chunk.is_ordered() {
            return Err(malformed("cells out of order or outside the range it covers"));
        }
        Ok(chunk)
    }

    fn read_body(reader: &mut Reader<'a>) -> Option<Self> {
        let flags = reader.u16()?;
        reader.u16()?;
        let cells = reader.u32()?;
        let from = KeyRef::decode(reader)?;
        let next = if flags & FLAG_LAST == 0 { Some(KeyRef::decode(reader)?) } else { None };
        // Grown as cells are found: the count is not believed.
        let mut writes = Vec::new();
        for _ in 0..cells {
            writes.push(read_cell(reader)?);
        }
        (flags & !FLAG_LAST == 0).then_some(Self { from, next, writes })
    }

    fn is_ordered(&self) -> bool {
        let keys = || self.writes.iter().map(CellWrite::cell_key);
        keys().is_sorted_by(|a, b| a < b)
            && keys().all(|key| self.from <= key && self.next.is_none_or(|next| key < next))
            && self.next.is_none_or(|next| self.from < next)
    }
}

fn read_cell<'a>(reader: &mut Reader<'a>) -> Option<CellWrite<'a>> {
    let flags = reader.u16()?;
    let KeyRef { namespace, key, revision } = KeyRef::decode(reader)?;
    if flags & flag::LARGE != 0 {
        return None;
    }
    let attributes = cell::read_attributes(reader, flags, revision)?;
    let change = if flags & flag::TOMBSTONE == 0 {
        let length = usize::try_from(reader.u32()?).ok()?;
        Change::Put { attributes, value: reader.bytes(length)? }
    } else {
        Change::Delete
    };
    Some(CellWrite { namespace, key, revision, change })
}

/// Checks a chunk as [`Store::ingest`] does before it believes it.
#[cfg(test)]
pub(crate) fn check_chunk(bytes: &[u8]) -> Result<(), StoreError> {
    Chunk::read(bytes).map(|_| ())
}
