//! What grows, one element after the other, loses none and shows none twice. (Every list is checked at the end of every
//! story.)

use mesh_sim::scenario::{Power, Scenario, ms, secs};

#[test]
fn lists_lose_nothing_when_a_node_loses_its_directory_and_is_replaced() {
    Scenario::of(3).load(5).lists().seeds(1..=3).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.run_for(secs(1));
        cluster.wipe(b);
        cluster.run_for(secs(1));
        cluster.replace(b);
        cluster.node(b).start();
        cluster.until(b.votes());
        // Now nothing is left of what was appended before, but on c and on what b was sent.
        cluster.node(a).crash(Power);
        cluster.until(b.leads().or(c.leads()));
        cluster.run_for(secs(1));
    });
}

#[test]
fn lists_lose_nothing_when_everyone_loses_power_again_and_again() {
    Scenario::of(3).shards(2).load(5).lists().seeds(1..=3).play(|cluster| {
        for _ in 0..4 {
            cluster.run_for(ms(400));
            for node in cluster.nodes::<3>() {
                cluster.node(node).crash(Power);
            }
            for node in cluster.nodes::<3>() {
                cluster.node(node).start();
            }
            cluster.run_for(ms(400));
        }
    });
}
