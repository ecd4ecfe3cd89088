//! Whether what was acknowledged is there: which writes of each key may be its last, kept while a load goes on, and compared
//! with what is read afterwards.
//!
//! A write of a key has a number, and its value follows from both: it begins at a place among the keyspace's random bytes that no
//! other write of the key shares until 65,536 more were made. Nothing is added to values, and a value that was read is compared byte
//! by byte.
//!
//! Of each key one word is kept: the number of its newest write, how many are under way, the number of the first of these *since
//! none was* (its *run*), and the lowest number that the last write may have, its *floor*. A write that begins while none is under way
//! comes after every earlier one has ended; so as soon as any write of its run is acknowledged, the key's last write is one of this
//! run or of a later one.
//!
//! Invariants:
//! - No key is called lost that is not. What may still be done at any time (a write that was given up, the first sending of one that was
//!   sent again over another connection) keeps its run from ending.
//! - Recording takes two atomic steps for a write and no memory.
//!
//! Not seen: a lost write beside which another of the same key was under way, if that one is there instead. A key whose run spans more
//! than half of the numbers is counted as not judged. Values of fewer than eight bytes may be alike by chance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::keyspace::{Keyspace, VALUE_VARIETY};
use crate::op::{KeyNo, ValueAt};

/// A number of writes that are under way which says that the key is not judged.
const NOT_JUDGED: u16 = u16::MAX;
/// The newest number is less than so many above the floor.
const WINDOW: u16 = 1 << 15;
/// Keys that are named when they are lost.
const NAMED_MAX: usize = 5;

const _: () = assert!(VALUE_VARIETY == 1 << 16, "a place for each number");

/// What is known of a key's writes. Numbers wrap around; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Writes {
    newest: u16,
    /// The first of the present run.
    first: u16,
    floor: u16,
    under_way: u16,
}

impl Writes {
    const fn of(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        let number = u16::from_le_bytes;
        Self {
            newest: number([a, b]),
            first: number([c, d]),
            floor: number([e, f]),
            under_way: number([g, h]),
        }
    }

    const fn word(self) -> u64 {
        let ([a, b], [c, d]) = (self.newest.to_le_bytes(), self.first.to_le_bytes());
        let ([e, f], [g, h]) = (self.floor.to_le_bytes(), self.under_way.to_le_bytes());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    const fn begin(mut self) -> Self {
        self.newest = self.newest.wrapping_add(1);
        if self.under_way == 0 {
            self.first = self.newest;
        }
        if self.newest.wrapping_sub(self.floor) >= WINDOW {
            self.under_way = NOT_JUDGED;
        }
        self.hold()
    }

    /// One more is under way.
    const fn hold(mut self) -> Self {
        self.under_way = self.under_way.saturating_add(1);
        self
    }

    const fn acknowledge(mut self) -> Self {
        if self.under_way != NOT_JUDGED {
            self.floor = self.first;
            self.under_way = self.under_way.saturating_sub(1);
        }
        self
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    keys: Vec<AtomicU64>,
}

impl Ledger {
    /// Of so many keys, none of which was written.
    pub(crate) fn new(keys: u32) -> Self {
        Self { keys: (0..keys).map(|_| AtomicU64::new(0)).collect() }
    }

    /// A write of a key begins; where its value is.
    pub(crate) fn begin(&self, key: KeyNo) -> ValueAt {
        place(key, self.change(key, Writes::begin).newest)
    }

    /// A write of a key was acknowledged.
    pub(crate) fn acknowledged(&self, key: KeyNo) {
        self.change(key, Writes::acknowledge);
    }

    /// A write of a key is sent again though its first sending may still be done, at any time.
    pub(crate) fn sent_again(&self, key: KeyNo) {
        self.change(key, Writes::hold);
    }

    /// What the key's writes became.
    fn change(&self, key: KeyNo, change: impl Fn(Writes) -> Writes) -> Writes {
        let word = self.word(key);
        let mut known = word.load(Ordering::Acquire);
        loop {
            let changed = change(Writes::of(known));
            match word.compare_exchange_weak(known, changed.word(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return changed,
                Err(other) => known = other,
            }
        }
    }

    #[allow(clippy::indexing_slicing, reason = "a ledger has all keys of its run")]
    fn word(&self, key: KeyNo) -> &AtomicU64 {
        &self.keys[key.0 as usize]
    }

    /// What a key's value says, read when no write is sent any more.
    fn judge(&self, key: KeyNo, value: Option<&[u8]>, keyspace: &Keyspace) -> Verdict {
        let writes = Writes::of(self.word(key).load(Ordering::Acquire));
        let Some(value) = value else {
            return if writes.floor == 0 { Verdict::Held } else { Verdict::Lost };
        };
        let is_of = |number| value == keyspace.value(place(key, number));
        // Mostly the newest, so from there backwards.
        let back = |span: u16| (0..=span).map(|back| writes.newest.wrapping_sub(back));
        if writes.under_way == NOT_JUDGED {
            return if back(u16::MAX).any(is_of) { Verdict::NotJudged } else { Verdict::Foreign };
        }
        if back(writes.newest.wrapping_sub(writes.floor)).any(is_of) {
            Verdict::Held
        } else if back(writes.newest).any(is_of) {
            Verdict::Lost
        } else {
            Verdict::Foreign
        }
    }
}

/// Where the value of a key's write begins: all numbers of a key have places of their own.
fn place(key: KeyNo, number: u16) -> ValueAt {
    let spread = key.0.wrapping_mul(0x9e37_79b1) >> 16;
    ValueAt((spread as usize + usize::from(number)) % VALUE_VARIETY)
}

/// What a key's value says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It is that of a write that may be the last.
    Held,
    /// It is older than a write that was acknowledged, or there is none.
    Lost,
    /// Nobody wrote it.
    Foreign,
    /// Too many writes were under way.
    NotJudged,
}

/// What all values say.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub(crate) struct Findings {
    /// Keys whose last acknowledged write is there, or a later one.
    pub(crate) held: u64,
    /// Keys whose last acknowledged write is not there.
    pub(crate) lost: u64,
    /// Keys with a value that nobody wrote.
    pub(crate) foreign: u64,
    /// Keys that were written too much at once to tell.
    pub(crate) not_judged: u64,
    /// Some of the keys that were lost or have a value that nobody wrote.
    pub(crate) named: Vec<String>,
}

impl Findings {
    /// Keys that were looked at.
    pub(crate) const fn keys(&self) -> u64 {
        self.held + self.lost + self.foreign + self.not_judged
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.held += other.held;
        self.lost += other.lost;
        self.foreign += other.foreign;
        self.not_judged += other.not_judged;
        let room = NAMED_MAX.saturating_sub(self.named.len());
        self.named.extend(other.named.iter().take(room).cloned());
    }

    fn add(&mut self, verdict: Verdict, key: &[u8]) {
        let count = match verdict {
            Verdict::Held => &mut self.held,
            Verdict::Lost => &mut self.lost,
            Verdict::Foreign => &mut self.foreign,
            Verdict::NotJudged => &mut self.not_judged,
        };
        *count += 1;
        if matches!(verdict, Verdict::Lost | Verdict::Foreign) && self.named.len() < NAMED_MAX {
            self.named.push(String::from_utf8_lossy(key).into_owned());
        }
    }
}

/// The reading back of all keys.
#[derive(Debug)]
pub(crate) struct Audit {
    ledger: Arc<Ledger>,
    findings: Mutex<Findings>,
}

impl Audit {
    /// Of what was recorded.
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, findings: Mutex::default() }
    }

    /// Takes in a key's value.
    pub(crate) fn read(&self, key: KeyNo, value: Option<&[u8]>, keyspace: &Keyspace) {
        let verdict = self.ledger.judge(key, value, keyspace);
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.add(verdict, keyspace.key(key));
    }

    /// What was found so far.
    pub(crate) fn findings(&self) -> Findings {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a load has to do with a ledger.
#[derive(Clone, Debug)]
pub(crate) enum Ledgered {
    /// Nothing.
    No,
    /// Its writes are recorded.
    Records(Arc<Ledger>),
    /// Its reads are compared with what was recorded.
    Audits(Arc<Audit>),
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::distribution::Distribution;
    use crate::keyspace::KeyspaceSpec;
    use crate::target::PartitionId;

    const KEY: KeyNo = KeyNo(3);

    fn keyspace() -> Keyspace {
        let spec = KeyspaceSpec {
            keys: 10,
            inserts: 0,
            value_bytes: 32,
            distribution: Distribution::Uniform,
            seed: 1,
        };
        Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap()
    }

    fn judge(ledger: &Ledger, at: ValueAt) -> Verdict {
        let keyspace = keyspace();
        ledger.judge(KEY, Some(keyspace.value(at)), &keyspace)
    }

    #[test]
    fn the_last_acknowledged_write_must_be_there_or_a_later_one() {
        let ledger = Ledger::new(10);
        assert_eq!(ledger.judge(KEY, None, &keyspace()), Verdict::Held, "nobody wrote it");
        let one = ledger.begin(KEY);
        assert_eq!(ledger.judge(KEY, None, &keyspace()), Verdict::Held, "it was not acknowledged");
        ledger.acknowledged(KEY);
        assert_eq!(ledger.judge(KEY, None, &keyspace()), Verdict::Lost);
        let two = ledger.begin(KEY);
        assert_eq!((judge(&ledger, one), judge(&ledger, two)), (Verdict::Held, Verdict::Held));
        ledger.acknowledged(KEY);
        assert_eq!((judge(&ledger, one), judge(&ledger, two)), (Verdict::Lost, Verdict::Held));
    }

    #[test]
    fn of_writes_that_were_under_way_together_any_may_be_the_last() {
        let ledger = Ledger::new(10);
        let before = ledger.begin(KEY);
        ledger.acknowledged(KEY);
        let (one, two) = (ledger.begin(KEY), ledger.begin(KEY));
        ledger.acknowledged(KEY);
        ledger.acknowledged(KEY);
        assert_eq!(
            [before, one, two].map(|at| judge(&ledger, at)),
            [Verdict::Lost, Verdict::Held, Verdict::Held]
        );
    }

    #[test]
    fn what_may_be_done_at_any_time_is_never_called_lost() {
        let ledger = Ledger::new(10);
        let first = ledger.begin(KEY);
        ledger.sent_again(KEY);
        ledger.acknowledged(KEY);
        for _ in 0..10 {
            ledger.begin(KEY);
            ledger.acknowledged(KEY);
        }
        assert_eq!(judge(&ledger, first), Verdict::Held);
    }

    #[test]
    fn a_value_of_another_key_or_a_changed_one_is_nobodys() {
        let (ledger, keyspace) = (Ledger::new(10), keyspace());
        let at = ledger.begin(KEY);
        ledger.acknowledged(KEY);
        let other = ledger.begin(KeyNo(4));
        assert_eq!(judge(&ledger, other), Verdict::Foreign);
        let mut value = keyspace.value(at).to_vec();
        value[20] ^= 1;
        assert_eq!(ledger.judge(KEY, Some(&value), &keyspace), Verdict::Foreign);
    }

    #[test]
    fn a_key_that_never_rests_is_not_judged_and_numbers_may_wrap_around() {
        let ledger = Ledger::new(10);
        let mut last = ledger.begin(KEY);
        for _ in 0..200_000 {
            ledger.acknowledged(KEY);
            last = ledger.begin(KEY);
        }
        ledger.acknowledged(KEY);
        assert_eq!(judge(&ledger, last), Verdict::Held);
        ledger.begin(KEY);
        for _ in 0..40_000 {
            last = ledger.begin(KEY);
            ledger.acknowledged(KEY);
        }
        assert_eq!(judge(&ledger, last), Verdict::NotJudged);
    }

    quickcheck! {
        /// A register that does its writes at any moment between their beginning and their acknowledgement.
        fn what_a_register_holds_is_never_called_lost(steps: Vec<(bool, u8)>) -> bool {
            let (ledger, mut held, mut under_way) = (Ledger::new(10), None, Vec::new());
            for (begins, which) in steps {
                if begins || under_way.is_empty() {
                    under_way.push((ledger.begin(KEY), false));
                } else {
                    let index = usize::from(which) % under_way.len();
                    if !under_way[index].1 {
                        under_way[index].1 = true;
                        held = Some(under_way[index].0);
                    }
                    if which % 3 > 0 {
                        under_way.swap_remove(index);
                        ledger.acknowledged(KEY);
                    }
                }
            }
            held.is_none_or(|at| judge(&ledger, at) == Verdict::Held)
        }
    }
}
