//! What goes on when something breaks.

use mesh_base::ShardId;
use mesh_sim::scenario::{Power, Process, Scenario, ms, secs};

use crate::words::long;

#[test]
fn a_minority_acknowledges_nothing_and_the_majority_goes_on() {
    Scenario::of(3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "before");
        cluster.partition(&[a], &[b, c]);
        cluster.within(secs(1), b.leads().or(c.leads()));
        cluster.write("k", "meanwhile");
        cluster.node(b).crash(Power);
        let alone = cluster.put("other", "too soon");
        cluster.never_for(secs(3), alone.acknowledged());
        cluster.heal();
        assert_eq!(cluster.read("k").as_deref(), Some("meanwhile"));
    });
}

#[test]
fn an_election_takes_less_than_half_a_second_of_everyones_time() {
    Scenario::of(3).load(4).seeds(1..=5).play(|cluster| {
        let [a, _, _] = cluster.nodes();
        cluster.until(a.leads());
        let then = cluster.now();
        cluster.node(a).crash(Process);
        cluster.run_for(secs(3));
        assert!(cluster.longest_silence_since(then) < ms(500), "{:?}", cluster.longest_silence_since(then));
    });
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_everyones_power() {
    Scenario::of(3).shards(2).load(3).seeds(1..=10).play(|cluster| {
        let nodes = cluster.nodes::<3>();
        cluster.run_for(secs(1));
        cluster.write("k", "kept");
        for node in nodes {
            cluster.node(node).crash(Power);
        }
        for node in nodes {
            cluster.node(node).start();
        }
        assert_eq!(cluster.read("k").as_deref(), Some("kept"));
        cluster.run_for(secs(1));
    });
}

#[test]
fn nodes_are_restarted_one_by_one_under_load() {
    Scenario::of(3).shards(2).load(4).play(|cluster| {
        cluster.run_for(secs(1));
        let then = cluster.now();
        for node in cluster.nodes::<3>() {
            cluster.node(node).stop();
            cluster.within(secs(5), node.is_down());
            cluster.node(node).start();
            cluster.within(secs(5), node.serves());
            cluster.run_for(secs(2));
        }
        assert!(cluster.longest_silence_since(then) < ms(500), "{:?}", cluster.longest_silence_since(then));
    });
}

/// A node told to stop waited for a checkpoint of everything applied, and another that stopped at the same time handed it
/// the lead and one more entry, so it never came.
#[test]
fn nodes_that_are_told_to_stop_together_all_do() {
    for between in [0, 1, 5, 20, 100] {
        let story = Scenario::of(3).sizes(|sizes| sizes.checkpoint.period = secs(60));
        story.seeds(1..=3).play(move |cluster| {
            let [a, b, c] = cluster.nodes();
            cluster.write("k", "v");
            for node in [c, a, b] {
                cluster.node(node).stop();
                cluster.run_for(ms(between));
            }
            cluster.within(secs(10), a.is_down().and(b.is_down()).and(c.is_down()));
        });
    }
}

/// The last checkpoint was written at the pace of one that nobody waits for.
#[test]
fn a_node_that_is_told_to_stop_writes_its_checkpoint_without_restraint() {
    let story = Scenario::of(3).sizes(|sizes| {
        sizes.checkpoint.period = secs(60);
        sizes.checkpoint.at_log_bytes = 64 << 20;
        sizes.checkpoint.at_bytes = 64 << 20;
        sizes.checkpoint.bytes_per_second_min = 1024;
    });
    story.seeds(1..=3).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        for number in 0..100 {
            cluster.write(&format!("long-{number}"), &long(number));
        }
        cluster.node(c).stop();
        cluster.within(secs(2), c.is_down());
    });
}

#[test]
fn nodes_that_are_told_to_stop_under_load_all_do() {
    Scenario::of(3).load(3).seeds(1..=3).play(|cluster| {
        let nodes = cluster.nodes::<3>();
        cluster.run_for(ms(700));
        for node in nodes {
            cluster.node(node).stop();
        }
        for node in nodes {
            cluster.within(secs(10), node.is_down());
        }
    });
}

#[test]
fn a_slow_disk_of_a_follower_slows_nobody_down() {
    Scenario::of(3).load(4).play(|cluster| {
        let [a, _, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.node(c).disk().slow(200);
        let then = cluster.now();
        cluster.run_for(secs(3));
        assert!(cluster.longest_silence_since(then) < ms(100), "{:?}", cluster.longest_silence_since(then));
    });
}

#[test]
fn a_leader_whose_process_stands_still_serves_nothing_stale_when_it_goes_on() {
    Scenario::of(3).seeds(1..=5).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "old");
        cluster.node(a).pause();
        cluster.until(b.leads().or(c.leads()));
        cluster.write("k", "new");
        let stale = cluster.get_at(a, "k");
        cluster.run_for(ms(20));
        cluster.node(a).resume();
        cluster.until(stale.acknowledged());
        assert_eq!(cluster.found(stale).as_deref(), Some("new"));
    });
}

#[test]
fn wall_clocks_that_jump_do_not_move_revisions_back() {
    Scenario::of(3).load(3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.clock(a).jump_forward(secs(3));
        cluster.run_for(ms(300));
        cluster.clock(a).jump_back(secs(10));
        cluster.run_for(ms(300));
        cluster.node(a).crash(Power);
        cluster.until(b.leads().or(c.leads()));
        cluster.clock(b).jump_back(secs(5));
        cluster.clock(c).jump_back(secs(5));
        cluster.run_for(secs(1));
    });
}

#[test]
fn shards_have_leaders_of_their_own() {
    Scenario::of(3).shards(3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.run_for(secs(4));
        let leaders = [0, 1, 2].map(|shard| cluster.leader_of(ShardId(shard)));
        assert_eq!(leaders, [Some(a), Some(b), Some(c)]);
    });
}
