//! Deliberate bugs, one for each promise that is easily broken: planted, one at a time, to prove that the simulator's
//! checkers find them.
//!
//! A flaw has one site in the product, at the very decision that keeps an invariant; there [`is_planted`] turns the
//! decision round. Without the feature `flaws`, which the simulator's test of its checkers alone turns on, the answer is a
//! constant, and nothing of it is in a program.
//!
//! Invariants:
//! - A flaw is planted for one run of one closure on one thread, and gone when that ends, by a panic too.
//! - A planted flaw draws nothing: a run with it is as much a function of its seed as one without.
//!
//! Deliberately absent: two flaws at a time.

#[cfg(feature = "flaws")]
use std::cell::Cell;

macro_rules! flaws {
    ($($flaw:ident, $name:literal, $what:literal;)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Flaw {
            $(#[doc = $what] $flaw,)*
        }

        impl Flaw {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$flaw),*];

            /// Its name, in lower case with hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$flaw => $name,)*
                }
            }

            /// What goes wrong with it, in a sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$flaw => $what,)*
                }
            }
        }
    };
}

flaws! {
    AcknowledgeBeforeDurable, "acknowledge-before-durable",
        "A replica tells raft that entries are durable when they were handed to the log.";
    ForgetVote, "forget-vote",
        "A replica that restarts knows its term, and not for whom it voted in it.";
    TrustUnprovenBatches, "trust-unproven-batches",
        "Recovery relies on batches that it could read without writing them again.";
    ReviveDeadBatch, "revive-dead-batch",
        "Recovery takes any intact batch behind the log's end for its next one.";
    CutDurableBatch, "cut-durable-batch",
        "Recovery cuts the log at a damaged batch although a later one says that it was durable.";
    TrustNewestSegment, "trust-newest-segment",
        "Recovery reads the newest segment alone, though entries that no checkpoint contains are in older ones.";
    SuperblockBeforePages, "superblock-before-pages",
        "The superblock is written without waiting for the sync of the pages.";
    SkipSuperblockSync, "skip-superblock-sync",
        "A checkpoint counts as durable before the sync of its superblock.";
    ReusePagesEarly, "reuse-pages-early",
        "Freed pages are handed out before the checkpoint without them is durable.";
    ReusePinnedPages, "reuse-pinned-pages",
        "Pages that a pinned checkpoint refers to are handed out.";
    TruncateEarly, "truncate-early",
        "The page store's file is cut off behind the pages in use now, whatever its checkpoints refer to.";
    DropTombstoneAlone, "drop-tombstone-alone",
        "The sweep drops a tombstone and leaves the older versions that it hides.";
    ReadBelowHorizon, "read-below-horizon",
        "A read below the horizon is answered with what is left there.";
    ApplyOutOfOrder, "apply-out-of-order",
        "Of several committed entries the newest is applied first.";
    ApplyWithoutPages, "apply-without-pages",
        "An entry whose pages are not in memory counts as applied, and its writes are lost.";
    CheckpointAheadOfLog, "checkpoint-ahead-of-log",
        "A checkpoint begins before the log knows, durably, that what it holds is committed.";
    EvaluateEarly, "evaluate-early",
        "A new leader evaluates before it has applied its whole log.";
    RevisionByClock, "revision-by-clock",
        "A leader whose clock is behind the newest revision assigns by its clock alone.";
    RepeatRetriedWrite, "repeat-retried-write",
        "A write that its session knows is evaluated again.";
    OpenSessionTwice, "open-session-twice",
        "The opening of a session that was answered already opens another.";
    DenyExpiredWrite, "deny-expired-write",
        "A proposed write whose deadline passes is answered \"not applied\".";
    DenyAtStepDown, "deny-at-step-down",
        "A leader that steps down answers its proposed writes \"not applied\".";
    AnswerByIndexAlone, "answer-by-index-alone",
        "A write is answered \"done\" by whatever entry is applied at its index.";
    ReadWithoutQuorum, "read-without-quorum",
        "A leader serves reads without asking a quorum whether it still leads.";
    ReadBeforeApplied, "read-before-applied",
        "A read is served as soon as its leader is confirmed, whatever of the log is applied by then.";
    BreakPromise, "break-promise",
        "A replica votes, and campaigns, although it has just acknowledged a round of its leader.";
    LeaseThroughTransfer, "lease-through-transfer",
        "A leader that asked another replica to take over still reads under its lease.";
    RangeIgnoresRevision, "range-ignores-revision",
        "The later pages of a range are read at the newest revision, not at that of the first.";
    ReadBatchAnew, "read-batch-anew",
        "A batched get that waited for a page reads the rest of its keys at what is the newest revision by then.";
    SplitBatch, "split-batch",
        "The puts of a batch have a revision each.";
    ConditionIgnoresPending, "condition-ignores-pending",
        "A leader judges conditions by what is applied, whatever it proposed since.";
    SkipRangeCheck, "skip-range-check",
        "A leader does a transaction whatever was written since in the ranges that it had read.";
    InstallBeforeDecided, "install-before-decided",
        "A received snapshot takes the live store's place before the log's record of that is durable.";
    MixSnapshots, "mix-snapshots",
        "What was received of one snapshot is gone on with from another.";
    RejoinUnderOldId, "rejoin-under-old-id",
        "A node whose directory was lost joins its cluster again as the member it was.";
    ForgetFailedSnapshot, "forget-failed-snapshot",
        "raft is not told that a snapshot it asked for was not sent.";
    StayOutOfSpace, "stay-out-of-space",
        "A log that found no disk space for its next segment never looks for it again.";
}

#[cfg(feature = "flaws")]
thread_local! {
    static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
    static STRIKES: Cell<u64> = const { Cell::new(0) };
}

/// Whether the decision that keeps an invariant is to be turned round. To be asked last, where everything else already
/// says that the decision matters: the times it is asked in vain tell how often the flaw struck.
#[cfg(feature = "flaws")]
#[must_use]
pub fn is_planted(flaw: Flaw) -> bool {
    let is_planted = PLANTED.get() == Some(flaw);
    STRIKES.set(STRIKES.get() + u64::from(is_planted));
    is_planted
}

/// Whether the decision that keeps an invariant is to be turned round: never, in a program without flaws.
#[cfg(not(feature = "flaws"))]
#[must_use]
#[inline(always)]
pub const fn is_planted(_: Flaw) -> bool {
    false
}

/// Runs a closure with a flaw planted on this thread.
#[cfg(feature = "flaws")]
pub fn with<R>(flaw: Flaw, run: impl FnOnce() -> R) -> R {
    struct Uproot;
    impl Drop for Uproot {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    assert_eq!(PLANTED.replace(Some(flaw)), None, "one flaw at a time");
    let _uproot = Uproot;
    STRIKES.set(0);
    run()
}

/// How many decisions the flaw planted last on this thread has turned round.
#[cfg(feature = "flaws")]
#[must_use]
pub fn strikes() -> u64 {
    STRIKES.get()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_made_of_words() {
        let names: BTreeSet<&str> = Flaw::ALL.iter().map(|flaw| flaw.name()).collect();
        assert_eq!(names.len(), Flaw::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        assert!(Flaw::ALL.iter().all(|flaw| flaw.what().ends_with('.')));
    }

    #[cfg(not(feature = "flaws"))]
    #[test]
    fn nothing_is_planted_in_a_program_without_flaws() {
        const { assert!(!is_planted(Flaw::ForgetVote)) };
    }

    #[cfg(feature = "flaws")]
    #[test]
    fn a_flaw_is_there_while_its_closure_runs_and_gone_after_a_panic() {
        let struck = with(Flaw::ForgetVote, || {
            (is_planted(Flaw::ForgetVote), is_planted(Flaw::ReadWithoutQuorum), strikes())
        });
        assert_eq!(struck, (true, false, 1));
        let panicked = std::panic::catch_unwind(|| with(Flaw::ForgetVote, || panic!("on purpose")));
        assert!(panicked.is_err() && !is_planted(Flaw::ForgetVote));
    }
}
