//! Words that several stories use.

use mesh_base::LogIndex;
use mesh_sim::scenario::{NodeNo, Power, Stage, When, when};

/// A value that fills a page.
pub(crate) fn long(number: usize) -> String {
    format!("{number:04}").repeat(1000)
}

/// Writes so many long values.
#[track_caller]
pub(crate) fn fill_log(cluster: &mut Stage<'_>, writes: usize) {
    for number in 0..writes {
        cluster.write(&format!("long-{}", number % 10), &long(number));
    }
}

/// A node loses power, and the others go on without it until none of them has the entries any more that it lacks.
#[track_caller]
pub(crate) fn leave_behind(cluster: &mut Stage<'_>, node: NodeNo, others: &[NodeNo]) {
    let last = cluster.status(node).map(|status| status.last_index).unwrap_or_default();
    cluster.node(node).crash(Power);
    outrun(cluster, last, others);
}

/// Nodes go on until none of them has the entries any more that follow one.
#[track_caller]
pub(crate) fn outrun(cluster: &mut Stage<'_>, last: LogIndex, others: &[NodeNo]) {
    let others = others.to_vec();
    let have_let_go = || {
        let others = others.clone();
        when("the others have let go of their logs", move |it| {
            others
                .iter()
                .all(|&other| it.status(other).is_some_and(|status| status.first_index > last.next()))
        })
    };
    for number in 0.. {
        if cluster.holds(have_let_go()) {
            break;
        }
        assert!(number < 2000, "logs are let go in the end");
        cluster.write(&format!("long-{}", number % 10), &long(number));
    }
}

/// A checkpoint's superblock is on the node's disk, and not known to be durable.
pub(crate) fn a_superblock_waits(node: NodeNo) -> When {
    when("a superblock waits to be durable", move |it| {
        let counted = it.status(node).map(|status| status.checkpoint);
        it.written_checkpoint(node).zip(counted).is_some_and(|(written, counted)| written > counted)
    })
}
