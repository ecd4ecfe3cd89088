//! Which of a number of keys comes next.
//!
//! Ranks are drawn here, rank 0 being the most popular; which key has which rank is the keyspace's to say. A draw is a
//! function of the generator that it is made with, so a seed repeats a run's choices.
//!
//! Deliberately absent: keys. And the hashing by which YCSB spreads popular keys, which lets some share a key: the
//! keyspace shuffles instead.

use mesh_base::prng::Prng;

/// How unequal popularity is, from 0 to 1; as in YCSB.
pub(crate) const ZIPFIAN_THETA: f64 = 0.99;

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Distribution {
    /// Every key as often as any other.
    Uniform,
    /// A few keys often and most of them seldom, with YCSB's constant 0.99.
    Zipfian,
    /// Writes go through the keys in turn; reads prefer what was written last, by Zipf's law.
    Latest,
}

impl Distribution {
    /// The name, as on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::Latest => "latest",
        }
    }
}

/// Draws ranks by Zipf's law in constant time.
///
/// Gray, Sundaresan, Englert, Baclawski, Weinberger: "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994;
/// the method that YCSB uses (Cooper et al., SoCC 2010).
#[derive(Clone, Debug)]
pub(crate) struct Zipfian {
    count: usize,
    alpha: f64,
    zeta: f64,
    eta: f64,
    /// Below it lies rank 1; below 1, rank 0.
    second: f64,
}

impl Zipfian {
    /// Of so many ranks; takes time in proportion.
    pub(crate) fn new(count: usize) -> Self {
        assert!(count > 0, "something to draw");
        let theta = ZIPFIAN_THETA;
        let zeta = zeta(count);
        let eta = (1.0 - (2.0 / as_f64(count)).powf(1.0 - theta)) / (1.0 - zeta2(theta) / zeta);
        Self { count, alpha: 1.0 / (1.0 - theta), zeta, eta, second: zeta2(theta) }
    }

    /// A rank.
    pub(crate) fn draw(&self, prng: &mut Prng) -> usize {
        if self.count == 1 {
            return 0;
        }
        let u = unit(prng);
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < self.second {
            return 1;
        }
        let rank = as_f64(self.count) * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and cut to the count"
        )]
        let rank = rank as usize;
        rank.min(self.count - 1)
    }

    /// How often a rank is to be expected, from 0 to 1.
    #[cfg(test)]
    fn expected(&self, rank: usize) -> f64 {
        1.0 / as_f64(rank + 1).powf(ZIPFIAN_THETA) / self.zeta
    }
}

fn zeta(count: usize) -> f64 {
    (1..=count).map(|rank| 1.0 / as_f64(rank).powf(ZIPFIAN_THETA)).sum()
}

fn zeta2(theta: f64) -> f64 {
    1.0 + 0.5_f64.powf(theta)
}

/// From 0, included, to 1, excluded: as many random bits as a float has digits.
fn unit(prng: &mut Prng) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let bits = (prng.next_u64() >> 11) as f64;
    bits / 9_007_199_254_740_992.0
}

#[allow(clippy::cast_precision_loss, reason = "counts of keys are far below 2^53")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn histogram(count: usize, draws: usize, seed: u64) -> Vec<u32> {
        let (zipfian, mut prng) = (Zipfian::new(count), Prng::new(seed));
        let mut drawn = vec![0; count];
        (0..draws).for_each(|_| drawn[zipfian.draw(&mut prng)] += 1);
        drawn
    }

    /// Of pieces of the ranks and their expected numbers: the sum of squared deviations in units of what chance explains.
    fn chi_square(pieces: &[(f64, f64)]) -> f64 {
        pieces.iter().map(|(drawn, expected)| (drawn - expected).powi(2) / expected).sum()
    }

    #[test]
    fn the_most_popular_ranks_are_drawn_as_often_as_zipf_says() {
        let (count, draws) = (1000, 1_000_000);
        let (zipfian, drawn) = (Zipfian::new(count), histogram(count, draws, 1));
        // The first two ranks are exact by construction.
        let exact: Vec<_> =
            (0..2).map(|rank| (f64::from(drawn[rank]), zipfian.expected(rank) * as_f64(draws))).collect();
        // 13.8 is exceeded once in a thousand times with two degrees of freedom.
        assert!(chi_square(&exact) < 13.8, "{exact:?}");
        // The others are an approximation by a power function, which the paper accepts; it holds over runs of ranks.
        for ranks in [2..10, 10..100, 100..1000] {
            let expected: f64 = ranks.clone().map(|rank| zipfian.expected(rank)).sum::<f64>() * as_f64(draws);
            let found: f64 = ranks.clone().map(|rank| f64::from(drawn[rank])).sum();
            assert!((found / expected - 1.0).abs() < 0.12, "{ranks:?}: {found} of {expected}");
        }
    }

    #[test]
    fn popularity_falls_with_the_rank() {
        let drawn = histogram(10_000, 1_000_000, 2);
        let decades = [0..10, 10..100, 100..1000, 1000..10_000];
        let each: Vec<_> = decades
            .iter()
            .map(|ranks| {
                f64::from(drawn[ranks.clone()].iter().sum::<u32>()) / as_f64(ranks.end - ranks.start)
            })
            .collect();
        assert!(each.is_sorted_by(|more, fewer| *more > 4.0 * fewer), "{each:?}");
    }

    quickcheck! {
        fn every_draw_is_a_rank_and_a_seed_repeats_it(count: u16, seed: u64) -> bool {
            let count = usize::from(count % 2000) + 1;
            let zipfian = Zipfian::new(count);
            let (mut one, mut other) = (Prng::new(seed), Prng::new(seed));
            (0..200).all(|_| {
                let rank = zipfian.draw(&mut one);
                rank < count && rank == zipfian.draw(&mut other)
            })
        }
    }
}
