//! etcd 3 as the system under load: `Put` and linearizable `Range` over gRPC, batches as transactions.
//!
//! A connection goes to the leader, which answers soonest: another member passes writes on to it, also when it is gone. gRPC is spoken here by hand, because a client library for it would cost more than what it measures.
//!
//! Deliberately absent: TLS, users, compression.

mod frame;
mod hpack;
mod lane;
mod message;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use self::frame::{
    ACK, CONNECTION, END_HEADERS, END_STREAM, Frame, Kind, PREFACE, Setting, StreamId, WINDOW_BYTES,
    WINDOW_BYTES_MAX, append_ack, append_head, append_settings, append_window,
};
pub(crate) use self::lane::EtcdLane;
use self::message::{MemberId, Status};
use super::dial::dial;
use super::{LaneSpec, OpenError, PartitionId, Standing, Target};
use crate::socket::Socket;

/// Bytes of a read before operations begin.
const READ_BYTES: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Etcd {
    addresses: Vec<SocketAddr>,
    view: Mutex<View>,
}

/// What members said.
#[derive(Debug, Default)]
struct View {
    members: BTreeMap<MemberId, SocketAddr>,
    leader: Option<MemberId>,
}

impl Etcd {
    /// The cluster whose members are at these addresses.
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, view: Mutex::default() }
    }

    /// Whether a member serves: it answers, and follows a leader.
    pub(crate) fn serves(address: SocketAddr) -> Result<(), OpenError> {
        let status = Call::connect(address)?.status()?;
        status.leader.map(drop).ok_or_else(|| OpenError::Later(format!("{address} knows no leader")))
    }

    /// Whether a member leads.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn leads(address: SocketAddr) -> Result<bool, OpenError> {
        let status = Call::connect(address)?.status()?;
        Ok(status.leader == Some(status.member))
    }

    /// How far a member has come.
    ///
    /// # Errors
    /// It does not answer, or follows no leader.
    pub(crate) fn standing(address: SocketAddr) -> Result<Standing, OpenError> {
        let status = Call::connect(address)?.status()?;
        status.leader.ok_or_else(|| OpenError::Later(format!("{address} knows no leader")))?;
        Ok(status.standing)
    }

    /// Asks a member for itself and its leader, and remembers.
    fn ask(&self, address: SocketAddr) -> Result<Status, OpenError> {
        let status = Call::connect(address)?.status()?;
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.members.insert(status.member, address);
        if status.leader.is_some() {
            view.leader = status.leader;
        }
        Ok(status)
    }

    /// Where the leader is, as far as is known.
    fn leader(&self) -> Option<SocketAddr> {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.members.get(&view.leader?).copied()
    }

    /// Whom to connect to at an attempt.
    fn candidate(&self, attempt: u32) -> SocketAddr {
        let leader = self.leader().filter(|_| attempt.is_multiple_of(2));
        let turn = self.addresses.get(attempt as usize / 2 % self.addresses.len().max(1));
        leader.or(turn.copied()).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl Target for Etcd {
    type Lane = EtcdLane;

    fn name(&self) -> &'static str {
        "etcd"
    }

    fn partitions(&self) -> usize {
        1
    }

    fn partition_of(&self, _key: &[u8]) -> PartitionId {
        PartitionId(0)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    fn lane(&self, spec: LaneSpec) -> EtcdLane {
        EtcdLane::new(spec.value_bytes)
    }

    fn open(&self, lane: &mut EtcdLane, attempt: u32) -> Result<Socket, OpenError> {
        let mut address = self.candidate(attempt);
        // A member that does not lead knows mostly who does, but not always where.
        for _ in 0..2 {
            let status = self.ask(address)?;
            if status.leader == Some(status.member) {
                let call = Call::connect(address)?;
                lane.connected(address);
                call.tell(lane);
                return Socket::new(call.stream).map_err(OpenError::later);
            }
            address = self.leader().unwrap_or(address);
        }
        Err(OpenError::Later(format!("{address} does not lead")))
    }

    fn survey(self: &Arc<Self>) {
        for &address in &self.addresses {
            let etcd = Arc::clone(self);
            // A member that says nothing is why there is a survey.
            let _ = thread::Builder::new().name("survey".into()).spawn(move || drop(etcd.ask(address)));
        }
    }

    fn has_moved(&self, lane: &EtcdLane) -> bool {
        self.leader().is_some_and(|leader| lane.goes_to != Some(leader))
    }
}

/// A connection before operations begin: settings are exchanged, and one question may be asked.
struct Call {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
    /// What the server said of windows.
    windows: Vec<(StreamId, i64)>,
    settings: Vec<u8>,
}

impl Call {
    /// Exchanges settings.
    fn connect(address: SocketAddr) -> Result<Self, OpenError> {
        let stream = dial(address)?;
        let mut call =
            Self { stream, address, received: Vec::new(), windows: Vec::new(), settings: Vec::new() };
        let mut hello = PREFACE.to_vec();
        append_settings(
            &[
                (Setting::HeaderTableSize, 0),
                (Setting::EnablePush, 0),
                (Setting::InitialWindowSize, WINDOW_BYTES_MAX),
            ],
            &mut hello,
        );
        append_window(WINDOW_BYTES_MAX - u32::try_from(WINDOW_BYTES).unwrap_or_default(), &mut hello);
        call.stream.write_all(&hello).map_err(OpenError::later)?;
        // Once the server has said that it keeps to the settings, nothing of the beginning is under way any more.
        call.until(|kind, flags| kind == Kind::Settings && flags & ACK != 0)?;
        Ok(call)
    }

    /// Takes frames until one is as wanted; what its stream brought as data.
    fn until(&mut self, wanted: impl Fn(Kind, u8) -> bool) -> Result<Vec<u8>, OpenError> {
        let mut body = Vec::new();
        loop {
            while let Some(frame) = Frame::peek(&self.received).map_err(OpenError::Later)? {
                let (kind, flags, length) = (frame.kind, frame.flags, frame.length);
                match kind {
                    Kind::Data => body.extend_from_slice(frame.payload),
                    Kind::WindowUpdate => self.windows.push((frame.stream, i64::from(frame.number()))),
                    Kind::Settings if !frame.has(ACK) => {
                        self.settings = self.received.get(..length).unwrap_or_default().to_vec();
                        let mut ack = Vec::new();
                        append_ack(Kind::Settings, &[], &mut ack);
                        self.stream.write_all(&ack).map_err(OpenError::later)?;
                    }
                    Kind::GoAway | Kind::ResetStream => {
                        return Err(OpenError::Later(format!("{} refuses: {kind:?}", self.address)));
                    }
                    _ => {}
                }
                self.received.drain(..length);
                if wanted(kind, flags) {
                    return Ok(body);
                }
            }
            let mut piece = [0; READ_BYTES];
            match self.stream.read(&mut piece).map_err(OpenError::later)? {
                0 => return Err(OpenError::Later(format!("{} closed the connection", self.address))),
                count => self.received.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Asks the member for its status; the connection is of no use to operations afterwards.
    fn status(mut self) -> Result<Status, OpenError> {
        let block = hpack::request(&self.address.to_string(), "/etcdserverpb.Maintenance/Status");
        let mut request = Vec::new();
        append_head(Kind::Headers, END_HEADERS, StreamId(1), block.len(), &mut request);
        request.extend_from_slice(&block);
        append_head(Kind::Data, END_STREAM, StreamId(1), message::PREFIX_BYTES, &mut request);
        request.extend_from_slice(&[0; message::PREFIX_BYTES]);
        self.stream.write_all(&request).map_err(OpenError::later)?;
        let body = self.until(|kind, flags| kind == Kind::Headers && flags & END_STREAM != 0)?;
        message::in_body(&body).and_then(Status::read).map_err(OpenError::Later)
    }

    /// Tells a lane what the server said of windows.
    fn tell(&self, lane: &mut EtcdLane) {
        if let Ok(Some(settings)) = Frame::peek(&self.settings) {
            lane.settings(&settings);
        }
        let connection = self.windows.iter().filter(|(stream, _)| *stream == CONNECTION);
        connection.for_each(|(stream, more)| lane.widen(*stream, *more));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fleet::programs::{ProgramName, Programs};
    use crate::target::trial;

    #[test]
    fn a_real_etcd_keeps_what_it_acknowledged() {
        let program = match Programs::default().find(ProgramName::Etcd) {
            Ok(program) => program,
            Err(why) => return println!("skipped: {why}"),
        };
        let [client, peer] = trial::addresses();
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let cluster = format!("a={peer_url}");
        let arguments = [
            "--name=a",
            &format!("--listen-client-urls={client_url}"),
            &format!("--advertise-client-urls={client_url}"),
            &format!("--listen-peer-urls={peer_url}"),
            &format!("--initial-advertise-peer-urls={peer_url}"),
            &format!("--initial-cluster={cluster}"),
            "--unsafe-no-fsync",
        ];
        let _server = trial::Process::start(program.path(), &arguments).unwrap();
        trial::works(&Arc::new(Etcd::new(vec![client])));
    }
}
