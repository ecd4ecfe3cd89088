//! `mesh-bench echo`: a server that answers every frame with one of a fixed size. What its executor and the kernel allow at most,
//! without anything that a store does.
//!
//! One executor with the settings of a server's core, its own TCP streams, a task for each connection. A read is answered with
//! one write, whatever it brought, as long as answers fit into [`OUT_BYTES`].
//!
//! Invariant: a request allocates nothing, once a connection's buffers have grown.
//!
//! Deliberately absent: checksums, of requests and of answers; and everything else that looks into a payload.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use futures_lite::{AsyncBufReadExt, AsyncWriteExt};
use glommio::net::{Preallocated, TcpListener, TcpStream};
use glommio::{GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use mesh_base::limits::{CORE_IO_MEMORY_BYTES, CORE_RING_ENTRIES};
use mesh_wire::{FRAME_VERSION, HEADER_BYTES, Kind, MAGIC, NO_SHARD};

use crate::error::{BenchError, Exit};
use crate::machine;

/// No task is interrupted by time, as on a server's core.
const PREEMPT_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The executor wants a thread for what makes others wait, which nothing here does.
const WAITING_THREADS: usize = 1;
/// Bytes of a read, at most.
const IN_BYTES: usize = 64 * 1024;
/// Answers that take more are written before the next one is made.
const OUT_BYTES: usize = 256 * 1024;

/// How to answer, and where.
#[derive(Args, Clone, Debug)]
pub(crate) struct EchoFlags {
    /// The processor.
    #[arg(long, value_name = "N")]
    core: usize,
    /// The port, on the loopback interface.
    #[arg(long, value_name = "N")]
    port: u16,
    /// Bytes of the frame that answers a get, header included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..))]
    get_answer_bytes: u32,
    /// Bytes of the frame that answers anything else, header included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..))]
    put_answer_bytes: u32,
}

/// Serves until the process is ended.
///
/// # Errors
/// The system's.
pub(crate) fn run(flags: &EchoFlags) -> Result<Exit, BenchError> {
    if !machine::allowed().contains(&flags.core) {
        return Err(BenchError::Usage(format!("--core: this process may not use processor {}", flags.core)));
    }
    let answers = Answers {
        get: answer(Kind::GetAnswer, flags.get_answer_bytes),
        other: answer(Kind::Written, flags.put_answer_bytes),
    };
    let executor = LocalExecutorBuilder::new(Placement::Fixed(flags.core))
        .io_memory(CORE_IO_MEMORY_BYTES)
        .ring_depth(CORE_RING_ENTRIES)
        .preempt_timer(PREEMPT_AFTER)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(WAITING_THREADS))
        .make()
        .map_err(BenchError::host("an executor"))?;
    executor.run(serve(flags.port, Rc::new(answers))).map_err(BenchError::host("the echo"))
}

async fn serve(port: u16, answers: Rc<Answers>) -> Result<Exit, GlommioError<()>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Rc::clone(&answers);
        let talk = async move {
            // Whoever closes a connection does not wait for a word about it.
            let _ = converse(stream.buffered_with(Preallocated::new(IN_BYTES)), &answers).await;
        };
        glommio::spawn_local(talk).detach();
    }
}

/// Answers what a connection brings until it ends.
async fn converse(mut stream: TcpStream<Preallocated>, answers: &Answers) -> io::Result<()> {
    let (mut frames, mut out) = (Frames::default(), Vec::new());
    loop {
        let received = stream.fill_buf().await?;
        if received.is_empty() {
            return Ok(());
        }
        let taken = answers.add(&mut frames, received, &mut out)?;
        stream.consume(taken);
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
    }
}

/// The answers, but for their request ids.
struct Answers {
    get: Vec<u8>,
    other: Vec<u8>,
}

/// A frame of so many bytes, of no request yet.
fn answer(kind: Kind, bytes: u32) -> Vec<u8> {
    let mut frame = vec![0; bytes as usize];
    let length = (frame.len() - HEADER_BYTES.min(frame.len())) as u64;
    let [l0, l1, l2, l3, ..] = length.to_le_bytes();
    let [s0, s1] = NO_SHARD.to_le_bytes();
    let head = [MAGIC, FRAME_VERSION, kind.to_byte(), 0, l0, l1, l2, l3, 0, 0, 0, 0, s0, s1];
    frame.iter_mut().zip(head).for_each(|(byte, head)| *byte = head);
    frame
}

/// Where in a header the request id is.
const ID_AT: usize = 16;
const ID_BYTES: usize = 8;

impl Answers {
    /// Adds an answer for each frame that ends in the bytes; answers how many of them were taken.
    fn add(&self, frames: &mut Frames, received: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut rest = received;
        while !rest.is_empty() && out.len() < OUT_BYTES {
            let (taken, ended) = frames.take(rest)?;
            rest = rest.get(taken..).unwrap_or_default();
            let Some(request) = ended else { continue };
            let answer = if request.kind == Kind::Get.to_byte() { &self.get } else { &self.other };
            if let Some((head, [_, _, _, _, _, _, _, _, tail @ ..])) = answer.split_at_checked(ID_AT) {
                out.extend_from_slice(head);
                out.extend_from_slice(&request.id);
                out.extend_from_slice(tail);
            }
        }
        Ok(received.len() - rest.len())
    }
}

/// What of a request comes back in its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Request {
    kind: u8,
    id: [u8; ID_BYTES],
}

/// Finds the frames in a stream of bytes, wherever it is cut.
#[derive(Default)]
struct Frames {
    /// The beginning of a header that is not complete.
    header: [u8; HEADER_BYTES],
    held: usize,
    /// The frame whose payload is passing by, and the bytes to come.
    passing: Option<(Request, usize)>,
}

impl Frames {
    /// Takes bytes, up to the end of a frame at most; answers how many, and the request that ended with them.
    ///
    /// # Errors
    /// They are no frame.
    fn take(&mut self, bytes: &[u8]) -> io::Result<(usize, Option<Request>)> {
        let mut taken = 0;
        let (request, length) = match self.passing.take() {
            Some(passing) => passing,
            None => {
                let header = if let (0, Some(header)) = (self.held, bytes.first_chunk()) {
                    taken = HEADER_BYTES;
                    *header
                } else {
                    let free = self.header.get_mut(self.held..).unwrap_or_default();
                    free.iter_mut().zip(bytes).for_each(|(free, byte)| *free = *byte);
                    taken = free.len().min(bytes.len());
                    self.held += taken;
                    if self.held < HEADER_BYTES {
                        return Ok((taken, None));
                    }
                    self.header
                };
                self.held = 0;
                begun(&header)?
            }
        };
        let passed = length.min(bytes.len() - taken);
        if passed < length {
            self.passing = Some((request, length - passed));
            return Ok((taken + passed, None));
        }
        Ok((taken + passed, Some(request)))
    }
}

/// The request of a header, and the bytes of its payload.
fn begun(header: &[u8; HEADER_BYTES]) -> io::Result<(Request, usize)> {
    let &[magic, _, kind, _, l0, l1, l2, l3, ..] = header;
    if magic != MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let id = header.get(ID_AT..).and_then(|id| id.first_chunk()).copied().unwrap_or_default();
    Ok((Request { kind, id }, u32::from_le_bytes([l0, l1, l2, l3]) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers { get: answer(Kind::GetAnswer, 300), other: answer(Kind::Written, 40) }
    }

    /// Frames of some kinds, with request ids from 7 on and payloads of increasing length.
    fn frames(kinds: &[Kind]) -> Vec<u8> {
        let mut all = Vec::new();
        for (number, &kind) in kinds.iter().enumerate() {
            let mut frame = answer(kind, 32 + 5 * u32::try_from(number).unwrap());
            frame[ID_AT..ID_AT + ID_BYTES].copy_from_slice(&(7 + number as u64).to_le_bytes());
            all.extend(frame);
        }
        all
    }

    #[test]
    fn every_frame_is_answered_once_by_kind_and_number_wherever_the_stream_is_cut() {
        let kinds = [Kind::Get, Kind::Put, Kind::Get, Kind::Put, Kind::Hello];
        let (answers, stream) = (answers(), frames(&kinds));
        for piece in 1..=stream.len() {
            let (mut frames, mut out) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                assert_eq!(answers.add(&mut frames, bytes, &mut out).unwrap(), bytes.len());
            }
            let mut rest = &out[..];
            for (number, kind) in kinds.iter().enumerate() {
                let bytes = if *kind == Kind::Get { 300 } else { 40 };
                let (answer, after) = rest.split_at(bytes);
                assert_eq!(answer[ID_AT..ID_AT + ID_BYTES], (7 + number as u64).to_le_bytes());
                assert_eq!(answer[4..8], (u32::try_from(bytes).unwrap() - 32).to_le_bytes());
                rest = after;
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn answers_stop_when_there_are_enough_and_go_on_where_they_stopped() {
        let answers = Answers { get: answer(Kind::GetAnswer, 200_000), ..answers() };
        let (stream, mut frames) = (frames(&[Kind::Get; 3]), Frames::default());
        let mut out = Vec::new();
        let taken = answers.add(&mut frames, &stream, &mut out).unwrap();
        assert_eq!((taken, out.len()), (32 + 37, 400_000));
        out.clear();
        assert_eq!(answers.add(&mut frames, &stream[taken..], &mut out).unwrap(), 42);
        assert_eq!(out.len(), 200_000);
    }

    #[test]
    fn what_is_no_frame_ends_the_connection() {
        assert!(Frames::default().take(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err());
    }
}
