//! Damage that an operator repairs: whoever has it says so and takes no part; the others serve all the while; wiped and
//! replaced, the node is whole again.

use mesh_base::LogIndex;
use mesh_sim::scenario::{FlipBit, LoseSector, NodeNo, Power, Scenario, Stage, ZeroSector, identity_copy};
use mesh_sim::scenario::{leaf, log_record, ms, secs, superblock};

use crate::words::{fill_log, long};

/// Three nodes under load, one of which went down; the last index that it knew to be committed.
fn play(story: impl Fn(&mut Stage<'_>, NodeNo, LogIndex)) {
    Scenario::of(3).load(3).seeds(1..=3).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        fill_log(cluster, 20);
        cluster.run_for(secs(1));
        cluster.until(c.reports("has more than a few entries in its log", |status| {
            status.commit.0 >= status.first_index.0 + 20
        }));
        let committed = cluster.status(c).map(|status| status.commit).unwrap_or_default();
        cluster.node(c).crash(Power);
        story(cluster, c, committed);
    });
}

/// The damage is found, told in these words, and repaired.
#[track_caller]
fn is_replaced(cluster: &mut Stage<'_>, c: NodeNo, words: &str) {
    let then = cluster.now();
    cluster.node(c).start();
    cluster.within(secs(5), c.is_out());
    assert!(cluster.holds(c.says(words)), "{:?}", cluster.told_by(c));
    let asked = cluster.get_at(c, "k");
    cluster.until(asked.acknowledged());
    cluster.run_for(secs(1));
    cluster.wipe(c);
    cluster.node(c).start();
    cluster.replace(c);
    cluster.within(secs(10), c.is_back());
    assert!(cluster.longest_silence_since(then) < ms(500), "{:?}", cluster.longest_silence_since(then));
}

#[test]
fn a_flipped_bit_in_a_record_of_the_log_is_found_and_the_node_replaced() {
    play(|cluster, c, committed| {
        cluster.node(c).disk().corrupt(log_record(committed.0 - 10), FlipBit);
        is_replaced(cluster, c, ".log");
    });
}

#[test]
fn a_flipped_bit_in_a_page_is_found_and_the_node_replaced() {
    play(|cluster, c, _| {
        cluster.node(c).disk().corrupt(leaf(), FlipBit);
        is_replaced(cluster, c, "store");
    });
}

#[test]
fn a_page_that_cannot_be_read_is_told_and_the_node_replaced() {
    play(|cluster, c, _| {
        cluster.node(c).disk().corrupt(leaf(), LoseSector);
        is_replaced(cluster, c, "store");
    });
}

#[test]
fn a_record_of_the_log_that_cannot_be_read_is_told_and_the_node_replaced() {
    play(|cluster, c, committed| {
        cluster.node(c).disk().corrupt(log_record(committed.0 - 10), LoseSector);
        is_replaced(cluster, c, ".log");
    });
}

#[test]
fn a_zeroed_superblock_is_found_and_the_node_replaced() {
    play(|cluster, c, _| {
        cluster.node(c).disk().corrupt(superblock(), ZeroSector);
        is_replaced(cluster, c, "store");
    });
}

/// The damage of the newer copy brought back an older state: one in which replicas are made anew, over those that there
/// are.
#[test]
fn damage_of_one_copy_of_the_identity_does_no_harm() {
    for copy in [0, 1] {
        play(|cluster, c, _| {
            cluster.node(c).disk().corrupt(identity_copy(copy), FlipBit);
            cluster.node(c).start();
            cluster.within(secs(5), c.serves());
            cluster.never_for(secs(2), c.is_out());
            assert!(cluster.holds(c.has_caught_up()));
        });
    }
}

#[test]
fn damage_of_both_copies_of_the_identity_is_found_and_the_node_replaced() {
    play(|cluster, c, _| {
        cluster.node(c).disk().corrupt(identity_copy(0), FlipBit);
        cluster.node(c).disk().corrupt(identity_copy(1), FlipBit);
        is_replaced(cluster, c, "identity");
    });
}

/// The whole log was read at each start: damage of entries that every checkpoint contained took a voter from the group, and
/// a start took the longer the more was kept.
#[test]
fn damage_of_what_a_log_merely_keeps_takes_nobody_out_and_who_needs_it_gets_a_snapshot() {
    let story = Scenario::of(3).sizes(|sizes| sizes.log.retained_bytes = 64 << 20);
    for damage in [FlipBit, LoseSector] {
        story.clone().seeds(1..=3).play(move |cluster| {
            let [a, b, c] = cluster.nodes();
            fill_log(cluster, 5);
            let needed = cluster.status(c).map(|status| status.last_index.0 + 10).unwrap_or_default();
            cluster.node(c).crash(Power);
            fill_log(cluster, 400);
            for node in [a, b] {
                cluster.run_for(secs(1));
                cluster.node(node).crash(Power);
                cluster.node(node).disk().corrupt(log_record(needed), damage);
                cluster.node(node).start();
                cluster.within(secs(5), node.has_caught_up());
                assert!(cluster.status(node).is_some_and(|it| it.first_index.0 <= needed), "it is kept");
            }
            cluster.node(c).start();
            cluster.until(c.receives_a_snapshot());
            cluster.within(secs(5), c.has_caught_up());
            cluster.run_for(secs(1));
            let statuses = [a, b].map(|node| cluster.status(node));
            let damages: u64 = statuses.iter().flatten().map(|status| status.log_damages).sum();
            assert_eq!(damages, 1, "the leader met it");
            cluster.never_for(secs(1), a.is_out().or(b.is_out()));
        });
    }
}

/// A single node has nobody to be rebuilt from: it reports, refuses, and leaves what it has as it is.
#[test]
fn a_single_node_reports_damage_of_a_shard_serves_the_others_and_changes_nothing_until_a_copy_is_put_back() {
    Scenario::of(1).shards(2).seeds(1..=10).play(|cluster| {
        let [a] = cluster.nodes();
        fill_log(cluster, 20);
        cluster.run_for(secs(1));
        cluster.node(a).crash(Power);
        let copy = cluster.node(a).disk().copy().expect("there is a replica");
        cluster.node(a).disk().corrupt(leaf(), FlipBit);
        let store = cluster.node(a).disk().store();
        for _ in 0..2 {
            // However often it is started.
            cluster.node(a).start();
            cluster.within(secs(5), a.is_out());
            for words in ["store: damaged at byte ", "run `mesh-server verify --data DIR`"] {
                assert!(cluster.holds(a.says(words)), "{:?}", cluster.told_by(a));
            }
            let answers: Vec<_> = (10..20).map(|number| is_answered(cluster, number)).collect();
            assert!(answers.contains(&true) && answers.contains(&false), "{answers:?}");
            let status = cluster.status(a).map(|status| format!("{:?}", status.condition));
            assert!(status.as_ref().is_some_and(|status| status.contains("Damaged")), "{status:?}");
            cluster.node(a).crash(Power);
            assert!(cluster.node(a).disk().store() == store, "what is damaged stays as it is");
        }
        cluster.node(a).disk().put_back(copy);
        cluster.node(a).start();
        cluster.within(secs(5), a.serves());
        for number in 10..20 {
            assert_eq!(cluster.read(&format!("long-{}", number - 10)), Some(long(number)));
        }
    });
}

/// Whether a read of one of the long values is answered, and not refused for damage.
#[track_caller]
fn is_answered(cluster: &mut Stage<'_>, number: usize) -> bool {
    let asked = cluster.get(&format!("long-{}", number - 10));
    cluster.run_for(ms(200));
    let found = cluster.found(asked);
    let refusal = cluster.refusal(asked).filter(|_| found.is_none());
    assert!(found.is_none() || found == Some(long(number)));
    assert!(found.is_some() || refusal.is_some_and(|refusal| refusal.contains("damaged at byte ")));
    found.is_some()
}
