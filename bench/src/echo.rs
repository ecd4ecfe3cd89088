//! `mesh-bench echo`: answers every frame with as many bytes as Mesh would, and does nothing else.
//!
//! It is glommio as it comes: its listener, its streams, a task for each connection, on one pinned core. What one read brings is
//! answered with one write. So it shows what the executor and the kernel allow at most for frames of these sizes.
//!
//! Deliberately absent: everything that a server is for. Payloads are not looked at, and answers have no checksums.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use mesh_base::limits::{CORE_IO_MEMORY_BYTES, CORE_RING_ENTRIES, SOCKET_READ_BYTES};
use mesh_wire::{HEADER_BYTES, Kind, MAGIC};

use crate::error::{BenchError, Exit};

/// No task is interrupted by time, as in the server.
const PREEMPT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What the echo is told.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct EchoFlags {
    /// The processor it is pinned to.
    #[arg(long)]
    core: usize,
    /// The port of the loopback interface that it listens on.
    #[arg(long)]
    port: u16,
    /// Bytes of the frame that answers a get.
    #[arg(long)]
    get_answer_bytes: usize,
    /// Bytes of the frame that answers anything else.
    #[arg(long)]
    put_answer_bytes: usize,
}

/// Answers until it is ended.
///
/// # Errors
/// [`BenchError::Core`]
pub(crate) fn run(flags: &EchoFlags) -> Result<Exit, BenchError> {
    let flags = *flags;
    let executor = LocalExecutorBuilder::new(Placement::Fixed(flags.core))
        .io_memory(CORE_IO_MEMORY_BYTES)
        .ring_depth(CORE_RING_ENTRIES)
        .preempt_timer(PREEMPT_AFTER)
        .make()
        .map_err(|error| BenchError::core(flags.core, &error))?;
    let ended = executor.run(accept(flags));
    ended.map(|()| Exit::Done).map_err(|error| BenchError::core(flags.core, &error))
}

async fn accept(flags: EchoFlags) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", flags.port)).map_err(|error| error.to_string())?;
    // Every read lands here, and every answer leaves from here: a task that waits holds neither.
    let scratch = Rc::new(RefCell::new(Vec::new()));
    loop {
        let stream = listener.accept().await.map_err(|error| error.to_string())?;
        glommio::spawn_local(converse(stream, flags, Rc::clone(&scratch))).detach();
    }
}

/// The life of a connection.
async fn converse(mut stream: TcpStream, flags: EchoFlags, answers: Rc<RefCell<Vec<u8>>>) {
    let _ = stream.set_nodelay(true);
    let mut received = vec![0; SOCKET_READ_BYTES];
    let mut end = 0;
    while let Some(room) = received.get_mut(end..)
        && let Ok(count @ 1..) = stream.read(room).await
    {
        end += count;
        let mut own = answers.take();
        own.clear();
        let taken = answer(received.get(..end).unwrap_or_default(), &flags, &mut own);
        received.copy_within(taken..end, 0);
        end -= taken;
        if own.is_empty() {
            // A frame that is longer than what was read so far.
            received.resize(received.len().max(2 * end), 0);
        } else if stream.write_all(&own).await.is_err() {
            return;
        }
        answers.replace(own);
    }
}

/// Appends the answers to the whole frames among the bytes; returns how many bytes those are.
fn answer(received: &[u8], flags: &EchoFlags, answers: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    while let Some(header) = received.get(taken..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) {
        let [_, _, kind, _, l0, l1, l2, l3, _, _, _, _, _, _, _, _, id @ ..] = *header;
        let frame = HEADER_BYTES + u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if received.len() < taken + frame {
            break;
        }
        taken += frame;
        let is_get = kind == Kind::Get.to_byte();
        let bytes = if is_get { flags.get_answer_bytes } else { flags.put_answer_bytes };
        let payload = bytes.saturating_sub(HEADER_BYTES);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "an answer is a frame's payload, of a few MiB at most"
        )]
        let length = (payload as u32).to_le_bytes();
        answers.extend_from_slice(&[MAGIC, 1, kind, 0]);
        answers.extend_from_slice(&length);
        answers.extend_from_slice(&[0; 8]);
        answers.extend_from_slice(&id);
        answers.resize(answers.len() + payload, 0);
    }
    taken
}

#[cfg(test)]
mod tests {
    use mesh_wire::{Envelope, FrameWriter, Get, Request, RequestId};

    use super::*;

    #[test]
    fn whole_frames_are_answered_in_their_sizes_and_the_rest_is_kept() {
        let flags = EchoFlags { core: 0, port: 0, get_answer_bytes: 300, put_answer_bytes: 50 };
        let mut requests = Vec::new();
        for request in [7, 8] {
            let envelope = Envelope { request: RequestId(request), ..Envelope::default() };
            let get = Request::Get(Get { key: b"key", ..Get::default() });
            FrameWriter::new().append(&envelope, &get, &mut requests).unwrap();
        }
        let one = requests.len() / 2;
        let mut answers = Vec::new();
        assert_eq!(answer(&requests[..one + 5], &flags, &mut answers), one);
        assert_eq!((answers.len(), answers[16]), (300, 7));
        assert_eq!(answer(&requests, &flags, &mut answers), 2 * one);
        assert_eq!((answers.len(), answers[600 + 16]), (900, 8));
    }
}
