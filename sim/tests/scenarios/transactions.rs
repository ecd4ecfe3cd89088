//! What depends on a condition is decided once.

use mesh_sim::scenario::{Scenario, ms, secs};

#[test]
fn a_creation_that_is_sent_again_to_the_next_leader_does_not_meet_itself() {
    Scenario::of(3).seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.lose_answers_of(a);
        let create = cluster.create_at(a, "k", "1");
        cluster.run_for(ms(100));
        cluster.isolate(a);
        cluster.until(b.leads().or(c.leads()));
        cluster.until(create.acknowledged());
        cluster.heal();
        assert_eq!(cluster.read("k").as_deref(), Some("1"));
    });
}

/// Otherwise a sending that is on its way could still take effect after its client was told that none had.
#[test]
fn a_refusal_stands_for_all_sendings_whatever_has_become_of_the_key() {
    Scenario::of(3).seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "1");
        cluster.lose_answers_of(a);
        let create = cluster.create_at(a, "k", "2");
        cluster.run_for(ms(100));
        cluster.isolate(a);
        cluster.until(b.leads().or(c.leads()));
        let delete = cluster.delete("k");
        cluster.until(delete.over());
        cluster.until(create.not_applied());
        cluster.heal();
        assert_eq!(cluster.read("k"), None);
    });
}

#[test]
fn of_creations_at_once_one_takes_effect() {
    Scenario::of(3).seeds(1..=5).play(|cluster| {
        let [a, _, _] = cluster.nodes();
        cluster.until(a.leads());
        let creations = ["1", "2", "3"].map(|text| cluster.create_at(a, "k", text));
        for create in creations {
            cluster.until(create.over());
        }
        let done = creations.iter().filter(|create| cluster.holds(create.acknowledged()));
        assert_eq!(done.count(), 1);
    });
}

#[test]
fn conditions_hold_while_leaders_change_under_load() {
    Scenario::of(3).shards(2).load(6).transactions().seeds(1..=5).play(|cluster| {
        cluster.lose_power_in_turn::<3>();
        cluster.run_for(secs(1));
    });
}
