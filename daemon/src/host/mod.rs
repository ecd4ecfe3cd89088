//! The host: everything around the pure server that waits, reads a clock, or touches a file or a socket.
//!
//! Each core is a thread with an executor of its own. Its `turn` gathers what happened, steps the [`Server`] once and
//! does what that says: `disk` operations, answers on inbound connections (`net`), frames to other nodes (`link`),
//! messages to the node's other cores (`mesh`). `node` starts the cores of a node and stops them.
//!
//! Invariants:
//! - Only this module names the executor, and only `clock` reads a clock.
//! - Every queue is bounded. Where one fills up, connections are read more slowly; nothing that the server relies on is
//!   dropped.
//! - No borrow of anything that tasks share is held while a task waits.
//!
//! Deliberately absent: what requests, frames and files mean.

mod bell;
mod breath;
mod clock;
mod disk;
mod doorbell;
mod error;
mod inbox;
mod link;
mod listen;
mod lock;
mod memory;
mod mesh;
mod net;
mod node;
mod outbox;
mod patience;
mod registry;
mod resolve;
mod server;
mod socket;
mod sockets;
mod ticker;
mod turn;
mod watch;
mod words;

#[cfg(test)]
mod tests;

pub use self::clock::now;
pub use self::error::HostError;
pub(crate) use self::lock::DataLock;
pub use self::memory::memory_ahead;
pub use self::node::{Claim, NodeHandle, Stopper};
pub use self::registry::{Registry, RunningNode};
pub use self::resolve::PORT;
pub use self::server::Server;
