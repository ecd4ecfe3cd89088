//! The simulator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_sim::cli::main(&mesh_sim::cluster::Cluster)
}
