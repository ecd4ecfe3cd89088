//! What may stand behind `mesh-bench footprint`.

use clap::Args;

use crate::compare::{FleetFlags, TellFlags};

/// Shows what one node needs: memory and processor time when idle, the time to start, its program's size; beside etcd.
///
/// A start is from the process's creation to the first answer that a client gets: a put in an empty directory, a get after a
/// node with 100,000 keys was killed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  mesh-bench footprint
  mesh-bench footprint --rounds 5 --check --markdown
  mesh-bench footprint --mesh-server /usr/bin/mesh-server     # a released file")]
pub(crate) struct FootprintFlags {
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: u16,
    #[command(flatten)]
    pub(super) fleet: FleetFlags,
    #[command(flatten)]
    pub(super) tell: TellFlags,
}
