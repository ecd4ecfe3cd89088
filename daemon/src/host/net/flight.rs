//! What a connection has asked and not been answered: the reason to read it no further.
//!
//! Small requests are bounded by their number alone, so that nothing is kept for each of them; large ones by their bytes
//! as well. And since an answer may be much larger than its request, no more requests are taken in than answers of the
//! size of recent ones would fit: a connection begins with few, and gets more as its answers prove small.

use std::collections::BTreeMap;

use mesh_base::limits::{CONNECTION_BYTES_IN_FLIGHT_MAX, CONNECTION_REQUESTS_IN_FLIGHT_MAX};
use mesh_wire::RequestId;

/// A request up to this length counts as one of its number's share of the bytes.
const SMALL_BYTES: usize = CONNECTION_BYTES_IN_FLIGHT_MAX / CONNECTION_REQUESTS_IN_FLIGHT_MAX;
/// The size of answers that is expected of a new connection.
const FIRST_ANSWER_BYTES: usize = 1024 * 1024;

/// Requests without answers.
#[derive(Debug)]
pub(super) struct Flight {
    requests: usize,
    large_bytes: usize,
    large: BTreeMap<RequestId, usize>,
    /// The largest of recent answers, the older the less.
    answer_bytes: usize,
}

impl Flight {
    pub(super) const fn new() -> Self {
        Self { requests: 0, large_bytes: 0, large: BTreeMap::new(), answer_bytes: FIRST_ANSWER_BYTES }
    }

    /// A request came in, with so many bytes.
    pub(super) fn begin(&mut self, request: RequestId, bytes: usize) {
        self.requests += 1;
        if bytes > SMALL_BYTES {
            self.large_bytes += bytes;
            // A client that uses an id twice gives back the bytes of both with the first answer.
            *self.large.entry(request).or_default() += bytes;
        }
    }

    /// A request was answered, with so many bytes.
    pub(super) fn end(&mut self, request: RequestId, answer_bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.answer_bytes = answer_bytes.max(self.answer_bytes - self.answer_bytes / 8);
        if !self.large.is_empty()
            && let Some(bytes) = self.large.remove(&request)
        {
            self.large_bytes -= bytes;
        }
    }

    /// Whether no further request may be taken in while so many bytes of answers are not sent yet.
    pub(super) fn is_full(&self, unsent_bytes: usize) -> bool {
        if unsent_bytes >= CONNECTION_BYTES_IN_FLIGHT_MAX {
            return true;
        }
        let answers = (CONNECTION_BYTES_IN_FLIGHT_MAX - unsent_bytes) / self.answer_bytes.max(1);
        self.requests >= answers.clamp(1, CONNECTION_REQUESTS_IN_FLIGHT_MAX)
            || self.large_bytes >= CONNECTION_BYTES_IN_FLIGHT_MAX
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    /// One whose answers proved small.
    fn settled() -> Flight {
        let mut flight = Flight::new();
        for id in 0..100 {
            flight.begin(RequestId(id), 100);
            flight.end(RequestId(id), 100);
        }
        flight
    }

    quickcheck! {
        fn when_everything_is_answered_nothing_is_in_flight(requests: Vec<(u8, u16)>) -> bool {
            let mut flight = settled();
            for &(id, bytes) in &requests {
                flight.begin(RequestId(id.into()), usize::from(bytes));
            }
            let full = flight.is_full(0);
            for &(id, bytes) in &requests {
                flight.end(RequestId(id.into()), bytes.into());
            }
            !full && flight.requests == 0 && flight.large_bytes == 0 && flight.large.is_empty()
        }
    }

    #[test]
    fn many_small_requests_and_few_large_ones_fill_it() {
        let mut flight = settled();
        (0..CONNECTION_REQUESTS_IN_FLIGHT_MAX as u64).for_each(|id| flight.begin(RequestId(id), 100));
        assert!(flight.is_full(0) && flight.large.is_empty());
        flight.end(RequestId(5), 100);
        assert!(!flight.is_full(0));
        let mut flight = settled();
        flight.begin(RequestId(1), CONNECTION_BYTES_IN_FLIGHT_MAX / 2);
        assert!(!flight.is_full(0));
        flight.begin(RequestId(2), CONNECTION_BYTES_IN_FLIGHT_MAX / 2);
        assert!(flight.is_full(0));
        flight.end(RequestId(1), 100);
        assert!(!flight.is_full(0));
    }

    #[test]
    fn large_answers_allow_fewer_requests_but_always_one() {
        let mut flight = settled();
        flight.begin(RequestId(1), 100);
        flight.end(RequestId(1), CONNECTION_BYTES_IN_FLIGHT_MAX / 3);
        (0..3).for_each(|id| flight.begin(RequestId(id), 100));
        assert!(flight.is_full(0));
        (0..3).for_each(|id| flight.end(RequestId(id), 2 * CONNECTION_BYTES_IN_FLIGHT_MAX));
        assert!(!flight.is_full(0));
        flight.begin(RequestId(1), 100);
        assert!(flight.is_full(0));
    }

    #[test]
    fn an_answer_to_nothing_does_no_harm() {
        let mut flight = Flight::new();
        flight.end(RequestId(1), 0);
        assert!(!flight.is_full(0));
    }
}
