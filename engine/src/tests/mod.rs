//! Scenarios: a store on a disk that does all that the I/O seam allows.
#![allow(clippy::cast_possible_truncation, reason = "test sizes are small")]

mod basics;
mod crash;
mod damage;
mod disk;
mod driver;
mod effects;
mod fetches;
mod flips;
mod inspection;
mod matrix;
mod model;
mod packing;
mod snapshots;
mod space;
mod versions;
mod walks;
