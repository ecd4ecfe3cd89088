//! How nodes come to belong to a cluster, are lost and come back.

use mesh_sim::scenario::Message::Decided;
use mesh_sim::scenario::{Power, Process, Scenario, ms, reaches, secs, when};

use crate::words::fill_log;

#[test]
fn a_wiped_node_does_not_vote_before_it_is_replaced() {
    Scenario::of(3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "v");
        cluster.wipe(c);
        cluster.node(c).start();
        cluster.within(secs(3), c.says("mesh node replace n2"));
        // Its vote would make it two of three.
        cluster.node(a).crash(Power);
        let put = cluster.put("k", "w");
        cluster.never_for(secs(3), put.acknowledged().or(b.leads()));
        cluster.node(a).start();
        cluster.replace(c);
        cluster.within(secs(10), c.is_back().and(c.has_id(4)));
    });
}

/// After a snapshot raft does not know of the learner's log until there is something to send to it, and there was nothing.
#[test]
fn a_replaced_node_is_promoted_where_nobody_writes() {
    Scenario::of(3).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        fill_log(cluster, 10);
        cluster.run_for(secs(5));
        cluster.wipe(c);
        cluster.node(c).start();
        cluster.replace(c);
        cluster.within(secs(10), c.is_back().and(c.votes()));
    });
}

/// Each time an empty node found out that its cluster exists, it drew another attempt to join; its id was told to one that
/// it had dropped.
#[test]
fn a_replaced_node_asks_for_its_id_in_one_attempt_however_slow_its_disk() {
    for factor in [10, 100, 500, 1000] {
        Scenario::of(3).seeds(1..=3).play(|cluster| {
            let [_, _, c] = cluster.nodes();
            cluster.wipe(c);
            cluster.replace(c);
            cluster.run_for(secs(1));
            cluster.node(c).disk().slow(factor);
            cluster.node(c).start();
            cluster.run_for(secs(5));
            cluster.node(c).disk().repair();
            cluster.within(secs(10), c.is_back());
        });
    }
}

/// The coordinator drew another cluster id each time it found all agreed, while the first was being written; who had
/// promised the one did not believe in the other.
#[test]
fn a_cluster_is_born_whole_however_slow_its_coordinators_disk() {
    for factor in [10, 100, 500, 1000] {
        Scenario::of(3).unborn().seeds(1..=5).play(|cluster| {
            let [a, b, c] = cluster.nodes();
            cluster.node(a).disk().slow(factor);
            cluster.until(a.serves().and(b.serves()).and(c.serves()));
        });
    }
}

/// It took the id of its own successor, who came for it later.
#[test]
fn a_node_that_was_replaced_before_it_heard_of_its_birth_comes_back_as_its_successor() {
    Scenario::of(3).unborn().seeds(1..=5).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(reaches(Decided, c));
        cluster.node(c).crash(Power);
        cluster.until(a.leads().or(b.leads()));
        cluster.replace(c);
        cluster.run_for(secs(1));
        cluster.node(c).start();
        cluster.within(secs(10), c.is_back().and(c.votes()).and(c.has_id(4)));
        // That id is taken, once and for all.
        cluster.wipe(c);
        cluster.node(c).start();
        cluster.never_for(secs(3), c.serves());
        cluster.replace(c);
        cluster.within(secs(10), c.is_back().and(c.has_id(5)));
    });
}

/// It took the id of the node that had come back meanwhile.
#[test]
fn a_late_copy_of_a_replacement_replaces_nobody() {
    Scenario::of(3).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        cluster.write("k", "v");
        cluster.wipe(c);
        cluster.node(c).start();
        let replacement = cluster.replace(c);
        cluster.within(secs(10), c.is_back());
        cluster.repeat(&replacement);
        cluster.run_for(secs(3));
        assert!(cluster.holds(c.serves().and(c.votes()).and(c.has_id(4))));
    });
}

/// After a start the configuration of the newest checkpoint was taken to be that of the log's end: a snapshot of that checkpoint
/// told its receiver of a group that was made after it, and whose changes it then applied once more.
#[test]
fn a_snapshot_tells_of_the_group_as_it_was_at_its_index_also_after_a_restart() {
    let story = Scenario::of(3).sizes(|sizes| {
        sizes.checkpoint.period = secs(3);
        sizes.checkpoint.at_log_bytes = 64 << 20;
        sizes.checkpoint.at_bytes = 64 << 20;
        sizes.log.retained_bytes = 0;
    });
    story.seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        fill_log(cluster, 300);
        cluster.run_for(secs(7));
        cluster.wipe(c);
        for node in [a, b] {
            cluster.node(node).disk().slow(50);
        }
        cluster.node(c).start();
        cluster.replace(c);
        cluster.until(when("the group has changed", move |it| {
            [a, b].iter().any(|&node| it.status(node).is_some_and(|status| !status.learners.is_empty()))
        }));
        // That it is committed is durable with an entry behind it.
        for value in ["v", "w"] {
            cluster.write("k", value);
        }
        for node in [a, b] {
            cluster.node(node).crash(Process);
        }
        for node in [a, b] {
            cluster.node(node).start();
        }
        cluster.run_for(secs(5));
        for node in [a, b] {
            cluster.node(node).disk().repair();
        }
        cluster.within(secs(10), c.is_back().and(c.votes()).and(c.has_id(4)));
    });
}

/// A learner that was to lead when all are well stood for election as soon as it was started.
#[test]
fn a_learner_that_is_to_lead_one_day_does_not_campaign() {
    Scenario::of(3).seeds(1..=5).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        // More than a learner may lack that is promoted.
        fill_log(cluster, 100);
        cluster.wipe(a);
        cluster.until(b.leads().or(c.leads()));
        cluster.node(a).start();
        cluster.replace(a);
        cluster.node(a).disk().slow(20);
        cluster.until(a.learns());
        cluster.isolate(a);
        for _ in 0..5 {
            cluster.node(a).restart();
            cluster.never_for(ms(500), a.campaigns());
        }
        assert!(cluster.holds(a.learns()));
        cluster.heal();
        cluster.node(a).disk().repair();
        cluster.within(secs(10), a.is_back());
        cluster.within(secs(5), a.leads());
    });
}

/// Nodes that come up and go down while the cluster is being born.
#[test]
fn a_birth_that_is_interrupted_at_any_point_goes_on() {
    Scenario::of(3).unborn().seeds(1..=20).play(|cluster| {
        let nodes = cluster.nodes::<3>();
        for (round, node) in nodes.into_iter().cycle().take(12).enumerate() {
            cluster.run_for(ms(20 + 17 * round as u64));
            cluster.node(node).crash(Power);
            cluster.node(node).start();
        }
        let [a, b, c] = nodes;
        cluster.until(a.serves().and(b.serves()).and(c.serves()));
        cluster.until(when("someone leads", |it| it.leader().is_some()));
    });
}
