//! A walk over every cell of the present tree, dirty pages included: what the store would answer, shown to whoever
//! compares replicas.
//!
//! Invariant: it changes nothing, not even what the replacement policy knows. Pages that are not in memory are read by the
//! caller, checked as any other, and not kept.
//!
//! Deliberately absent: a bound on its length. A server never walks its own tree; a test or a tool may.

use std::borrow::Cow;

use bytes::Bytes;
use mesh_base::io::page_offset;

use super::Store;
use super::fetch::file_bytes;
use crate::cell::{Cell, ExtentList, Payload};
use crate::error::StoreError;
use crate::key::KeyRef;
use crate::page::{Expected, check, extent, interior, leaf, slotted};
use crate::pointer::PagePointer;
use crate::write::Attributes;

/// One cell that a walk came by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkedCell<'a> {
    /// Where: namespace, key and revision.
    pub key: KeyRef<'a>,
    /// What it carries beside the value.
    pub attributes: Attributes,
    /// The value; `None` of a deletion.
    pub value: Option<Cow<'a, [u8]>>,
}

/// A walk under way.
struct Walk<'a> {
    store: &'a Store,
    read: &'a dyn Fn(u64, usize) -> Option<Bytes>,
    visit: &'a mut dyn FnMut(&WalkedCell<'_>),
}

impl Store {
    /// Visits every cell in the order of keys: all namespaces, all versions, deletions. `read` answers the bytes of the
    /// store's file at an offset, as the disk has them now.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a page that is read is not what the tree points at; [`StoreError::Poisoned`].
    pub fn walk(
        &self,
        read: &dyn Fn(u64, usize) -> Option<Bytes>,
        visit: &mut dyn FnMut(&WalkedCell<'_>),
    ) -> Result<(), StoreError> {
        self.check_usable()?;
        let root = self.tree.root;
        Walk { store: self, read, visit }.node(root.pointer, root.level)
    }
}

impl<'a> Walk<'a> {
    fn node(&mut self, pointer: PagePointer, level: u8) -> Result<(), StoreError> {
        let page = self.page(pointer, Expected::Node { level })?;
        for index in 0..slotted::count(&page) {
            if level == 0 {
                self.cell(&leaf::cell(&page, index))?;
            } else {
                self.node(interior::pointer(&page, index), level - 1)?;
            }
        }
        Ok(())
    }

    fn cell(&mut self, cell: &Cell<'_>) -> Result<(), StoreError> {
        let value = match cell.payload {
            Payload::Tombstone => None,
            Payload::Inline(value) => Some(Cow::Borrowed(value)),
            Payload::Large(list) => Some(Cow::Owned(self.large(&list)?)),
        };
        (self.visit)(&WalkedCell { key: cell.key, attributes: cell.attributes, value });
        Ok(())
    }

    fn large(&self, list: &ExtentList<'_>) -> Result<Vec<u8>, StoreError> {
        let mut value = Vec::with_capacity(list.value_bytes);
        for part in list.iter() {
            let bytes = self.page(part.pointer, Expected::Extent { value_bytes: part.value_bytes })?;
            value.extend_from_slice(extent::value(&bytes, part.value_bytes as usize));
        }
        Ok(value)
    }

    /// The bytes of a page or an extent: those in memory, else those on the disk.
    fn page(&self, pointer: PagePointer, expected: Expected) -> Result<Cow<'a, [u8]>, StoreError> {
        let store = self.store;
        if let Some(bytes) = store.tree.frames.peek(pointer.page) {
            return Ok(Cow::Borrowed(bytes));
        }
        let pointer = store.tree.sealed.resolve(pointer);
        let page_bytes = store.tree.options.page_bytes;
        let offset = page_offset(pointer.page, page_bytes);
        let length = file_bytes(&pointer, expected, page_bytes);
        let corrupt = |what| StoreError::Corrupt { file: store.file, offset, what };
        let bytes = (self.read)(offset, length).ok_or_else(|| corrupt("page that cannot be read"))?;
        check::check(&bytes, length, &pointer, expected).map_err(corrupt)?;
        Ok(Cow::Owned(bytes.into()))
    }
}
