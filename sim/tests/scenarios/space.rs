//! Disk space: where there is none, nothing is lost, elections go on, and all is well again when there is some; what page stores
//! do not need they give back.

use mesh_server::shard::ShardOptions;
use mesh_sim::scenario::Message::Snapshot;
use mesh_sim::scenario::{Power, Process, Scenario, Stage, ms, reaches, secs};

use crate::words::{leave_behind, long, outrun};

#[test]
fn a_group_whose_disks_are_full_reads_and_elects_and_writes_again_when_there_is_space() {
    Scenario::of(3).seeds(1..=8).play(|cluster| {
        let nodes @ [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "v");
        for node in nodes {
            cluster.node(node).disk().fill();
        }
        let is_refused_for_space = |cluster: &mut Stage<'_>| {
            let put = cluster.put("long", &long(1));
            cluster.until(put.over());
            cluster.refusal(put).is_some_and(|why| why.contains("no disk space"))
        };
        let attempts = (1..=500).find(|_| is_refused_for_space(cluster));
        assert!(attempts.is_some(), "writes go on without space");
        assert_eq!(cluster.read("k").as_deref(), Some("v"));
        // One whose disk was full before the others' cannot help any other leader to what it lacks.
        let last = |node| cluster.status(node).map(|status| status.last_index);
        let lags = [b, c].into_iter().find(|node| last(*node) < last(a));
        cluster.node(lags.unwrap_or(a)).crash(Process);
        cluster.within(secs(2), a.leads().or(b.leads()).or(c.leads()));
        assert_eq!(cluster.read("k").as_deref(), Some("v"));
        for node in nodes {
            cluster.node(node).disk().repair();
        }
        cluster.write("k", "w");
    });
}

/// The replica was given up, and with it the node's vote.
#[test]
fn a_replica_that_finds_no_space_to_start_waits_for_it() {
    // No checkpoint, so that no segment of the log can be let go to make space.
    let story = Scenario::of(3).sizes(|sizes| {
        sizes.checkpoint.period = secs(60);
        sizes.checkpoint.at_log_bytes = 64 << 20;
        sizes.checkpoint.at_bytes = 64 << 20;
    });
    story.seeds(1..=5).play(|cluster| {
        let [_, _, c] = cluster.nodes();
        cluster.write("k", "v");
        cluster.node(c).disk().fill();
        for number in 0.. {
            if cluster.holds(c.is_read_only()) {
                break;
            }
            cluster.write(&format!("long-{number}"), &long(number));
        }
        // A spare that the last run left behind is as good as space, once.
        let waits = |cluster: &mut Stage<'_>| {
            cluster.node(c).crash(Power);
            cluster.node(c).disk().fill();
            cluster.node(c).start();
            cluster.run_for(secs(2));
            cluster.holds(c.says("its disk is full"))
        };
        assert!((0..5).any(|_| waits(cluster)), "it never found its disk full");
        cluster.node(c).disk().repair();
        cluster.within(secs(5), c.serves());
    });
}

/// The replica was given up.
#[test]
fn a_snapshot_that_finds_no_space_is_sent_again_when_there_is_some() {
    Scenario::of(3).seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        leave_behind(cluster, c, &[a, b]);
        cluster.node(c).disk().fill();
        cluster.node(c).start();
        cluster.never_for(secs(3), c.takes_in_a_snapshot());
        cluster.node(c).disk().repair();
        cluster.within(secs(10), c.takes_in_a_snapshot());
        cluster.within(secs(10), c.serves().and(c.has_caught_up()));
    });
}

/// The old store's checkpoint looked for space under a name that was about to be the new store's.
#[test]
fn a_checkpoint_without_space_goes_no_further_when_a_snapshot_replaces_its_store() {
    let story = Scenario::of(3).values(1 << 20).sizes(|sizes| sizes.unsaved_bytes_max = 16 << 20);
    story.seeds(1..=5).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "v");
        // There will be space for a small snapshot, and none for a large value.
        cluster.put("large", &"v".repeat(1_000_000));
        cluster.until(c.reports("has the value", |status| status.dirty_bytes > 900_000));
        cluster.node(c).disk().leave(600 * 1024);
        cluster.until(c.is_read_only());
        cluster.isolate(c);
        cluster.write("large", "small");
        cluster.run_for(secs(3));
        let last = cluster.status(c).map(|status| status.last_index).unwrap_or_default();
        outrun(cluster, last, &[a, b]);
        cluster.run_for(secs(2));
        cluster.heal();
        cluster.until(reaches(Snapshot, c));
        cluster.node(c).disk().slow(5000);
        cluster.until(c.takes_in_a_snapshot());
        cluster.run_for(secs(4));
        cluster.node(c).disk().repair();
        cluster.within(secs(10), c.has_caught_up());
    });
}

/// The node ended, or its replicas were given up.
#[test]
fn a_node_that_finds_no_space_for_its_identity_or_its_replicas_waits_for_it() {
    for room in [0, 64 * 1024, 160 * 1024, 300 * 1024, 600 * 1024] {
        Scenario::of(3).unborn().seeds(1..=3).play(move |cluster| {
            let [a, b, c] = cluster.nodes();
            cluster.node(c).disk().leave(room);
            cluster.run_for(secs(2));
            cluster.node(c).disk().repair();
            cluster.within(secs(10), a.serves().and(b.serves()).and(c.serves()));
        });
    }
}

/// A segment's switch waited for a spare, the spare for a purge, and the purge for a record behind the switch: no voter
/// could promise anything any more.
#[test]
fn disks_that_are_nearly_full_under_load_come_to_no_standstill() {
    Scenario::of(3).load(3).values(16384).seeds(1..=3).play(|cluster| {
        let nodes = cluster.nodes::<3>();
        for round in 0..4 {
            for node in nodes {
                cluster.node(node).disk().leave(round * 150 * 1024);
            }
            cluster.run_for(secs(1));
            for node in nodes {
                cluster.node(node).disk().repair();
            }
            cluster.run_for(ms(500));
            cluster.write("k", "goes on");
        }
    });
}

fn short_history(sizes: &mut ShardOptions) {
    (sizes.history.time, sizes.history.period) = (ms(200), ms(50));
}

/// No time bounds it.
fn small_history(sizes: &mut ShardOptions) {
    (sizes.history.time, sizes.history.bytes) = (secs(3600), 256 * 1024);
}

#[test]
fn history_is_bounded_in_bytes_where_it_is_not_by_time() {
    Scenario::of(3).sizes(small_history).seeds(1..=3).play(|cluster| {
        let nodes = cluster.nodes::<3>();
        for number in 0..2000 {
            cluster.write(&format!("k-{}", number % 7), &long(number));
        }
        for node in nodes {
            cluster.within(secs(20), node.stores_in_at_most(1 << 20));
        }
        assert_eq!(cluster.read("k-0"), Some(long(1995)));
    });
}

#[test]
fn ranges_are_gone_on_with_at_their_revision_however_much_is_written_meanwhile() {
    let hold_ranges = |sizes: &mut ShardOptions| {
        (sizes.history.bytes, sizes.history.time, sizes.history.held_for) = (4096, secs(60), secs(10));
    };
    Scenario::of(3).load(5).sizes(hold_ranges).seeds(1..=3).play(|cluster| {
        cluster.run_for(secs(5));
        assert_eq!(cluster.compacted(), 0, "nothing went wrong, and no page came late");
    });
}

#[test]
fn a_key_overwritten_again_and_again_takes_what_its_history_needs() {
    let story = Scenario::of(3).sizes(short_history);
    story.seeds(1..=3).play(|cluster| {
        let nodes = cluster.nodes::<3>();
        for number in 0..3000 {
            cluster.write("k", &long(number));
            assert!(
                nodes.iter().all(|node| cluster.holds(node.stores_in_at_most(3 << 20))),
                "write {number}"
            );
        }
        for node in nodes {
            cluster.within(secs(20), node.stores_in_at_most(1 << 20));
        }
        assert_eq!(cluster.read("k"), Some(long(2999)));
    });
}

#[test]
fn deleting_everything_gives_the_disk_space_back_on_every_node_also_after_a_crash() {
    let story = Scenario::of(3).sizes(short_history);
    story.seeds(1..=3).play(|cluster| {
        let nodes @ [_, _, c] = cluster.nodes();
        for number in 0..800 {
            cluster.write(&format!("long-{number}"), &long(number));
        }
        assert!(!cluster.holds(c.stores_in_at_most(3 << 20)), "what is written takes space");
        for number in 0..800 {
            let delete = cluster.delete(&format!("long-{number}"));
            cluster.until(delete.over());
        }
        cluster.run_for(secs(4));
        cluster.node(c).crash(Power);
        cluster.node(c).start();
        for node in nodes {
            cluster.within(secs(30), node.stores_in_at_most(1 << 20));
        }
        assert_eq!(cluster.read("long-7"), None);
        cluster.write("k", "v");
    });
}
