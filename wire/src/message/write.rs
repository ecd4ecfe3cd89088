//! Writes of keys, and their answers. All keys of a request are of the shard that its frame names.

use std::fmt;

use flatbuffers::WIPOffset;
use mesh_base::Revision;
use mesh_base::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX};

use super::read::{build_keys, check_keys, keys_hint};
use super::{ELEMENT_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES, Message, WriteContext, bytes_of};
use crate::builder::{Builder, Root};
use crate::direct::Table;
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure, key, value};
use crate::{List, WireError};

/// Writes a key.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Put<'a> {
    /// What the write carries.
    pub ctx: WriteContext<'a>,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The lease that the key is to live by; 0 for none.
    pub lease: u64,
    /// What the value is; 0 for plain bytes.
    pub type_tag: u8,
}

impl fmt::Debug for Put<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put")
            .field("ctx", &self.ctx)
            .field("key", &bytes_of(self.key))
            .field("value", &bytes_of(self.value))
            .field("lease", &self.lease)
            .field("type_tag", &self.type_tag)
            .finish()
    }
}

impl<'a> Message<'a> for Put<'a> {
    type Table = fb::Put<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            ctx: WriteContext::view(table.ctx()),
            key: table.key().bytes(),
            value: table.value().bytes(),
            lease: table.lease(),
            type_tag: table.type_tag(),
        })
    }

    #[inline]
    fn read_directly(payload: &'a [u8]) -> Option<Self> {
        let table = Table::root(payload)?;
        Some(Self {
            ctx: WriteContext::read_directly(table.table(fb::Put::VT_CTX)??)?,
            key: table.bytes(fb::Put::VT_KEY)?,
            value: table.bytes(fb::Put::VT_VALUE)?,
            lease: table.u64(fb::Put::VT_LEASE)?,
            type_tag: table.u8(fb::Put::VT_TYPE_TAG)?,
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        key(self.key)?;
        value(self.value)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let args = fb::PutArgs {
            ctx: Some(ctx),
            key: Some(to.bytes(self.key)),
            value: Some(to.bytes(self.value)),
            lease: self.lease,
            type_tag: self.type_tag,
        };
        fb::Put::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + self.ctx.size_hint() + self.key.len() + self.value.len()
    }
}

/// A key and what it is to hold.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl fmt::Debug for KeyValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &bytes_of(self.key))
            .field("value", &bytes_of(self.value))
            .finish()
    }
}

impl<'a> KeyValue<'a> {
    pub(crate) fn view(wire: fb::KeyValue<'a>) -> Self {
        Self { key: wire.key().bytes(), value: wire.value().bytes() }
    }

    fn build(self, to: &mut Builder) -> WIPOffset<fb::KeyValue<'static>> {
        let args = fb::KeyValueArgs { key: Some(to.bytes(self.key)), value: Some(to.bytes(self.value)) };
        fb::KeyValue::create(&mut to.flat, &args)
    }
}

/// Writes several keys of a shard at one revision: all of them or none. Of a key that comes twice the later value counts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PutBatch<'a> {
    /// What the write carries.
    pub ctx: WriteContext<'a>,
    /// The keys and values.
    pub items: List<'a, KeyValue<'a>>,
}

impl<'a> Message<'a> for PutBatch<'a> {
    type Table = fb::PutBatch<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { ctx: WriteContext::view(table.ctx()), items: table.items().into() })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        ensure!(!self.items.is_empty(), "an empty batch");
        at_most("items of a batch", self.items.len(), BATCH_OPS_MAX)?;
        let bytes = self.items.iter().try_fold(0, |bytes, item| {
            key(item.key)?;
            value(item.value)?;
            Ok(bytes + item.key.len() + item.value.len())
        })?;
        at_most("bytes of a batch", bytes, BATCH_BYTES_MAX)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let items = to.list(self.items.iter(), |to, item| item.build(to));
        fb::PutBatch::create(&mut to.flat, &fb::PutBatchArgs { ctx: Some(ctx), items: Some(items) }).into()
    }

    fn size_hint(&self) -> usize {
        let items = self.items.iter().map(|item| item.key.len() + item.value.len() + ELEMENT_OVERHEAD_BYTES);
        MESSAGE_OVERHEAD_BYTES + self.ctx.size_hint() + items.sum::<usize>()
    }
}

/// Answers [`Put`] and [`PutBatch`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// The revision that was written.
    pub revision: Revision,
}

impl<'a> Message<'a> for Written {
    type Table = fb::Written<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { revision: Revision(table.revision()) })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        fb::Written::create(&mut to.flat, &fb::WrittenArgs { revision: self.revision.0 }).into()
    }
}

/// Deletes keys of a shard at one revision: all of them or none. A key that does not exist is no error.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Delete<'a> {
    /// What the write carries.
    pub ctx: WriteContext<'a>,
    /// The keys.
    pub keys: List<'a, &'a [u8]>,
}

impl<'a> Message<'a> for Delete<'a> {
    type Table = fb::Delete<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { ctx: WriteContext::view(table.ctx()), keys: table.keys().into() })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        check_keys(self.keys)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let args = fb::DeleteArgs { ctx: Some(ctx), keys: Some(build_keys(self.keys, to)) };
        fb::Delete::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        self.ctx.size_hint() + keys_hint(self.keys)
    }
}

/// Answers [`Delete`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Deleted {
    /// The revision of the deletion.
    pub revision: Revision,
    /// How many of the keys existed.
    pub deleted: u32,
}

impl<'a> Message<'a> for Deleted {
    type Table = fb::Deleted<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { revision: Revision(table.revision()), deleted: table.deleted() })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::DeletedArgs { revision: self.revision.0, deleted: self.deleted };
        fb::Deleted::create(&mut to.flat, &args).into()
    }
}
