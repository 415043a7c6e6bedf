//! The subcommands for the node and its links: status, health, peers, connect, disconnect and sync.

use peat_ipc::sidecar as pb;

use super::arguments::{Action, Connect, Disconnect, Health, Peers, Status, Sync};
use super::failure::Failure;
use super::output::Output;
use super::{note, remote};
use crate::config;
use crate::identity::EndpointId;

pub(super) fn status(command: &Status) -> Result<(), Failure> {
    let response = remote::connect(command)?.call(&pb::GetStatusRequest {})?;
    let phase = pb::NodePhase::try_from(response.phase).unwrap_or_default().as_str_name();
    let fields = [
        ("node", response.node_id.clone()),
        ("endpoint", response.endpoint_addr.clone()),
        ("phase", phase.trim_start_matches("NODE_PHASE_").to_lowercase().replace('_', " ")),
        ("sync", on_off(response.sync_active)),
        ("connected", response.connected_peers.to_string()),
    ];
    Output::stdout(command.json).response(&response, |out| out.fields(&fields))
}

pub(super) fn health(command: &Health) -> Result<(), Failure> {
    let response = remote::connect(command)?.call(&pb::GetHealthRequest {})?;
    let fields = [
        ("healthy", response.healthy.to_string()),
        ("documents", response.documents.to_string()),
        ("tombstones", response.tombstones.to_string()),
        ("sequence", response.sequence.to_string()),
        ("on disk", response.durable_sequence.to_string()),
        ("file", format!("{} bytes", response.file_bytes)),
        ("cache", format!("{} bytes", response.cache_bytes)),
        ("run", response.run.clone()),
        ("database", response.database.clone()),
        ("up", format!("{} s", response.uptime_ms / 1000)),
        ("version", response.version.clone()),
    ];
    let notices = response.notices.iter().map(|notice| ("notice", notice.clone()));
    let fields: Vec<_> = fields.into_iter().chain(notices).collect();
    Output::stdout(command.json).response(&response, |out| out.fields(&fields))?;
    if response.healthy {
        response.problems.iter().for_each(|problem| note(&format!("warning: {problem}")));
        Ok(())
    } else {
        Err(Failure::failed(response.problems.join("; ")))
    }
}

pub(super) fn peers(command: &Peers) -> Result<(), Failure> {
    let response = remote::connect(command)?.call(&pb::ListPeersRequest { all: command.all })?;
    let rows: Vec<_> = response.peers.iter().map(row).collect();
    let headings = ["ENDPOINT", "STATE", "RTT", "PENDING", "ADDRESSES", "REASON"];
    Output::stdout(command.json).response(&response, |out| out.table(headings, &rows))
}

fn row(peer: &pb::PeerInfo) -> [String; 6] {
    let state = if peer.connected { peer.path.clone() } else { "down".to_owned() };
    let rtt = if peer.connected { format!("{:.1} ms", peer.rtt_micros as f64 / 1000.0) } else { String::new() };
    let pending = peer.pending_documents.to_string();
    let reason = if peer.last_error.is_empty() { &peer.path_reason } else { &peer.last_error };
    [peer.endpoint_id.clone(), state, rtt, pending, peer.addresses.join(" "), reason.clone()]
}

pub(super) fn connect(command: &Connect) -> Result<(), Failure> {
    let peer = config::parse_peer(&command.peer).map_err(Failure::usage)?;
    let request = pb::ConnectPeerRequest {
        endpoint_id: peer.id.to_string(),
        addresses: peer.addresses.iter().map(ToString::to_string).collect(),
        relay_url: String::new(),
        wait: command.wait,
    };
    let response = remote::connect(command)?.call(&request)?;
    Output::stdout(command.json).response(&response, |_| Ok(()))
}

pub(super) fn disconnect(command: &Disconnect) -> Result<(), Failure> {
    let id: EndpointId = command.endpoint_id.parse().map_err(Failure::usage)?;
    let request = pb::DisconnectPeerRequest { endpoint_id: id.to_string() };
    let response = remote::connect(command)?.call(&request)?;
    Output::stdout(command.json).response(&response, |_| Ok(()))
}

pub(super) fn sync(command: &Sync) -> Result<(), Failure> {
    let mut client = remote::connect(command)?;
    let mut output = Output::stdout(command.json);
    match command.action {
        Action::Start => output.response(&client.call(&pb::StartSyncRequest {})?, |_| Ok(())),
        Action::Stop => output.response(&client.call(&pb::StopSyncRequest {})?, |_| Ok(())),
        Action::Stats => {
            let stats = client.call(&pb::GetSyncStatsRequest {})?;
            let fields = [
                ("sync", on_off(stats.sync_active)),
                ("connected", stats.connected_peers.to_string()),
                ("sent", format!("{} bytes", stats.bytes_sent)),
                ("received", format!("{} bytes", stats.bytes_received)),
            ];
            output.response(&stats, |out| out.fields(&fields))
        }
    }
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}
