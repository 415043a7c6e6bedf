//! Monitoring: metrics for Prometheus, and an overview for the web page.

use std::collections::BTreeMap;

use peat_ipc::sidecar::{Command, CommandStatus, Liveness, NodePhase};
use serde_json::{Value, json};

use super::Engine;
use crate::api::http::body;
use crate::api::http::message::{HttpRequest, Response};
use crate::api::http::probe::Probe;
use crate::api::http::reply::Reply;
use crate::clock::Now;
use crate::fleet::commands::shown;
use crate::limits::{SHOWN_AGENTS, SHOWN_COMMANDS};
use crate::metrics::{MetricKind, Text, Value as Figure};
use crate::store::Rank;
use crate::sync::{Measured, Peer};

const STATES: [(Liveness, &str); 3] = [(Liveness::Live, "live"), (Liveness::Stale, "stale"), (Liveness::Dead, "dead")];

impl Engine {
    /// `GET /metrics`. Metrics of the sync thread are omitted if it does not answer.
    pub(in crate::api) fn route_metrics(&mut self, _now: Now, _request: &HttpRequest) -> Reply {
        Reply::Probe(Probe::measure(|engine, now, probe| {
            let mut text = Text::default();
            engine.show_node(now, &mut text);
            engine.show_store(now, &mut text);
            engine.show_clients(&mut text);
            engine.show_fleet(now, &mut text);
            engine.show_threads(&mut text);
            if let Some(measured) = &probe.measured {
                show_links(measured, &mut text);
            }
            Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text.finish())
        }))
    }

    fn show_node(&mut self, now: Now, text: &mut Text) {
        let (status, health) = (self.view.status(), self.view.health(now));
        let labels = [
            ("version", health.version.as_str()),
            ("node_id", status.node_id.as_str()),
            ("endpoint", status.endpoint_addr.as_str()),
        ];
        text.family("info", MetricKind::Gauge, "Always 1; says what runs here.").sample(&labels, Figure::Number(1));
        let up = Figure::Micros(i64::try_from(health.uptime_ms.saturating_mul(1_000)).unwrap_or(i64::MAX));
        text.single("uptime_seconds", MetricKind::Gauge, "Since the node's start.", up);
        text.single("healthy", MetricKind::Gauge, "1 while GetHealth lists no problem.", health.healthy);
        text.single("sync_active", MetricKind::Gauge, "0 under radio silence.", status.sync_active);
    }

    fn show_store(&mut self, now: Now, text: &mut Text) {
        let health = self.view.health(now);
        text.single("documents", MetricKind::Gauge, "Live documents.", health.documents);
        text.single("tombstones", MetricKind::Gauge, "Deleted documents that are remembered.", health.tombstones);
        text.single("store_file_bytes", MetricKind::Gauge, "The database file.", health.file_bytes);
        text.single(
            "store_sequence",
            MetricKind::Gauge,
            "Newest change: the end of the changes feed.",
            health.sequence,
        );
        let help = "Newest change that a crash cannot take back.";
        text.single("store_durable_sequence", MetricKind::Gauge, help, health.durable_sequence);
        let help = "Nodes whose identity two machines use.";
        text.single("copied_identities", MetricKind::Gauge, help, self.view.copied_nodes());
        let figures = self.view.figures();
        for (name, kind, help, figure) in [
            ("store_commits_total", MetricKind::Counter, "Transactions.", &figures.commits),
            (
                "store_flushes_total",
                MetricKind::Counter,
                "Transactions that were synced to the disk.",
                &figures.flushes,
            ),
            ("store_written_documents_total", MetricKind::Counter, "Records written.", &figures.documents),
            ("store_written_bytes_total", MetricKind::Counter, "Bytes of those records.", &figures.bytes),
            ("store_failures_total", MetricKind::Counter, "Errors of the disk.", &figures.failures),
            (
                "store_rebased_total",
                MetricKind::Counter,
                "Documents whose edits were made again over a compaction that had not seen them.",
                &figures.rebased,
            ),
            (
                "store_dropped_changes_total",
                MetricKind::Counter,
                "Changes dropped with a document that was deleted and made again on another node.",
                &figures.dropped_changes,
            ),
            (
                "store_lacking_bytes",
                MetricKind::Gauge,
                "What a write needs and a full disk does not have.",
                &figures.lacking_bytes,
            ),
            (
                "store_read_only",
                MetricKind::Gauge,
                "1 while the disk had no room for what a start writes.",
                &figures.read_only,
            ),
            ("store_cache_documents", MetricKind::Gauge, "Merged documents that are kept loaded.", &figures.cached),
            ("store_cache_bytes", MetricKind::Gauge, "Their memory.", &figures.cache_bytes),
            ("store_cache_limit_bytes", MetricKind::Gauge, "What they may take.", &figures.cache_limit_bytes),
        ] {
            text.single(name, kind, help, figure.get());
        }
    }

    fn show_clients(&self, text: &mut Text) {
        self.rpcs.show(text);
        text.single("client_connections", MetricKind::Gauge, "Clients that are connected.", self.connections.len());
        text.single("calls_unfinished", MetricKind::Gauge, "Calls under way, streams included.", self.calls.len());
        let mut family = text.family("streams", MetricKind::Gauge, "Streams to clients.");
        for (kind, count) in [
            ("subscription", self.streams.len()),
            ("agents_watch", self.watchers.len()),
            ("agent_link", self.links.len()),
            ("agent_events", self.web.listeners.len()),
        ] {
            family.sample(&[("kind", kind)], count.into());
        }
        let mut family = text.family("client_buffered_bytes", MetricKind::Gauge, "Waiting, of all clients together.");
        family.sample(&[("direction", "in")], self.buffered_in.into());
        family.sample(&[("direction", "out")], self.buffered_out.into());
        let waits = (self.store_outstanding, self.questions.len());
        text.single("store_requests_unanswered", MetricKind::Gauge, "Writes of clients that the store has.", waits.0);
        text.single("sync_questions_unanswered", MetricKind::Gauge, "Questions that the sync thread has.", waits.1);
    }

    fn show_fleet(&self, now: Now, text: &mut Text) {
        let counts = self.agents_by_state(now);
        let mut family = text.family("agents", MetricKind::Gauge, "Agents of the fleet as this node sees them.");
        for (state, name) in STATES {
            family.sample(&[("state", name)], counts.get(&state).copied().unwrap_or(0).into());
        }
        let mut family = text.family("commands", MetricKind::Gauge, "Commands that are kept, by how far they are.");
        for rank in Rank::ALL {
            let status = rank.name().trim_start_matches("COMMAND_STATUS_").to_ascii_lowercase();
            let count = self.commands.by_status().get(&rank).copied().unwrap_or(0);
            family.sample(&[("status", &status)], count.into());
        }
    }

    fn agents_by_state(&self, now: Now) -> BTreeMap<Liveness, usize> {
        let mut counts = BTreeMap::new();
        for liveness in self.fleet.states(now) {
            *counts.entry(liveness).or_default() += 1;
        }
        counts
    }

    fn show_threads(&self, text: &mut Text) {
        let instruments = &self.web.instruments;
        if let Some(dropped) = instruments.dropped_log_lines {
            let help = "Log lines that were lost because standard error took no more.";
            text.single("log_lines_dropped_total", MetricKind::Counter, help, dropped());
        }
        let mut family = text.family("channel_messages", MetricKind::Gauge, "Messages waiting between threads.");
        for channel in &instruments.channels {
            family.sample(&[("channel", channel.name)], (channel.depth)().into());
        }
        let mut family = text.family("channel_room_messages", MetricKind::Gauge, "How many a channel takes.");
        for channel in &instruments.channels {
            family.sample(&[("channel", channel.name)], channel.room.into());
        }
        let help = "How long a thread was busy before it looked around again: how long others waited for it.";
        let mut family = text.family("thread_turn_seconds", MetricKind::Histogram, help);
        for pulse in &instruments.threads {
            family.histogram(&[("thread", pulse.role())], pulse.turns());
        }
    }

    /// `GET /api/v1/overview`: the data of the web page.
    pub(in crate::api) fn route_overview(&mut self, _now: Now, _request: &HttpRequest) -> Reply {
        Reply::Probe(Probe::measure(|engine, now, probe| {
            let measured = probe.measured.as_deref();
            let value = json!({
                "node": engine.node_overview(now, measured.is_some()),
                "agents": engine.agents_overview(now),
                "commands": engine.commands_overview(now),
                "peers": measured.map(|measured| measured.peers.iter().map(peer_overview).collect::<Vec<_>>()),
                "known_peers": measured.map(|measured| measured.known_peers),
            });
            Response::json(200, &value).with("cache-control", "no-store")
        }))
    }

    fn node_overview(&mut self, now: Now, sync_answers: bool) -> Value {
        let (status, health) = (self.view.status(), self.view.health(now));
        let mut problems = health.problems;
        if !sync_answers {
            problems.push("the sync thread does not answer".into());
        }
        let phase = NodePhase::try_from(status.phase).unwrap_or_default().as_str_name();
        json!({
            "id": status.node_id,
            "endpoint": status.endpoint_addr,
            "phase": phase.trim_start_matches("NODE_PHASE_"),
            "sync_active": status.sync_active,
            "problems": problems,
            "notices": health.notices,
            "documents": health.documents,
            "uptime_ms": health.uptime_ms,
            "version": health.version,
        })
    }

    /// Lists stale and dead agents before live ones, at most `SHOWN_AGENTS` of them.
    fn agents_overview(&self, now: Now) -> Value {
        let counts = self.agents_by_state(now);
        let mut shown = Vec::new();
        for wanted in [Liveness::Stale, Liveness::Dead, Liveness::Live] {
            let of_state = self.fleet.agents(now, None).filter(|agent| agent.liveness() == wanted);
            let left = SHOWN_AGENTS - shown.len();
            shown.extend(of_state.take(left).map(|agent| body::agent(&agent)));
        }
        let counts: serde_json::Map<String, Value> =
            STATES.into_iter().map(|(s, name)| (name.into(), counts.get(&s).copied().unwrap_or(0).into())).collect();
        json!({ "counts": counts, "shown": shown })
    }

    fn commands_overview(&mut self, now: Now) -> Value {
        let ids: Vec<String> = self.commands.in_flight().take(SHOWN_COMMANDS).cloned().collect();
        let count = self.commands.in_flight().count();
        let Ok(snapshot) = self.view.snapshot() else { return json!({ "count": count, "shown": [] }) };
        let views = ids.iter().filter_map(|id| snapshot.command(id).ok()?);
        let commands: Vec<Value> = views.map(|view| command_overview(&shown(&view, now), now)).collect();
        json!({ "count": count, "shown": commands })
    }
}

fn command_overview(command: &Command, now: Now) -> Value {
    let over = |status: CommandStatus| !matches!(status, CommandStatus::Pending | CommandStatus::Executing);
    let done = command.targets.iter().filter(|target| over(target.status())).count();
    json!({
        "id": command.id,
        "type": command.command_type,
        "to": if command.all { "all" } else if command.group.is_empty() { &command.target_id } else { &command.group },
        "status": command.status().as_str_name().trim_start_matches("COMMAND_STATUS_"),
        "cancel_requested": command.cancel_requested,
        "done": done,
        "targets": command.targets.len(),
        "age_s": now.wall_ms.div_euclid(1_000).saturating_sub(command.created_at).max(0),
    })
}

fn peer_overview(peer: &Peer) -> Value {
    json!({
        "endpoint": peer.id.to_string(),
        "name": peer.name,
        "connected": peer.connected,
        "path": peer.path,
        "rtt_micros": peer.rtt_micros,
        "last_ack_age_ms": peer.last_ack_age_ms,
        "pending_documents": peer.pending_documents,
        "held_documents": peer.held_documents,
        "error": peer.last_error,
    })
}

fn micros(millis: u64) -> Figure {
    Figure::Micros(i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

/// Returns one metric of a peer; `None` to omit the sample.
type Show = fn(&Peer) -> Option<Figure>;

fn show_links(measured: &Measured, text: &mut Text) {
    let (connected, known) = (measured.stats.connected_peers as usize, measured.known_peers);
    let mut family = text.family("peers", MetricKind::Gauge, "Other nodes this one knows of.");
    family.sample(&[("state", "connected")], connected.into());
    family.sample(&[("state", "away")], known.saturating_sub(connected).into());
    let unlisted = known - measured.peers.len();
    text.single(
        "peers_unlisted",
        MetricKind::Gauge,
        "Peers over the limit of those listed one by one below.",
        unlisted,
    );
    let udp = [
        ("udp_sent_bytes_total", measured.stats.bytes_sent),
        ("udp_received_bytes_total", measured.stats.bytes_received),
    ];
    for (name, bytes) in udp {
        text.single(name, MetricKind::Counter, "UDP payload, all peers together.", bytes);
    }
    let ids: Vec<String> = measured.peers.iter().map(|peer| peer.id.to_string()).collect();
    let peers = || ids.iter().zip(&measured.peers);
    let shows: [(&'static str, &str, Show); 6] = [
        ("peer_connected", "1 while the peer is connected.", |peer| Some(peer.connected.into())),
        ("peer_rtt_seconds", "Smoothed round-trip time.", |peer| {
            peer.connected.then(|| Figure::Micros(i64::try_from(peer.rtt_micros).unwrap_or(i64::MAX)))
        }),
        ("peer_last_ack_age_seconds", "Since it last confirmed that something is on its disk.", |peer| {
            (peer.last_ack_age_ms > 0).then(|| micros(peer.last_ack_age_ms))
        }),
        ("peer_pending_documents", "Documents whose newest version it has not confirmed.", |peer| {
            Some(peer.pending_documents.into())
        }),
        (
            "peer_held_documents",
            "Documents that do not cross the link, in either direction; GetHealth names them.",
            |peer| Some(peer.held_documents.into()),
        ),
        ("peer_clock_skew_seconds", "Its wall clock minus ours when it connected.", |peer| {
            Some(Figure::Micros(peer.clock_skew_ms.saturating_mul(1_000)))
        }),
    ];
    for (name, help, show) in shows {
        let mut family = text.family(name, MetricKind::Gauge, help);
        for (id, peer) in peers() {
            show(peer).into_iter().for_each(|value| family.sample(&[("peer", id)], value));
        }
    }
    let mut family = text.family(
        "peer_stalled",
        MetricKind::Gauge,
        "1 while nothing moves on its link; ListPeers says what is awaited.",
    );
    for (id, peer) in peers().filter(|(_, peer)| peer.connected) {
        family.sample(&[("peer", id)], Figure::Number((!peer.last_error.is_empty()).into()));
    }
    let mut family = text.family("peer_path", MetricKind::Gauge, "1 for the path in use.");
    for (id, peer) in peers() {
        peer.path.into_iter().for_each(|path| family.sample(&[("peer", id), ("path", path)], Figure::Number(1)));
    }
    for (name, sent) in [("peer_sent_bytes_total", true), ("peer_received_bytes_total", false)] {
        let mut family = text.family(name, MetricKind::Counter, "Bytes of messages by class, from the node's start.");
        for (id, peer) in peers() {
            for (lane, bytes) in peer.traffic.iter() {
                let class = lane.to_string();
                let bytes = if sent { bytes.sent } else { bytes.received };
                family.sample(&[("peer", id), ("class", &class)], bytes.into());
            }
        }
    }
}
