//! What is asked for at once is done at once.

use std::time::Duration;

use mesh_sim::scenario::{Power, Process, Scenario, secs};

#[test]
fn a_batch_whose_leader_crashes_is_there_whole_or_not_at_all() {
    // From before the batch has arrived to after it was acknowledged.
    for after_us in (0..3000).step_by(150) {
        for crash in [Process, Power] {
            Scenario::of(3).seeds(1..=2).play(|cluster| {
                let [a, b, c] = cluster.nodes();
                cluster.until(a.leads());
                cluster.write_all(&[("{t}a", "1"), ("{t}b", "1"), ("{t}c", "1")]);
                let put = cluster.put_all_at(a, &[("{t}a", "2"), ("{t}b", "2"), ("{t}c", "2")]);
                cluster.run_for(Duration::from_micros(after_us));
                cluster.node(a).crash(crash);
                cluster.until(b.leads().or(c.leads()));
                let keys = ["{t}a", "{t}b", "{t}c"];
                let found = cluster.read_all(keys);
                assert!(found.iter().all(|text| *text == found[0] && text.is_some()), "{found:?}");
                cluster.until(put.over());
                cluster.node(a).start();
                cluster.until(a.serves());
                let expected = if cluster.holds(put.acknowledged()) { "2" } else { "1" };
                assert_eq!(cluster.read_all(keys).map(Option::unwrap), [expected; 3]);
            });
        }
    }
}

#[test]
fn of_a_key_that_comes_twice_in_a_batch_the_later_value_counts() {
    Scenario::of(1).play(|cluster| {
        cluster.write_all(&[("a", "1"), ("b", "1"), ("a", "2")]);
        assert_eq!(cluster.read_all(["a", "b"]).map(Option::unwrap), ["2", "1"]);
    });
}

#[test]
fn batches_are_seen_whole_while_leaders_change_under_load() {
    Scenario::of(3).shards(2).load(6).batches().seeds(1..=5).play(|cluster| {
        cluster.lose_power_in_turn::<3>();
        cluster.run_for(secs(1));
    });
}
