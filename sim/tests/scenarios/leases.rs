//! Reads under the leader's lease: what would make two leaders believe in it at once.
//!
//! In each story a client reads at the old leader all the while; the checker of leases and the history of clients judge.

use mesh_sim::scenario::{NodeNo, Operation, Power, Process, Scenario, Stage, ms, secs};

/// Reads under way at a time.
const READS_MAX: usize = 8;

/// Reads at a node every millisecond, as long as it takes another to lead and to take a write, and a while more.
fn read_on_at(cluster: &mut Stage<'_>, old: NodeNo, others: [NodeNo; 2]) {
    let [b, c] = others;
    let (mut written, mut reads) = (None, Vec::new());
    for _ in 0..600 {
        reads.retain(|read: &Operation| !cluster.holds(read.acknowledged()));
        if reads.len() < READS_MAX {
            reads.push(cluster.get_at(old, "k"));
        }
        cluster.run_for(ms(1));
        let leader = others.into_iter().find(|node| cluster.holds(node.leads()));
        if let Some(leader) = leader.filter(|_| written.is_none()) {
            written = Some(cluster.put_at(leader, "k", "after"));
        }
    }
    cluster.within(secs(5), b.leads().or(c.leads()));
}

#[test]
fn a_leader_that_is_cut_off_reads_under_its_lease_no_longer_than_it_is_promised() {
    Scenario::of(3).seeds(1..=10).load(1).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "before");
        cluster.isolate(a);
        read_on_at(cluster, a, [b, c]);
        cluster.heal();
        assert_eq!(cluster.read("k").as_deref(), Some("after"));
    });
}

#[test]
fn a_voter_that_restarts_keeps_what_it_promised() {
    // Nobody writes, so that c's log is good enough to be voted for.
    Scenario::of(3).seeds(1..=20).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "before");
        // The leader's lease rests on b alone, and c asks b again and again whether it may lead.
        cluster.partition(&[a], &[c]);
        cluster.until(c.campaigns());
        for _ in 0..80 {
            let read = cluster.get_at(a, "k");
            cluster.run_for(ms(1));
            cluster.within(ms(50), read.acknowledged());
        }
        cluster.node(b).crash(Process);
        cluster.isolate(a);
        cluster.node(b).start();
        read_on_at(cluster, a, [b, c]);
        cluster.heal();
        cluster.run_for(secs(1));
    });
}

#[test]
fn a_leader_that_hands_over_reads_no_more_under_its_lease() {
    Scenario::of(3).seeds(1..=10).load(1).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "before");
        cluster.node(a).stop();
        // It does not hear how that goes on.
        cluster.silence(&[b, c], &[a]);
        read_on_at(cluster, a, [b, c]);
        cluster.heal();
        cluster.run_for(secs(1));
    });
}

#[test]
fn clocks_that_drift_apart_do_not_make_a_lease_outlast_its_promises() {
    Scenario::of(3).seeds(1..=10).load(1).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "before");
        cluster.clock(a).drift(-9000);
        cluster.clock(b).drift(9000);
        cluster.clock(c).drift(9000);
        cluster.run_for(ms(500));
        cluster.isolate(a);
        read_on_at(cluster, a, [b, c]);
        cluster.heal();
        cluster.run_for(secs(1));
    });
}

#[test]
fn a_leader_that_was_stopped_in_its_tracks_reads_nothing_old_when_it_goes_on() {
    Scenario::of(3).seeds(1..=10).load(1).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "before");
        cluster.node(a).pause();
        for _ in 0..10 {
            cluster.get_at(a, "k");
        }
        cluster.within(secs(2), b.leads().or(c.leads()));
        cluster.write("k", "after");
        cluster.node(a).resume();
        cluster.run_for(secs(1));
    });
}

/// A promise must not cost more than an election takes anyway.
#[test]
fn a_leader_that_dies_while_it_has_a_lease_is_replaced_as_fast_as_any() {
    Scenario::of(3).seeds(1..=10).load(4).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.run_for(ms(500));
        let then = cluster.now();
        cluster.node(a).crash(Power);
        cluster.within(secs(2), b.leads().or(c.leads()));
        cluster.run_for(secs(1));
        assert!(cluster.longest_silence_since(then) < ms(500), "{:?}", cluster.longest_silence_since(then));
    });
}
