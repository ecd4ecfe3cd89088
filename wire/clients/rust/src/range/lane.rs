//! One shard's part of a range: the items that are here, and the page that is on its way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use mesh_base::{Revision, ShardId};
use mesh_wire::{Request, Response};

use super::bounds::{Content, Order, Range};
use crate::core::Core;
use crate::item::share;
use crate::request::{Aim, Call, Deadline, Failure, unexpected};
use crate::{Entry, Error, Item};

/// What all lanes of a reading share.
pub(super) struct Query {
    pub(super) core: Arc<Core>,
    pub(super) range: Range,
    pub(super) deadline: Option<Duration>,
    /// Bytes of a page.
    pub(super) page_bytes: u32,
}

/// A page of a shard's items.
struct Page {
    entries: VecDeque<Entry>,
    more: bool,
    revision: Revision,
}

type Fetching = Pin<Box<dyn Future<Output = Result<Page, Failure>> + Send>>;

enum Fetch {
    /// Nothing is on its way.
    Rest,
    Running(Fetching),
    Done(Result<Page, Failure>),
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
    fetch: Fetch,
    /// There is something after what is here.
    more: bool,
}

impl Lane {
    pub(super) const fn new(shard: ShardId, at: Revision, after: Option<Bytes>) -> Self {
        Self { shard, at, after, entries: VecDeque::new(), low: 0, fetch: Fetch::Rest, more: true }
    }

    /// The next key of this lane, once it is known; `None` at the end.
    pub(super) fn poll_head(
        &mut self,
        query: &Arc<Query>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            if let Some(entry) = self.entries.front() {
                return Poll::Ready(Ok(Some(entry.key.clone())));
            }
            if !self.more {
                return Poll::Ready(Ok(None));
            }
            let page = ready!(self.poll_page(query, cx))?;
            self.take_in(page);
        }
    }

    /// Takes the next entry, which must be here, and sees to it that more are on their way.
    pub(super) fn take(&mut self, query: &Arc<Query>, cx: &mut Context<'_>) -> Option<Entry> {
        let entry = self.entries.pop_front();
        if self.more && self.entries.len() <= self.low && matches!(self.fetch, Fetch::Rest) {
            // Only to have it sent; it is looked at again when it is needed.
            if let Poll::Ready(done) = self.poll_page(query, cx) {
                self.fetch = Fetch::Done(done);
            }
        }
        entry
    }

    /// Whether nothing is here and nothing comes after it.
    pub(super) fn is_spent(&self) -> bool {
        self.entries.is_empty() && !self.more
    }

    fn poll_page(&mut self, query: &Arc<Query>, cx: &mut Context<'_>) -> Poll<Result<Page, Failure>> {
        let mut running = match std::mem::replace(&mut self.fetch, Fetch::Rest) {
            Fetch::Rest => Box::pin(fetch(Arc::clone(query), self.shard, self.at, self.after.clone())),
            Fetch::Running(running) => running,
            Fetch::Done(page) => return Poll::Ready(page),
        };
        let polled = running.as_mut().poll(cx);
        if polled.is_pending() {
            self.fetch = Fetch::Running(running);
        }
        polled
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
) -> Result<Page, Failure> {
    let Query { core, range, .. } = &*query;
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
    let deadline = Deadline::after(query.deadline.unwrap_or(core.settings.deadline));
    let frame = core.perform(&mut Call::new(request, Aim::Shard(shard), deadline)).await?;
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
