//! What may stand behind `mesh-bench failover`.

use clap::{Args, ValueEnum};

use crate::compare::{FleetFlags, TellFlags};
use crate::fleet::systems::SystemName;

/// Whom to compare unless told.
pub(super) const SYSTEMS: [SystemName; 2] = [SystemName::Mesh3, SystemName::Etcd3];
/// How leaders are lost unless told.
pub(super) const LOSSES: [Loss; 2] = [Loss::Kill, Loss::Freeze];
/// Clients that write.
pub(super) const CONNECTIONS: u16 = 16;

/// Kills and stops leaders under a load of writes, and shows for how long nobody could write.
///
/// In each round the node of the leader is killed (SIGKILL), or stands still (SIGSTOP) and goes on later (SIGCONT), while 16 clients
/// write. The figure is the longest time between two acknowledged writes, whoever wrote them: election, finding the new leader
/// and connecting to it. Before the next round every node has caught up.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  mesh-bench failover                                      # three nodes of Mesh and of etcd, 50 rounds each
  mesh-bench failover --systems mesh-3 --losses kill --rounds 200 --json > failover.json
  mesh-bench failover --server-cores 0,1 --rounds 10 --check")]
pub(crate) struct FailoverFlags {
    /// Clusters, one after the other.
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "mesh-3,etcd-3",
        value_parser = cluster
    )]
    pub(super) systems: Vec<SystemName>,
    /// How leaders are lost, in turn.
    #[arg(long, value_name = "HOW,...", value_delimiter = ',', default_value = "kill,freeze")]
    pub(super) losses: Vec<Loss>,
    /// Rounds of each cluster.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) rounds: u16,
    #[command(flatten)]
    pub(super) fleet: FleetFlags,
    #[command(flatten)]
    pub(super) tell: TellFlags,
}

/// How a leader is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Loss {
    /// Its process is killed.
    Kill,
    /// Its process stands still for a while, and its connections with it.
    Freeze,
}

impl Loss {
    /// For a table.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Kill => "leader killed: longest time without a write",
            Self::Freeze => "leader stands still: longest time without a write",
        }
    }
}

/// A system that has leaders to lose.
fn cluster(name: &str) -> Result<SystemName, String> {
    let system = SystemName::from_str(name, false)?;
    if system.nodes() > 1 { Ok(system) } else { Err(format!("{name} has one node")) }
}
