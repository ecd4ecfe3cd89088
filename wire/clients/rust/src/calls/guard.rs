//! Writes of one key that depend on what it holds, or tell what it held: transactions of one operation.

use mesh_base::Revision;
use mesh_wire::{Action, Condition, Expect, Operation, Request, Response, Transact};

use super::{Options, not_told, of_one_key};
use crate::item::Item;
use crate::request::{Aim, Call, unexpected};
use crate::{Error, Result};

/// What a key has to be for a write to be done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Guard {
    /// Anything.
    #[default]
    None,
    Exists,
    Absent,
    Revision(Revision),
    Version(u64),
}

impl Guard {
    /// The condition; `None` if there is none.
    const fn expect(self) -> Option<Expect<'static>> {
        Some(match self {
            Self::None => return None,
            Self::Exists => Expect::Exists,
            // What was never written has no revision.
            Self::Absent | Self::Revision(Revision::ZERO) | Self::Version(0) => Expect::Absent,
            Self::Revision(revision) => Expect::Revision(revision),
            Self::Version(version) => Expect::Version(version),
        })
    }
}

/// The options of writes that depend on what their key holds.
macro_rules! guards {
    () => {
        /// Only if the key exists; [`Error::Conflict`](crate::Error::Conflict) if it does not.
        pub const fn if_exists(mut self) -> Self {
            self.guard = crate::calls::guard::Guard::Exists;
            self
        }

        /// Only if the key's last change has this revision, as a read told it: nobody wrote it since. 0 for a key that must not
        /// exist. [`Error::Conflict`](crate::Error::Conflict) tells the revision that it has instead.
        pub const fn if_revision(mut self, revision: mesh_base::Revision) -> Self {
            self.guard = crate::calls::guard::Guard::Revision(revision);
            self
        }

        /// Only if the key was written so many times since it came to be. 0 for a key that must not exist.
        pub const fn if_version(mut self, version: u64) -> Self {
            self.guard = crate::calls::guard::Guard::Version(version);
            self
        }
    };
}
pub(super) use guards;

/// What became of it.
pub(super) struct Done {
    pub(super) revision: Revision,
    /// What the operation answers.
    pub(super) found: Option<Item>,
}

/// Does something with a key if what is asked of it holds.
pub(super) async fn transact(
    options: Options<'_>,
    key: &[u8],
    guard: Guard,
    action: Action<'_>,
) -> Result<Done> {
    let core = options.cluster.core();
    let condition = guard.expect().map(|expect| Condition { key, expect });
    let operations = [Operation { key, action }];
    let transact = Transact {
        conditions: condition.as_slice().into(),
        operations: (&operations).into(),
        ..Transact::default()
    };
    let mut call = Call::new(Request::Transact(transact), Aim::Key(key), options.deadline());
    let frame = core.perform(&mut call).await.map_err(of_one_key)?;
    match frame.response() {
        Ok(Response::Transacted(done)) => {
            core.saw(done.revision);
            if done.forgotten {
                return Err(Error::Forgotten { revision: done.revision });
            }
            let found = done.results.get(0).flatten().map(|item| Item::of(&item, &frame.payload));
            Ok(Done { revision: done.revision, found })
        }
        Ok(other) => Err(not_told(unexpected(&other))),
        Err(error) => Err(not_told(error)),
    }
}
