//! The thread that makes memory for the page stores of a node before they need it.

use std::thread;

use mesh_engine::MemoryAhead;
use rustix::process::setpriority_process;

use crate::core::NodeName;

/// The thread gives way to everything else: it may well be on the processor of the very core that it works for.
const NICENESS: i32 = 19;

/// Where the stores of a node may order memory. The thread ends when none of them is left.
#[must_use]
pub fn memory_ahead(name: &NodeName) -> MemoryAhead {
    let (memory, orders) = MemoryAhead::new();
    let thread = thread::Builder::new().name(format!("mesh-{name}-memory"));
    let started = thread.spawn(move || {
        // Without a process it is this thread that gets the priority.
        if let Err(error) = setpriority_process(None, NICENESS) {
            tracing::warn!(%error, "the thread that makes memory ahead may take a core's time");
        }
        orders.serve();
    });
    if let Err(error) = started {
        tracing::warn!(%error, "without a thread that makes memory ahead, a core may pause for some");
        return MemoryAhead::default();
    }
    memory
}
