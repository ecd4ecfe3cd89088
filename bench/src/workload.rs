//! Which operation comes next.
//!
//! Invariant: a seed repeats the operations of a connection. Which connection's goes first is for the system's speed to
//! decide.
//!
//! Deliberately absent: when operations begin, and how they are encoded.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_base::prng::Prng;

use crate::keyspace::Keyspace;
use crate::ledger::{Audit, Ledgered};
use crate::op::{Op, OpKind, Page, Sequel};
use crate::target::PartitionId;

/// Whether there was an operation to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fed {
    /// It is in its place.
    Op,
    /// There are no more.
    Dry,
}

/// How many of a hundred operations are of which kind; those that are left write keys that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shares {
    /// Read keys.
    pub(crate) reads: u32,
    /// Write keys that are not there.
    pub(crate) inserts: u32,
    /// Read keys in order.
    pub(crate) scans: u32,
    /// Read a key and then write it.
    pub(crate) modifies: u32,
    /// How many keys are read in order.
    pub(crate) items: Items,
}

/// How many keys a range wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Items {
    /// So many.
    Exactly(usize),
    /// From one to so many, any of them as often as any other.
    UpTo(usize),
}

impl Shares {
    /// Reads, in percent, and writes of keys that are there.
    pub(crate) const fn reads(reads: u32) -> Self {
        Self { reads, inserts: 0, scans: 0, modifies: 0, items: Items::Exactly(1) }
    }

    /// Percent that write keys that are there.
    pub(crate) const fn updates(self) -> u32 {
        100 - self.reads - self.inserts - self.scans - self.modifies
    }

    /// Whether there can be operations of a kind.
    const fn has(self, kind: OpKind) -> bool {
        match kind {
            OpKind::Read => self.reads + self.modifies > 0,
            OpKind::Write => self.updates() + self.inserts + self.modifies > 0,
            OpKind::Scan => self.scans > 0,
        }
    }
}

/// How operations follow each other.
#[derive(Clone, Debug)]
pub(crate) enum Mix {
    /// At random, on keys by the keyspace's distribution; without end.
    Random(Shares),
    /// Every so-manieth key of each partition, once.
    Sweep {
        /// What is done to them.
        kind: OpKind,
        /// One is every key.
        step: usize,
        /// How far each partition has come; shared by all that feed from it.
        at: Arc<[AtomicUsize]>,
    },
}

impl Mix {
    /// Goes once through every `step`th key of all partitions.
    pub(crate) fn sweep(kind: OpKind, step: usize, partitions: usize) -> Self {
        assert!(step > 0);
        Self::Sweep { kind, step, at: (0..partitions).map(|_| AtomicUsize::new(0)).collect() }
    }

    /// Whether there can be operations of a kind.
    pub(crate) fn has(&self, wanted: OpKind) -> bool {
        match (self, wanted) {
            (Self::Random(shares), wanted) => shares.has(wanted),
            (Self::Sweep { kind, .. }, wanted) => *kind == wanted,
        }
    }
}

/// Where one connection's operations come from.
pub(crate) struct Feed {
    keyspace: Arc<Keyspace>,
    partition: PartitionId,
    mix: Mix,
    batch: usize,
    ledger: Ledgered,
    prng: Prng,
}

impl Feed {
    /// Of a partition, with so many keys in each operation.
    pub(crate) fn new(
        keyspace: &Arc<Keyspace>,
        partition: PartitionId,
        mix: Mix,
        batch: usize,
        prng: Prng,
    ) -> Self {
        assert!(batch > 0);
        Self { keyspace: Arc::clone(keyspace), partition, mix, batch, ledger: Ledgered::No, prng }
    }

    /// The same, recorded or compared with what was recorded.
    pub(crate) fn with_ledger(self, ledger: Ledgered) -> Self {
        Self { ledger, ..self }
    }

    /// The keys and values that operations name.
    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Puts the next operation in the place of one that is over.
    pub(crate) fn next(&mut self, op: &mut Op) -> Fed {
        op.keys.clear();
        op.values.clear();
        let Self { keyspace, partition, mix, batch, ledger, prng } = self;
        match mix {
            Mix::Random(shares) => {
                let drawn = Drawn::of(*shares, prng);
                (op.kind, op.sequel, op.page) = (drawn.kind(), drawn.sequel(), Page::First);
                match drawn {
                    Drawn::Insert => op.keys.extend((0..*batch).map(|_| keyspace.insert(*partition, prng))),
                    _ => op.keys.extend((0..*batch).map(|_| keyspace.choose(*partition, op.kind, prng))),
                }
                op.items = match shares.items {
                    Items::UpTo(most) if drawn == Drawn::Scan => 1 + prng.index(most),
                    Items::Exactly(items) | Items::UpTo(items) => items,
                };
            }
            Mix::Sweep { kind, step, at } => {
                op.kind = *kind;
                let keys = keyspace.keys_of(*partition);
                let Range { start, end } = next_run(at, *partition, *batch * *step, keys.len());
                op.keys.extend(keys.get(start..end).unwrap_or_default().iter().step_by(*step));
            }
        }
        if op.kind == OpKind::Write {
            choose_values(op, ledger, prng);
        }
        if op.keys.is_empty() { Fed::Dry } else { Fed::Op }
    }

    /// Makes the write that follows a read of the same key.
    pub(crate) fn write_what_was_read(&mut self, op: &mut Op) {
        (op.kind, op.sequel) = (OpKind::Write, Sequel::None);
        choose_values(op, &self.ledger, &mut self.prng);
    }

    /// An operation that writes was acknowledged.
    pub(crate) fn acknowledged(&self, op: &Op) {
        if let Mix::Random(Shares { inserts: 1.., .. }) = self.mix {
            op.keys.iter().for_each(|&key| self.keyspace.written(self.partition, key));
        }
        if let Ledgered::Records(ledger) = &self.ledger {
            op.keys.iter().for_each(|&key| ledger.acknowledged(key));
        }
    }

    /// An operation is sent again though its first sending may still be done.
    pub(crate) fn sent_again(&self, op: &Op) {
        if let (Ledgered::Records(ledger), OpKind::Write) = (&self.ledger, op.kind) {
            op.keys.iter().for_each(|&key| ledger.sent_again(key));
        }
    }

    /// Who is to see the values that are read, if anyone is.
    pub(crate) fn audit(&self) -> Option<&Audit> {
        match &self.ledger {
            Ledgered::Audits(audit) => Some(audit),
            Ledgered::No | Ledgered::Records(_) => None,
        }
    }
}

/// What is done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drawn {
    Read,
    Insert,
    Scan,
    Modify,
    Update,
}

impl Drawn {
    fn of(shares: Shares, prng: &mut Prng) -> Self {
        let Shares { reads, inserts, scans, modifies, .. } = shares;
        let mut left = prng.range(0..100);
        for (kind, share) in
            [(Self::Read, reads), (Self::Insert, inserts), (Self::Scan, scans), (Self::Modify, modifies)]
        {
            let share = u64::from(share);
            if left < share {
                return kind;
            }
            left -= share;
        }
        Self::Update
    }

    const fn kind(self) -> OpKind {
        match self {
            Self::Read | Self::Modify => OpKind::Read,
            Self::Insert | Self::Update => OpKind::Write,
            Self::Scan => OpKind::Scan,
        }
    }

    const fn sequel(self) -> Sequel {
        match self {
            Self::Modify => Sequel::Write,
            Self::Read | Self::Insert | Self::Scan | Self::Update => Sequel::None,
        }
    }
}

fn choose_values(op: &mut Op, ledger: &Ledgered, prng: &mut Prng) {
    match ledger {
        Ledgered::Records(ledger) => op.values.extend(op.keys.iter().map(|&key| ledger.begin(key))),
        Ledgered::No | Ledgered::Audits(_) => op.values.extend(Keyspace::values(prng, op.keys.len())),
    }
}

/// Takes the next part of what several go through together.
fn next_run(at: &[AtomicUsize], partition: PartitionId, count: usize, all: usize) -> Range<usize> {
    let Some(at) = at.get(partition.0) else { return 0..0 };
    if at.load(Ordering::Relaxed) >= all {
        return all..all;
    }
    let start = at.fetch_add(count, Ordering::Relaxed).min(all);
    start..start.saturating_add(count).min(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::distribution::Distribution;
    use crate::keyspace::{KEY_BYTES, KeyspaceSpec};

    fn keyspace(keys: u32, partitions: usize, distribution: Distribution) -> Arc<Keyspace> {
        let spec = KeyspaceSpec { keys, inserts: 0, value_bytes: 100, distribution, seed: 5 };
        // By the last digit.
        Arc::new(
            Keyspace::new(spec, partitions, |key| PartitionId(usize::from(key[KEY_BYTES - 1]) % partitions))
                .unwrap(),
        )
    }

    fn feed(keyspace: &Arc<Keyspace>, mix: Mix, batch: usize, seed: u64) -> Feed {
        Feed::new(keyspace, PartitionId(0), mix, batch, Prng::new(seed))
    }

    fn draw(feed: &mut Feed, count: usize) -> Vec<Op> {
        let mut op = Op::empty();
        let draws = (0..count).map(|_| {
            assert_eq!(feed.next(&mut op), Fed::Op);
            op.clone()
        });
        draws.collect()
    }

    #[test]
    fn a_seed_repeats_operations_and_another_does_not() {
        for distribution in [Distribution::Uniform, Distribution::Zipfian, Distribution::Latest] {
            let ops = |seed| {
                let keyspace = keyspace(500, 2, distribution);
                draw(&mut feed(&keyspace, Mix::Random(Shares::reads(50)), 3, seed), 200)
            };
            assert_eq!(ops(1), ops(1));
            assert_ne!(ops(1), ops(2));
        }
    }

    #[test]
    fn uniform_choice_favours_no_key() {
        let (keys, draws) = (100, 100_000_u32);
        let keyspace = keyspace(keys, 1, Distribution::Uniform);
        let mut drawn = vec![0_u32; keys as usize];
        for op in draw(&mut feed(&keyspace, Mix::Random(Shares::reads(100)), 1, 9), draws as usize) {
            assert_eq!((op.kind, op.keys.len()), (OpKind::Read, 1));
            drawn[op.keys[0].0 as usize] += 1;
        }
        let expected = f64::from(draws / keys);
        let chi_square: f64 =
            drawn.iter().map(|&drawn| (f64::from(drawn) - expected).powi(2) / expected).sum();
        // With 99 degrees of freedom, 148 is exceeded once in a thousand times, 62 undercut as seldom.
        assert!((62.0..148.0).contains(&chi_square), "{chi_square}");
    }

    #[test]
    fn popular_keys_are_spread_and_few() {
        let keyspace = keyspace(1000, 1, Distribution::Zipfian);
        let mut drawn = vec![0_u32; 1000];
        for op in draw(&mut feed(&keyspace, Mix::Random(Shares::reads(100)), 1, 9), 100_000) {
            drawn[op.keys[0].0 as usize] += 1;
        }
        let mut popular: Vec<_> = (0..1000).collect();
        popular.sort_by_key(|&key: &usize| std::cmp::Reverse(drawn[key]));
        let ten: u32 = popular[..10].iter().map(|&key| drawn[key]).sum();
        assert!((35_000..45_000).contains(&ten), "ten keys of a thousand have {ten} of 100000 draws");
        assert!(!popular[..10].is_sorted(), "{:?}", &popular[..10]);
    }

    #[test]
    fn latest_reads_what_was_written_last() {
        let keyspace = keyspace(1000, 1, Distribution::Latest);
        let writes = draw(&mut feed(&keyspace, Mix::Random(Shares::reads(0)), 1, 1), 300);
        let written: Vec<_> = writes.iter().map(|op| op.keys[0]).collect();
        assert_eq!(written.iter().collect::<BTreeSet<_>>().len(), 300, "in turn");
        let reads = draw(&mut feed(&keyspace, Mix::Random(Shares::reads(100)), 1, 2), 10_000);
        let recent = reads.iter().filter(|op| written[290..].contains(&op.keys[0])).count();
        assert!((3_500..4_500).contains(&recent), "{recent} of 10000 reads are of the last ten writes");
    }

    #[test]
    fn a_mix_has_its_share_of_reads() {
        let keyspace = keyspace(100, 1, Distribution::Uniform);
        let ops = draw(&mut feed(&keyspace, Mix::Random(Shares::reads(30)), 1, 3), 10_000);
        let reads = ops.iter().filter(|op| op.kind == OpKind::Read).count();
        assert!((2_800..3_200).contains(&reads), "{reads}");
        for (reads, read, write) in [(0, false, true), (100, true, false), (1, true, true)] {
            let mix = Mix::Random(Shares::reads(reads));
            assert_eq!((mix.has(OpKind::Read), mix.has(OpKind::Write)), (read, write));
        }
    }

    #[test]
    fn a_mix_has_its_shares_of_everything() {
        let keyspace = keyspace(100, 1, Distribution::Uniform);
        let shares = Shares { reads: 40, inserts: 5, scans: 25, modifies: 20, items: Items::UpTo(50) };
        let ops = draw(&mut feed(&keyspace, Mix::Random(shares), 1, 3), 10_000);
        let count = |of: &dyn Fn(&Op) -> bool| ops.iter().filter(|op| of(op)).count();
        let reads = count(&|op| op.kind == OpKind::Read && op.sequel == Sequel::None);
        let modifies = count(&|op| op.kind == OpKind::Read && op.sequel == Sequel::Write);
        let writes = count(&|op| op.kind == OpKind::Write && op.values.len() == 1);
        assert!((3_800..4_200).contains(&reads) && (1_850..2_150).contains(&modifies), "{reads} {modifies}");
        assert!((1_350..1_650).contains(&writes), "{writes}");
        let items: BTreeSet<_> = ops.iter().filter(|op| op.kind == OpKind::Scan).map(|op| op.items).collect();
        assert!(items == (1..=50).collect(), "{items:?}");
    }

    #[test]
    fn what_is_inserted_is_read_only_when_that_was_acknowledged() {
        let spec = KeyspaceSpec {
            keys: 100,
            inserts: 40,
            value_bytes: 1,
            distribution: Distribution::Latest,
            seed: 5,
        };
        let keyspace = Arc::new(Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap());
        let inserts = Mix::Random(Shares { inserts: 100, ..Shares::reads(0) });
        let mut inserting = feed(&keyspace, inserts, 1, 1);
        let inserted = draw(&mut inserting, 10);
        let keys: Vec<_> = inserted.iter().map(|op| op.keys[0].0).collect();
        assert_eq!(keys, (100..110).collect::<Vec<_>>());
        let mut reading = feed(&keyspace, Mix::Random(Shares::reads(100)), 1, 2);
        let mut newest = || draw(&mut reading, 2000).iter().map(|op| op.keys[0].0).max().unwrap();
        assert!(newest() < 100);
        inserted[1..3].iter().for_each(|op| inserting.acknowledged(op));
        assert!(newest() < 100, "the first was not acknowledged");
        inserting.acknowledged(&inserted[0]);
        assert_eq!(newest(), 102);
        assert_eq!(keyspace.inserts_again(), 0);
        let more = draw(&mut inserting, 31);
        assert_eq!((more[30].keys[0].0, keyspace.inserts_again()), (100, 1), "there is no room for more");
    }

    #[test]
    fn a_read_that_is_followed_by_a_write_becomes_it() {
        let keyspace = keyspace(100, 1, Distribution::Zipfian);
        let mut feed = feed(&keyspace, Mix::Random(Shares { modifies: 100, ..Shares::reads(0) }), 1, 1);
        let mut op = draw(&mut feed, 1).remove(0);
        let keys = op.keys.clone();
        assert_eq!((op.kind, op.values.len()), (OpKind::Read, 0));
        feed.write_what_was_read(&mut op);
        assert_eq!((op.kind, op.sequel, op.values.len()), (OpKind::Write, Sequel::None, 1));
        assert_eq!(op.keys, keys);
    }

    #[test]
    fn a_sweep_takes_every_key_of_the_partition_once_whoever_feeds_from_it() {
        let keyspace = keyspace(1003, 2, Distribution::Uniform);
        let mix = Mix::sweep(OpKind::Write, 1, 2);
        let mut feeds = [feed(&keyspace, mix.clone(), 7, 1), feed(&keyspace, mix, 7, 2)];
        let (mut op, mut seen) = (Op::empty(), Vec::new());
        while feeds.iter_mut().any(|feed| {
            let fed = feed.next(&mut op);
            seen.extend_from_slice(&op.keys);
            fed == Fed::Op
        }) {}
        let count = seen.len();
        assert_eq!(count, keyspace.keys_of(PartitionId(0)).len());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), count);
    }

    #[test]
    fn values_differ_and_have_their_length() {
        let keyspace = keyspace(10, 1, Distribution::Uniform);
        let ops = draw(&mut feed(&keyspace, Mix::Random(Shares::reads(0)), 2, 1), 100);
        let values: BTreeSet<_> =
            ops.iter().flat_map(|op| op.writes().map(|(_, at)| keyspace.value(at))).collect();
        assert!(values.len() > 190 && values.iter().all(|value| value.len() == 100));
    }
}
