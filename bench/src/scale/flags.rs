//! What may stand behind `mesh-bench scale`.

use clap::Args;

use super::dimensions::Dimension;
use crate::compare::{FleetFlags, FormFlags, PaceFlags};

/// Shows what becomes of Mesh's rate, latency and processor time as cores, shards, connections, values and requests in flight grow.
///
/// Starts a node of Mesh itself and changes one thing at a time. The rest stays as in the bars: one core, one shard, 100,000 keys
/// with values of 256 bytes, uniformly chosen, 50 connections with 1 and with 16 requests in flight, gets and durable puts. Every
/// acknowledged write must be there afterwards. All of it takes five to seven minutes.
///
/// Cores grow until the node has all processors that this program may use, those of the generator last: from there on both share
/// them, which the report says, and the rate says little about the node.
#[derive(Args, Clone, Debug)]
#[command(
    mut_arg("rounds", |arg| arg.default_value("1")),
    mut_arg("seconds", |arg| arg.default_value("2")),
    after_help = "\
Examples:
  mesh-bench scale
  mesh-bench scale --dimensions connections,in-flight --dir /data/bench
  mesh-bench scale --dimensions cores --generator-cores 24-31 --rounds 3 --seconds 10
  mesh-bench scale --dimensions shards --server-cores 0-7 --generator-cores 8-15
  mesh-bench scale --json > scale.json"
)]
pub(crate) struct ScaleFlags {
    /// What is changed, one after the other [default: all]
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', help_heading = "What is changed")]
    dimensions: Vec<Dimension>,
    #[command(flatten)]
    pub(super) fleet: FleetFlags,
    #[command(flatten)]
    pub(super) pace: PaceFlags,
    #[command(flatten)]
    pub(super) form: FormFlags,
}

impl ScaleFlags {
    /// What is changed, each once and in order.
    pub(super) fn dimensions(&self) -> Vec<Dimension> {
        let wanted =
            |dimension: &Dimension| self.dimensions.is_empty() || self.dimensions.contains(dimension);
        Dimension::ALL.into_iter().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn scale(line: &str) -> ScaleFlags {
        let cli = Cli::try_parse_from(format!("mesh-bench scale {line}").split_whitespace());
        let Command::Scale(flags) = cli.unwrap().command else { panic!("another command") };
        flags
    }

    #[test]
    fn all_dimensions_are_gone_through_in_short_slices_unless_told() {
        let flags = scale("");
        assert_eq!(flags.dimensions(), Dimension::ALL);
        assert_eq!((flags.pace.rounds, flags.pace.seconds, flags.pace.warm_up), (1, 2, 1));
        let flags = scale("--rounds 3 --seconds 10 --warm-up 2");
        assert_eq!((flags.pace.rounds, flags.pace.seconds, flags.pace.warm_up), (3, 10, 2));
    }

    #[test]
    fn dimensions_are_gone_through_once_and_in_order() {
        let flags = scale("--dimensions in-flight,cores --dimensions cores");
        assert_eq!(flags.dimensions(), [Dimension::Cores, Dimension::InFlight]);
        let refused = Cli::try_parse_from(["mesh-bench", "scale", "--dimensions", "keys"]).unwrap_err();
        assert!(refused.to_string().contains("connections"));
    }
}
