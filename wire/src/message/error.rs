//! Errors on the wire: one table whose code says which of its fields count.
//!
//! The text that goes with an error is written anew from its fields by every sender, and is for programs in other
//! languages and for people; what is read back is the code and the fields.

use bytes::Bytes;
use mesh_base::limits::{KEY_BYTES_MAX, NODE_ADDRESS_BYTES_MAX, TEXT_BYTES_MAX};
use mesh_base::{ClusterId, Revision, ShardId, SlotEpoch};

use super::cluster::node_or_none;
use super::{MESSAGE_OVERHEAD_BYTES, Message};
use crate::WireError;
use crate::builder::{Builder, Root, id128, read_id128};
use crate::error::{Error, LeaderAt, Text};
use crate::generated::mesh::wire as fb;
use crate::wire_error::at_most;

impl<'a> Message<'a> for Error {
    type Table = fb::ErrorAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        // Before anything is copied.
        at_most("bytes of an error's text", table.what().map_or(0, str::len), TEXT_BYTES_MAX)?;
        at_most("address bytes", table.address().map_or(0, str::len), NODE_ADDRESS_BYTES_MAX)?;
        at_most("key bytes", table.key().map_or(0, |key| key.len()), KEY_BYTES_MAX)?;
        read(table).ok_or(WireError::Malformed { what: "error code" })
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Conflict { key, .. } | Self::PermissionDenied { key } | Self::WrongType { key, .. } => {
                at_most("key bytes", key.len(), KEY_BYTES_MAX)
            }
            Self::NotLeader { leader: Some(at), .. } => {
                at_most("address bytes", at.address.len(), NODE_ADDRESS_BYTES_MAX)
            }
            _ => Ok(()),
        }
    }

    fn build(&self, to: &mut Builder) -> Root {
        let parts = Parts::of(self);
        let message = to.display(self);
        let what = parts.what.and_then(|what| to.text_if_any(what));
        let key = parts.key.and_then(|key| to.bytes_if_any(key));
        let address = parts.address.filter(|address| !address.is_empty()).map(|address| to.name(address));
        let clusters = parts.clusters.map(|(theirs, ours)| (id128(theirs.0), id128(ours.0)));
        let mut args = fb::ErrorAnswerArgs {
            code: code(self),
            message: Some(message),
            what,
            key,
            address,
            theirs: clusters.as_ref().map(|(theirs, _)| theirs),
            ours: clusters.as_ref().map(|(_, ours)| ours),
            ..fb::ErrorAnswerArgs::default()
        };
        fill_numbers(self, &mut args);
        fb::ErrorAnswer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        MESSAGE_OVERHEAD_BYTES + 2 * TEXT_BYTES_MAX + KEY_BYTES_MAX
    }
}

/// The fields of an error that are not numbers.
#[derive(Default)]
struct Parts<'e> {
    what: Option<&'e Text>,
    key: Option<&'e Bytes>,
    address: Option<&'e str>,
    clusters: Option<(ClusterId, ClusterId)>,
}

impl<'e> Parts<'e> {
    fn of(error: &'e Error) -> Self {
        let none = Self::default();
        match error {
            Error::TooLarge { what, .. }
            | Error::Malformed { what }
            | Error::NotReady { why: what }
            | Error::Damaged { what }
            | Error::NotFound { what }
            | Error::Internal { what } => Self { what: Some(what), ..none },
            Error::WrongType { key, what } => Self { key: Some(key), what: Some(what), ..none },
            Error::Conflict { key, .. } | Error::PermissionDenied { key } => Self { key: Some(key), ..none },
            Error::NotLeader { leader: Some(at), .. } => Self { address: Some(&at.address), ..none },
            Error::WrongCluster { theirs, ours } => Self { clusters: Some((*theirs, *ours)), ..none },
            _ => none,
        }
    }
}

fn fill_numbers(error: &Error, args: &mut fb::ErrorAnswerArgs<'_>) {
    match error {
        Error::NotLeader { shard, leader } => {
            args.shard = shard.0;
            args.leader = leader.as_ref().map_or(0, |at| at.node.0);
        }
        Error::WrongEpoch { epoch } => args.epoch = epoch.0,
        Error::WrongShard { shard } => args.shard = shard.0,
        Error::Overloaded { retry_after_ms } => args.retry_after_ms = *retry_after_ms,
        Error::Conflict { revision, .. } | Error::Compacted { oldest: revision } => {
            args.revision = revision.0;
        }
        Error::TooLarge { limit, actual, .. } => (args.limit, args.actual) = (*limit, *actual),
        Error::SessionWindow { limit } => args.limit = u64::from(*limit),
        Error::Unsupported { version_min, version_max } => {
            (args.version_min, args.version_max) = (*version_min, *version_max);
        }
        _ => {}
    }
}

/// The code of an error.
const fn code(error: &Error) -> fb::ErrorCode {
    match error {
        Error::NotLeader { .. } => fb::ErrorCode::NotLeader,
        Error::WrongEpoch { .. } => fb::ErrorCode::WrongEpoch,
        Error::WrongShard { .. } => fb::ErrorCode::WrongShard,
        Error::Overloaded { .. } => fb::ErrorCode::Overloaded,
        Error::Conflict { .. } => fb::ErrorCode::Conflict,
        Error::Locked => fb::ErrorCode::Locked,
        Error::Compacted { .. } => fb::ErrorCode::Compacted,
        Error::TooLarge { .. } => fb::ErrorCode::TooLarge,
        Error::EmptyKey => fb::ErrorCode::EmptyKey,
        Error::NoSpace => fb::ErrorCode::NoSpace,
        Error::NoQuorum => fb::ErrorCode::NoQuorum,
        Error::Unknown => fb::ErrorCode::Unknown,
        Error::UnknownSession => fb::ErrorCode::UnknownSession,
        Error::SessionWindow { .. } => fb::ErrorCode::SessionWindow,
        Error::DeadlineExceeded => fb::ErrorCode::DeadlineExceeded,
        Error::Unauthenticated => fb::ErrorCode::Unauthenticated,
        Error::PermissionDenied { .. } => fb::ErrorCode::PermissionDenied,
        Error::Malformed { .. } => fb::ErrorCode::Malformed,
        Error::Unsupported { .. } => fb::ErrorCode::Unsupported,
        Error::NotReady { .. } => fb::ErrorCode::NotReady,
        Error::ShuttingDown => fb::ErrorCode::ShuttingDown,
        Error::WrongCluster { .. } => fb::ErrorCode::WrongCluster,
        Error::Damaged { .. } => fb::ErrorCode::Damaged,
        Error::NotFound { .. } => fb::ErrorCode::NotFound,
        Error::Internal { .. } => fb::ErrorCode::Internal,
        Error::WrongType { .. } => fb::ErrorCode::WrongType,
    }
}

impl Error {
    /// The name of the error's code, for figures and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        code(self).variant_name().unwrap_or_default()
    }

    /// The number of the error's code on the wire.
    #[must_use]
    pub const fn code(&self) -> u8 {
        code(self).0
    }
}

/// The error of a table; `None` if its code is not known.
fn read(table: fb::ErrorAnswer<'_>) -> Option<Error> {
    let what = || Text::Owned(table.what().unwrap_or_default().to_owned());
    let key = || table.key().map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.bytes()));
    let cluster = |id: Option<&fb::Id128>| id.map(|id| ClusterId(read_id128(id))).unwrap_or_default();
    let shard = ShardId(table.shard());
    let revision = Revision(table.revision());
    Some(match table.code() {
        fb::ErrorCode::NotLeader => Error::NotLeader {
            shard,
            leader: node_or_none(table.leader())
                .map(|node| LeaderAt { node, address: table.address().unwrap_or_default().to_owned() }),
        },
        fb::ErrorCode::WrongEpoch => Error::WrongEpoch { epoch: SlotEpoch(table.epoch()) },
        fb::ErrorCode::WrongShard => Error::WrongShard { shard },
        fb::ErrorCode::Overloaded => Error::Overloaded { retry_after_ms: table.retry_after_ms() },
        fb::ErrorCode::Conflict => Error::Conflict { key: key(), revision },
        fb::ErrorCode::Locked => Error::Locked,
        fb::ErrorCode::Compacted => Error::Compacted { oldest: revision },
        fb::ErrorCode::TooLarge => {
            Error::TooLarge { what: what(), limit: table.limit(), actual: table.actual() }
        }
        fb::ErrorCode::EmptyKey => Error::EmptyKey,
        fb::ErrorCode::NoSpace => Error::NoSpace,
        fb::ErrorCode::NoQuorum => Error::NoQuorum,
        fb::ErrorCode::Unknown => Error::Unknown,
        fb::ErrorCode::UnknownSession => Error::UnknownSession,
        fb::ErrorCode::SessionWindow => {
            Error::SessionWindow { limit: u32::try_from(table.limit()).unwrap_or(u32::MAX) }
        }
        fb::ErrorCode::DeadlineExceeded => Error::DeadlineExceeded,
        fb::ErrorCode::Unauthenticated => Error::Unauthenticated,
        fb::ErrorCode::PermissionDenied => Error::PermissionDenied { key: key() },
        fb::ErrorCode::Malformed => Error::Malformed { what: what() },
        fb::ErrorCode::Unsupported => {
            Error::Unsupported { version_min: table.version_min(), version_max: table.version_max() }
        }
        fb::ErrorCode::NotReady => Error::NotReady { why: what() },
        fb::ErrorCode::ShuttingDown => Error::ShuttingDown,
        fb::ErrorCode::WrongCluster => {
            Error::WrongCluster { theirs: cluster(table.theirs()), ours: cluster(table.ours()) }
        }
        fb::ErrorCode::Damaged => Error::Damaged { what: what() },
        fb::ErrorCode::NotFound => Error::NotFound { what: what() },
        fb::ErrorCode::Internal => Error::Internal { what: what() },
        fb::ErrorCode::WrongType => Error::WrongType { key: key(), what: what() },
        _ => return None,
    })
}
