//! What is changed, one dimension at a time, and the loads that each of its values gets.
//!
//! Whatever a dimension does not change is as in the bars: one shard, 100,000 keys with values of 256 bytes, uniformly chosen, 50
//! connections with 1 and with 16 requests in flight. A stage is a node that is started once and gets all loads that are alike in
//! what cannot be changed while it runs.

use clap::ValueEnum;
use mesh_base::limits::UNCOMMITTED_BYTES_MAX;
use serde::Serialize;

use crate::fleet::systems::MeshLayout;
use crate::keyspace::KEY_BYTES;
use crate::load::{LoadFlags, Workload};
use crate::report::text::count;

const CONNECTIONS: u16 = 50;
/// Requests in flight on each connection, unless they are what is changed.
const IN_FLIGHT: [u16; 2] = [1, 16];
const WORKLOADS: [Workload; 2] = [Workload::Get, Workload::Put];

const SHARDS: [u16; 5] = [1, 2, 4, 8, 16];
const CONNECTION_COUNTS: [u16; 6] = [1, 10, 50, 250, 1000, 5000];
const VALUE_BYTES: [usize; 5] = [16, 256, 4 << 10, 64 << 10, 1 << 20];
const DEPTHS: [u16; 5] = [1, 4, 16, 64, 256];

/// Bytes of values that are in flight at most: half of what a shard may have uncommitted, beyond which it refuses writes, and what is
/// measured is how often they are sent again.
const IN_FLIGHT_BYTES_MAX: usize = UNCOMMITTED_BYTES_MAX / 2;
/// The values of all keys together stay below this: so that a node of a few GiB serves them from memory, and a stage begins soon.
const DATA_BYTES_MAX: usize = 512 << 20;

/// What is changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dimension {
    /// Cores of the node, doubled until it has all processors; as many shards as the most cores.
    Cores,
    /// Shards of the node: 1 to 16.
    Shards,
    /// Connections: 1 to 5000.
    Connections,
    /// Bytes of a value: 16 B to 1 MiB. Large ones on fewer connections, so that no more than 16 MiB are in flight.
    Values,
    /// Requests in flight on each connection: 1 to 256.
    InFlight,
}

impl Dimension {
    /// All of them, in order.
    pub(super) const ALL: [Self; 5] =
        [Self::Cores, Self::Shards, Self::Connections, Self::Values, Self::InFlight];

    /// For a table's head.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Shards => "shards",
            Self::Connections => "connections",
            Self::Values => "value",
            Self::InFlight => "in flight",
        }
    }
}

/// One row's load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// What is changed.
    pub(super) dimension: Dimension,
    /// To which value: a number of its dimension's unit.
    pub(super) value: usize,
    /// The load.
    pub(super) work: LoadFlags,
}

impl Load {
    /// The changed value, in words.
    pub(super) fn value_in_words(&self) -> String {
        match self.dimension {
            Dimension::Values if self.work.connections == CONNECTIONS => in_bytes(self.value),
            Dimension::Values => format!("{} on {}", in_bytes(self.value), self.work.connections),
            _ => count(self.value as u64),
        }
    }

    /// Everything else about it.
    pub(super) fn rest_in_words(&self) -> String {
        match self.dimension {
            Dimension::InFlight => self.work.workload.name().to_owned(),
            _ => format!("{}, {} in flight", self.work.workload.name(), self.work.in_flight),
        }
    }
}

/// A node from its start to its end.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// What is changed.
    dimension: Dimension,
    /// How the node is laid out.
    pub(super) layout: MeshLayout,
    /// What it is put under, all of the same keys.
    pub(super) loads: Vec<Load>,
}

impl Stage {
    /// For people who look on.
    pub(super) fn words(&self) -> String {
        let values = match self.loads.as_slice() {
            [first, .., last] if first.value != last.value => format!("{} to {}", first.value, last.value),
            loads => loads.first().map(Load::value_in_words).unwrap_or_default(),
        };
        format!("{} {values}", self.dimension.words())
    }
}

/// The stages of some dimensions. A node has so many cores unless they are what is changed, and at most so many then.
pub(super) fn stages(dimensions: &[Dimension], cores: usize, cores_max: usize) -> Vec<Stage> {
    let base = MeshLayout { cores, ..MeshLayout::SINGLE };
    let stages = dimensions.iter().map(|&dimension| {
        let stage = |layout, values: &[usize]| Stage { dimension, layout, loads: loads(dimension, values) };
        match dimension {
            Dimension::Cores => {
                let counts = doublings(cores_max);
                let most = counts.iter().copied().max().unwrap_or(1);
                let shards = u16::try_from(most).unwrap_or(u16::MAX);
                counts.iter().map(|&cores| stage(MeshLayout { cores, shards }, &[cores])).collect()
            }
            Dimension::Shards => SHARDS
                .iter()
                .map(|&shards| stage(MeshLayout { shards, ..base }, &[usize::from(shards)]))
                .collect(),
            Dimension::Values => VALUE_BYTES.iter().map(|&bytes| stage(base, &[bytes])).collect(),
            Dimension::Connections => vec![stage(base, &CONNECTION_COUNTS.map(usize::from))],
            Dimension::InFlight => vec![stage(base, &DEPTHS.map(usize::from))],
        }
    });
    stages.collect::<Vec<Vec<_>>>().concat()
}

/// The loads of some values of a dimension.
fn loads(dimension: Dimension, values: &[usize]) -> Vec<Load> {
    let in_flight = match dimension {
        // It is the value.
        Dimension::InFlight => &[1][..],
        _ => &IN_FLIGHT,
    };
    let kinds = WORKLOADS.iter().flat_map(|&workload| in_flight.iter().map(move |&depth| (workload, depth)));
    let of_kind = |(workload, in_flight)| {
        values.iter().map(move |&value| {
            let base = LoadFlags::new(workload, CONNECTIONS, in_flight);
            Load { dimension, value, work: changed(base, dimension, value) }
        })
    };
    kinds.flat_map(of_kind).collect()
}

/// A load with a value of a dimension; that of nodes does not change it.
fn changed(base: LoadFlags, dimension: Dimension, value: usize) -> LoadFlags {
    let small = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
    match dimension {
        Dimension::Cores | Dimension::Shards => base,
        Dimension::Connections => LoadFlags { connections: small(value), ..base },
        Dimension::InFlight => LoadFlags { in_flight: small(value), ..base },
        Dimension::Values => {
            let fit = u32::try_from(DATA_BYTES_MAX / (value + KEY_BYTES)).unwrap_or(u32::MAX);
            let connections = IN_FLIGHT_BYTES_MAX / (value * usize::from(base.in_flight));
            LoadFlags {
                value_bytes: value,
                keys: base.keys.min(fit),
                connections: base.connections.min(small(connections).max(1)),
                ..base
            }
        }
    }
}

/// 1, 2, 4 and so on, and the most.
fn doublings(most: usize) -> Vec<usize> {
    let mut counts: Vec<_> = std::iter::successors(Some(1_usize), |count| count.checked_mul(2))
        .take_while(|&count| count < most)
        .collect();
    counts.push(most.max(1));
    counts
}

/// A number of bytes, in words.
fn in_bytes(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dimension: Dimension, cores_max: usize) -> Vec<usize> {
        let stages = stages(&[dimension], 1, cores_max);
        let mut values: Vec<_> =
            stages.iter().flat_map(|stage| &stage.loads).map(|load| load.value).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    #[test]
    fn a_dimension_has_its_values_and_every_one_gets_gets_and_puts() {
        for (dimension, expected) in [
            (Dimension::Cores, &[1, 2, 4, 6][..]),
            (Dimension::Shards, &[1, 2, 4, 8, 16]),
            (Dimension::Connections, &[1, 10, 50, 250, 1000, 5000]),
            (Dimension::Values, &[16, 256, 4096, 65_536, 1_048_576]),
            (Dimension::InFlight, &[1, 4, 16, 64, 256]),
        ] {
            assert_eq!(values(dimension, 6), expected);
            let stages = stages(&[dimension], 1, 6);
            let loads = stages.iter().flat_map(|stage| &stage.loads);
            let of_one = |workload| loads.clone().filter(|load| load.work.workload == workload).count();
            assert_eq!(of_one(Workload::Get), of_one(Workload::Put));
        }
    }

    #[test]
    fn only_one_thing_is_changed() {
        for stage in stages(&Dimension::ALL, 1, 2) {
            for load in &stage.loads {
                let (of, work) = (stage.dimension, &load.work);
                let is = |dimension, changed: bool| assert!(of == dimension || !changed, "{}", stage.words());
                is(Dimension::Connections, work.connections != CONNECTIONS && of != Dimension::Values);
                is(Dimension::Values, work.value_bytes != 256 || work.keys != 100_000);
                is(Dimension::InFlight, !IN_FLIGHT.contains(&work.in_flight));
                assert!(work.check().is_ok());
            }
        }
        let layouts =
            |dimension| stages(&[dimension], 1, 4).iter().map(|stage| stage.layout).collect::<Vec<_>>();
        assert!(layouts(Dimension::Cores).iter().all(|layout| layout.shards == 4));
        assert!(layouts(Dimension::Shards).iter().all(|layout| layout.cores == 1));
        assert_eq!(layouts(Dimension::Connections), [MeshLayout::SINGLE]);
    }

    #[test]
    fn large_values_have_fewer_keys_and_all_of_a_stage_the_same() {
        for stage in stages(&Dimension::ALL, 1, 2) {
            let keys = stage.loads[0].work.keys;
            for Load { work, .. } in &stage.loads {
                assert!(work.keys as usize * work.value_bytes < DATA_BYTES_MAX);
                assert_eq!(work.keys, keys);
            }
        }
        let most = changed(LoadFlags::new(Workload::Get, 1, 1), Dimension::Values, 1 << 20);
        assert_eq!(most.keys, 511);
    }

    #[test]
    fn large_values_have_fewer_connections_so_that_none_is_refused() {
        let connections = |value, in_flight| {
            changed(LoadFlags::new(Workload::Put, CONNECTIONS, in_flight), Dimension::Values, value)
                .connections
        };
        let of_both = |value| [connections(value, 1), connections(value, 16)];
        assert_eq!([of_both(4 << 10), of_both(64 << 10), of_both(1 << 20)], [[50, 50], [50, 16], [16, 1]]);
        let stages = stages(&[Dimension::Values], 1, 1);
        let words: Vec<_> = stages[4].loads.iter().map(Load::value_in_words).collect();
        assert_eq!(words, ["1 MiB on 16", "1 MiB on 1", "1 MiB on 16", "1 MiB on 1"]);
    }

    #[test]
    fn what_is_changed_is_said() {
        let words: Vec<_> =
            stages(&[Dimension::Values, Dimension::InFlight], 1, 2).iter().map(Stage::words).collect();
        assert_eq!(
            words,
            [
                "value 16 B",
                "value 256 B",
                "value 4 KiB",
                "value 64 KiB",
                "value 1 MiB on 16",
                "in flight 1 to 256"
            ]
        );
        assert_eq!((doublings(1), doublings(2), doublings(16).len()), (vec![1], vec![1, 2], 5));
    }
}
