//! The checkers of what clients do not see: logs, applied states, page stores, queues. They look at replicas between
//! two turns and at disks after crashes, while a run goes on.
//!
//! | module | is |
//! |---|---|
//! | [`logs`] | log matching, and what is committed stays |
//! | [`leases`] | who reads without asking anyone is the only leader |
//! | [`states`] | replicas that applied the same are the same |
//! | [`stores`] | what a page store's file holds is sound |
//! | [`bounds`] | nothing that is bounded is above its bound |
//!
//! Invariant: a checker changes nothing of the run, so a run with it is the run without it.
//!
//! What clients saw is judged by [`linearizability`](crate::linearizability) and its neighbours.

pub mod bounds;
pub mod leases;
pub mod logs;
pub mod states;
pub mod stores;
