//! Replicas that the log cannot bring up.

use std::cell::Cell;

use mesh_sim::scenario::Message::{Chunk, ChunksDone, Snapshot};
use mesh_sim::scenario::{FailSync, Power, Process, Scenario, ms, reaches, secs};

use crate::words::{a_superblock_waits, fill_log, leave_behind, long};

#[test]
fn a_replica_that_the_log_cannot_bring_up_receives_a_snapshot() {
    Scenario::of(3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.write("k", "v");
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(c.receives_a_snapshot());
        cluster.within(secs(3), c.has_caught_up());
        cluster.node(a).crash(Power);
        assert_eq!(cluster.read("k").as_deref(), Some("v"));
    });
}

/// raft's log begins behind what it holds to be applied: the replica stopped itself.
#[test]
fn a_replica_does_not_campaign_while_it_takes_in_a_snapshot() {
    Scenario::of(3).seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(reaches(Snapshot, c));
        cluster.node(c).disk().slow(2000);
        cluster.until(c.takes_in_a_snapshot());
        cluster.isolate(c);
        cluster.run_for(secs(1));
        cluster.heal();
        cluster.node(c).disk().repair();
        cluster.within(secs(10), c.has_caught_up());
    });
}

/// The end of the old store's checkpoint was noted in a log that had started anew at the snapshot.
#[test]
fn a_checkpoint_of_the_store_that_a_snapshot_replaces_is_forgotten() {
    Scenario::of(3).seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        fill_log(cluster, 5);
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(reaches(ChunksDone, a).or(reaches(ChunksDone, b)));
        cluster.isolate(c);
        cluster.node(c).disk().slow(3000);
        // Unless the checkpoint was quicker than the snapshot.
        if cluster.status(c).is_some_and(|status| status.checkpoint_applied < status.applied) {
            cluster.until(a_superblock_waits(c));
        }
        cluster.heal();
        cluster.until(c.takes_in_a_snapshot());
        cluster.run_for(secs(2));
        cluster.node(c).disk().repair();
        cluster.within(secs(10), c.has_caught_up());
    });
}

/// The replica was given up, although the store that was to replace the failed one was whole.
#[test]
fn the_store_that_a_snapshot_replaces_may_fail() {
    let struck = Cell::new(0);
    Scenario::of(3).seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        fill_log(cluster, 5);
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(reaches(ChunksDone, a).or(reaches(ChunksDone, b)));
        cluster.isolate(c);
        cluster.node(c).disk().slow(3000);
        if cluster.status(c).is_some_and(|status| status.checkpoint_applied < status.applied) {
            cluster.until(a_superblock_waits(c));
        }
        cluster.heal();
        cluster.until(c.takes_in_a_snapshot());
        // Unless the checkpoint was quicker: then the sync that fails is one of the new store.
        if cluster.holds(a_superblock_waits(c)) {
            cluster.node(c).disk().fail_store(FailSync);
            struck.set(struck.get() + 1);
        }
        cluster.run_for(secs(2));
        cluster.node(c).disk().repair();
        cluster.within(secs(10), c.has_caught_up());
    });
    assert!(struck.get() >= 3, "{} of ten", struck.get());
}

/// While the first page of its records was awaited, each turn of the replica asked for it once more.
#[test]
fn the_records_of_a_snapshot_that_a_slow_disk_brings_are_asked_for_once() {
    let story = Scenario::of(3).sizes(|sizes| sizes.store.frame_bytes_max = 64 * 1024);
    story.seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        for number in 0..200 {
            cluster.write(&format!("key-{number}"), &long(number));
        }
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(reaches(Snapshot, c));
        cluster.node(c).disk().slow(2000);
        cluster.until(c.takes_in_a_snapshot());
        cluster.run_for(secs(3));
        cluster.node(c).disk().repair();
        cluster.within(secs(10), c.has_caught_up());
    });
}

/// The log was let go when the snapshot was delivered: under load its receiver found it gone, and needed the next one.
#[test]
fn the_log_is_kept_until_a_snapshots_receiver_has_caught_up() {
    // Enough log for a link with a delay, and not for the time that a snapshot takes.
    let story = Scenario::of(3).load(2).values(4096).sizes(|sizes| sizes.log.retained_bytes = 800 * 1024);
    story.seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        leave_behind(cluster, c, &[a, b]);
        cluster.slow_link(a, c, ms(20));
        cluster.slow_link(b, c, ms(20));
        cluster.node(c).start();
        cluster.until(c.receives_a_snapshot());
        cluster.node(c).disk().slow(200);
        cluster.until(c.takes_in_a_snapshot());
        cluster.until(c.serves());
        cluster.node(c).disk().repair();
        cluster.never_for(secs(5), c.receives_a_snapshot());
        assert!(cluster.holds(c.has_caught_up()));
    });
}

/// Of a log of few entries everyone counted as caught up: raft was never told what became of the snapshot, and sent nothing
/// more.
#[test]
fn a_snapshot_of_a_short_log_whose_last_message_is_lost_is_sent_again() {
    let story = Scenario::of(3).values(64 * 1024).sizes(|sizes| sizes.log.retained_bytes = 0);
    story.seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.node(c).crash(Power);
        for _ in 0..20 {
            cluster.write("k", &"v".repeat(60_000));
        }
        cluster.run_for(secs(2));
        cluster.node(c).start();
        cluster.until(reaches(ChunksDone, a).or(reaches(ChunksDone, b)));
        cluster.node(c).restart();
        cluster.within(secs(5), c.serves());
        let last = cluster.status(a).map(|status| status.last_index).unwrap_or_default();
        cluster.within(secs(5), c.reports("has applied all", move |status| status.applied >= last));
    });
}

/// A sending was given up for want of space after its snapshot was delivered: raft, which waited for the receiver's answer, was
/// not told, and sent nothing more.
#[test]
fn a_snapshot_whose_last_message_is_lost_is_sent_again_by_a_leader_whose_disk_was_full() {
    Scenario::of(3).values(1 << 20).seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(reaches(Snapshot, c));
        cluster.isolate(c);
        let leader = if cluster.holds(a.leads()) { a } else { b };
        cluster.node(leader).disk().fill();
        for key in ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"] {
            cluster.put_at(leader, key, &"v".repeat(1_000_000));
        }
        cluster.within(ms(900), leader.is_read_only());
        cluster.run_for(ms(50));
        cluster.heal();
        cluster.run_for(secs(1));
        cluster.node(leader).disk().repair();
        cluster.within(secs(20), c.has_caught_up());
    });
}

/// The watch over silent senders let go of the store that raft was about to install.
#[test]
fn a_received_snapshot_stays_when_raft_takes_it_in_late() {
    Scenario::of(3).seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).start();
        cluster.until(reaches(ChunksDone, a).or(reaches(ChunksDone, b)));
        cluster.node(c).pause();
        cluster.run_for(secs(5));
        cluster.node(c).resume();
        cluster.within(secs(5), c.has_caught_up());
    });
}

/// A snapshot whose sender was gone was waited for without end.
#[test]
fn a_snapshot_whose_sender_is_gone_is_given_up() {
    Scenario::of(5).seeds(1..=3).sizes(|sizes| sizes.log.retained_bytes = 64 << 20).play(|cluster| {
        let [a, b, c, d, e] = cluster.nodes();
        cluster.until(a.leads());
        fill_log(cluster, 50);
        cluster.node(c).crash(Process);
        fill_log(cluster, 50);
        // Its log begins where its snapshot ends; those of the others begin with the cluster.
        cluster.wipe(a);
        cluster.node(a).start();
        cluster.replace(a);
        cluster.until(a.is_back());
        cluster.until(a.leads());
        cluster.node(c).start();
        cluster.until(reaches(Chunk, c));
        cluster.node(a).crash(Power);
        cluster.until(b.leads().or(d.leads()).or(e.leads()));
        cluster.within(secs(10), c.has_caught_up().and(c.serves()));
    });
}

/// Each sending that was given up left behind what it waited for, and the pages of the last began the next one early.
#[test]
fn a_snapshot_that_is_begun_again_and_again_waits_once() {
    let story = Scenario::of(3).sizes(|sizes| {
        sizes.requests_waiting_max = 1;
        sizes.store.frame_bytes_max = 64 * 1024;
    });
    story.seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        for number in 0..400 {
            cluster.write(&format!("key-{number}"), &long(number));
        }
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).disk().fill();
        cluster.node(c).start();
        cluster.node(a).disk().slow(1000);
        cluster.run_for(secs(5));
        cluster.node(a).disk().repair();
        cluster.node(c).disk().repair();
        cluster.within(secs(20), c.serves().and(c.has_caught_up()));
    });
}
