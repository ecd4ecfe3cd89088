//! The node as a whole, above its shards: who it is, how it was born, who the others are. Pure.

pub mod config;
pub mod directory;
pub mod identity;
pub mod membership;
pub mod message;
mod reach;
#[cfg(test)]
mod tests;

pub use config::NodeConfig;
pub use directory::Directory;
pub use membership::{Membership, MembershipEffect};
pub use message::NodeMessage;
