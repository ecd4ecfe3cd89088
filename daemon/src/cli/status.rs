//! `mesh status`: how every node and shard is, as the nodes themselves say.

use std::time::Duration;

use mesh_client::{
    Cluster, Error, NodeId, NodeReport, NodeState, NodeStatus, ReplicaRole, ReplicaState, ReplicaStatus,
    Topology,
};
use serde::Serialize;

use super::args::ClientFlags;
use super::data::{connect_within, wait};
use super::error::{CliError, Exit};
use super::output::{Format, Output};
use super::quantity::{MemorySize, readable};
use super::table::{Table, Word, plain, styled};
use super::terminal::Style;

/// How long a node may take to answer before it is passed over. Nodes without a cluster would be waited for otherwise,
/// though that they have none is what is to be shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// One node: what it says of itself, or why it does not.
struct Seen {
    name: String,
    address: String,
    id: Option<NodeId>,
    state: Option<NodeState>,
    status: Result<NodeStatus, Error>,
}

/// Of the whole cluster: what is known.
struct Survey {
    cluster: Option<String>,
    shards: usize,
    nodes: Vec<Seen>,
}

/// `mesh status`
pub(super) fn status(flags: &ClientFlags, output: &mut Output) -> Result<Exit, CliError> {
    let survey = wait(survey(flags))?;
    match output.format() {
        Format::Text => print(&survey, output)?,
        Format::Json => output.document(&SurveyDocument::of(&survey))?,
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// Asks every node of the cluster; where there is no cluster yet, the nodes at the endpoints.
async fn survey(flags: &ClientFlags) -> Result<Survey, CliError> {
    let cluster = match connect_within(flags.timeout.min(PATIENCE), flags).await {
        Err(CliError::Client(Error::NotReady { .. })) => return Ok(survey_unborn(flags).await),
        Err(CliError::Client(Error::Unreachable { .. })) if flags.timeout > PATIENCE => {
            connect_within(flags.timeout - PATIENCE, flags).await?
        }
        connected => connected?,
    };
    let topology = cluster.topology();
    let nodes = cluster.status().await.into_iter().map(Seen::of).collect();
    Ok(Survey { cluster: Some(topology.cluster().to_string()), shards: shards_of(&topology), nodes })
}

fn shards_of(topology: &Topology) -> usize {
    topology.shards().len()
}

async fn survey_unborn(flags: &ClientFlags) -> Survey {
    // They have just been found to answer, so they do at once.
    let patience = flags.timeout.min(PATIENCE);
    let mut nodes = Vec::new();
    for endpoint in &flags.endpoints {
        let status = Cluster::status_at(endpoint, patience).await;
        let name = status.as_ref().map_or_else(|_| "?".to_owned(), |status| status.name.clone());
        nodes.push(Seen { name, address: endpoint.clone(), id: None, state: None, status });
    }
    Survey { cluster: None, shards: 0, nodes }
}

impl Seen {
    fn of(report: NodeReport) -> Self {
        let NodeReport { node, status } = report;
        Self { name: node.name, address: node.address, id: Some(node.id), state: Some(node.state), status }
    }
}

fn print(survey: &Survey, output: &mut Output) -> Result<(), CliError> {
    let unreachable = survey.nodes.iter().filter(|node| node.status.is_err()).count();
    let count = survey.nodes.len();
    match &survey.cluster {
        Some(cluster) => {
            let missing =
                if unreachable == 0 { String::new() } else { format!(", {unreachable} of them unreachable") };
            output
                .line(format_args!("cluster {cluster}: {count} nodes{missing}, {} shards", survey.shards))?;
        }
        None => output.line("no cluster yet: the node waits for the others that it was told of")?,
    }
    output.line("")?;
    let colours = output.colours();
    node_table(survey).lines(colours).iter().try_for_each(|line| output.line(line))?;
    if let Some(table) = shard_table(survey) {
        output.line("")?;
        table.lines(colours).iter().try_for_each(|line| output.line(line))?;
    }
    Ok(())
}

fn node_table(survey: &Survey) -> Table {
    let mut table = Table::new(&["NODE", "ADDRESS", "STATE", "UP", "CORES", "MEMORY", "PEERS", "SOFTWARE"]);
    for node in &survey.nodes {
        let begin = [plain(&node.name), plain(&node.address)];
        match &node.status {
            Ok(status) => {
                let state = node.state.map_or_else(|| "no cluster yet".to_owned(), |state| state.to_string());
                let (used, budget) =
                    (MemorySize(status.memory_used_bytes), MemorySize(status.memory_budget_bytes));
                table.row(begin.into_iter().chain([
                    plain(state),
                    plain(readable(status.uptime)),
                    plain(status.cores),
                    plain(format_args!("{used} of {budget}")),
                    plain(status.peers_reachable),
                    styled(Style::Dim, &status.software),
                ]));
            }
            Err(error) => table.row(begin.into_iter().chain([styled(Style::Bad, why_unreachable(error))])),
        }
    }
    table
}

/// An unreachable node's reason, without the address, which stands beside it.
fn why_unreachable(error: &Error) -> String {
    match error {
        Error::Unreachable { tried } => match tried.last() {
            Some(tried) => format!("unreachable: {}", tried.why),
            None => "unreachable".into(),
        },
        other => other.to_string(),
    }
}

fn shard_table(survey: &Survey) -> Option<Table> {
    let mut replicas: Vec<(&Seen, &ReplicaStatus)> = Vec::new();
    for node in &survey.nodes {
        let of_node = node.status.iter().flat_map(|status| &status.replicas);
        replicas.extend(of_node.map(|replica| (node, replica)));
    }
    if replicas.is_empty() {
        return None;
    }
    replicas.sort_by_key(|(node, replica)| (replica.shard, node.id));
    let headings = [
        "SHARD", "NODE", "CORE", "ROLE", "TERM", "APPLIED", "COMMIT", "KEYS", "STORE", "LOG", "DIRTY",
        "STATE",
    ];
    let mut table = Table::new(&headings);
    for (node, replica) in replicas {
        table.row([
            plain(replica.shard),
            plain(&node.name),
            plain(replica.core),
            role(replica),
            plain(replica.term),
            plain(replica.applied),
            plain(replica.commit),
            plain(replica.keys),
            plain(MemorySize(replica.store_bytes)),
            plain(MemorySize(replica.log_bytes)),
            plain(MemorySize(replica.dirty_bytes)),
            state(replica),
        ]);
    }
    Some(table)
}

fn role(replica: &ReplicaStatus) -> Word {
    match replica.role {
        ReplicaRole::Leader => styled(Style::Good, replica.role),
        role if replica.leader.is_none() => styled(Style::Bad, format_args!("{role}, no leader")),
        role => plain(role),
    }
}

fn state(replica: &ReplicaStatus) -> Word {
    let text = match replica.detail.as_str() {
        "" => replica.state.to_string(),
        detail => format!("{}: {detail}", replica.state),
    };
    match replica.state {
        ReplicaState::Serving => plain(text),
        _ => styled(Style::Bad, text),
    }
}

#[derive(Serialize)]
struct SurveyDocument<'a> {
    cluster: Option<&'a str>,
    shards: usize,
    nodes: Vec<NodeDocument<'a>>,
}

#[derive(Serialize)]
struct NodeDocument<'a> {
    name: &'a str,
    address: &'a str,
    id: Option<u64>,
    state: Option<String>,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    status: Option<StatusDocument<'a>>,
}

#[derive(Serialize)]
struct StatusDocument<'a> {
    software: &'a str,
    uptime_ms: u128,
    cores: u16,
    memory_budget_bytes: u64,
    memory_used_bytes: u64,
    peers_reachable: u32,
    replicas: Vec<ReplicaDocument<'a>>,
}

#[derive(Serialize)]
struct ReplicaDocument<'a> {
    shard: u16,
    core: u16,
    replica: u64,
    role: String,
    term: u64,
    leader: Option<u64>,
    commit: u64,
    applied: u64,
    first_index: u64,
    last_index: u64,
    checkpoint: u64,
    checkpoint_applied: u64,
    keys: u64,
    store_bytes: u64,
    log_bytes: u64,
    resident_bytes: u64,
    dirty_bytes: u64,
    sessions: u32,
    state: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    voters: Vec<u64>,
    learners: Vec<u64>,
}

impl<'a> SurveyDocument<'a> {
    fn of(survey: &'a Survey) -> Self {
        let nodes = survey.nodes.iter().map(|node| NodeDocument {
            name: &node.name,
            address: &node.address,
            id: node.id.map(|id| id.0),
            state: node.state.map(|state| state.to_string()),
            reachable: node.status.is_ok(),
            error: node.status.as_ref().err().map(why_unreachable),
            status: node.status.as_ref().ok().map(StatusDocument::of),
        });
        Self { cluster: survey.cluster.as_deref(), shards: survey.shards, nodes: nodes.collect() }
    }
}

impl<'a> StatusDocument<'a> {
    fn of(status: &'a NodeStatus) -> Self {
        Self {
            software: &status.software,
            uptime_ms: status.uptime.as_millis(),
            cores: status.cores,
            memory_budget_bytes: status.memory_budget_bytes,
            memory_used_bytes: status.memory_used_bytes,
            peers_reachable: status.peers_reachable,
            replicas: status.replicas.iter().map(ReplicaDocument::of).collect(),
        }
    }
}

impl<'a> ReplicaDocument<'a> {
    fn of(replica: &'a ReplicaStatus) -> Self {
        let nodes = |members: &[mesh_client::Member]| members.iter().map(|member| member.node.0).collect();
        Self {
            shard: replica.shard.0,
            core: replica.core.0,
            replica: replica.replica.0,
            role: replica.role.to_string(),
            term: replica.term.0,
            leader: replica.leader.map(|node| node.0),
            commit: replica.commit.0,
            applied: replica.applied.0,
            first_index: replica.first_index.0,
            last_index: replica.last_index.0,
            checkpoint: replica.checkpoint.0,
            checkpoint_applied: replica.checkpoint_applied.0,
            keys: replica.keys,
            store_bytes: replica.store_bytes,
            log_bytes: replica.log_bytes,
            resident_bytes: replica.resident_bytes,
            dirty_bytes: replica.dirty_bytes,
            sessions: replica.sessions,
            state: replica.state.to_string(),
            detail: &replica.detail,
            voters: nodes(&replica.voters),
            learners: nodes(&replica.learners),
        }
    }
}
