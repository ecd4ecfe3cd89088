//! What clients ask for, and how they behave.

use std::fmt;

use mesh_base::prng::Prng;

use super::{MS, SizeOptions, pick};

/// The longest of the values that are large: more than a page store keeps in one extent.
pub const LARGE_VALUE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What clients ask for, and how they behave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadOptions {
    /// Which keys they like.
    pub popularity: Popularity,
    /// Of a thousand operations, those on the lists and counters that each client has.
    pub lists_per_mille: u64,
    /// Of a thousand operations on other keys, those on several of a shard at once.
    pub batches_per_mille: u64,
    /// Keys of a batch at most.
    pub batch_keys_max: usize,
    /// Of a thousand operations on other keys, those that are transactions.
    pub transactions_per_mille: u64,
    /// Of a thousand operations, increments of counters.
    pub increments_per_mille: u64,
    /// Of a thousand values, those that are large.
    pub large_per_mille: u64,
    /// Of a thousand requests, those that are sent to two nodes at once.
    pub twice_per_mille: u64,
    /// Of a thousand operations, those in the midst of which the client goes, never to come back. Another comes.
    pub leaving_per_mille: u64,
}

/// Which keys clients like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// The second half as much as the first, the third a third as much, and so on: Zipf's law.
    Zipfian,
    /// The first takes half of all.
    One,
}

impl LoadOptions {
    /// Single keys, all alike.
    pub const QUIET: Self = Self {
        popularity: Popularity::Uniform,
        lists_per_mille: 0,
        batches_per_mille: 0,
        batch_keys_max: 4,
        transactions_per_mille: 0,
        increments_per_mille: 0,
        large_per_mille: 0,
        twice_per_mille: 0,
        leaving_per_mille: 0,
    };

    pub(super) fn draw(prng: &mut Prng, size: &SizeOptions) -> Self {
        let large_per_mille = if prng.chance_per_mille(60) { 20 } else { 0 };
        Self {
            popularity: pick(
                prng,
                &[Popularity::Uniform, Popularity::Uniform, Popularity::Zipfian, Popularity::One],
            ),
            lists_per_mille: pick(prng, &[0, 0, 100, 300]),
            batches_per_mille: pick(prng, &[0, 100, 300, 600]),
            batch_keys_max: pick(prng, &[2, 4, 16]),
            // A run costs what its operations move.
            large_per_mille: if size.think.most >= MS * 20 { large_per_mille } else { 0 },
            twice_per_mille: pick(prng, &[0, 0, 0, 50, 500]),
            leaving_per_mille: pick(prng, &[0, 0, 0, 5, 50]),
            transactions_per_mille: pick(prng, &[0, 0, 100, 300, 700]),
            increments_per_mille: pick(prng, &[0, 0, 50, 200]),
        }
    }
}

impl fmt::Display for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "requests      keys {}, lists {}/1000, batches {}/1000 of up to {} keys, large values {}/1000",
            self.popularity,
            self.lists_per_mille,
            self.batches_per_mille,
            self.batch_keys_max,
            self.large_per_mille
        )?;
        writeln!(
            f,
            "              transactions {}/1000, increments {}/1000",
            self.transactions_per_mille, self.increments_per_mille
        )?;
        writeln!(
            f,
            "              to two nodes {}/1000, clients leave {}/1000",
            self.twice_per_mille, self.leaving_per_mille
        )
    }
}

impl fmt::Display for Popularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::One => "one",
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::options::{self, LoadOptions, Popularity};

    #[test]
    fn every_kind_of_load_is_off_in_some_runs_and_on_in_others() {
        let runs: Vec<LoadOptions> = (0..500).map(|seed| options::draw(seed).0.load).collect();
        let on = |is_on: fn(&LoadOptions) -> bool| runs.iter().filter(|run| is_on(run)).count();
        assert!((150..350).contains(&on(|it| it.lists_per_mille > 0)));
        assert!((300..450).contains(&on(|it| it.batches_per_mille > 0)));
        assert!((250..350).contains(&on(|it| it.transactions_per_mille > 0)));
        assert!((200..300).contains(&on(|it| it.increments_per_mille > 0)));
        assert!((100..300).contains(&on(|it| it.twice_per_mille > 0)));
        assert!((100..300).contains(&on(|it| it.leaving_per_mille > 0)));
        assert!((150..350).contains(&on(|it| it.popularity != Popularity::Uniform)));
        assert!((5..50).contains(&on(|it| it.large_per_mille > 0)));
    }

    #[test]
    fn large_values_are_written_where_little_is() {
        for seed in 0..500 {
            let options = options::draw(seed).0;
            let is_large = options.load.large_per_mille > 0;
            assert!(!is_large || options.size.think.most >= options::MS * 20);
            assert_eq!(options.value_bytes_longest() > options.size.value_bytes_max, is_large);
        }
    }
}
