//! The simulator's command line.

use std::process::ExitCode;

/// Runs copy large values a lot; this takes a fifth off their time. Without huge pages: a run's memory comes and goes, and
/// a third of all time would pass in the kernel, which clears two mebibytes for each touch of a byte.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mesh_sim::cli::main(&mesh_sim::cluster::Cluster)
}
