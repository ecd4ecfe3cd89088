//! The deterministic simulator of Mesh: what a cluster stands on, made hostile, and the checkers of its promises.
//!
//! Everything below a node's host is a state machine that is told the time, the frames and the completions. Here they
//! come from models instead of devices:
//!
//! | module | is |
//! |---|---|
//! | [`heap`] | true time and the order of events |
//! | [`clock`] | what a node believes the time to be |
//! | [`disk`] | files that a crash may tear, for [`mesh_base::io`] |
//! | [`net`] | frames that are lost, doubled, overtaken, blocked |
//! | [`latency`] | how long things take |
//! | [`options`] | how large and how hostile a run is |
//! | [`history`] | what clients asked and were answered |
//! | [`linearizability`], [`revisions`], [`atomicity`], [`cuts`], [`lists`] | the checkers of what clients saw; each says what it does not check |
//! | [`checks`] | the checkers of what goes on inside; likewise |
//! | [`search`] | linearizability of any object, bounded |
//! | [`violation`] | a broken promise with its proof |
//! | [`trace`], [`report`] | what a run did, step by step and in figures |
//! | [`driver`], [`swarm`], [`cli`] | one seed, many seeds, the command line |
//! | [`determinism`] | whether two runs of a seed are the same |
//! | [`overrides`], [`shrink`] | runs that differ from what their seed draws; smaller runs of a failure |
//! | [`cluster`] | whole clusters of the real thing, and clients that retry |
//! | [`scenario`] | the same, told step by step |
//! | `teeth` | deliberate bugs that the checkers must find, with the feature `flaws` |
//! | [`rehearsal`] | a small system that shows that all of this finds flaws |
//!
//! Invariants:
//! - A run is a function of its seed: one root generator, forked for each part; no clock, no thread, no order of hashing.
//! - A model allows what the real thing allows, and keeps the promises that the real thing keeps. Both are tested.
//!
//! Deliberately absent, from all but the cluster and its scenarios: any knowledge of what the frames and files contain.

pub mod atomicity;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod counters;
pub mod cuts;
pub mod determinism;
pub mod disk;
#[cfg(test)]
mod drawing;
pub mod driver;
pub mod heap;
pub mod history;
pub mod latency;
pub mod linearizability;
pub mod lists;
pub mod net;
pub mod options;
pub mod overrides;
pub mod rehearsal;
pub mod report;
pub mod revisions;
pub mod scenario;
pub mod search;
pub mod shrink;
pub mod swarm;
#[cfg(feature = "flaws")]
pub mod teeth;
pub mod trace;
pub mod unchanged;
pub mod violation;
