//! Answers that are given so often that the layout of their payloads is kept: a message of the same shape is filled into a copy
//! of one that was built before.
//!
//! Two messages have the same shape if the same fields are present and their byte strings have the same lengths. A field with its
//! default is absent, so the shapes that are kept are those whose numbers are not 0.
//!
//! Invariant: what is filled in is, byte for byte, what the builder would build.

use mesh_base::Revision;

use crate::builder::Builder;
use crate::generated::mesh::wire as fb;
use crate::header::HEADER_BYTES;
use crate::message::{GetAnswer, Item, Message, Written};
use crate::views::Response;

/// Longer values are not worth it: copying them costs more than the layout.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// The layouts of the messages that were written last.
#[derive(Default)]
pub(crate) struct Forms {
    item: Option<ItemForm>,
    written: Option<WrittenForm>,
}

/// A [`GetAnswer`] of a plain item.
struct ItemForm {
    payload: Vec<u8>,
    value_bytes: usize,
    value_at: usize,
    revision_at: usize,
    create_revision_at: usize,
    version_at: usize,
    answer_revision_at: usize,
}

/// A [`Written`].
struct WrittenForm {
    payload: Vec<u8>,
    revision_at: usize,
}

impl Forms {
    /// The payload of an answer behind room for its header, if it is of a shape that is kept.
    pub(crate) fn fill(&mut self, answer: &Response<'_>, scratch: &mut Builder) -> Option<Vec<u8>> {
        match answer {
            Response::Get(answer) => self.get_answer(answer, scratch),
            Response::Written(answer) => self.written(answer, scratch),
            _ => None,
        }
    }

    fn get_answer(&mut self, answer: &GetAnswer<'_>, scratch: &mut Builder) -> Option<Vec<u8>> {
        let item = answer.item.filter(|item| is_plain(item, answer.revision))?;
        if self.item.as_ref().is_none_or(|form| form.value_bytes != item.value.len()) {
            self.item = ItemForm::learn(answer, scratch);
        }
        let form = self.item.as_ref()?;
        let mut frame = copy(&form.payload);
        let payload = frame.get_mut(HEADER_BYTES..)?;
        payload.get_mut(form.value_at..form.value_at + item.value.len())?.copy_from_slice(item.value);
        set(payload, form.revision_at, item.revision.0)?;
        set(payload, form.create_revision_at, item.create_revision.0)?;
        set(payload, form.version_at, item.version)?;
        set(payload, form.answer_revision_at, answer.revision.0)?;
        Some(frame)
    }

    fn written(&mut self, answer: &Written, scratch: &mut Builder) -> Option<Vec<u8>> {
        if answer.revision == Revision::ZERO {
            return None;
        }
        if self.written.is_none() {
            self.written = WrittenForm::learn(answer, scratch);
        }
        let form = self.written.as_ref()?;
        let mut frame = copy(&form.payload);
        set(frame.get_mut(HEADER_BYTES..)?, form.revision_at, answer.revision.0)?;
        Some(frame)
    }
}

/// A payload behind room for its header.
fn copy(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&[0; HEADER_BYTES]);
    frame.extend_from_slice(payload);
    frame
}

/// Whether exactly the fields are present that an [`ItemForm`] has.
fn is_plain(item: &Item<'_>, revision: Revision) -> bool {
    let numbers = [item.revision.0, item.create_revision.0, item.version, revision.0];
    !numbers.contains(&0)
        && item.lease == 0
        && item.type_tag == 0
        && (1..=VALUE_BYTES_MAX).contains(&item.value.len())
}

impl ItemForm {
    fn learn(answer: &GetAnswer<'_>, scratch: &mut Builder) -> Option<Self> {
        let payload = build(answer, scratch);
        let table = flatbuffers::root::<fb::GetAnswer<'_>>(&payload).ok()?;
        let item = table.item()?;
        let value = item.value()?.bytes();
        let form = Self {
            value_bytes: value.len(),
            value_at: value.as_ptr().addr() - payload.as_ptr().addr(),
            revision_at: field(&item._tab, fb::Item::VT_REVISION)?,
            create_revision_at: field(&item._tab, fb::Item::VT_CREATE_REVISION)?,
            version_at: field(&item._tab, fb::Item::VT_VERSION)?,
            answer_revision_at: field(&table._tab, fb::GetAnswer::VT_REVISION)?,
            payload: Vec::new(),
        };
        Some(Self { payload, ..form })
    }
}

impl WrittenForm {
    fn learn(answer: &Written, scratch: &mut Builder) -> Option<Self> {
        let payload = build(answer, scratch);
        let table = flatbuffers::root::<fb::Written<'_>>(&payload).ok()?;
        let revision_at = field(&table._tab, fb::Written::VT_REVISION)?;
        Some(Self { payload, revision_at })
    }
}

fn build<'a>(message: &impl Message<'a>, scratch: &mut Builder) -> Vec<u8> {
    scratch.reset();
    let root = message.build(scratch);
    scratch.finish(root).to_vec()
}

/// Where in the payload a field of a table is, if it is present.
fn field(table: &flatbuffers::Table<'_>, of: flatbuffers::VOffsetT) -> Option<usize> {
    let offset = usize::from(table.vtable().get(of));
    (offset != 0).then(|| table.loc() + offset)
}

fn set(payload: &mut [u8], at: usize, number: u64) -> Option<()> {
    payload.get_mut(at..at + size_of::<u64>())?.copy_from_slice(&number.to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::{Envelope, FrameWriter};

    /// A writer that keeps forms must say what one says that has none yet, whatever it wrote before.
    fn is_the_same(kept: &mut FrameWriter, response: &Response<'_>) {
        let envelope = Envelope::default();
        let built = FrameWriter::new().frame(&envelope, response).unwrap();
        assert_eq!(kept.answer(&envelope, response).unwrap(), built, "{response:?}");
    }

    quickcheck! {
        fn what_is_filled_in_is_what_is_built(answers: Vec<(Vec<u8>, [u8; 4], u8, bool)>) -> bool {
            let mut writer = FrameWriter::new();
            for (value, [revision, create, version, at], rare, exists) in answers {
                let item = Item {
                    // Few lengths, so that forms are used again.
                    value: &value[..value.len().min(usize::from(rare % 3))],
                    revision: Revision(u64::from(revision) + 1),
                    create_revision: Revision(u64::from(create)),
                    version: u64::from(version),
                    lease: u64::from(rare > 200),
                    type_tag: u8::from(rare > 230),
                };
                let answer = GetAnswer { item: exists.then_some(item), revision: Revision(at.into()) };
                is_the_same(&mut writer, &Response::Get(answer));
                is_the_same(&mut writer, &Response::Written(Written { revision: Revision(revision.into()) }));
            }
            true
        }
    }

    #[test]
    fn numbers_and_values_of_all_sizes_are_filled_in() {
        let mut writer = FrameWriter::new();
        for bytes in [1, 7, 256, 256, 256, 4096, VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 256, 70_000] {
            let value: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            for number in [1, 0x1122_3344_5566_7788, u64::MAX] {
                let item = Item {
                    value: &value,
                    revision: Revision(number),
                    create_revision: Revision(number / 3 + 1),
                    version: number / 5 + 1,
                    ..Item::default()
                };
                let answer = GetAnswer { item: Some(item), revision: Revision(number / 7 + 1) };
                is_the_same(&mut writer, &Response::Get(answer));
            }
        }
    }

    #[test]
    fn an_answer_that_is_against_the_rules_is_refused_as_ever() {
        let answer = GetAnswer { item: Some(Item::default()), revision: Revision(1) };
        assert!(FrameWriter::new().answer(&Envelope::default(), &Response::Get(answer)).is_err());
    }
}
