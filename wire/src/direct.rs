//! Reading a payload without the generated verifier: for the messages that come in millions.
//!
//! The generated verifier builds the story of a failure while it descends, which costs more than the rest of a read. Here
//! what is looked at is verified as it is read; whoever finds nothing leaves the payload to the generated one, which says
//! what is wrong.
//!
//! Invariants:
//! - What is read here is accepted by the generated verifier and means the same.
//! - Every field of the table that the schema knows has to be looked at, as the verifier does.

use flatbuffers::VOffsetT;

/// A position in the payload, or a length.
type Offset = usize;

/// A table of a payload: what is read of it is checked then.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    payload: &'a [u8],
    at: Offset,
    /// Behind its length and that of the table's own bytes: the places of the fields.
    fields: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table that a payload is.
    #[inline]
    pub(crate) fn root(payload: &'a [u8]) -> Option<Self> {
        Self::at(payload, forward(payload, 0)?)
    }

    #[inline]
    fn at(payload: &'a [u8], at: Offset) -> Option<Self> {
        let back = i32::from_le_bytes(*aligned(payload, at)?);
        let vtable = usize::try_from(i64::try_from(at).ok()? - i64::from(back)).ok()?;
        let length = usize::from(u16::from_le_bytes(*aligned(payload, vtable)?));
        if !length.is_multiple_of(2) {
            return None;
        }
        let fields = payload.get(vtable..vtable.checked_add(length)?)?.get(4..)?;
        Some(Self { payload, at, fields })
    }

    /// Where a field is; nothing if it is absent.
    #[inline]
    fn place(&self, field: VOffsetT) -> Option<Offset> {
        let entry = self.fields.get(usize::from(field).checked_sub(4)?..)?.first_chunk()?;
        let offset = usize::from(u16::from_le_bytes(*entry));
        (offset != 0).then(|| self.at + offset)
    }

    /// A number; 0 if it is absent.
    #[inline]
    pub(crate) fn u64(&self, field: VOffsetT) -> Option<u64> {
        self.place(field)
            .map_or(Some(0), |at| aligned(self.payload, at).map(|bytes| u64::from_le_bytes(*bytes)))
    }

    /// A number; 0 if it is absent.
    #[inline]
    pub(crate) fn u32(&self, field: VOffsetT) -> Option<u32> {
        self.place(field)
            .map_or(Some(0), |at| aligned(self.payload, at).map(|bytes| u32::from_le_bytes(*bytes)))
    }

    /// A number; 0 if it is absent.
    #[inline]
    pub(crate) fn u8(&self, field: VOffsetT) -> Option<u8> {
        self.place(field).map_or(Some(0), |at| self.payload.get(at).copied())
    }

    /// Bytes that have to be there.
    #[inline]
    pub(crate) fn bytes(&self, field: VOffsetT) -> Option<&'a [u8]> {
        let at = forward(self.payload, self.place(field)?)?;
        let length = usize::try_from(u32::from_le_bytes(*aligned(self.payload, at)?)).ok()?;
        self.payload.get(at + 4..)?.get(..length)
    }

    /// A table inside of this one; nothing inside if it is absent.
    #[inline]
    pub(crate) fn table(&self, field: VOffsetT) -> Option<Option<Self>> {
        let Some(at) = self.place(field) else { return Some(None) };
        Self::at(self.payload, forward(self.payload, at)?).map(Some)
    }

    /// Whether a field is absent.
    #[inline]
    pub(crate) fn lacks(&self, field: VOffsetT) -> bool {
        self.place(field).is_none()
    }
}

/// Where the offset at a place leads.
#[inline]
fn forward(payload: &[u8], at: Offset) -> Option<Offset> {
    at.checked_add(usize::try_from(u32::from_le_bytes(*aligned(payload, at)?)).ok()?)
}

/// The bytes of a number, which begin at a multiple of how many they are.
#[inline]
fn aligned<const BYTES: usize>(payload: &[u8], at: Offset) -> Option<&[u8; BYTES]> {
    if !at.is_multiple_of(BYTES) {
        return None;
    }
    payload.get(at..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use mesh_base::prng::Prng;
    use mesh_base::{Revision, SessionId, SessionSeq};
    use quickcheck::quickcheck;

    use crate::builder::Builder;
    use crate::generated::mesh::wire as fb;
    use crate::message::{Get, Message, Put, ReadContext, TraceId, WriteContext};

    fn payload<'a>(message: &impl Message<'a>) -> Vec<u8> {
        let mut builder = Builder::with_capacity(64);
        let root = message.build(&mut builder);
        builder.finish(root).to_vec()
    }

    /// What is read directly must be what the generated code reads.
    fn agrees<'a, M>(payload: &'a [u8]) -> bool
    where
        M: Message<'a> + PartialEq + std::fmt::Debug,
    {
        let Some(direct) = M::read_directly(payload) else { return false };
        let table = flatbuffers::root::<M::Table>(payload).expect("the verifier accepts it as well");
        assert_eq!(direct, M::view(table).unwrap());
        true
    }

    quickcheck! {
        fn what_is_read_directly_is_what_the_generated_code_reads(
            key: Vec<u8>, value: Vec<u8>, numbers: (u64, u64, u32, u8), seed: u64
        ) -> bool {
            let (large, other, deadline_ms, tag) = numbers;
            let get = Get {
                ctx: ReadContext { deadline_ms, revision_seen: Revision(other), ..ReadContext::default() },
                key: &key,
                at: Revision(large),
            };
            let put = Put {
                ctx: WriteContext {
                    session: SessionId(Revision(large)),
                    seq: SessionSeq(other),
                    acknowledged_below: SessionSeq(1),
                    deadline_ms,
                    ..WriteContext::default()
                },
                key: &key,
                value: &value,
                lease: other % 2,
                type_tag: tag,
            };
            let (get, put) = (payload(&get), payload(&put));
            assert!(agrees::<Get<'_>>(&get) && agrees::<Put<'_>>(&put), "honest messages are read directly");
            // Damaged ones are read alike, or not at all.
            let mut prng = Prng::new(seed);
            for honest in [get, put] {
                for _ in 0..200 {
                    let mut damaged = honest.clone();
                    for _ in 0..prng.index(4) + 1 {
                        let at = prng.index(damaged.len().min(96));
                        damaged[at] = match prng.index(3) {
                            0 => damaged[at] ^ 1 << prng.index(8),
                            1 => damaged[at].wrapping_add(4),
                            _ => prng.next_u64().to_le_bytes()[0],
                        };
                    }
                    damaged.truncate(damaged.len() - prng.index(2) * prng.index(damaged.len()));
                    agrees::<Get<'_>>(&damaged);
                    agrees::<Put<'_>>(&damaged);
                }
            }
            true
        }
    }

    #[test]
    fn what_is_rare_is_left_to_the_generated_code() {
        let ctx = ReadContext { trace: Some(TraceId([7; 16])), ..ReadContext::default() };
        let get = payload(&Get { ctx, key: b"key", at: Revision(0) });
        assert!(!agrees::<Get<'_>>(&get));
        let table = flatbuffers::root::<fb::Get<'_>>(&get).unwrap();
        assert_eq!(Get::view(table).unwrap().ctx, ctx);
    }
}
