//! Whether the logs of a shard's replicas agree as raft promises (Ongaro, "Consensus: Bridging Theory and Practice",
//! 2014, figure 3.2).
//!
//! Checked:
//! - *log matching*: entries with one index and term are the same, and so is everything before them;
//! - *state machine safety*: what any replica knew to be committed, and what any applied, has one term at its index for ever;
//! - *leader completeness*: whoever begins to lead has the last entry known to be committed in an earlier term;
//! - *election safety*: one replica leads in a term.
//!
//! Each entry is recorded once for the shard, by index and term, with a digest of what it says and with the term of the
//! entry before it. Whoever has an entry must have it as recorded; so, by induction, all before it is the same too.
//!
//! Not checked: that what is committed is on a majority of disks (losing it breaks leader completeness, and the reads of
//! clients); what entries say that have left a replica's memory, other than by their terms, until they are read back and sent
//! to a follower; the logs of replicas that do not serve.

use std::collections::BTreeMap;

use mesh_base::{LogIndex, ReplicaId, ShardId, Term};
use mesh_server::shard::Inspection;

/// A log, as far as this checker looks at it.
pub trait LogView {
    /// Whose.
    fn replica(&self) -> ReplicaId;
    /// The term of the replica.
    fn term(&self) -> Term;
    /// Whether it leads in that term.
    fn leads(&self) -> bool;
    /// The entry before the first.
    fn start(&self) -> LogIndex;
    /// The last entry.
    fn end(&self) -> LogIndex;
    /// The last entry known to be committed.
    fn commit(&self) -> LogIndex;
    /// The last entry applied, and its term.
    fn applied(&self) -> (LogIndex, Term);
    /// The term of an entry from `start` to `end`.
    fn term_of(&self, index: LogIndex) -> Option<Term>;
    /// What an entry says, if it is at hand.
    fn digest_of(&self, index: LogIndex) -> Option<u64>;
}

impl LogView for Inspection<'_> {
    fn replica(&self) -> ReplicaId {
        self.identity().replica
    }

    fn term(&self) -> Term {
        Inspection::term(self)
    }

    fn leads(&self) -> bool {
        Inspection::leads(self)
    }

    fn start(&self) -> LogIndex {
        self.log_start()
    }

    fn end(&self) -> LogIndex {
        self.log_end()
    }

    fn commit(&self) -> LogIndex {
        Inspection::commit(self)
    }

    fn applied(&self) -> (LogIndex, Term) {
        let applied = Inspection::applied(self);
        (applied.index, applied.term)
    }

    fn term_of(&self, index: LogIndex) -> Option<Term> {
        Inspection::term_of(self, index)
    }

    fn digest_of(&self, index: LogIndex) -> Option<u64> {
        self.entry_digest(index)
    }
}

/// What the logs of all shards have shown so far.
#[derive(Default, Debug)]
pub struct Logs {
    shards: BTreeMap<ShardId, Shard>,
}

#[derive(Default, Debug)]
struct Shard {
    entries: BTreeMap<(LogIndex, Term), Entry>,
    committed: BTreeMap<LogIndex, Term>,
    /// The last of them, and the term of the replica that knew of it first.
    newest_commit: Option<(LogIndex, Term)>,
    leaders: BTreeMap<Term, ReplicaId>,
    /// How far each replica was looked at.
    seen: BTreeMap<ReplicaId, Seen>,
}

/// What an entry says, and the term of the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    digest: u64,
    before: Term,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    start: LogIndex,
    end: (LogIndex, Term),
    commit: LogIndex,
    applied: (LogIndex, Term),
    led: Option<Term>,
}

impl Logs {
    /// Looks at what a log has got since the last look.
    ///
    /// # Errors
    /// What contradicts what was seen before, here or in another log of the shard.
    pub fn observe(&mut self, shard: ShardId, log: &impl LogView) -> Result<(), String> {
        self.shards.entry(shard).or_default().observe(log)
    }

    /// A replica was lost or stops: what it serves with next is looked at from the beginning.
    pub fn forget(&mut self, shard: ShardId, replica: ReplicaId) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.seen.remove(&replica);
        }
    }
}

impl Shard {
    fn observe(&mut self, log: &impl LogView) -> Result<(), String> {
        let before = self.seen.get(&log.replica()).copied();
        let end = log.end();
        let now = Seen {
            start: log.start(),
            end: (end, log.term_of(end).unwrap_or_default()),
            commit: log.commit(),
            applied: log.applied(),
            led: log.leads().then(|| log.term()),
        };
        if before == Some(now) {
            return Ok(());
        }
        self.check_entries(log, before, now)?;
        self.check_committed(log, before, now)?;
        self.check_leader(log, before, now)?;
        self.seen.insert(log.replica(), now);
        Ok(())
    }

    /// Every entry that is new here, or may be, against the record.
    fn check_entries(&mut self, log: &impl LogView, before: Option<Seen>, now: Seen) -> Result<(), String> {
        let goes_on = |seen: &Seen| log.term_of(seen.end.0) == Some(seen.end.1);
        let mut index = match before {
            Some(seen) if seen.end == now.end => return Ok(()),
            Some(seen) if goes_on(&seen) => seen.end.0.next(),
            _ => now.start.next(),
        };
        while index <= now.end.0 {
            let terms = log.term_of(index).zip(log.term_of(index.prev()));
            if let (Some((term, before)), Some(digest)) = (terms, log.digest_of(index)) {
                let entry = Entry { digest, before };
                let known = *self.entries.entry((index, term)).or_insert(entry);
                if known.digest != digest {
                    return Err(format!("entry {index} of term {term} is not what it is elsewhere"));
                }
                if known.before != before {
                    let was = known.before;
                    let what = format!("follows one of term {before} here and of term {was} elsewhere");
                    return Err(format!("entry {index} of term {term} {what}"));
                }
            }
            index = index.next();
        }
        Ok(())
    }

    /// What is newly known to be committed, or applied, or where the log begins.
    fn check_committed(&mut self, log: &impl LogView, before: Option<Seen>, now: Seen) -> Result<(), String> {
        if now.commit > now.end.0 {
            return Err(format!("commit index {} beyond the log's end {}", now.commit, now.end.0));
        }
        if now.applied.0 > now.commit {
            return Err(format!("entry {} applied, and only {} committed", now.applied.0, now.commit));
        }
        let mut index = before.map_or(now.start, |seen| seen.commit.next().max(now.start));
        while index <= now.commit {
            if let Some(term) = log.term_of(index) {
                self.agree(index, term)?;
            }
            index = index.next();
        }
        let (index, term) = now.applied;
        if index > LogIndex(0) {
            self.agree(index, term)?;
        }
        if self.newest_commit.is_none_or(|(newest, _)| newest < now.commit) {
            self.newest_commit = Some((now.commit, log.term()));
        }
        Ok(())
    }

    /// A committed entry has one term.
    fn agree(&mut self, index: LogIndex, term: Term) -> Result<(), String> {
        let known = *self.committed.entry(index).or_insert(term);
        if known == term {
            return Ok(());
        }
        Err(format!(
            "entry {index} was committed in its form of term {known}, and is one of term {term} here"
        ))
    }

    fn check_leader(&mut self, log: &impl LogView, before: Option<Seen>, now: Seen) -> Result<(), String> {
        let Some(term) = now.led else { return Ok(()) };
        if before.is_some_and(|seen| seen.led == now.led) {
            return Ok(());
        }
        let leader = *self.leaders.entry(term).or_insert(log.replica());
        if leader != log.replica() {
            return Err(format!("leads in term {term}, in which replica {leader} led"));
        }
        // A commit in a later term than this is none that this leader must have.
        let Some((index, _)) = self.newest_commit.filter(|(_, known_in)| *known_in < term) else {
            return Ok(());
        };
        let committed = self.committed.get(&index).copied();
        let has_it = index < log.start() || log.term_of(index) == committed;
        if has_it {
            Ok(())
        } else {
            Err(format!("leads in term {term} without entry {index}, which was committed"))
        }
    }
}

#[cfg(test)]
mod tests;
