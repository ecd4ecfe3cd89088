//! A FlatBuffer under construction, with the scratch space that lists of tables need. Nothing is allocated once it has
//! grown to the size of the messages that are sent.

use std::fmt::{self, Write as _};

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Push, Vector, WIPOffset};
use mesh_base::ClusterId;
use mesh_base::limits::TEXT_BYTES_MAX;

use crate::generated::mesh::wire as fb;
use crate::message::TraceId;

/// A vector of byte strings, numbers or structs.
pub(crate) type Of<T> = WIPOffset<Vector<'static, T>>;
/// A vector of tables or strings.
pub(crate) type OfTables<T> = Of<ForwardsUOffset<T>>;

/// What a root table's builder returns: where it is, its type forgotten.
#[derive(Clone, Copy)]
pub struct Root(u32);

impl<T> From<WIPOffset<T>> for Root {
    fn from(offset: WIPOffset<T>) -> Self {
        Self(offset.value())
    }
}

/// A FlatBuffer under construction.
pub struct Builder {
    pub(crate) flat: FlatBufferBuilder<'static>,
    /// Tables of lists under construction; a list inside a list is on top of it.
    offsets: Vec<u32>,
    text: String,
}

impl Builder {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { flat: FlatBufferBuilder::with_capacity(bytes), offsets: Vec::new(), text: String::new() }
    }

    /// Forgets what was built and keeps the memory.
    pub(crate) fn reset(&mut self) {
        self.flat.reset();
        self.offsets.clear();
    }

    /// The memory, and where in it the finished payload begins; it ends at the end.
    pub(crate) fn into_memory(self) -> (Vec<u8>, usize) {
        self.flat.collapse()
    }

    pub(crate) fn finish(&mut self, root: Root) -> &[u8] {
        debug_assert!(self.offsets.is_empty(), "a list was left open");
        self.flat.finish_minimal(WIPOffset::<()>::new(root.0));
        self.flat.finished_data()
    }

    /// A byte vector. Written as a string is, with a zero behind it that does not count, because that is a plain copy
    /// where the library's own vectors are written element by element.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Of<u8> {
        WIPOffset::new(self.flat.create_byte_string(bytes).value())
    }

    /// A byte vector; absent if it is empty.
    pub(crate) fn bytes_if_any(&mut self, bytes: &[u8]) -> Option<Of<u8>> {
        (!bytes.is_empty()).then(|| self.bytes(bytes))
    }

    /// A name: a string that was found short enough.
    pub(crate) fn name(&mut self, name: &str) -> WIPOffset<&'static str> {
        WIPOffset::new(self.flat.create_byte_string(name.as_bytes()).value())
    }

    /// A text for people, cut to its limit.
    pub(crate) fn text(&mut self, text: &str) -> WIPOffset<&'static str> {
        self.name(text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text))
    }

    /// A text for people, cut to its limit; absent if it is empty.
    pub(crate) fn text_if_any(&mut self, text: &str) -> Option<WIPOffset<&'static str>> {
        (!text.is_empty()).then(|| self.text(text))
    }

    /// What something displays, cut to its limit.
    pub(crate) fn display(&mut self, what: &impl fmt::Display) -> WIPOffset<&'static str> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        // Writing to a string fails only if the displayed thing says so; what it wrote until then stands.
        let _ = write!(text, "{what}");
        let offset = self.text(&text);
        text.shrink_to(TEXT_BYTES_MAX);
        self.text = text;
        offset
    }

    /// A vector of what `build` makes of each item.
    pub(crate) fn list<I, T>(
        &mut self,
        items: impl Iterator<Item = I>,
        build: impl Fn(&mut Self, I) -> WIPOffset<T>,
    ) -> OfTables<T> {
        let bottom = self.offsets.len();
        for item in items {
            let offset = build(self, item).value();
            self.offsets.push(offset);
        }
        let count = self.offsets.len() - bottom;
        self.flat.start_vector::<WIPOffset<T>>(count);
        for offset in self.offsets.drain(bottom..).rev() {
            self.flat.push(WIPOffset::<T>::new(offset));
        }
        WIPOffset::new(self.flat.end_vector::<WIPOffset<T>>(count).value())
    }

    /// A vector of numbers or structs.
    pub(crate) fn flat_list<T: Push + 'static>(
        &mut self,
        items: impl DoubleEndedIterator<Item = T> + ExactSizeIterator,
    ) -> Of<T::Output> {
        let count = items.len();
        self.flat.start_vector::<T>(count);
        for item in items.rev() {
            self.flat.push(item);
        }
        WIPOffset::new(self.flat.end_vector::<T>(count).value())
    }
}

/// Sixteen bytes as the schema has them.
pub(crate) fn id128(bytes: [u8; 16]) -> fb::Id128 {
    let bits = u128::from_le_bytes(bytes);
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    let (low, high) = (bits as u64, (bits >> 64) as u64);
    fb::Id128::new(low, high)
}

/// A cluster as the schema has it; absent if there is none.
pub(crate) fn cluster(id: Option<ClusterId>) -> Option<fb::Id128> {
    id.map(|id| id128(id.0))
}

/// A trace as the schema has it.
pub(crate) fn trace(id: Option<TraceId>) -> Option<fb::Id128> {
    id.map(|id| id128(id.0))
}

/// The bytes of an id in a message.
pub(crate) fn read_id128(id: &fb::Id128) -> [u8; 16] {
    (u128::from(id.low()) | u128::from(id.high()) << 64).to_le_bytes()
}
