//! Whether everything that is bounded keeps to its bound, after every turn.
//!
//! Not checked: what has no number of its own (memory as a whole, the dirty pages of entries that were taken before the
//! bound was reached), queues outside of replicas (sockets, connections, the links between nodes), and whether a bound
//! is a sensible one.

use mesh_server::shard::Level;

/// Checks the levels of one replica.
///
/// # Errors
/// The first that is above its bound.
pub fn check(levels: impl IntoIterator<Item = Level>) -> Result<(), String> {
    match levels.into_iter().find(|level| level.now > level.most) {
        Some(Level { what, now, most }) => Err(format!("{what}: {now} of at most {most}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_is_well_and_what_is_fuller_is_not() {
        let level = |now| Level { what: "reads", now, most: 7 };
        assert_eq!(check([level(0), level(7)]), Ok(()));
        assert_eq!(check([level(7), level(8)]), Err("reads: 8 of at most 7".to_owned()));
    }
}
