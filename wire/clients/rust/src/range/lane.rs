//! One shard's part of a range: the items that are here, and the page that is on its way.
//!
//! Invariants:
//! - One page at most is on its way or waits to be taken in.
//! - A page is fetched by a task of its own, so it holds nothing that others wait for while its reader does something else.
//! - That a page could not be fetched ahead is no failure: it is fetched again, in the time of who asks for it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use mesh_base::{Revision, ShardId};
use mesh_wire::{Request, Response};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bounds::{Content, Order, Range};
use crate::core::Core;
use crate::item::share;
use crate::request::{Aim, Call, Deadline, Failure, unexpected};
use crate::{Entry, Error, Item};

/// What all lanes of a reading share.
#[derive(Clone)]
pub(super) struct Query {
    pub(super) core: Arc<Core>,
    pub(super) range: Range,
    pub(super) deadline: Option<Duration>,
    /// Bytes of a page.
    pub(super) page_bytes: u32,
    /// How often slots had moved, since an item was last returned, when the lanes began.
    pub(super) round: u32,
}

impl Query {
    /// The time for what is asked for now.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.deadline.unwrap_or(self.core.settings.deadline))
    }
}

/// A page of a shard's items.
struct Page {
    entries: VecDeque<Entry>,
    more: bool,
    revision: Revision,
}

/// A page that is on its way, or has come.
struct Fetch {
    task: JoinHandle<Result<Page, Failure>>,
    until: Instant,
}

impl Fetch {
    fn begin(query: &Arc<Query>, lane: &Lane, deadline: Deadline) -> Self {
        let page = fetch(Arc::clone(query), lane.shard, lane.at, lane.after.clone(), deadline);
        Self { task: tokio::spawn(page), until: deadline.at }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One shard's part of a range.
pub(super) struct Lane {
    pub(super) shard: ShardId,
    /// 0 until the first page has come.
    pub(super) at: Revision,
    /// What the next page comes after.
    after: Option<Bytes>,
    entries: VecDeque<Entry>,
    /// When so few entries are left, the next page is fetched.
    low: usize,
    fetch: Option<Fetch>,
    /// There is something after what is here.
    more: bool,
}

impl Lane {
    pub(super) const fn new(shard: ShardId, at: Revision, after: Option<Bytes>) -> Self {
        Self { shard, at, after, entries: VecDeque::new(), low: 0, fetch: None, more: true }
    }

    /// The next key of this lane, once it is known; `None` at the end.
    pub(super) fn poll_head(
        &mut self,
        query: &Arc<Query>,
        deadline: Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            if let Some(entry) = self.entries.front() {
                return Poll::Ready(Ok(Some(entry.key.clone())));
            }
            if !self.more {
                return Poll::Ready(Ok(None));
            }
            let page = ready!(self.poll_page(query, deadline, cx))?;
            self.take_in(page);
        }
    }

    /// Takes the next entry, which must be here, and sees to it that more are on their way.
    pub(super) fn take(&mut self, query: &Arc<Query>) -> Option<Entry> {
        let entry = self.entries.pop_front();
        if self.more && self.entries.len() <= self.low && self.fetch.is_none() {
            self.fetch = Some(Fetch::begin(query, self, query.deadline()));
        }
        entry
    }

    /// Whether nothing is here and nothing comes after it.
    pub(super) fn is_spent(&self) -> bool {
        self.entries.is_empty() && !self.more
    }

    fn poll_page(
        &mut self,
        query: &Arc<Query>,
        deadline: Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Page, Failure>> {
        loop {
            let mut fetch = match self.fetch.take() {
                Some(fetch) => fetch,
                None => Fetch::begin(query, self, deadline),
            };
            let Poll::Ready(fetched) = Pin::new(&mut fetch.task).poll(cx) else {
                self.fetch = Some(fetch);
                return Poll::Pending;
            };
            match fetched {
                Ok(Err(Failure::Error(_))) if fetch.until < deadline.at => {}
                Ok(fetched) => return Poll::Ready(fetched),
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down.
                    Err(_) => return Poll::Ready(Err(Error::Closed.into())),
                },
            }
        }
    }

    fn take_in(&mut self, page: Page) {
        assert!(self.at == Revision::ZERO || self.at == page.revision, "a lane is read at one revision");
        self.at = page.revision;
        self.more = page.more;
        if let Some(last) = page.entries.back() {
            self.after = Some(last.key.clone());
        }
        self.low = page.entries.len() / 2;
        self.entries = page.entries;
    }
}

async fn fetch(
    query: Arc<Query>,
    shard: ShardId,
    at: Revision,
    after: Option<Bytes>,
    deadline: Deadline,
) -> Result<Page, Failure> {
    let Query { core, range, round, .. } = &*query;
    let left = range.limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
    let request = Request::Range(mesh_wire::Range {
        from: &range.from,
        to: &range.to,
        after: after.as_deref(),
        limit: range.page_items.min(left),
        bytes: query.page_bytes,
        keys_only: range.content == Content::Keys,
        reverse: range.order == Order::Descending,
        at,
        ..Default::default()
    });
    let mut call = Call::new(request, Aim::Shard(shard), deadline).in_round(*round);
    let frame = core.perform(&mut call).await?;
    let answer = match frame.response().map_err(Error::from)? {
        Response::Range(answer) => answer,
        other => return Err(unexpected(&other).into()),
    };
    core.saw(answer.revision);
    let entry = |item: mesh_wire::RangeItem<'_>| Entry {
        key: share(&frame.payload, item.key),
        item: Item::of(&item.item, &frame.payload),
    };
    let page = Page {
        entries: answer.items.iter().map(entry).collect(),
        more: answer.more,
        revision: answer.revision,
    };
    check(&page, range.order, after.as_deref(), at).map_err(|what| Error::Protocol { what: what.into() })?;
    Ok(page)
}

/// Whether a page is one that can follow what came before it.
fn check(page: &Page, order: Order, after: Option<&[u8]>, at: Revision) -> Result<(), &'static str> {
    if page.more && page.entries.is_empty() {
        return Err("a page without items has more after it");
    }
    if at != Revision::ZERO && at != page.revision {
        return Err("a page is of another revision than was asked for");
    }
    let keys = after.into_iter().chain(page.entries.iter().map(|entry| entry.key.as_ref()));
    let in_order = match order {
        Order::Ascending => keys.is_sorted_by(|one, next| one < next),
        Order::Descending => keys.is_sorted_by(|one, next| one > next),
    };
    if in_order { Ok(()) } else { Err("a page is not in order") }
}
