//! Reads of keys, and their answers. All keys of a request are of the shard that its frame names.

use std::fmt;

use flatbuffers::WIPOffset;
use mesh_base::Revision;
use mesh_base::limits::{BATCH_OPS_MAX, KEY_BYTES_MAX, RANGE_ITEMS_MAX};

use super::{ELEMENT_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES, Message, ReadContext, bytes_of};
use crate::builder::{Builder, OfTables, Root};
use crate::direct::Table;
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure, key, value};
use crate::{List, WireError};

/// Keys of a batch: at least one, not too many, each a key.
pub(super) fn check_keys(keys: List<'_, &[u8]>) -> Result<(), WireError> {
    ensure!(!keys.is_empty(), "an empty batch");
    at_most("keys of a batch", keys.len(), BATCH_OPS_MAX)?;
    keys.iter().try_for_each(key)
}

pub(super) fn build_keys(keys: List<'_, &[u8]>, to: &mut Builder) -> OfTables<fb::Key<'static>> {
    to.list(keys.iter(), |to, key| {
        let args = fb::KeyArgs { key: Some(to.bytes(key)) };
        fb::Key::create(&mut to.flat, &args)
    })
}

pub(super) fn keys_hint(keys: List<'_, &[u8]>) -> usize {
    MESSAGE_OVERHEAD_BYTES + keys.iter().map(|key| key.len() + ELEMENT_OVERHEAD_BYTES).sum::<usize>()
}

/// Items of an answer, in the order of what was asked for: not too many, each an item.
pub(super) fn check_items(what: &'static str, items: List<'_, Option<Item<'_>>>) -> Result<(), WireError> {
    at_most(what, items.len(), BATCH_OPS_MAX)?;
    items.iter().flatten().try_for_each(|item| item.check())
}

pub(super) fn build_items(
    items: List<'_, Option<Item<'_>>>,
    to: &mut Builder,
) -> OfTables<fb::Item<'static>> {
    to.list(items.iter(), |to, item| item.unwrap_or_default().build(None, to))
}

pub(super) fn items_hint(items: List<'_, Option<Item<'_>>>) -> usize {
    let items = items.iter().map(|item| item.map_or(0, |item| item.value.len()) + ELEMENT_OVERHEAD_BYTES);
    MESSAGE_OVERHEAD_BYTES + items.sum::<usize>()
}

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Item<'a> {
    /// The value; empty if only keys were asked for.
    pub value: &'a [u8],
    /// The revision of the last change. Never 0.
    pub revision: Revision,
    /// The revision at which the key came to be.
    pub create_revision: Revision,
    /// How often the key was written since it came to be, from 1.
    pub version: u64,
    /// The lease that the key lives by; 0 for none.
    pub lease: u64,
    /// What the writer says the value is; 0 for plain bytes.
    pub type_tag: u8,
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("value", &bytes_of(self.value))
            .field("revision", &self.revision)
            .field("create_revision", &self.create_revision)
            .field("version", &self.version)
            .field("lease", &self.lease)
            .field("type_tag", &self.type_tag)
            .finish()
    }
}

impl<'a> Item<'a> {
    /// What is in place of an item that does not exist has revision 0.
    pub(crate) fn view(wire: fb::Item<'a>) -> Option<Self> {
        (wire.revision() != 0).then(|| Self::view_present(wire))
    }

    fn view_present(wire: fb::Item<'a>) -> Self {
        Self {
            value: wire.value().map(|value| value.bytes()).unwrap_or_default(),
            revision: Revision(wire.revision()),
            create_revision: Revision(wire.create_revision()),
            version: wire.version(),
            lease: wire.lease(),
            type_tag: wire.type_tag(),
        }
    }

    fn check(&self) -> Result<(), WireError> {
        ensure!(self.revision != Revision::ZERO, "an item's revision");
        value(self.value)
    }

    fn build(&self, key: Option<&[u8]>, to: &mut Builder) -> WIPOffset<fb::Item<'static>> {
        let key = key.map(|key| to.bytes(key));
        let value = to.bytes_if_any(self.value);
        let args = fb::ItemArgs {
            key,
            value,
            revision: self.revision.0,
            create_revision: self.create_revision.0,
            version: self.version,
            lease: self.lease,
            type_tag: self.type_tag,
        };
        fb::Item::create(&mut to.flat, &args)
    }
}

/// An item of a range.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeItem<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What it holds.
    pub item: Item<'a>,
}

impl fmt::Debug for RangeItem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeItem").field("key", &bytes_of(self.key)).field("item", &self.item).finish()
    }
}

impl<'a> RangeItem<'a> {
    pub(crate) fn view(wire: fb::Item<'a>) -> Self {
        Self { key: wire.key().map(|key| key.bytes()).unwrap_or_default(), item: Item::view_present(wire) }
    }
}

/// Reads a key.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Get<'a> {
    /// What the read carries.
    pub ctx: ReadContext<'a>,
    /// The key.
    pub key: &'a [u8],
    /// The revision to read at; 0 for the newest.
    pub at: Revision,
}

impl fmt::Debug for Get<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("ctx", &self.ctx)
            .field("key", &bytes_of(self.key))
            .field("at", &self.at)
            .finish()
    }
}

impl<'a> Message<'a> for Get<'a> {
    type Table = fb::Get<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        let ctx = ReadContext::view(table.ctx());
        Ok(Self { ctx, key: table.key().bytes(), at: Revision(table.at()) })
    }

    #[inline]
    fn read_directly(payload: &'a [u8]) -> Option<Self> {
        let table = Table::root(payload)?;
        Some(Self {
            ctx: ReadContext::read_directly(table.table(fb::Get::VT_CTX)?)?,
            key: table.bytes(fb::Get::VT_KEY)?,
            at: Revision(table.u64(fb::Get::VT_AT)?),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        key(self.key)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let args = fb::GetArgs { ctx, key: Some(to.bytes(self.key)), at: self.at.0 };
        fb::Get::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.ctx.size_hint() + self.key.len()
    }
}

/// Answers [`Get`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GetAnswer<'a> {
    /// What the key holds, if it exists.
    pub item: Option<Item<'a>>,
    /// The revision that the answer is of: nothing at or below it is missing.
    pub revision: Revision,
}

impl<'a> Message<'a> for GetAnswer<'a> {
    type Table = fb::GetAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { item: table.item().and_then(Item::view), revision: Revision(table.revision()) })
    }

    fn check(&self) -> Result<(), WireError> {
        self.item.map_or(Ok(()), |item| item.check())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let item = self.item.map(|item| item.build(None, to));
        fb::GetAnswer::create(&mut to.flat, &fb::GetAnswerArgs { item, revision: self.revision.0 }).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.item.map_or(0, |item| item.value.len())
    }
}

/// Reads several keys, all at one revision.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GetBatch<'a> {
    /// What the read carries.
    pub ctx: ReadContext<'a>,
    /// The keys.
    pub keys: List<'a, &'a [u8]>,
    /// The revision to read at; 0 for the newest.
    pub at: Revision,
}

impl<'a> Message<'a> for GetBatch<'a> {
    type Table = fb::GetBatch<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        let ctx = ReadContext::view(table.ctx());
        Ok(Self { ctx, keys: table.keys().into(), at: Revision(table.at()) })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        check_keys(self.keys)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let args = fb::GetBatchArgs { ctx, keys: Some(build_keys(self.keys, to)), at: self.at.0 };
        fb::GetBatch::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        self.ctx.size_hint() + keys_hint(self.keys)
    }
}

/// Answers [`GetBatch`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GetBatchAnswer<'a> {
    /// What the first keys of the request hold, in their order. All of them, unless a frame does not hold so much:
    /// then at least one, and the rest is to be asked for again, at the answer's revision.
    pub items: List<'a, Option<Item<'a>>>,
    /// The revision that the answer is of.
    pub revision: Revision,
}

impl<'a> Message<'a> for GetBatchAnswer<'a> {
    type Table = fb::GetBatchAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { items: table.items().into(), revision: Revision(table.revision()) })
    }

    fn check(&self) -> Result<(), WireError> {
        check_items("items of a batch", self.items)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let items = build_items(self.items, to);
        let args = fb::GetBatchAnswerArgs { items: Some(items), revision: self.revision.0 };
        fb::GetBatchAnswer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        items_hint(self.items)
    }
}

/// Reads keys of a shard in order, a page at a time. The client merges the shards.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Range<'a> {
    /// What the read carries.
    pub ctx: ReadContext<'a>,
    /// The least key, included; empty for the first there is.
    pub from: &'a [u8],
    /// The key to stop before; empty for none.
    pub to: &'a [u8],
    /// The last key of the page before: only what comes after it, in the range's order, is wanted.
    pub after: Option<&'a [u8]>,
    /// Items of a page, at most; 0, or more than the server's limit, for that limit.
    pub limit: u32,
    /// Bytes of the keys and values of a page, the first item aside; 0, or more than the server's limit, for that
    /// limit.
    pub bytes: u32,
    /// No values.
    pub keys_only: bool,
    /// From the greatest key down.
    pub reverse: bool,
    /// The revision to read at; 0 for the newest. Later pages ask for the revision of the first page's answer.
    pub at: Revision,
}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range")
            .field("ctx", &self.ctx)
            .field("from", &bytes_of(self.from))
            .field("to", &bytes_of(self.to))
            .field("after", &self.after.map(bytes_of))
            .field("limit", &self.limit)
            .field("bytes", &self.bytes)
            .field("keys_only", &self.keys_only)
            .field("reverse", &self.reverse)
            .field("at", &self.at)
            .finish()
    }
}

/// A bound may be one byte longer than a key, so that it can be the least above one.
pub(super) fn check_bound(bound: &[u8]) -> Result<(), WireError> {
    at_most("bytes of a bound", bound.len(), KEY_BYTES_MAX + 1)
}

impl<'a> Message<'a> for Range<'a> {
    type Table = fb::Range<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            ctx: ReadContext::view(table.ctx()),
            from: table.from().bytes(),
            to: table.to().bytes(),
            after: table.after().map(|key| key.bytes()),
            limit: table.limit(),
            bytes: table.bytes(),
            keys_only: table.keys_only(),
            reverse: table.reverse(),
            at: Revision(table.at()),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        check_bound(self.from)?;
        check_bound(self.to)?;
        self.after.map_or(Ok(()), check_bound)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let after = self.after.map(|key| to.bytes(key));
        let args = fb::RangeArgs {
            ctx,
            from: Some(to.bytes(self.from)),
            to: Some(to.bytes(self.to)),
            after,
            limit: self.limit,
            bytes: self.bytes,
            keys_only: self.keys_only,
            reverse: self.reverse,
            at: self.at.0,
        };
        fb::Range::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let bounds = self.from.len() + self.to.len() + self.after.map_or(0, <[u8]>::len);
        MESSAGE_OVERHEAD_BYTES + self.ctx.size_hint() + bounds
    }
}

/// Answers [`Range`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RangeAnswer<'a> {
    /// The items, in the range's order.
    pub items: List<'a, RangeItem<'a>>,
    /// Whether there may be more after the last of them.
    pub more: bool,
    /// The revision that the answer is of.
    pub revision: Revision,
}

impl<'a> Message<'a> for RangeAnswer<'a> {
    type Table = fb::RangeAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { items: table.items().into(), more: table.more(), revision: Revision(table.revision()) })
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("items of a range", self.items.len(), RANGE_ITEMS_MAX)?;
        self.items.iter().try_for_each(|item| {
            key(item.key)?;
            item.item.check()
        })
    }

    fn build(&self, to: &mut Builder) -> Root {
        let items = to.list(self.items.iter(), |to, item| item.item.build(Some(item.key), to));
        let args = fb::RangeAnswerArgs { items: Some(items), more: self.more, revision: self.revision.0 };
        fb::RangeAnswer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let items =
            self.items.iter().map(|item| item.key.len() + item.item.value.len() + ELEMENT_OVERHEAD_BYTES);
        MESSAGE_OVERHEAD_BYTES + items.sum::<usize>()
    }
}
