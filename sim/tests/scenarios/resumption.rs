//! Snapshots that break off, and go on where they were. Each is sent at a rate at which none would ever be whole if it
//! began anew.

use mesh_sim::scenario::{FlipBit, NodeNo, Power, Process, Scenario, Stage, ms, secs};
use mesh_sim::scenario::{staged_root, when};

use crate::words::{fill_log, leave_behind, long};

/// More than three seconds for a snapshot.
const RATE: u64 = 512 * 1024;

/// Three nodes with many keys, of which the last is far behind and down.
fn behind(cluster: &mut Stage<'_>) -> [NodeNo; 3] {
    let [a, b, c] = cluster.nodes();
    cluster.until(a.leads());
    for number in 0..400 {
        cluster.write(&format!("key-{number:03}"), &long(number));
    }
    leave_behind(cluster, c, &[a, b]);
    [a, b, c]
}

/// The same, and the last has begun to receive a snapshot.
fn under_way(cluster: &mut Stage<'_>) -> [NodeNo; 3] {
    let [a, b, c] = behind(cluster);
    cluster.node(c).start();
    cluster.until(c.receives_a_snapshot());
    cluster.run_for(secs(1));
    assert!(cluster.holds(c.receives_a_snapshot()));
    [a, b, c]
}

/// Disturbs a transfer every second, and sees it finished all the same.
fn is_finished_in_spite_of(cluster: &mut Stage<'_>, c: NodeNo, disturb: impl Fn(&mut Stage<'_>, usize)) {
    let mut rounds = 0;
    while !cluster.holds(c.has_caught_up()) {
        rounds += 1;
        assert!(rounds < 12, "a snapshot begins anew each time");
        disturb(cluster, rounds);
        cluster.run_for(secs(1));
    }
    assert!(rounds > 1, "a snapshot that was never disturbed");
    assert_eq!(cluster.read("key-123").as_deref(), Some(long(123).as_str()));
}

#[test]
fn a_snapshot_goes_on_over_a_link_that_breaks_again_and_again() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [_, _, c] = under_way(cluster);
        is_finished_in_spite_of(cluster, c, |cluster, round| {
            cluster.isolate(c);
            // For a moment, or until raft was told that it failed; by then there are newer checkpoints.
            cluster.write("k", "w");
            cluster.run_for(ms(if round % 2 == 0 { 200 } else { 3500 }));
            cluster.heal();
        });
    });
}

#[test]
fn a_snapshot_goes_on_after_each_restart_of_its_receiver() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [_, _, c] = under_way(cluster);
        is_finished_in_spite_of(cluster, c, |cluster, round| {
            cluster.node(c).crash(if round % 2 == 0 { Power } else { Process });
            cluster.run_for(ms(300));
            cluster.node(c).start();
        });
    });
}

/// The one that leads stands still for a moment, the other is elected, the first leads again: neither begins anew.
#[test]
fn a_snapshot_goes_on_whoever_leads() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [a, b, c] = under_way(cluster);
        is_finished_in_spite_of(cluster, c, |cluster, _| {
            if let Some(leader) = cluster.leader() {
                cluster.node(leader).pause();
                let other = if leader == a { b } else { a };
                cluster.until(other.leads());
                cluster.node(leader).resume();
            }
        });
    });
}

/// The receiver restarts, and another leads when it is back: it finds out where its snapshot came from.
#[test]
fn a_snapshot_goes_on_after_a_restart_while_another_leads() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [a, b, c] = under_way(cluster);
        is_finished_in_spite_of(cluster, c, |cluster, _| {
            cluster.node(c).crash(Process);
            let Some(leader) = cluster.leader() else { return };
            let other = if leader == a { b } else { a };
            cluster.node(c).start();
            cluster.node(leader).pause();
            cluster.until(other.leads());
            cluster.node(leader).resume();
        });
    });
}

/// Whoever has the checkpoint is gone for good: the new leader's begins at once.
#[test]
fn a_snapshot_whose_sender_crashes_is_sent_by_the_next_leader() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [a, b, c] = under_way(cluster);
        let leader = cluster.leader().unwrap();
        cluster.node(leader).crash(Power);
        cluster.until(if leader == a { b.leads() } else { a.leads() });
        cluster.within(secs(15), c.has_caught_up());
    });
}

/// Its checkpoint was pinned, and its log held, for ever.
#[test]
fn nothing_is_held_for_a_receiver_that_never_comes_back() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [_, _, c] = under_way(cluster);
        let leader = cluster.leader().unwrap();
        cluster.node(c).crash(Power);
        let begins = cluster.status(leader).map(|status| status.first_index).unwrap_or_default();
        let last = cluster.status(leader).map(|status| status.last_index).unwrap_or_default();
        fill_log(cluster, 200);
        let first = cluster.status(leader).map(|status| status.first_index).unwrap_or_default();
        assert!(begins <= first && first <= last, "the log is kept while the receiver may come back");
        cluster.run_for(secs(8));
        fill_log(cluster, 200);
        let lets_go = leader.reports("lets go of its log", move |status| status.first_index > last);
        cluster.within(secs(5), lets_go);
    });
}

/// It lay there until the next snapshot came.
#[test]
fn what_was_received_of_a_snapshot_is_removed_when_its_sender_is_gone() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [_, _, c] = under_way(cluster);
        assert!(cluster.holds(c.keeps_a_staged_store()));
        cluster.isolate(c);
        cluster.run_for(secs(3));
        assert!(cluster.holds(c.keeps_a_staged_store()));
        // A restart changes nothing about it.
        cluster.node(c).restart();
        cluster
            .until(when("it is gone", move |it| it.holds(c.serves()) && !it.holds(c.keeps_a_staged_store())));
        cluster.heal();
        cluster.within(secs(15), c.has_caught_up());
        assert!(!cluster.holds(c.keeps_a_staged_store()));
    });
}

/// What lies there is damaged where it would go on: it begins anew, and the replica takes part.
#[test]
fn a_damaged_part_of_a_snapshot_is_received_anew() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [_, _, c] = under_way(cluster);
        cluster.node(c).crash(Process);
        cluster.node(c).disk().corrupt(staged_root(), FlipBit);
        cluster.node(c).start();
        cluster.within(secs(20), c.has_caught_up());
        assert_eq!(cluster.read("key-123").as_deref(), Some(long(123).as_str()));
    });
}

/// Nothing of it is believed, and what came before it stays.
#[test]
fn a_chunk_that_comes_damaged_is_sent_again_and_no_other() {
    Scenario::of(3).snapshot_rate(RATE).seeds(1..=3).play(|cluster| {
        let [_, _, c] = under_way(cluster);
        for _ in 0..3 {
            cluster.spoil_next_chunk(c);
            cluster.run_for(ms(700));
        }
        assert!(cluster.holds(c.receives_a_snapshot()), "the last one was spoilt after the end");
        cluster.within(secs(2), c.has_caught_up());
    });
}
