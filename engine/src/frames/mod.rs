//! Pages and extents in memory.
//!
//! Invariants:
//! - A frame is clean (a read of the file brings the same bytes) or dirty for one checkpoint. Only clean, unpinned frames are
//!   evicted.
//! - A page's content never changes under its number once a checkpoint was begun: a later change is made to a copy
//!   under a new number. So a frame that is frozen for a running checkpoint needs no copy of its own.
//! - A page number names at most one frame, and that frame is of the page's newest use: when a number is handed out
//!   again, what was there is discarded first.
//!
//! Pages of the tree lie in an arena, so the way down the tree is a look into the table of pages and one at the page for each
//! level. Extents have any length, and memory of their own.

mod ahead;
mod arena;
mod hash;
mod replacement;
mod slots;
mod table;

use bytes::Bytes;
use mesh_base::{CheckpointNo, PageNo, Revision};

use self::arena::Arena;
use self::replacement::{Place, Replacement};
use self::slots::{Slot, SlotNo, Slots};
use self::table::PageTable;
use crate::page::{self, Expected};

pub use self::ahead::{MemoryAhead, MemoryOrders};
pub(crate) use self::slots::FrameId;

/// Whether a frame's bytes are on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameState {
    /// They are.
    Clean,
    /// This checkpoint will write them.
    Dirty(CheckpointNo),
    /// This checkpoint writes them, but the tree has a newer copy: the frame goes when they are written.
    Obsolete(CheckpointNo),
}

/// What is known of a page or an extent in memory, its bytes aside.
struct Frame {
    page: PageNo,
    length: usize,
    expected: Expected,
    state: FrameState,
    pins: u32,
    place: Place,
    /// The horizon up to which this leaf was cleared of garbage.
    collected: Revision,
}

/// All frames of a store.
pub(crate) struct Frames {
    page_bytes: usize,
    table: PageTable,
    /// Frames of pages, and their bytes by the same numbers.
    nodes: Slots<()>,
    arena: Arena,
    extents: Slots<Bytes>,
    replacement: Replacement,
    bytes_max: usize,
    clean_bytes: usize,
    dirty_bytes: usize,
    /// Bytes that were ever made dirty.
    dirtied_bytes: u64,
}

impl Frames {
    /// No frames, of pages of this size, with a budget in bytes.
    pub(crate) fn new(page_bytes: usize, bytes_max: usize, memory: MemoryAhead) -> Self {
        Self {
            page_bytes,
            table: PageTable::default(),
            nodes: Slots::default(),
            arena: Arena::new(page_bytes, bytes_max, memory),
            extents: Slots::default(),
            replacement: Replacement::default(),
            bytes_max,
            clean_bytes: 0,
            dirty_bytes: 0,
            dirtied_bytes: 0,
        }
    }

    /// Has another budget from now on.
    pub(crate) const fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Bytes of frames that a checkpoint has to write.
    pub(crate) const fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes of pages and extents that were ever made for a checkpoint.
    pub(crate) const fn dirtied_bytes(&self) -> u64 {
        self.dirtied_bytes
    }

    /// Bytes of all frames.
    pub(crate) const fn resident_bytes(&self) -> usize {
        self.dirty_bytes + self.clean_bytes
    }

    /// The bytes of a page, and a use of it noted for the replacement policy.
    pub(crate) fn get(&self, page: PageNo) -> Option<&[u8]> {
        let slot = self.slot(page)?;
        match slot.split() {
            Slot::Node(at) => self.nodes.warm(at),
            Slot::Extent(at) => self.extents.warm(at),
        }
        self.bytes(slot)
    }

    /// The bytes of a page, noted as used once however often this is called: for scans, which would otherwise push
    /// everything else out.
    pub(crate) fn get_once(&self, page: PageNo) -> Option<&[u8]> {
        let slot = self.slot(page)?;
        match slot.split() {
            Slot::Node(at) => self.nodes.warm_once(at),
            Slot::Extent(at) => self.extents.warm_once(at),
        }
        self.bytes(slot)
    }

    /// The bytes of a page, without a note of it: what only looks on changes nothing.
    pub(crate) fn peek(&self, page: PageNo) -> Option<&[u8]> {
        self.bytes(self.slot(page)?)
    }

    /// Whether a page is resident.
    pub(crate) fn contains(&self, page: PageNo) -> bool {
        self.table.get(page).is_some()
    }

    /// The state of a page's frame, if it is resident.
    pub(crate) fn state(&self, page: PageNo) -> Option<FrameState> {
        self.frame(page).map(|frame| frame.state)
    }

    /// What a resident page is.
    pub(crate) fn expected(&self, page: PageNo) -> Option<Expected> {
        self.frame(page).map(|frame| frame.expected)
    }

    /// The frame that a page is in.
    pub(crate) fn id(&self, page: PageNo) -> Option<FrameId> {
        let slot = self.slot(page)?;
        match slot.split() {
            Slot::Node(at) => self.nodes.id(slot, at),
            Slot::Extent(at) => self.extents.id(slot, at),
        }
    }

    /// Brings in a page or an extent that was read.
    pub(crate) fn insert_clean(&mut self, page: PageNo, bytes: Bytes, expected: Expected) -> FrameId {
        self.clean_bytes += bytes.len();
        let id = if matches!(expected, Expected::Extent { .. }) {
            self.insert_extent(page, bytes, expected, FrameState::Clean)
        } else {
            let id = self.insert_node(page, expected, FrameState::Clean);
            if let Slot::Node(at) = id.slot().split() {
                self.arena.page_mut(at).copy_from_slice(&bytes);
            }
            id
        };
        self.enqueue(id);
        id
    }

    /// Brings in an extent that was made for a checkpoint.
    pub(crate) fn insert_dirty_extent(
        &mut self,
        page: PageNo,
        bytes: Bytes,
        expected: Expected,
        checkpoint: CheckpointNo,
    ) {
        self.dirty_bytes += bytes.len();
        self.dirtied_bytes += bytes.len() as u64;
        self.insert_extent(page, bytes, expected, FrameState::Dirty(checkpoint));
    }

    /// Brings in a page of the tree that is made for a checkpoint, all zeros, and answers it.
    pub(crate) fn create(&mut self, page: PageNo, expected: Expected, checkpoint: CheckpointNo) -> &mut [u8] {
        let at = self.insert_dirty_node(page, expected, checkpoint);
        let bytes = self.arena.page_mut(at);
        bytes.fill(0);
        bytes
    }

    /// Brings in a copy of a resident page of the tree, made for a checkpoint, and answers it.
    #[allow(clippy::panic, reason = "a page is fetched before it is changed; anything else is our bug")]
    pub(crate) fn copy(&mut self, from: PageNo, to: PageNo, checkpoint: CheckpointNo) -> &mut [u8] {
        let Some((Slot::Node(source), expected)) =
            self.slot(from).map(SlotNo::split).zip(self.expected(from))
        else {
            panic!("{from} is not there to be copied")
        };
        let at = self.insert_dirty_node(to, expected, checkpoint);
        self.arena.copy(source, at);
        self.arena.page_mut(at)
    }

    /// The bytes of a page that is dirty for `checkpoint`, to be changed.
    #[allow(clippy::panic, reason = "a page is made dirty before it is changed; anything else is our bug")]
    pub(crate) fn edit(&mut self, page: PageNo, checkpoint: CheckpointNo) -> &mut [u8] {
        debug_assert!(
            matches!(self.state(page), Some(FrameState::Dirty(dirty) | FrameState::Obsolete(dirty)) if dirty == checkpoint),
            "the stamp of {page} says what its frame says"
        );
        let Some(Slot::Node(at)) = self.slot(page).map(SlotNo::split) else {
            panic!("{page} is not there to be changed")
        };
        let bytes = self.arena.page_mut(at);
        assert_eq!(
            page::stamp(bytes).checkpoint,
            checkpoint,
            "{page} is not of the checkpoint that changes it"
        );
        bytes
    }

    /// The horizon up to which a leaf was cleared of garbage since it came into memory.
    pub(crate) fn collected(&self, page: PageNo) -> Revision {
        self.frame(page).map_or(Revision::ZERO, |frame| frame.collected)
    }

    /// Notes that a leaf was cleared of garbage.
    pub(crate) fn set_collected(&mut self, page: PageNo, horizon: Revision) {
        if let Some(frame) = self.frame_mut(page) {
            frame.collected = horizon;
        }
    }

    /// The bytes of an extent as a buffer that a write can hold on to.
    pub(crate) fn share(&self, page: PageNo) -> Option<Bytes> {
        match self.slot(page)?.split() {
            Slot::Node(_) => None,
            Slot::Extent(at) => self.extents.content(at).cloned(),
        }
    }

    /// Takes note that the tree no longer points at a page. Frozen bytes stay until they are written.
    pub(crate) fn forget(&mut self, page: PageNo, running: Option<CheckpointNo>) {
        match self.state(page) {
            Some(FrameState::Dirty(checkpoint)) if running == Some(checkpoint) => {
                if let Some(frame) = self.frame_mut(page) {
                    frame.state = FrameState::Obsolete(checkpoint);
                }
            }
            Some(FrameState::Dirty(_)) => self.discard(page),
            Some(FrameState::Clean) if self.frame(page).is_some_and(|frame| frame.pins == 0) => {
                self.discard(page);
            }
            Some(FrameState::Clean | FrameState::Obsolete(_)) | None => {}
        }
    }

    /// Drops a page whatever its state. Pins of it become void.
    pub(crate) fn discard(&mut self, page: PageNo) {
        let Some(slot) = self.table.remove(page).map(SlotNo::from_raw) else { return };
        let frame = match slot.split() {
            Slot::Node(at) => self.nodes.remove(at),
            Slot::Extent(at) => self.extents.remove(at),
        };
        let Some(frame) = frame else { return };
        match frame.state {
            FrameState::Clean => {
                self.clean_bytes -= frame.length;
                self.replacement.left(frame.place, frame.length);
            }
            FrameState::Dirty(_) | FrameState::Obsolete(_) => self.dirty_bytes -= frame.length,
        }
    }

    /// A checkpoint's write of a page is complete: the page is clean now, or gone if the tree has a newer copy.
    pub(crate) fn written(&mut self, page: PageNo, checkpoint: CheckpointNo) {
        match self.state(page) {
            Some(FrameState::Obsolete(dirty)) if dirty == checkpoint => self.discard(page),
            Some(FrameState::Dirty(dirty)) if dirty == checkpoint => {
                let Some(id) = self.id(page) else { return };
                let Some(frame) = self.frame_mut(page) else { return };
                frame.state = FrameState::Clean;
                let length = frame.length;
                self.dirty_bytes -= length;
                self.clean_bytes += length;
                self.enqueue(id);
            }
            _ => {}
        }
    }

    /// Keeps a frame in memory until it is unpinned as often.
    pub(crate) fn pin(&mut self, id: FrameId) {
        if let Some(frame) = self.frame_of(id) {
            frame.pins += 1;
        }
    }

    /// Takes back one pin. A frame that was discarded meanwhile has none.
    pub(crate) fn unpin(&mut self, id: FrameId) {
        let Some(frame) = self.frame_of(id) else { return };
        assert!(frame.pins > 0, "unpinned more often than pinned");
        frame.pins -= 1;
        if frame.pins == 0 && frame.place == Place::Aside {
            frame.place = Place::Main;
            let length = frame.length;
            self.replacement.enter(id, Place::Main, length);
        }
    }

    /// Evicts clean frames until the budget is met or nothing more can go.
    pub(crate) fn evict(&mut self) {
        let allowed = self.bytes_max.saturating_sub(self.dirty_bytes).max(self.bytes_max / 8);
        // Each frame is met at most once per degree of heat, and once more to go.
        let mut attempts = self.replacement.len() * (usize::from(slots::HEAT_MAX) + 1);
        while self.clean_bytes > allowed && attempts > 0 {
            attempts -= 1;
            let Some((id, place)) = self.replacement.next(self.clean_bytes) else { return };
            self.evict_or_keep(id, place);
        }
    }

    fn evict_or_keep(&mut self, id: FrameId, place: Place) {
        let heat = self.heat(id);
        let Some(frame) = self.frame_of(id) else { return };
        let (page, length, pinned) = (frame.page, frame.length, frame.pins > 0);
        // One use is the one that brought it in; in the small queue only another makes it worth keeping.
        let worth = match place {
            Place::Small => heat > 1,
            Place::Main | Place::Aside => heat > 0,
        };
        if pinned {
            // Met once, not at every turn of the queue: it comes back when nobody needs it any more.
            frame.place = Place::Aside;
            self.replacement.left(place, length);
            return;
        }
        if !worth {
            if place == Place::Small {
                self.replacement.remember(page);
            }
            self.discard(page);
            return;
        }
        frame.place = Place::Main;
        self.set_heat(id, if place == Place::Small { 0 } else { heat - 1 });
        self.replacement.left(place, length);
        self.replacement.enter(id, Place::Main, length);
    }

    fn insert_dirty_node(&mut self, page: PageNo, expected: Expected, checkpoint: CheckpointNo) -> u32 {
        self.dirty_bytes += self.page_bytes;
        self.dirtied_bytes += self.page_bytes as u64;
        self.insert_node(page, expected, FrameState::Dirty(checkpoint)).slot().index()
    }

    fn insert_node(&mut self, page: PageNo, expected: Expected, state: FrameState) -> FrameId {
        let frame = Frame::new(page, self.page_bytes, expected, state);
        let at = self.nodes.insert(frame, ());
        self.arena.reserve(at);
        self.name(SlotNo::node(at), page)
    }

    fn insert_extent(
        &mut self,
        page: PageNo,
        bytes: Bytes,
        expected: Expected,
        state: FrameState,
    ) -> FrameId {
        let frame = Frame::new(page, bytes.len(), expected, state);
        let at = self.extents.insert(frame, bytes);
        self.name(SlotNo::extent(at), page)
    }

    #[allow(clippy::expect_used, reason = "the frame was put there just now")]
    fn name(&mut self, slot: SlotNo, page: PageNo) -> FrameId {
        self.table.insert(page, slot.raw());
        self.id(page).expect("a frame just inserted")
    }

    /// Puts a frame that became clean under the replacement policy.
    fn enqueue(&mut self, id: FrameId) {
        let heat = self.heat(id);
        let Some(frame) = self.frame_of(id) else { return };
        let (page, length) = (frame.page, frame.length);
        // What was used again while it was dirty has shown its worth, like what was evicted a moment ago.
        let place = if heat > 1 || self.replacement.remembers(page) { Place::Main } else { Place::Small };
        if let Some(frame) = self.frame_of(id) {
            frame.place = place;
        }
        self.replacement.enter(id, place, length);
        let (nodes, extents) = (&self.nodes, &self.extents);
        self.replacement.tidy(self.table.len(), |id| match id.slot().split() {
            Slot::Node(at) => nodes.is_live(*id, at),
            Slot::Extent(at) => extents.is_live(*id, at),
        });
    }

    fn slot(&self, page: PageNo) -> Option<SlotNo> {
        self.table.get(page).map(SlotNo::from_raw)
    }

    fn bytes(&self, slot: SlotNo) -> Option<&[u8]> {
        match slot.split() {
            Slot::Node(at) => Some(self.arena.page(at)),
            Slot::Extent(at) => self.extents.content(at).map(AsRef::as_ref),
        }
    }

    fn heat(&self, id: FrameId) -> u8 {
        match id.slot().split() {
            Slot::Node(at) => self.nodes.heat(at),
            Slot::Extent(at) => self.extents.heat(at),
        }
    }

    fn set_heat(&self, id: FrameId, heat: u8) {
        match id.slot().split() {
            Slot::Node(at) => self.nodes.set_heat(at, heat),
            Slot::Extent(at) => self.extents.set_heat(at, heat),
        }
    }

    fn frame(&self, page: PageNo) -> Option<&Frame> {
        match self.slot(page)?.split() {
            Slot::Node(at) => self.nodes.frame(at),
            Slot::Extent(at) => self.extents.frame(at),
        }
    }

    fn frame_mut(&mut self, page: PageNo) -> Option<&mut Frame> {
        match self.slot(page)?.split() {
            Slot::Node(at) => self.nodes.frame_mut(at),
            Slot::Extent(at) => self.extents.frame_mut(at),
        }
    }

    fn frame_of(&mut self, id: FrameId) -> Option<&mut Frame> {
        match id.slot().split() {
            Slot::Node(at) if self.nodes.is_live(id, at) => self.nodes.frame_mut(at),
            Slot::Extent(at) if self.extents.is_live(id, at) => self.extents.frame_mut(at),
            _ => None,
        }
    }
}

impl Frame {
    const fn new(page: PageNo, length: usize, expected: Expected, state: FrameState) -> Self {
        Self { page, length, expected, state, pins: 0, place: Place::Small, collected: Revision::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Expected = Expected::Node { level: 0 };

    fn read(frames: &mut Frames, page: u64) {
        if frames.get(PageNo(page)).is_none() {
            frames.insert_clean(PageNo(page), Bytes::from(vec![0; 4096]), LEAF);
            frames.evict();
            frames.get(PageNo(page));
        }
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_used_again() {
        let mut frames = Frames::new(4096, 100 * 4096, MemoryAhead::default());
        for _ in 0..5 {
            (0..50).for_each(|page| read(&mut frames, page));
        }
        (1000..3000).for_each(|page| read(&mut frames, page));
        let kept = (0..50).filter(|page| frames.contains(PageNo(*page))).count();
        assert!(kept >= 45, "{kept} of 50 hot pages left");
        assert!(frames.resident_bytes() <= 100 * 4096);
    }

    #[test]
    fn dirty_and_pinned_frames_stay_whatever_the_budget() {
        let mut frames = Frames::new(4096, 4 * 4096, MemoryAhead::default());
        for page in 0..10 {
            frames.create(PageNo(page), LEAF, CheckpointNo(1));
        }
        let pinned = frames.insert_clean(PageNo(100), Bytes::from(vec![0; 4096]), LEAF);
        frames.pin(pinned);
        (200..220).for_each(|page| read(&mut frames, page));
        assert!((0..10).all(|page| frames.contains(PageNo(page))));
        assert!(frames.contains(PageNo(100)));
        frames.unpin(pinned);
        (300..320).for_each(|page| read(&mut frames, page));
        assert!(!frames.contains(PageNo(100)));
    }

    #[test]
    fn pinned_frames_are_passed_over_once_and_come_back_when_they_are_unpinned() {
        let mut frames = Frames::new(4096, 4 * 4096, MemoryAhead::default());
        let pinned: Vec<_> = (0..100)
            .map(|page| {
                let id = frames.insert_clean(PageNo(page), Bytes::from(vec![0; 4096]), LEAF);
                frames.pin(id);
                frames.evict();
                id
            })
            .collect();
        assert_eq!((frames.resident_bytes(), frames.replacement.len()), (100 * 4096, 0));
        pinned.into_iter().for_each(|id| frames.unpin(id));
        frames.evict();
        assert!(frames.resident_bytes() <= 4 * 4096);
    }

    #[test]
    fn an_obsolete_frozen_page_goes_when_it_is_written() {
        let mut frames = Frames::new(4096, 4 * 4096, MemoryAhead::default());
        let running = CheckpointNo(1);
        for page in [1, 2] {
            frames.create(PageNo(page), LEAF, running);
        }
        frames.forget(PageNo(1), Some(running));
        assert!(frames.contains(PageNo(1)));
        frames.written(PageNo(1), running);
        frames.written(PageNo(2), running);
        assert!(!frames.contains(PageNo(1)) && frames.contains(PageNo(2)));
        assert_eq!((frames.dirty_bytes(), frames.resident_bytes()), (0, 4096));
    }

    #[test]
    fn frames_that_come_and_go_leave_no_trace_behind() {
        let mut frames = Frames::new(4096, 1 << 30, MemoryAhead::default());
        for page in 0..10_000 {
            frames.insert_clean(PageNo(page), Bytes::from_static(&[0; 4096]), LEAF);
            frames.discard(PageNo(page));
        }
        assert!(frames.replacement.len() < 200, "{} queue entries", frames.replacement.len());
        assert_eq!(frames.resident_bytes(), 0);
    }
}
