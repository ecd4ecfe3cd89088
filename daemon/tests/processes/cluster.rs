//! A cluster of processes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mesh_client::{Cluster as Client, NodeStatus, ReplicaRole, ReplicaStatus, ShardId};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::quorum::votes;

/// How long a node may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// These tests want the machine for themselves, one at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// How a cluster is made.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) shards: u16,
    pub(crate) cores: &'static str,
    pub(crate) memory: &'static str,
}

impl Plan {
    pub(crate) const THREE: Self = Self { nodes: 3, shards: 3, cores: "0", memory: "384MiB" };
    pub(crate) const ONE: Self = Self { nodes: 1, shards: 2, cores: "0", memory: "384MiB" };
}

/// The nodes, and the directory with all their files.
pub(crate) struct Cluster {
    plan: Plan,
    nodes: Vec<Node>,
    root: TempDir,
    /// Absent where another cluster of the same test has it.
    _machine: Option<MutexGuard<'static, ()>>,
}

struct Node {
    port: u16,
    cores: &'static str,
    process: Option<Child>,
    /// Bytes of output before the present process.
    told_before: usize,
}

/// What came of a program that ended.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Cluster {
    /// Nodes a, b, c and so on that do not run yet.
    pub(crate) fn new(plan: Plan) -> Self {
        Self::make(plan, Some(MACHINE.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A cluster beside this one, which must outlive it.
    pub(crate) fn beside(&self, plan: Plan) -> Self {
        Self::make(plan, None)
    }

    fn make(plan: Plan, machine: Option<MutexGuard<'static, ()>>) -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let ports: Vec<TcpListener> =
            (0..plan.nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let node = |listener: &TcpListener| Node {
            port: listener.local_addr().unwrap().port(),
            cores: plan.cores,
            process: None,
            told_before: 0,
        };
        Self { plan, nodes: ports.iter().map(node).collect(), root, _machine: machine }
    }

    /// A cluster that is ready.
    pub(crate) fn start(plan: Plan) -> Self {
        let mut cluster = Self::new(plan);
        cluster.run_all();
        cluster
    }

    /// Runs the nodes that do not, until each says that the cluster is ready.
    pub(crate) fn run_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_none() {
                self.run(node);
            }
        }
        for node in 0..self.nodes.len() {
            self.await_output(node, "cluster ready");
        }
    }

    /// Runs a node.
    pub(crate) fn run(&mut self, node: usize) {
        assert!(self.nodes[node].process.is_none(), "it runs already");
        self.nodes[node].told_before = self.output(node).len();
        let mut command = self.command(node);
        let append = |path: PathBuf| File::options().create(true).append(true).open(path).unwrap();
        command.stdin(Stdio::null()).stdout(append(self.output_path(node)));
        command.stderr(append(self.output_path(node)));
        self.nodes[node].process = Some(command.spawn().unwrap());
    }

    /// The command that runs a node, as an operator types it.
    pub(crate) fn command(&self, node: usize) -> Command {
        let peers = (0..self.nodes.len()).filter(|&peer| peer != node);
        let peers: Vec<String> =
            peers.map(|peer| format!("{}={}", name(peer), self.endpoint(peer))).collect();
        let mut command = self.server(&name(node), &self.endpoint(node), &self.data(node));
        command.args(["--cores", self.nodes[node].cores]);
        if !peers.is_empty() {
            command.args(["--peers", &peers.join(",")]);
        }
        command
    }

    /// The command that runs a node of any name, anywhere, without peers.
    pub(crate) fn server(&self, name: &str, listen: &str, data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-server"));
        command.env_clear().env("XDG_RUNTIME_DIR", self.root.path()).current_dir(self.root.path());
        command.args(["--node", name, "--listen", listen, "--log", "info"]);
        command.args(["--shards", &self.plan.shards.to_string(), "--memory", self.plan.memory]);
        command.arg("--data").arg(data);
        command
    }

    /// The nodes run on these processors from their next start on.
    pub(crate) fn set_cores(&mut self, cores: &'static str) {
        self.nodes.iter_mut().for_each(|node| node.cores = cores);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// kill -9 of all that run, as much at once as can be.
    pub(crate) fn kill_all(&mut self) {
        let taken = self.nodes.iter_mut().filter_map(|node| node.process.take());
        let mut processes: Vec<Child> = taken.collect();
        for process in &mut processes {
            // Not by its number: one that ended by itself may have been waited for already.
            process.kill().unwrap();
        }
        for mut process in processes {
            process.wait().unwrap();
        }
    }

    /// SIGTERM to all that run; each must end in order.
    pub(crate) fn stop_all(&mut self) {
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            signal(process, Signal::TERM);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_some() {
                let (status, said) = self.ended(node);
                assert!(status.success(), "node {} ended with {status}:\n{said}", name(node));
            }
        }
    }

    /// Waits for a node that ends; what it ended with and what it said since its start.
    pub(crate) fn ended(&mut self, node: usize) -> (ExitStatus, String) {
        // One that does not end is still there to be killed.
        let status = wait(self.nodes[node].process.as_mut().expect("it ran"));
        self.nodes[node].process = None;
        (status, self.said(node))
    }

    /// Removes everything a node that does not run has stored.
    pub(crate) fn wipe(&mut self, node: usize) {
        assert!(self.nodes[node].process.is_none(), "it runs");
        fs::remove_dir_all(self.data(node)).unwrap();
    }

    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("it runs").id()
    }

    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.root.path().join(name(node))
    }

    pub(crate) fn endpoint(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node].port)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|node| self.endpoint(node)).collect()
    }

    /// A client of the cluster.
    pub(crate) async fn client(&self) -> Client {
        Client::builder().deadline(PATIENCE / 2).connect(self.endpoints()).await.unwrap()
    }

    /// Runs a command against the cluster; what it printed if it ended well.
    pub(crate) fn mesh(&self, arguments: &[&str]) -> String {
        let Outcome { code, stdout, stderr } = self.ask(arguments, b"");
        assert_eq!(code, 0, "mesh {arguments:?}: {stderr}");
        String::from_utf8(stdout).unwrap()
    }

    /// Runs a command against the cluster, however it ends.
    pub(crate) fn ask(&self, arguments: &[&str], stdin: &[u8]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.env_clear().env("MESH_ENDPOINTS", self.endpoints().join(",")).args(arguments);
        outcome(command, stdin)
    }

    /// What a node says of itself, as soon as it answers.
    pub(crate) async fn status(&self, node: usize) -> NodeStatus {
        let since = Instant::now();
        loop {
            match Client::status_at(&self.endpoint(node), PATIENCE).await {
                Ok(status) => return status,
                Err(error) => assert!(since.elapsed() < PATIENCE, "node {} is silent: {error}", name(node)),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a node's replicas vote. A new client asks each time: one that asked for nothing does not hear of ids
    /// that changed.
    pub(crate) async fn await_vote(&self, node: usize) {
        let since = Instant::now();
        while !votes(&self.client().await, node).await {
            assert!(since.elapsed() < PATIENCE, "node {} does not vote", name(node));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a node leads a shard.
    pub(crate) async fn await_leadership(&self, node: usize, shard: ShardId) {
        let since = Instant::now();
        loop {
            let status = self.status(node).await;
            let leads =
                |replica: &ReplicaStatus| replica.shard == shard && replica.role == ReplicaRole::Leader;
            if status.replicas.iter().any(leads) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "node {} never leads: {status:#?}", name(node));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The directory of a node's replica of a shard; there is one as long as the node was not replaced.
    pub(crate) fn replica(&self, node: usize, shard: ShardId) -> PathBuf {
        let prefix = format!("shard-{:04}-", shard.0);
        let mut entries = fs::read_dir(self.data(node)).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix)).unwrap()
    }

    /// What a node said since its start.
    pub(crate) fn said(&self, node: usize) -> String {
        self.output(node).split_off(self.nodes[node].told_before)
    }

    /// Waits until a node has said this since its start.
    pub(crate) fn await_output(&mut self, node: usize, words: &str) {
        let since = Instant::now();
        while !self.said(node).contains(words) {
            assert!(
                since.elapsed() < PATIENCE,
                "node {} never said {words:?}:\n{}",
                name(node),
                self.said(node)
            );
            let process = self.nodes[node].process.as_mut().expect("it runs");
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "node {} ended ({ended:?}):\n{}", name(node), self.said(node));
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn output_path(&self, node: usize) -> PathBuf {
        self.root.path().join(format!("{}.output", name(node)))
    }

    fn output(&self, node: usize) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.output_path(node)) {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if thread::panicking() {
            for node in 0..self.nodes.len() {
                let said = self.output(node);
                let tail: Vec<&str> = said.lines().rev().take(30).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                eprintln!("--- the last that node {} said:\n{}", name(node), tail.join("\n"));
            }
        }
    }
}

/// The name of a node: a, b, c.
pub(crate) fn name(node: usize) -> String {
    char::from(b'a' + u8::try_from(node).unwrap()).to_string()
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The most memory that a process ever had resident, in bytes.
pub(crate) fn peak_resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// The memory that a process has resident, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs a program to its end, which it must come to by itself.
pub(crate) fn outcome(mut command: Command, stdin: &[u8]) -> Outcome {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (pid, mut pipe, stdin) = (Pid::from_child(&child), child.stdin.take().unwrap(), stdin.to_vec());
    // A program that refuses does not read to the end.
    let feeder = thread::spawn(move || drop(pipe.write_all(&stdin)));
    let (over, ended) = channel::<()>();
    let guard =
        thread::spawn(move || ended.recv_timeout(PATIENCE).is_err().then(|| kill_process(pid, Signal::KILL)));
    let output = child.wait_with_output().unwrap();
    let _ = over.send(());
    assert!(guard.join().unwrap().is_none(), "{command:?} does not end");
    feeder.join().unwrap();
    let code = output.status.code().expect("it ends by itself");
    Outcome { code, stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn wait(process: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        assert!(since.elapsed() < PATIENCE, "a process does not end");
        thread::sleep(Duration::from_millis(20));
    }
}
