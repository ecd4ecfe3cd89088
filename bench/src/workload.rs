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
use crate::op::{Op, OpKind};
use crate::target::PartitionId;

/// Whether there was an operation to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fed {
    /// It is in its place.
    Op,
    /// There are no more.
    Dry,
}

/// How operations follow each other.
#[derive(Clone, Debug)]
pub(crate) enum Mix {
    /// Reads, so many in a hundred, and writes, on keys by the keyspace's distribution; without end.
    Random {
        /// Percent of the operations that read.
        reads: u32,
    },
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
            (Self::Random { reads }, OpKind::Read) => *reads > 0,
            (Self::Random { reads }, OpKind::Write) => *reads < 100,
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
            Mix::Random { reads } => {
                let is_read = prng.range(0..100) < u64::from(*reads);
                op.kind = if is_read { OpKind::Read } else { OpKind::Write };
                op.keys.extend((0..*batch).map(|_| keyspace.choose(*partition, op.kind, prng)));
            }
            Mix::Sweep { kind, step, at } => {
                op.kind = *kind;
                let keys = keyspace.keys_of(*partition);
                let Range { start, end } = next_run(at, *partition, *batch * *step, keys.len());
                op.keys.extend(keys.get(start..end).unwrap_or_default().iter().step_by(*step));
            }
        }
        match (op.kind, ledger) {
            (OpKind::Read, _) => {}
            (OpKind::Write, Ledgered::Records(ledger)) => {
                op.values.extend(op.keys.iter().map(|&key| ledger.begin(key)));
            }
            (OpKind::Write, _) => op.values.extend(Keyspace::values(prng, op.keys.len())),
        }
        if op.keys.is_empty() { Fed::Dry } else { Fed::Op }
    }

    /// An operation that writes was acknowledged.
    pub(crate) fn acknowledged(&self, op: &Op) {
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
        let spec = KeyspaceSpec { keys, value_bytes: 100, distribution, seed: 5 };
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
                draw(&mut feed(&keyspace, Mix::Random { reads: 50 }, 3, seed), 200)
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
        for op in draw(&mut feed(&keyspace, Mix::Random { reads: 100 }, 1, 9), draws as usize) {
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
        for op in draw(&mut feed(&keyspace, Mix::Random { reads: 100 }, 1, 9), 100_000) {
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
        let writes = draw(&mut feed(&keyspace, Mix::Random { reads: 0 }, 1, 1), 300);
        let written: Vec<_> = writes.iter().map(|op| op.keys[0]).collect();
        assert_eq!(written.iter().collect::<BTreeSet<_>>().len(), 300, "in turn");
        let reads = draw(&mut feed(&keyspace, Mix::Random { reads: 100 }, 1, 2), 10_000);
        let recent = reads.iter().filter(|op| written[290..].contains(&op.keys[0])).count();
        assert!((3_500..4_500).contains(&recent), "{recent} of 10000 reads are of the last ten writes");
    }

    #[test]
    fn a_mix_has_its_share_of_reads() {
        let keyspace = keyspace(100, 1, Distribution::Uniform);
        let ops = draw(&mut feed(&keyspace, Mix::Random { reads: 30 }, 1, 3), 10_000);
        let reads = ops.iter().filter(|op| op.kind == OpKind::Read).count();
        assert!((2_800..3_200).contains(&reads), "{reads}");
        for (reads, read, write) in [(0, false, true), (100, true, false), (1, true, true)] {
            let mix = Mix::Random { reads };
            assert_eq!((mix.has(OpKind::Read), mix.has(OpKind::Write)), (read, write));
        }
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
        let ops = draw(&mut feed(&keyspace, Mix::Random { reads: 0 }, 2, 1), 100);
        let values: BTreeSet<_> =
            ops.iter().flat_map(|op| op.writes().map(|(_, at)| keyspace.value(at))).collect();
        assert!(values.len() > 190 && values.iter().all(|value| value.len() == 100));
    }
}
