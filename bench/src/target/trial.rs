//! A lane under test: operations made by hand, and a load on a real server that is checked afterwards.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::distribution::Distribution;
use crate::filling::sweep;
use crate::generator::{self, Plan};
use crate::keyspace::{Keyspace, KeyspaceSpec};
use crate::ledger::{Audit, Findings, Ledger, Ledgered};
use crate::machine;
use crate::op::{KeyNo, Op, OpKind, ValueAt};
use crate::pace::Pace;
use crate::target::{PartitionId, Target};
use crate::workload::{Mix, Shares};

const KEYS: u32 = 500;

/// A few keys with values of five bytes.
pub(crate) fn keyspace() -> Keyspace {
    let spec =
        KeyspaceSpec { keys: KEYS, inserts: 0, value_bytes: 5, distribution: Distribution::Uniform, seed: 1 };
    Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap()
}

fn op(kind: OpKind, keys: &[u32]) -> Op {
    let values = keys.iter().map(|&key| ValueAt(key as usize));
    Op { kind, keys: keys.iter().map(|&key| KeyNo(key)).collect(), values: values.collect(), ..Op::empty() }
}

/// Reads keys.
pub(crate) fn read(keys: &[u32]) -> Op {
    op(OpKind::Read, keys)
}

/// Writes keys.
pub(crate) fn write(keys: &[u32]) -> Op {
    op(OpKind::Write, keys)
}

/// A process that is ended with the test, and the directory that it ran in.
pub(crate) struct Process {
    child: Child,
    _directory: TempDir,
}

impl Process {
    /// Starts a program, if it is there.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(data.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        Some(Self { child, _directory: data })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses that nobody listens at now.
pub(crate) fn addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// Does something to a real server, if one of these programs is installed; its arguments end with the
/// port.
pub(crate) fn against<T: Target>(
    programs: &[&str],
    arguments: &[&str],
    target: impl Fn(SocketAddr) -> T,
    then: impl Fn(&Arc<T>),
) {
    let [address] = addresses();
    let port = address.port().to_string();
    let arguments = [arguments, &[&port]].concat();
    let started = programs.iter().find_map(|program| Process::start(Path::new(program), &arguments));
    let Some(_server) = started else {
        println!("skipped: none of {programs:?} is installed");
        return;
    };
    then(&Arc::new(target(address)));
}

/// Fills in, puts under load and reads back a server that is about to serve.
pub(crate) fn works<T: Target>(target: &Arc<T>) {
    let findings = Trial::load(target).read_back();
    assert_eq!((findings.keys(), findings.held), (KEYS.into(), KEYS.into()), "{findings:?}");
}

/// A server that was put under load.
pub(crate) struct Trial<T> {
    target: Arc<T>,
    plan: Plan,
    ledger: Arc<Ledger>,
}

impl<T: Target> Trial<T> {
    /// Fills in a server that is about to serve, and puts it under load.
    pub(crate) fn load(target: &Arc<T>) -> Self {
        let ledger = Arc::new(Ledger::new(KEYS));
        let mut plan = Plan {
            cores: vec![machine::allowed()[0]],
            connections: 3,
            in_flight: 4,
            batch: 1,
            pace: Pace::Closed,
            mix: Mix::sweep(OpKind::Write, 1, 1),
            keyspace: Arc::new(keyspace()),
            ledger: Ledgered::Records(Arc::clone(&ledger)),
            warm_up: 0,
            seconds: Some(1),
            seed: 1,
        };
        let since = Instant::now();
        while let Err(error) = sweep(target, &plan) {
            assert!(since.elapsed() < Duration::from_secs(20), "{error}");
        }
        for batch in [1, 7] {
            plan = Plan { batch, mix: Mix::Random(Shares::reads(50)), ..plan };
            let total = generator::run(target, &plan, &mut ()).unwrap().total;
            assert!(total.requests() > 100, "{} requests", total.requests());
            assert_eq!((total.missing, total.wrong, total.unanswered), (0, 0, 0));
            assert!(total.errors.is_empty(), "{:?}", total.errors);
        }
        Self { target: Arc::clone(target), plan, ledger }
    }

    /// Reads everything back.
    pub(crate) fn read_back(self) -> Findings {
        let audit = Arc::new(Audit::new(self.ledger));
        let back = Plan {
            mix: Mix::sweep(OpKind::Read, 1, 1),
            ledger: Ledgered::Audits(Arc::clone(&audit)),
            ..self.plan
        };
        sweep(&self.target, &back).unwrap();
        audit.findings()
    }
}
