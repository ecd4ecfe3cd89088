//! Systems that this program starts itself: which there are, how each is started, and that nothing is left of them.
//!
//! `programs` finds what is installed, `launch` turns a copy of this program into a server's process, `process` is one such process,
//! `systems` knows how each system is started and reached, `room` is the directory of a run. A [`client::Client`] puts a started system
//! under load, whatever its protocol, and `first` waits for its first answer.
//!
//! Invariants:
//! - A process that was started is ended by its number: when its owner is dropped, on a signal, and by the kernel if this
//!   program dies in any other way. No other process is touched.
//! - Every start has a fresh directory and free ports on the loopback interface.
//! - A process runs on the processors that it was given from its first instruction on.
//!
//! Deliberately absent: systems on other hosts.

pub(crate) mod client;
mod first;
pub(crate) mod launch;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod room;
pub(crate) mod systems;

pub(crate) use self::launch::{LaunchFlags, launch};
