//! Responses in proto3 JSON: camelCase names, 64-bit integers as strings, enums by name, bytes in base64url.
//!
//! Every field is printed, those at their default too, so that a script can rely on each being there; only an `optional`
//! field that is absent is left out. Fields come in the order of the definition.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peat_ipc::sidecar as pb;

/// A message that can be printed.
pub(super) trait Json {
    /// The message as one line of JSON.
    fn json(&self) -> String;
}

/// Base64url without padding: how versions and run ids are written.
#[must_use]
pub(super) fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of [`base64()`]'s text.
#[must_use]
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

fn object(fields: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn text(text: impl AsRef<str>) -> String {
    serde_json::Value::from(text.as_ref()).to_string()
}

fn texts(texts: &[String]) -> String {
    array(texts.iter().map(text))
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}

/// A 64-bit integer: JavaScript's numbers do not hold all of them.
fn long(number: impl Into<i128>) -> String {
    format!("\"{}\"", number.into())
}

fn bytes(bytes: &[u8]) -> String {
    format!("\"{}\"", base64(bytes))
}

/// An enum value by name, or by number when this version does not know it.
fn named<E: TryFrom<i32>>(number: i32, name: fn(&E) -> &'static str) -> String {
    E::try_from(number).map_or_else(|_| number.to_string(), |value| text(name(&value)))
}

impl Json for pb::GetStatusResponse {
    fn json(&self) -> String {
        object([
            ("nodeId", text(&self.node_id)),
            ("endpointAddr", text(&self.endpoint_addr)),
            ("syncActive", self.sync_active.to_string()),
            ("connectedPeers", self.connected_peers.to_string()),
            ("phase", named(self.phase, pb::NodePhase::as_str_name)),
        ])
    }
}

impl Json for pb::GetHealthResponse {
    fn json(&self) -> String {
        object([
            ("healthy", self.healthy.to_string()),
            ("problems", texts(&self.problems)),
            ("documents", long(self.documents)),
            ("tombstones", long(self.tombstones)),
            ("sequence", long(self.sequence)),
            ("durableSequence", long(self.durable_sequence)),
            ("fileBytes", long(self.file_bytes)),
            ("cacheBytes", long(self.cache_bytes)),
            ("run", text(&self.run)),
            ("database", text(&self.database)),
            ("uptimeMs", long(self.uptime_ms)),
            ("version", text(&self.version)),
        ])
    }
}

impl Json for pb::PutDocumentResponse {
    fn json(&self) -> String {
        object([("version", bytes(&self.version)), ("durable", self.durable.to_string())])
    }
}

impl Json for pb::PatchDocumentResponse {
    fn json(&self) -> String {
        object([("version", bytes(&self.version)), ("durable", self.durable.to_string())])
    }
}

impl Json for pb::CompactDocumentResponse {
    fn json(&self) -> String {
        object([("version", bytes(&self.version)), ("droppedBytes", long(self.dropped_bytes))])
    }
}

impl Json for pb::GetDocumentResponse {
    fn json(&self) -> String {
        let data = self.json_data.as_ref().map(|data| ("jsonData", text(data)));
        let rest = [("version", bytes(&self.version)), ("durable", self.durable.to_string())];
        object(data.into_iter().chain(rest))
    }
}

impl Json for pb::ListDocumentsResponse {
    fn json(&self) -> String {
        object([("docIds", texts(&self.doc_ids))])
    }
}

impl Json for pb::DocumentChange {
    fn json(&self) -> String {
        let names = [
            ("collection", text(&self.collection)),
            ("docId", text(&self.doc_id)),
            ("changeType", named(self.change_type, pb::ChangeType::as_str_name)),
        ];
        let data = self.json_data.as_ref().map(|data| ("jsonData", text(data)));
        let rest = [("sequence", long(self.sequence)), ("origin", text(&self.origin)), ("run", bytes(&self.run))];
        object(names.into_iter().chain(data).chain(rest))
    }
}

impl Json for pb::PeerInfo {
    fn json(&self) -> String {
        object([
            ("endpointId", text(&self.endpoint_id)),
            ("addresses", texts(&self.addresses)),
            ("connected", self.connected.to_string()),
            ("path", text(&self.path)),
            ("rttMicros", long(self.rtt_micros)),
            ("lastAckAgeMs", long(self.last_ack_age_ms)),
            ("pendingDocuments", long(self.pending_documents)),
            ("clockSkewMs", long(self.clock_skew_ms)),
            ("lastError", text(&self.last_error)),
        ])
    }
}

impl Json for pb::ListPeersResponse {
    fn json(&self) -> String {
        object([("peers", array(self.peers.iter().map(Json::json)))])
    }
}

impl Json for pb::GetSyncStatsResponse {
    fn json(&self) -> String {
        object([
            ("syncActive", self.sync_active.to_string()),
            ("connectedPeers", self.connected_peers.to_string()),
            ("bytesSent", long(self.bytes_sent)),
            ("bytesReceived", long(self.bytes_received)),
        ])
    }
}

impl Json for pb::Agent {
    fn json(&self) -> String {
        let labels: std::collections::BTreeMap<_, _> = self.labels.iter().collect();
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{}:{}", text(key), text(value))).collect();
        object([
            ("agentId", text(&self.agent_id)),
            ("name", text(&self.name)),
            ("group", text(&self.group)),
            ("version", text(&self.version)),
            ("capabilities", texts(&self.capabilities)),
            ("labels", format!("{{{}}}", labels.join(","))),
            ("liveness", named(self.liveness, pb::Liveness::as_str_name)),
            ("via", text(&self.via)),
            ("viaEndpoint", text(&self.via_endpoint)),
            ("ageMs", long(self.age_ms)),
            ("status", named(self.status, pb::PlatformStatus::as_str_name)),
            ("attachedHere", self.attached_here.to_string()),
        ])
    }
}

impl Json for pb::ListAgentsResponse {
    fn json(&self) -> String {
        object([("agents", array(self.agents.iter().map(Json::json)))])
    }
}

impl Json for pb::AgentChange {
    fn json(&self) -> String {
        let agent = self.agent.as_ref().map(|agent| ("agent", agent.json()));
        let change = ("changeType", named(self.change_type, pb::ChangeType::as_str_name));
        object(agent.into_iter().chain([change]))
    }
}

impl Json for pb::TargetStatus {
    fn json(&self) -> String {
        object([
            ("agentId", text(&self.agent_id)),
            ("status", named(self.status, pb::CommandStatus::as_str_name)),
            ("resultJson", text(&self.result_json)),
            ("error", text(&self.error)),
            ("progress", text(&self.progress)),
            ("percent", self.percent.to_string()),
        ])
    }
}

impl Json for pb::Command {
    fn json(&self) -> String {
        object([
            ("id", text(&self.id)),
            ("targetId", text(&self.target_id)),
            ("commandType", text(&self.command_type)),
            ("status", named(self.status, pb::CommandStatus::as_str_name)),
            ("createdAt", long(self.created_at)),
            ("expiresAt", long(self.expires_at)),
            ("payloadJson", text(&self.payload_json)),
            ("group", text(&self.group)),
            ("all", self.all.to_string()),
            ("issuer", text(&self.issuer)),
            ("signature", bytes(&self.signature)),
            ("resultJson", text(&self.result_json)),
            ("error", text(&self.error)),
            ("targets", array(self.targets.iter().map(Json::json))),
            ("cancelRequested", self.cancel_requested.to_string()),
            ("progress", text(&self.progress)),
            ("percent", self.percent.to_string()),
        ])
    }
}

impl Json for pb::GetCommandsResponse {
    fn json(&self) -> String {
        object([("commands", array(self.commands.iter().map(Json::json)))])
    }
}

impl Json for pb::CancelCommandResponse {
    fn json(&self) -> String {
        object([("targets", array(self.targets.iter().map(Json::json)))])
    }
}

/// Messages without fields.
macro_rules! empty {
    ($($name:ident)*) => {
        $(impl Json for pb::$name {
            fn json(&self) -> String {
                "{}".to_owned()
            }
        })*
    };
}

empty! { DeleteDocumentResponse ConnectPeerResponse DisconnectPeerResponse StartSyncResponse StopSyncResponse }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_there_even_at_its_default() {
        let line = pb::GetStatusResponse { node_id: "a\"b".into(), phase: 2, ..Default::default() }.json();
        let expected = concat!(
            r#"{"nodeId":"a\"b","endpointAddr":"","syncActive":false,"connectedPeers":0,"#,
            r#""phase":"NODE_PHASE_READY"}"#
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn an_absent_optional_is_left_out_and_an_empty_one_is_not() {
        let gone = pb::DocumentChange { change_type: 2, sequence: u64::MAX, ..Default::default() };
        assert!(!gone.json().contains("jsonData"));
        assert!(gone.json().contains(r#""sequence":"18446744073709551615""#));
        assert!(gone.json().contains(r#""changeType":"CHANGE_TYPE_DELETE""#));
        let found = pb::GetDocumentResponse { json_data: Some(String::new()), ..Default::default() };
        assert!(found.json().contains(r#""jsonData":"""#));
    }

    #[test]
    fn an_enum_value_of_a_newer_node_is_its_number() {
        let change = pb::DocumentChange { change_type: 77, ..Default::default() };
        assert!(change.json().contains(r#""changeType":77"#));
    }

    #[test]
    fn versions_survive_their_text() {
        let version = [0xfb, 0xff, 0];
        assert_eq!(base64(&version), "-_8A");
        assert_eq!(from_base64("-_8A").expect("base64url"), version);
        assert_eq!(from_base64("not base64"), None);
    }

    #[test]
    fn every_line_is_json() {
        let peers = vec![pb::PeerInfo { addresses: vec!["h:1".into()], ..Default::default() }];
        for line in [
            pb::ListPeersResponse { peers }.json(),
            pb::GetHealthResponse::default().json(),
            pb::GetSyncStatsResponse::default().json(),
            pb::CompactDocumentResponse::default().json(),
            pb::StopSyncResponse {}.json(),
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(&line).expect(&line).is_object());
            assert!(!line.contains('\n'));
        }
    }
}
