//! Sessions: what makes a write that is sent twice take effect once.
//!
//! A session is opened by an entry; its id is that entry's revision. Every write names its session, its number in it, and
//! the number below which the client has all its answers. The outcome of each write is kept until the client has it.
//!
//! Invariants:
//! - The table is a function of the applied entries alone, so it is the same on every replica at the same index.
//! - A number whose outcome is known is never applied again; its outcome is repeated.
//! - A session that is not in the table and not above `evicted_up_to` may have existed: the only honest answer is
//!   "unknown". One above it was never opened here: its writes certainly did not happen.
//!
//! Deliberately absent: time. Idle sessions are told by the index of their last write, which all replicas share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum::xxh3;
use mesh_base::limits::SESSION_WINDOW_MAX;
use mesh_base::{LogIndex, Revision, SessionId, SessionSeq};

/// What every write carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WriteId {
    /// The session.
    pub session: SessionId,
    /// The write's number in it.
    pub seq: SessionSeq,
}

/// How a write ended. Never a value: those may be large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The revision of what was written, or of the state in which nothing had to be.
    pub revision: Revision,
    /// How many keys it wrote or deleted.
    pub count: u32,
    /// 0, or the code of the error the write was answered with.
    pub code: u16,
}

/// What the table says of a write that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It was not applied: evaluate it.
    New,
    /// It was applied, with this outcome.
    Done(Outcome),
    /// The client said it had this answer already.
    Forgotten,
    /// Too many writes of the session are unacknowledged.
    WindowFull,
    /// The session was never opened here.
    NeverOpened,
    /// The session may have existed.
    Evicted,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Session {
    /// By which its opening is known; 0 for nothing.
    nonce: u64,
    last_used: LogIndex,
    acknowledged_below: SessionSeq,
    /// Ordered by number.
    outcomes: VecDeque<(SessionSeq, Outcome)>,
}

/// The sessions of a shard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionTable {
    sessions: BTreeMap<SessionId, Session>,
    /// The sessions by their nonces.
    openings: BTreeMap<u64, SessionId>,
    evicted_up_to: SessionId,
    /// Changed since they were last stored.
    unsaved: BTreeSet<SessionId>,
    unsaved_eviction: bool,
}

/// The key of a session's record, below which the system namespace keeps them: `s` and the id, big-endian.
const RECORD_PREFIX: u8 = b's';
/// The key of the record of `evicted_up_to`.
const EVICTED_KEY: &[u8] = b"evicted";

/// A record to store, or to remove where there is no value.
pub type Record = (Vec<u8>, Option<Vec<u8>>);

impl SessionTable {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What is known of a write, whose client has all answers below `acknowledged_below`.
    #[must_use]
    pub fn admit(&self, write: WriteId, acknowledged_below: SessionSeq) -> Admission {
        let Some(session) = self.sessions.get(&write.session) else {
            let evicted = write.session <= self.evicted_up_to;
            return if evicted { Admission::Evicted } else { Admission::NeverOpened };
        };
        let below = session.acknowledged_below.max(acknowledged_below);
        if write.seq < below {
            return Admission::Forgotten;
        }
        match session.outcomes.binary_search_by_key(&write.seq, |(seq, _)| *seq) {
            Ok(at) => {
                session.outcomes.get(at).map_or(Admission::New, |(_, outcome)| Admission::Done(*outcome))
            }
            Err(_) if write.seq.0 - below.0 >= SESSION_WINDOW_MAX as u64 => Admission::WindowFull,
            Err(_) => Admission::New,
        }
    }

    /// The session that was opened by this nonce.
    #[must_use]
    pub fn opened_by(&self, nonce: u64) -> Option<SessionId> {
        self.openings.get(&nonce).copied()
    }

    /// Applies the opening of a session.
    pub fn open(&mut self, id: SessionId, nonce: u64, at: LogIndex) {
        let (acknowledged_below, outcomes) = (SessionSeq(1), VecDeque::new());
        self.insert(id, Session { nonce, last_used: at, acknowledged_below, outcomes });
        self.unsaved.insert(id);
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        if session.nonce != 0 {
            self.openings.insert(session.nonce, id);
        }
        self.sessions.insert(id, session);
    }

    /// Applies the outcome of a write. A session evicted by an earlier entry has nowhere to keep it.
    pub fn record(&mut self, write: WriteId, acknowledged_below: SessionSeq, outcome: Outcome, at: LogIndex) {
        let Some(session) = self.sessions.get_mut(&write.session) else { return };
        session.last_used = at;
        session.acknowledged_below = session.acknowledged_below.max(acknowledged_below);
        let below = session.acknowledged_below;
        while session.outcomes.front().is_some_and(|(seq, _)| *seq < below) {
            session.outcomes.pop_front();
        }
        if write.seq >= below
            && let Err(place) = session.outcomes.binary_search_by_key(&write.seq, |(seq, _)| *seq)
        {
            session.outcomes.insert(place, (write.seq, outcome));
        }
        self.unsaved.insert(write.session);
    }

    /// Applies the eviction of sessions.
    pub fn evict(&mut self, sessions: impl IntoIterator<Item = SessionId>, evicted_up_to: SessionId) {
        for id in sessions {
            if let Some(session) = self.sessions.remove(&id) {
                self.openings.remove(&session.nonce);
                self.unsaved.insert(id);
            }
        }
        self.evicted_up_to = self.evicted_up_to.max(evicted_up_to);
        self.unsaved_eviction = true;
    }

    /// A digest of what the applied entries made of the table: the same on every replica at the same index.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        for (id, session) in &self.sessions {
            bytes.put_u64(id.get());
            bytes.put_bytes(&encode(session));
        }
        bytes.put_u64(self.evicted_up_to.get());
        for (nonce, id) in &self.openings {
            bytes.put_u64(*nonce);
            bytes.put_u64(id.get());
        }
        xxh3(&bytes)
    }

    /// The `count` sessions whose last write is the longest ago.
    #[must_use]
    pub fn idlest(&self, count: usize) -> Vec<SessionId> {
        let mut by_use: Vec<_> = self.sessions.iter().map(|(id, session)| (session.last_used, *id)).collect();
        by_use.sort_unstable();
        by_use.truncate(count);
        by_use.into_iter().map(|(_, id)| id).collect()
    }

    /// The records that changed since they were last saved: they belong into the checkpoint of this very index.
    #[must_use]
    pub fn unsaved_records(&self) -> Vec<Record> {
        let changed = self.unsaved.iter().map(|&id| (record_key(id), self.sessions.get(&id).map(encode)));
        let mut records: Vec<Record> = changed.collect();
        if self.unsaved_eviction {
            records.push((EVICTED_KEY.to_vec(), Some(self.evicted_up_to.get().to_le_bytes().to_vec())));
        }
        records
    }

    /// The unsaved records are in the store now.
    pub fn saved(&mut self) {
        self.unsaved.clear();
        self.unsaved_eviction = false;
    }

    /// Takes in a record found when the store was opened. `false` if it is damaged.
    #[must_use]
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> bool {
        if key == EVICTED_KEY {
            let Some(number) = Reader::new(value).u64() else { return false };
            self.evicted_up_to = SessionId(Revision(number));
            return true;
        }
        let Some((&RECORD_PREFIX, id)) = key.split_first() else { return true };
        let Ok(id) = <[u8; 8]>::try_from(id) else { return false };
        let Some(session) = decode(value) else { return false };
        self.insert(SessionId(Revision(u64::from_be_bytes(id))), session);
        true
    }
}

/// Whether a key of the system namespace is that of a record that is kept in memory and stored at checkpoints alone.
pub(super) fn is_record(key: &[u8]) -> bool {
    key == EVICTED_KEY || key.len() == 9 && key.first() == Some(&RECORD_PREFIX)
}

fn record_key(id: SessionId) -> Vec<u8> {
    let mut key = vec![RECORD_PREFIX];
    key.extend_from_slice(&id.get().to_be_bytes());
    key
}

/// The stored form: nonce u64, last used u64, acknowledged below u64, count u32, and of each outcome: number u64, revision u64,
/// count u32, code u16.
fn encode(session: &Session) -> Vec<u8> {
    let mut to = Vec::with_capacity(28 + 22 * session.outcomes.len());
    to.put_u64(session.nonce);
    to.put_u64(session.last_used.0);
    to.put_u64(session.acknowledged_below.0);
    to.put_u32(u32::try_from(session.outcomes.len()).unwrap_or(u32::MAX));
    for (seq, outcome) in &session.outcomes {
        to.put_u64(seq.0);
        to.put_u64(outcome.revision.0);
        to.put_u32(outcome.count);
        to.put_u16(outcome.code);
    }
    to
}

fn decode(bytes: &[u8]) -> Option<Session> {
    let mut from = Reader::new(bytes);
    let nonce = from.u64()?;
    let last_used = LogIndex(from.u64()?);
    let acknowledged_below = SessionSeq(from.u64()?);
    let count = from.u32()?;
    let mut outcomes = VecDeque::new();
    for _ in 0..count {
        let seq = SessionSeq(from.u64()?);
        let outcome = Outcome { revision: Revision(from.u64()?), count: from.u32()?, code: from.u16()? };
        outcomes.push_back((seq, outcome));
    }
    from.is_empty().then_some(Session { nonce, last_used, acknowledged_below, outcomes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(Revision(100));

    fn write(seq: u64) -> WriteId {
        WriteId { session: SESSION, seq: SessionSeq(seq) }
    }

    fn outcome(revision: u64) -> Outcome {
        Outcome { revision: Revision(revision), count: 1, code: 0 }
    }

    fn opened() -> SessionTable {
        let mut table = SessionTable::default();
        table.open(SESSION, 11, LogIndex(1));
        table
    }

    #[test]
    fn a_write_sent_twice_is_admitted_once() {
        let mut table = opened();
        assert_eq!(table.admit(write(1), SessionSeq(1)), Admission::New);
        table.record(write(1), SessionSeq(1), outcome(5), LogIndex(2));
        assert_eq!(table.admit(write(1), SessionSeq(1)), Admission::Done(outcome(5)));
    }

    #[test]
    fn outcomes_are_forgotten_only_when_the_client_has_them() {
        let mut table = opened();
        table.record(write(2), SessionSeq(1), outcome(6), LogIndex(2));
        table.record(write(1), SessionSeq(1), outcome(5), LogIndex(3));
        table.record(write(3), SessionSeq(2), outcome(7), LogIndex(4));
        assert_eq!(table.admit(write(1), SessionSeq(1)), Admission::Forgotten);
        assert_eq!(table.admit(write(2), SessionSeq(2)), Admission::Done(outcome(6)));
    }

    #[test]
    fn the_window_bounds_what_is_unacknowledged() {
        let table = opened();
        let window = SESSION_WINDOW_MAX as u64;
        assert_eq!(table.admit(write(window), SessionSeq(1)), Admission::New);
        assert_eq!(table.admit(write(window + 1), SessionSeq(1)), Admission::WindowFull);
        assert_eq!(table.admit(write(window + 1), SessionSeq(2)), Admission::New);
    }

    #[test]
    fn a_session_that_was_evicted_is_told_from_one_that_never_was() {
        let mut table = opened();
        table.evict([SESSION], SESSION);
        assert_eq!(table.admit(write(1), SessionSeq(1)), Admission::Evicted);
        let later = WriteId { session: SessionId(Revision(101)), seq: SessionSeq(1) };
        assert_eq!(table.admit(later, SessionSeq(1)), Admission::NeverOpened);
    }

    #[test]
    fn a_table_is_stored_and_loaded_by_its_changes() {
        let mut table = opened();
        table.record(write(1), SessionSeq(1), outcome(5), LogIndex(2));
        table.open(SessionId(Revision(200)), 12, LogIndex(3));
        let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut save = |table: &mut SessionTable| {
            for (key, value) in table.unsaved_records() {
                match value {
                    Some(value) => stored.insert(key, value),
                    None => stored.remove(&key),
                };
            }
            table.saved();
            let mut loaded = SessionTable::default();
            assert!(stored.iter().all(|(key, value)| loaded.load(key, value)));
            assert_eq!(loaded, *table);
        };
        save(&mut table);
        table.evict([SESSION], SESSION);
        save(&mut table);
    }

    #[test]
    fn a_session_is_known_by_its_nonce_while_there_is_one() {
        let mut table = opened();
        table.open(SessionId(Revision(200)), 0, LogIndex(2));
        assert_eq!((table.opened_by(11), table.opened_by(0)), (Some(SESSION), None));
        table.evict([SESSION], SESSION);
        assert_eq!(table.opened_by(11), None);
    }

    #[test]
    fn the_idlest_are_those_longest_unused() {
        let mut table = opened();
        table.open(SessionId(Revision(200)), 0, LogIndex(2));
        table.record(write(1), SessionSeq(1), outcome(5), LogIndex(3));
        assert_eq!(table.idlest(1), vec![SessionId(Revision(200))]);
    }
}
