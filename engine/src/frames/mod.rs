//! Pages and extents in memory.
//!
//! Invariants:
//! - A frame is clean (a read of the file brings the same bytes) or dirty for one checkpoint. Only clean, unpinned frames are
//!   evicted.
//! - A page's content never changes under its number once a checkpoint was begun: a later change is made to a copy
//!   under a new number. So a frame that is frozen for a running checkpoint needs no copy of its own.
//! - A page number names at most one frame, and that frame is of the page's newest use: when a number is handed out
//!   again, what was there is discarded first.

mod hash;
mod replacement;

use std::cell::Cell;
use std::collections::HashMap;

use bytes::Bytes;
use mesh_base::{CheckpointNo, PageNo, Revision};

use self::hash::PageHash;
use self::replacement::{Place, Replacement};
use crate::page::Expected;

/// Most that a frame's heat rises to.
const HEAT_MAX: u8 = 3;

/// Names one stay of a page in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameId {
    slot: u32,
    generation: u32,
}

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

enum FrameBytes {
    /// May be changed.
    Owned(Vec<u8>),
    /// Read from the disk, or on its way there.
    Shared(Bytes),
}

impl FrameBytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

struct Frame {
    page: PageNo,
    bytes: FrameBytes,
    expected: Expected,
    state: FrameState,
    pins: u32,
    heat: Cell<u8>,
    place: Place,
    /// The horizon up to which this leaf was cleared of garbage.
    collected: Revision,
}

impl Frame {
    fn len(&self) -> usize {
        self.bytes.as_slice().len()
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    frame: Option<Frame>,
}

/// All frames of a store.
pub(crate) struct Frames {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_page: HashMap<PageNo, u32, PageHash>,
    replacement: Replacement,
    bytes_max: usize,
    clean_bytes: usize,
    dirty_bytes: usize,
}

impl Frames {
    /// No frames, with a budget in bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_page: HashMap::default(),
            replacement: Replacement::default(),
            bytes_max,
            clean_bytes: 0,
            dirty_bytes: 0,
        }
    }

    /// Bytes of frames that a checkpoint has to write.
    pub(crate) const fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes of all frames.
    pub(crate) const fn resident_bytes(&self) -> usize {
        self.dirty_bytes + self.clean_bytes
    }

    /// The bytes of a page, and a use of it noted for the replacement policy.
    pub(crate) fn get(&self, page: PageNo) -> Option<&[u8]> {
        let frame = self.frame(page)?;
        let heat = frame.heat.get();
        if heat < HEAT_MAX {
            frame.heat.set(heat + 1);
        }
        Some(frame.bytes.as_slice())
    }

    /// The bytes of a page, noted as used once however often this is called: for scans, which would otherwise push
    /// everything else out.
    pub(crate) fn get_once(&self, page: PageNo) -> Option<&[u8]> {
        let frame = self.frame(page)?;
        if frame.heat.get() == 0 {
            frame.heat.set(1);
        }
        Some(frame.bytes.as_slice())
    }

    /// The bytes of a page, without a note of it: what only looks on changes nothing.
    pub(crate) fn peek(&self, page: PageNo) -> Option<&[u8]> {
        self.frame(page).map(|frame| frame.bytes.as_slice())
    }

    /// Whether a page is resident.
    pub(crate) fn contains(&self, page: PageNo) -> bool {
        self.by_page.contains_key(&page)
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
        let slot = *self.by_page.get(&page)?;
        Some(FrameId { slot, generation: self.slots.get(slot as usize)?.generation })
    }

    /// Brings in a page that was read.
    pub(crate) fn insert_clean(&mut self, page: PageNo, bytes: Bytes, expected: Expected) -> FrameId {
        self.clean_bytes += bytes.len();
        let id = self.insert(page, FrameBytes::Shared(bytes), expected, FrameState::Clean);
        self.enqueue(id);
        id
    }

    /// Brings in a page that was made for a checkpoint.
    pub(crate) fn insert_dirty(
        &mut self,
        page: PageNo,
        bytes: Vec<u8>,
        expected: Expected,
        checkpoint: CheckpointNo,
    ) {
        self.dirty_bytes += bytes.len();
        self.insert(page, FrameBytes::Owned(bytes), expected, FrameState::Dirty(checkpoint));
    }

    /// The bytes of a page that is dirty for `checkpoint`, to be changed.
    #[allow(clippy::panic, reason = "a page is made dirty before it is changed; anything else is our bug")]
    pub(crate) fn edit(&mut self, page: PageNo, checkpoint: CheckpointNo) -> &mut [u8] {
        let Some(Frame { bytes: FrameBytes::Owned(bytes), state, .. }) = self.frame_mut(page) else {
            panic!("{page} is not there to be changed")
        };
        let (FrameState::Dirty(dirty) | FrameState::Obsolete(dirty)) = *state else {
            panic!("{page} is clean")
        };
        assert_eq!(dirty, checkpoint, "{page} is dirty for another checkpoint");
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

    /// The bytes of a sealed page as a buffer that a write can hold on to.
    pub(crate) fn share(&mut self, page: PageNo) -> Option<Bytes> {
        let frame = self.frame_mut(page)?;
        if let FrameBytes::Owned(bytes) = &mut frame.bytes {
            frame.bytes = FrameBytes::Shared(std::mem::take(bytes).into());
        }
        match &frame.bytes {
            FrameBytes::Shared(bytes) => Some(bytes.clone()),
            FrameBytes::Owned(_) => None,
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
        let Some(slot_no) = self.by_page.remove(&page) else { return };
        let Some(slot) = self.slots.get_mut(slot_no as usize) else { return };
        let Some(frame) = slot.frame.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.push(slot_no);
        match frame.state {
            FrameState::Clean => {
                self.clean_bytes -= frame.len();
                self.replacement.left(frame.place, frame.len());
            }
            FrameState::Dirty(_) | FrameState::Obsolete(_) => self.dirty_bytes -= frame.len(),
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
                let length = frame.len();
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
            let length = frame.len();
            self.replacement.enter(id, Place::Main, length);
        }
    }

    /// Evicts clean frames until the budget is met or nothing more can go.
    pub(crate) fn evict(&mut self) {
        let allowed = self.bytes_max.saturating_sub(self.dirty_bytes).max(self.bytes_max / 8);
        // Each frame is met at most once per degree of heat, and once more to go.
        let mut attempts = self.replacement.len() * (usize::from(HEAT_MAX) + 1);
        while self.clean_bytes > allowed && attempts > 0 {
            attempts -= 1;
            let Some((id, place)) = self.replacement.next(self.clean_bytes) else { return };
            self.evict_or_keep(id, place);
        }
    }

    fn evict_or_keep(&mut self, id: FrameId, place: Place) {
        let Some(frame) = self.frame_of(id) else { return };
        let (page, length, heat, pinned) = (frame.page, frame.len(), frame.heat.get(), frame.pins > 0);
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
        frame.heat.set(if place == Place::Small { 0 } else { heat - 1 });
        self.replacement.left(place, length);
        self.replacement.enter(id, Place::Main, length);
    }

    fn insert(&mut self, page: PageNo, bytes: FrameBytes, expected: Expected, state: FrameState) -> FrameId {
        assert!(!self.contains(page), "{page} is resident already");
        let slot_no = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let frame = Frame {
            page,
            bytes,
            expected,
            state,
            pins: 0,
            heat: Cell::new(0),
            place: Place::Small,
            collected: Revision::ZERO,
        };
        self.by_page.insert(page, slot_no);
        let mut generation = 0;
        if let Some(slot) = self.slots.get_mut(slot_no as usize) {
            slot.frame = Some(frame);
            generation = slot.generation;
        }
        FrameId { slot: slot_no, generation }
    }

    /// Puts a frame that became clean under the replacement policy.
    fn enqueue(&mut self, id: FrameId) {
        let Some(frame) = self.frame_of(id) else { return };
        let (page, length, heat) = (frame.page, frame.len(), frame.heat.get());
        // What was used again while it was dirty has shown its worth, like what was evicted a moment ago.
        let place = if heat > 1 || self.replacement.remembers(page) { Place::Main } else { Place::Small };
        if let Some(frame) = self.frame_of(id) {
            frame.place = place;
        }
        self.replacement.enter(id, place, length);
        let slots = &self.slots;
        self.replacement.tidy(self.by_page.len(), |id| {
            slots.get(id.slot as usize).is_some_and(|slot| slot.generation == id.generation)
        });
    }

    fn frame(&self, page: PageNo) -> Option<&Frame> {
        let slot = *self.by_page.get(&page)?;
        self.slots.get(slot as usize)?.frame.as_ref()
    }

    fn frame_mut(&mut self, page: PageNo) -> Option<&mut Frame> {
        let slot = *self.by_page.get(&page)?;
        self.slots.get_mut(slot as usize)?.frame.as_mut()
    }

    fn frame_of(&mut self, id: FrameId) -> Option<&mut Frame> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.frame.as_mut() } else { None }
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
        let mut frames = Frames::new(100 * 4096);
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
        let mut frames = Frames::new(4 * 4096);
        for page in 0..10 {
            frames.insert_dirty(PageNo(page), vec![0; 4096], LEAF, CheckpointNo(1));
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
        let mut frames = Frames::new(4 * 4096);
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
        let mut frames = Frames::new(4 * 4096);
        let running = CheckpointNo(1);
        for page in [1, 2] {
            frames.insert_dirty(PageNo(page), vec![0; 4096], LEAF, running);
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
        let mut frames = Frames::new(1 << 30);
        for page in 0..10_000 {
            frames.insert_clean(PageNo(page), Bytes::from_static(&[0; 64]), LEAF);
            frames.discard(PageNo(page));
        }
        assert!(frames.replacement.len() < 200, "{} queue entries", frames.replacement.len());
        assert_eq!(frames.resident_bytes(), 0);
    }
}
