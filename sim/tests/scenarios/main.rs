//! Scenarios: what was promised, and every fault that was ever found in it, told step by step.
//!
//! A fault that is found leaves a scenario here that fails without its repair.

mod batches;
mod damage;
mod elections;
mod leases;
mod lists;
mod membership;
mod recovery;
mod resumption;
mod sessions;
mod snapshots;
mod space;
mod survival;
mod transactions;
mod words;
