//! Writers that note what was acknowledged, and the comparison with what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh_base::prng::Prng;
use mesh_client::{Bytes, Cluster as Client, Error};
use tokio::task::JoinHandle;

/// Writers of keys of their own.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Written>>,
}

/// What one writer wrote.
#[derive(Default, Debug)]
pub(crate) struct Written {
    writer: usize,
    /// How each write ended, in order.
    pub(crate) writes: Vec<Ended>,
    /// The longest that a write took.
    pub(crate) slowest: Duration,
}

/// How a write ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// It is there, and stays.
    Acknowledged,
    /// It may be there.
    Unknown,
    /// It is not there, and never will be.
    Refused(Error),
}

impl Load {
    /// Begins `writers` writers, each with a write at a time, with this much time for each write.
    pub(crate) fn start(client: &Client, writers: usize, deadline: Duration) -> Self {
        Self::start_at(client, 0, writers, deadline)
    }

    /// The same, with other writers than those below `first`.
    pub(crate) fn start_at(client: &Client, first: usize, writers: usize, deadline: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let writers = (first..first + writers).map(|writer| {
            let (client, over) = (client.clone(), Arc::clone(&over));
            tokio::spawn(async move { write(&client, writer, deadline, &over).await })
        });
        Self { writers: writers.collect(), over }
    }

    /// Ends the load; what each writer wrote.
    pub(crate) async fn stop(self) -> Vec<Written> {
        self.over.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in self.writers {
            written.push(writer.await.unwrap());
        }
        written
    }
}

async fn write(client: &Client, writer: usize, deadline: Duration, over: &AtomicBool) -> Written {
    let mut written = Written { writer, ..Written::default() };
    while !over.load(Ordering::Relaxed) {
        let number = written.writes.len();
        let since = Instant::now();
        let ended = client.put(key(writer, number), value(writer, number)).deadline(deadline).await;
        written.slowest = written.slowest.max(since.elapsed());
        written.writes.push(match ended {
            Ok(_) => Ended::Acknowledged,
            Err(Error::Unknown { .. }) => Ended::Unknown,
            Err(error) => Ended::Refused(error),
        });
    }
    written
}

/// Asserts that everything acknowledged is there, everything refused is not, and nothing is other than it was written.
/// Answers how many writes were acknowledged.
pub(crate) async fn check(client: &Client, written: &[Written]) -> usize {
    let mut acknowledged = 0;
    for Written { writer, writes, .. } in written {
        for (chunk, ends) in writes.chunks(256).enumerate() {
            let first = chunk * 256;
            let found = client.get_many((0..ends.len()).map(|at| key(*writer, first + at))).await.unwrap();
            for (at, (ended, item)) in ends.iter().zip(found).enumerate() {
                let (key, expected) = (key(*writer, first + at), value(*writer, first + at));
                let found = item.map(|item| item.value);
                match ended {
                    Ended::Acknowledged => {
                        assert_eq!(found.as_ref(), Some(&expected), "{key} was acknowledged");
                        acknowledged += 1;
                    }
                    Ended::Unknown => {
                        assert!(found.is_none_or(|found| found == expected), "{key} is something else");
                    }
                    Ended::Refused(error) => assert_eq!(found, None, "{key} was refused: {error}"),
                }
            }
        }
    }
    acknowledged
}

fn key(writer: usize, number: usize) -> String {
    format!("writer-{writer:03}/{number:08}")
}

/// Some 256 bytes that tell whose they are.
fn value(writer: usize, number: usize) -> Bytes {
    let mut prng = Prng::new(((writer as u64) << 32) | number as u64);
    let mut bytes = vec![0; 192 + prng.index(128)];
    prng.fill(&mut bytes);
    bytes.into()
}
