//! Whether a leader that may read without asking anyone is the only one.
//!
//! Checked, after every turn of a replica that leads: of two replicas of a shard that lead, in different terms, the one of the
//! earlier term holds no lease, by its own clock at that moment.
//!
//! Not checked: that a lease is there when it could be; that what is read under it is what was committed (the reads of clients
//! tell).

use mesh_base::{ReplicaId, Term};

/// A replica that leads, as far as this checker looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderView {
    /// Which.
    pub replica: ReplicaId,
    /// Its term.
    pub term: Term,
    /// Whether it may read without asking anyone, by its own clock.
    pub holds_lease: bool,
}

/// Looks at all replicas of a shard that lead at one moment.
///
/// # Errors
/// A lease that should be over.
pub fn check(leaders: &[LeaderView]) -> Result<(), String> {
    let Some(newest) = leaders.iter().max_by_key(|leader| leader.term) else { return Ok(()) };
    match leaders.iter().find(|leader| leader.term < newest.term && leader.holds_lease) {
        None => Ok(()),
        Some(LeaderView { replica, term, .. }) => Err(format!(
            "replica {replica} holds a lease in term {term}, and replica {} leads in term {}",
            newest.replica, newest.term
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(replica: u64, term: u64) -> LeaderView {
        LeaderView { replica: ReplicaId(replica), term: Term(term), holds_lease: false }
    }

    fn reader(replica: u64, term: u64) -> LeaderView {
        LeaderView { holds_lease: true, ..leader(replica, term) }
    }

    #[test]
    fn the_lease_of_an_earlier_term_is_found_beside_a_later_leader() {
        assert!(check(&[]).is_ok());
        assert!(check(&[reader(1, 3), leader(2, 2)]).is_ok());
        assert!(check(&[leader(1, 3), reader(2, 2)]).is_err());
    }
}
