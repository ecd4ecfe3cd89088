//! Scenarios: the log on a disk that loses, tears and reorders whatever it may.

mod crash;
mod damage;
mod disk;
mod fetch;
mod flips;
mod harness;
mod identity;
mod inspection;
mod matrix;
mod model;
mod open;
mod space;
mod writing;
