//! A write takes effect once, however often it is sent.

use mesh_sim::scenario::{Scenario, ms};

/// Each copy of an opening opened a session of its own. (How many there are is checked at the end of every story.)
#[test]
fn a_session_whose_opening_is_sent_again_is_opened_once() {
    Scenario::of(3).play(|cluster| {
        let [a, _, _] = cluster.nodes();
        cluster.until(a.leads());
        cluster.lose_answers_of(a);
        let put = cluster.put_at(a, "k", "v");
        cluster.run_for(ms(1000));
        assert_eq!(cluster.status(a).map(|status| status.sessions), Some(1));
        cluster.heal();
        cluster.until(put.acknowledged());
    });
}

#[test]
fn a_write_that_is_sent_again_to_the_next_leader_takes_effect_once() {
    Scenario::of(3).seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.write("k", "1");
        cluster.lose_answers_of(a);
        let put = cluster.put_at(a, "k", "2");
        cluster.run_for(ms(100));
        cluster.isolate(a);
        cluster.until(b.leads().or(c.leads()));
        cluster.until(put.acknowledged());
        cluster.write("k", "3");
        cluster.heal();
        assert_eq!(cluster.read("k").as_deref(), Some("3"));
    });
}
