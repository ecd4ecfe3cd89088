//! What a node finds on its disk when it starts.

use mesh_sim::scenario::{FailSync, FailWrite, NodeNo, Power, Process, Scenario, Stage, ms, secs};

use crate::words::{a_superblock_waits, fill_log, long};

/// What a failed write left behind was taken into the log, and a loss of power then tore it: the replica found its log
/// corrupt, and its group had lost a voter for good.
#[test]
fn a_log_does_not_rely_on_what_a_failed_write_left() {
    Scenario::of(3).seeds(1..=40).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        cluster.write("k", "v");
        cluster.node(c).disk().fail_log(FailWrite);
        cluster.write("k", &long(1));
        cluster.until(c.is_out());
        recovers_twice(cluster, c);
    });
}

/// The store built on a superblock that a failed sync had left, wrote over the pages of the one before, and lost the
/// superblock with the power.
#[test]
fn a_store_does_not_rely_on_what_a_failed_sync_left() {
    for after in (0..160).step_by(20) {
        let story = Scenario::of(3).sizes(|sizes| sizes.checkpoint.period = ms(100));
        story.seeds(1..=5).play(move |cluster| {
            let [_, _, c] = cluster.nodes();
            fill_log(cluster, 15);
            // The sync after the superblock, not the one before it.
            cluster.until(a_superblock_waits(c));
            cluster.node(c).disk().fail_store(FailSync);
            cluster.until(c.is_out());
            cluster.node(c).restart();
            cluster.until(c.serves());
            // The power fails somewhere in the next checkpoint.
            cluster.node(c).disk().slow(200);
            fill_log(cluster, 10);
            cluster.run_for(ms(after));
            cluster.node(c).crash(Power);
            cluster.node(c).disk().repair();
            recovers_twice(cluster, c);
        });
    }
}

/// The node took an identity for its own that a failed write had left, and lost it with the power.
#[test]
fn a_node_does_not_rely_on_an_identity_that_a_failed_write_left() {
    Scenario::of(3).unborn().seeds(1..=40).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        // What it promises is lost with the write, or is not; what it promises next was there when the power was lost.
        cluster.node(c).disk().fail_identity(FailWrite);
        cluster.until(c.is_down());
        cluster.node(c).start();
        cluster.until(a.is_born());
        cluster.node(c).crash(Power);
        cluster.node(c).start();
        cluster.within(secs(10), a.serves().and(b.serves()).and(c.serves()));
    });
}

/// The file was there, its name was not durable, and the node lost it with the power.
#[test]
fn a_node_does_not_rely_on_an_identity_whose_name_is_not_durable() {
    for after in (0..240).step_by(10) {
        Scenario::of(3).unborn().seeds(1..=3).play(move |cluster| {
            let [a, b, c] = cluster.nodes();
            cluster.node(c).disk().slow(300);
            cluster.run_for(ms(after));
            cluster.node(c).crash(Process);
            cluster.node(c).disk().repair();
            cluster.node(c).start();
            cluster.until(a.serves().and(b.serves()).and(c.serves()));
            cluster.node(c).crash(Power);
            cluster.node(c).start();
            cluster.within(secs(10), c.serves());
        });
    }
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    Scenario::of(3).load(3).seeds(1..=5).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        cluster.run_for(secs(1));
        for round in 0..20 {
            let crash = if round % 2 == 0 { Power } else { Process };
            cluster.node(c).crash(crash);
            cluster.node(c).start();
            cluster.run_for(ms(round % 5));
        }
        cluster.within(secs(5), c.has_caught_up());
    });
}

/// Versions of a key that was overwritten often fill leaves that no write comes by, and were never dropped; later each such
/// leaf kept one of them.
#[test]
fn garbage_that_no_write_comes_by_is_swept() {
    Scenario::of(3).play(|cluster| {
        let [a, _, _] = cluster.nodes();
        let mut sizes = Vec::new();
        for round in 0..4 {
            for number in 0..300 {
                cluster.write("k", &long(number)[..1000]);
            }
            cluster.write(&format!("other-{round}"), "v");
            cluster.run_for(secs(5));
            sizes.push(cluster.status(a).map_or(0, |status| status.store_bytes));
        }
        assert!(sizes.iter().all(|size| *size < 1_500_000), "the store grows: {sizes:?}");
    });
}

/// Restarts, loses power and starts again: nothing that it relied on the first time may be gone the second.
#[track_caller]
fn recovers_twice(cluster: &mut Stage<'_>, c: NodeNo) {
    cluster.node(c).restart();
    cluster.until(c.serves());
    cluster.write("k", "w");
    cluster.node(c).crash(Power);
    cluster.node(c).start();
    cluster.within(secs(5), c.has_caught_up());
    cluster.run_for(secs(1));
    assert!(cluster.holds(c.has_caught_up()));
}
