//! Who leads, and what becomes of what the last leader had begun.

use mesh_sim::scenario::{Power, Scenario, ms, secs};

/// A leader elected again on a shorter log found its own earlier proposals behind the end of the log, and stopped itself.
#[test]
fn a_leader_that_lost_what_it_proposed_leads_again() {
    Scenario::of(3).seeds(1..=10).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        let warm: Vec<_> = (0..8).map(|number| cluster.put_at(a, &format!("k{number}"), "before")).collect();
        for put in warm {
            cluster.until(put.acknowledged());
        }
        // Nobody writes what it loses again at another.
        cluster.isolate(a);
        cluster.hide(b);
        cluster.hide(c);
        for number in 0..8 {
            cluster.put_at(a, &format!("k{number}"), "lost");
            cluster.run_for(ms(2));
        }
        cluster.until(b.leads().or(c.leads()));
        cluster.heal();
        cluster.hide(b);
        cluster.hide(c);
        cluster.until(a.follows());
        cluster.within(secs(10), a.leads());
        cluster.write("k", "after");
        cluster.run_for(secs(3));
    });
}

#[test]
fn a_node_that_was_cut_off_does_not_unseat_the_leader_when_it_is_back() {
    Scenario::of(3).load(2).play(|cluster| {
        let [a, _, c] = cluster.nodes();
        cluster.until(a.leads());
        cluster.isolate(c);
        cluster.run_for(secs(3));
        let then = cluster.now();
        cluster.heal();
        cluster.run_for(secs(2));
        assert!(cluster.holds(a.leads()));
        assert!(cluster.longest_silence_since(then) < ms(100), "{:?}", cluster.longest_silence_since(then));
    });
}

#[test]
fn a_leader_that_hears_nobody_steps_down() {
    Scenario::of(3).load(2).play(|cluster| {
        let [a, b, c] = cluster.nodes();
        cluster.until(a.leads());
        // The others still hear it.
        cluster.silence(&[b, c], &[a]);
        cluster.within(secs(2), b.leads().or(c.leads()));
        cluster.run_for(secs(1));
        cluster.heal();
        cluster.node(b).crash(Power);
        cluster.run_for(secs(1));
    });
}
