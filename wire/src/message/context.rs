//! What every read and every write may carry beside what it asks for.

use std::fmt;

use flatbuffers::WIPOffset;
use mesh_base::limits::PRINCIPAL_BYTES_MAX;
use mesh_base::{Revision, SessionId, SessionSeq};

use crate::WireError;
use crate::builder::{Builder, read_id128, trace};
use crate::direct::Table;
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure};

/// Names the trace that a request is part of, as W3C trace context has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What every read may carry.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReadContext<'a> {
    /// Milliseconds until the answer is of no use any more; 0 for no deadline.
    pub deadline_ms: u32,
    /// The newest revision that the client has seen anywhere: the answer is not older.
    pub revision_seen: Revision,
    /// The trace that the request is part of.
    pub trace: Option<TraceId>,
    /// On whose behalf the request is made, where that is not the connection's own principal.
    pub principal: Option<&'a [u8]>,
}

impl<'a> ReadContext<'a> {
    pub(crate) fn view(table: Option<fb::ReadContext<'a>>) -> Self {
        table.map_or_else(Self::default, |table| Self {
            deadline_ms: table.deadline_ms(),
            revision_seen: Revision(table.revision_seen()),
            trace: table.trace().map(|id| TraceId(read_id128(id))),
            principal: table.principal().map(|bytes| bytes.bytes()),
        })
    }

    /// One without trace and principal, which are rare.
    #[inline]
    pub(crate) fn read_directly(table: Option<Table<'a>>) -> Option<Self> {
        use fb::ReadContext as Fields;
        let Some(table) = table else { return Some(Self::default()) };
        let is_plain = table.lacks(Fields::VT_TRACE) && table.lacks(Fields::VT_PRINCIPAL);
        let deadline_ms = table.u32(Fields::VT_DEADLINE_MS)?;
        let revision_seen = Revision(table.u64(Fields::VT_REVISION_SEEN)?);
        is_plain.then(|| Self { deadline_ms, revision_seen, ..Self::default() })
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        at_most("principal bytes", self.principal.map_or(0, <[u8]>::len), PRINCIPAL_BYTES_MAX)
    }

    /// What a message takes more than it does without any principal.
    pub(crate) fn size_hint(&self) -> usize {
        self.principal.map_or(0, <[u8]>::len)
    }

    /// Absent if it says nothing.
    pub(crate) fn build(&self, to: &mut Builder) -> Option<WIPOffset<fb::ReadContext<'static>>> {
        if *self == Self::default() {
            return None;
        }
        let principal = self.principal.map(|bytes| to.bytes(bytes));
        let trace = trace(self.trace);
        let args = fb::ReadContextArgs {
            deadline_ms: self.deadline_ms,
            revision_seen: self.revision_seen.0,
            trace: trace.as_ref(),
            principal,
        };
        Some(fb::ReadContext::create(&mut to.flat, &args))
    }
}

/// What every write carries. By session and number a shard knows a write that is sent again, and answers what it answered
/// the first time: the write takes effect once. The default has no session and cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WriteContext<'a> {
    /// The session. Never 0.
    pub session: SessionId,
    /// The number of the write within its session, from 1.
    pub seq: SessionSeq,
    /// The client knows the outcome of every write of the session below this number, so that the shard may forget
    /// them. From 1 to `seq`.
    pub acknowledged_below: SessionSeq,
    /// Milliseconds until the answer is of no use any more; 0 for no deadline.
    pub deadline_ms: u32,
    /// The newest revision that the client has seen anywhere: the write gets a newer one.
    pub revision_seen: Revision,
    /// The trace that the request is part of.
    pub trace: Option<TraceId>,
    /// On whose behalf the request is made, where that is not the connection's own principal.
    pub principal: Option<&'a [u8]>,
}

impl<'a> WriteContext<'a> {
    pub(crate) fn view(table: fb::WriteContext<'a>) -> Self {
        Self {
            session: SessionId(Revision(table.session())),
            seq: SessionSeq(table.seq()),
            acknowledged_below: SessionSeq(table.acknowledged_below()),
            deadline_ms: table.deadline_ms(),
            revision_seen: Revision(table.revision_seen()),
            trace: table.trace().map(|id| TraceId(read_id128(id))),
            principal: table.principal().map(|bytes| bytes.bytes()),
        }
    }

    /// One without trace and principal, which are rare.
    #[inline]
    pub(crate) fn read_directly(table: Table<'a>) -> Option<Self> {
        use fb::WriteContext as Fields;
        let is_plain = table.lacks(Fields::VT_TRACE) && table.lacks(Fields::VT_PRINCIPAL);
        let context = Self {
            session: SessionId(Revision(table.u64(Fields::VT_SESSION)?)),
            seq: SessionSeq(table.u64(Fields::VT_SEQ)?),
            acknowledged_below: SessionSeq(table.u64(Fields::VT_ACKNOWLEDGED_BELOW)?),
            deadline_ms: table.u32(Fields::VT_DEADLINE_MS)?,
            revision_seen: Revision(table.u64(Fields::VT_REVISION_SEEN)?),
            ..Self::default()
        };
        is_plain.then_some(context)
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        ensure!(self.session.get() != 0, "session");
        ensure!(self.seq.0 != 0, "sequence number");
        ensure!((1..=self.seq.0).contains(&self.acknowledged_below.0), "acknowledged_below");
        at_most("principal bytes", self.principal.map_or(0, <[u8]>::len), PRINCIPAL_BYTES_MAX)
    }

    /// What a message takes more than it does without any principal.
    pub(crate) fn size_hint(&self) -> usize {
        self.principal.map_or(0, <[u8]>::len)
    }

    pub(crate) fn build(&self, to: &mut Builder) -> WIPOffset<fb::WriteContext<'static>> {
        let principal = self.principal.map(|bytes| to.bytes(bytes));
        let trace = trace(self.trace);
        let args = fb::WriteContextArgs {
            session: self.session.get(),
            seq: self.seq.0,
            acknowledged_below: self.acknowledged_below.0,
            deadline_ms: self.deadline_ms,
            revision_seen: self.revision_seen.0,
            trace: trace.as_ref(),
            principal,
        };
        fb::WriteContext::create(&mut to.flat, &args)
    }
}
