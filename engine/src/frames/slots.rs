//! Numbered places for frames, which are given out again when a frame is gone.

use std::cell::Cell;

use super::Frame;

/// Most that a frame's heat rises to.
pub(super) const HEAT_MAX: u8 = 3;

/// Set in the numbers of extents' slots.
const EXTENT: u32 = 1 << 31;

/// A slot of either kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotNo(u32);

/// The same, told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    Node(u32),
    Extent(u32),
}

impl SlotNo {
    pub(super) const fn node(at: u32) -> Self {
        Self(at)
    }

    pub(super) const fn extent(at: u32) -> Self {
        Self(at | EXTENT)
    }

    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u32 {
        self.0
    }

    /// The number among those of its kind.
    pub(super) const fn index(self) -> u32 {
        self.0 & !EXTENT
    }

    pub(super) const fn split(self) -> Slot {
        if self.0 & EXTENT == 0 { Slot::Node(self.index()) } else { Slot::Extent(self.index()) }
    }
}

/// Names one stay of a page in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameId {
    slot: SlotNo,
    generation: u32,
}

impl FrameId {
    pub(super) const fn slot(self) -> SlotNo {
        self.slot
    }
}

struct Entry<T> {
    generation: u32,
    content: Option<(Frame, T)>,
}

/// Slots of one kind, with what a frame of that kind has beside.
pub(super) struct Slots<T> {
    entries: Vec<Entry<T>>,
    /// How often each frame was used lately; apart, because every lookup counts.
    heats: Vec<Cell<u8>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), heats: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Puts a frame into a free slot.
    pub(super) fn insert(&mut self, frame: Frame, content: T) -> u32 {
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, content: None });
            self.heats.push(Cell::new(0));
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        assert!(at < EXTENT - 1, "more frames than slots can be numbered");
        if let Some(entry) = self.entries.get_mut(at as usize) {
            entry.content = Some((frame, content));
        }
        self.set_heat(at, 0);
        at
    }

    /// Takes a frame out.
    pub(super) fn remove(&mut self, at: u32) -> Option<Frame> {
        let entry = self.entries.get_mut(at as usize)?;
        let (frame, _) = entry.content.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.vacant.push(at);
        Some(frame)
    }

    pub(super) fn frame(&self, at: u32) -> Option<&Frame> {
        self.entries.get(at as usize)?.content.as_ref().map(|(frame, _)| frame)
    }

    pub(super) fn frame_mut(&mut self, at: u32) -> Option<&mut Frame> {
        self.entries.get_mut(at as usize)?.content.as_mut().map(|(frame, _)| frame)
    }

    pub(super) fn content(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)?.content.as_ref().map(|(_, content)| content)
    }

    /// The present stay of the frame in a slot.
    pub(super) fn id(&self, slot: SlotNo, at: u32) -> Option<FrameId> {
        Some(FrameId { slot, generation: self.entries.get(at as usize)?.generation })
    }

    /// Whether a stay goes on.
    pub(super) fn is_live(&self, id: FrameId, at: u32) -> bool {
        self.entries.get(at as usize).is_some_and(|entry| entry.generation == id.generation)
    }

    /// Notes a use.
    pub(super) fn warm(&self, at: u32) {
        if let Some(heat) = self.heats.get(at as usize)
            && heat.get() < HEAT_MAX
        {
            heat.set(heat.get() + 1);
        }
    }

    /// Notes a use, once.
    pub(super) fn warm_once(&self, at: u32) {
        if let Some(heat) = self.heats.get(at as usize)
            && heat.get() == 0
        {
            heat.set(1);
        }
    }

    pub(super) fn heat(&self, at: u32) -> u8 {
        self.heats.get(at as usize).map_or(0, Cell::get)
    }

    pub(super) fn set_heat(&self, at: u32, degrees: u8) {
        if let Some(heat) = self.heats.get(at as usize) {
            heat.set(degrees);
        }
    }
}
