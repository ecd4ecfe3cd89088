//! What can be written into the tree.

use mesh_base::{Namespace, Revision};

use crate::key::KeyRef;

/// What a version carries beside its key and value. A field with its default takes no space in the cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The revision at which the key came to be, last. Equal to the version's own for a new key.
    pub create_revision: Revision,
    /// How many versions the key had since, this one counted.
    pub version: u64,
    /// The lease the key is attached to; 0 is none.
    pub lease: u64,
    /// The type of the value, for whoever gives types meaning; 0 is plain bytes.
    pub type_tag: u8,
    /// When the key expires, in milliseconds since the Unix epoch; 0 is never. Not interpreted here.
    pub expiry_ms: u64,
    /// Bits without meaning here.
    pub flags: u16,
}

impl Attributes {
    /// Those of a record of the system namespace.
    pub const SYSTEM: Self = Self::created(Revision::ZERO);

    /// Those of a plain new key.
    #[must_use]
    pub const fn created(revision: Revision) -> Self {
        Self { create_revision: revision, version: 1, lease: 0, type_tag: 0, expiry_ms: 0, flags: 0 }
    }
}

/// One change of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellWrite<'a> {
    /// Where.
    pub namespace: Namespace,
    /// The key.
    pub key: &'a [u8],
    /// The version. Zero in the system namespace, whose cells are replaced in place.
    pub revision: Revision,
    /// What happens to it.
    pub change: Change<'a>,
}

impl<'a> CellWrite<'a> {
    pub(crate) const fn cell_key(&self) -> KeyRef<'a> {
        KeyRef { namespace: self.namespace, key: self.key, revision: self.revision }
    }
}

/// What happens to a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// The version is written; one with the same revision is replaced.
    Put {
        /// What it carries beside the value.
        attributes: Attributes,
        /// The value.
        value: &'a [u8],
    },
    /// A tombstone is written: from this revision on the key is deleted.
    Delete,
    /// The cell itself goes, as if it had never been. Removing what is not there does nothing.
    Remove,
}
