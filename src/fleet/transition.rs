//! The document `agents/{id}`: the last transition of an agent, as stored by the node that owns it.

use peat_ipc::sidecar::PlatformStatus;
use serde_json::{Map, Value, json};

use std::time::Duration;

use super::Liveness;
use super::attachments::Owner;
use super::liveness::Times;
use super::profile::Profile;
use crate::clock::Now;
use crate::identity::EndpointId;

/// Key of the last sign of life of an agent that is not LIVE, in Unix seconds by the wall clock of the writing node.
const HEARD: &str = "heard";
/// Longest silence that is displayed: ten years.
const LONGEST_SILENCE: Duration = Duration::from_secs(3_650 * 86_400);

/// Claim of a node to an agent. The highest attach counter wins, then the larger endpoint id.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct OwnershipClaim {
    /// Number of nodes that the agent has attached to.
    pub(super) attach: u64,
    pub(super) endpoint: EndpointId,
}

/// State of an agent as stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Transition {
    pub(super) profile: Profile,
    pub(super) liveness: Liveness,
    /// node_id of the node that wrote it.
    pub(super) via: String,
    pub(super) claim: OwnershipClaim,
    /// Principal that the agent belongs to at that node.
    pub(super) owner: Owner,
}

impl Transition {
    /// Encodes the document. `silent` is the time since the last sign of life; it is written, as a time by this node's wall
    /// clock, for an agent that is not LIVE.
    pub(super) fn to_json(&self, agent: &str, now: Now, silent: Duration) -> String {
        let mut fields = self.profile.fields();
        if self.liveness != Liveness::Live {
            let silent = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
            fields.insert(HEARD.into(), json!(now.wall_ms.saturating_sub(silent).div_euclid(1_000)));
        }
        fields.insert("agent_id".into(), agent.into());
        fields.insert("liveness".into(), self.liveness.name().into());
        fields.insert("via".into(), self.via.as_str().into());
        fields.insert("endpoint".into(), self.claim.endpoint.to_string().into());
        fields.insert("attach".into(), json!(self.claim.attach));
        fields.extend(self.owner.to_record().map(|owner| ("owner".into(), owner.into())));
        Value::Object(fields).to_string()
    }

    /// Decodes a document. `None`: it lacks the liveness, the endpoint or the attach counter.
    pub(super) fn from_json(json: &str) -> Option<Transition> {
        let fields: Map<String, Value> = serde_json::from_str(json).ok()?;
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        Some(Transition {
            liveness: Liveness::from_name(text("liveness")?)?,
            via: text("via").unwrap_or_default().to_owned(),
            claim: OwnershipClaim {
                attach: fields.get("attach").and_then(Value::as_u64)?,
                endpoint: text("endpoint")?.parse().ok()?,
            },
            owner: Owner::from_record(text("owner")),
            profile: Profile::from_fields(&fields),
        })
    }
}

/// Returns the time for which a stored agent that is not LIVE has been silent, as far as wall clocks can tell. It is displayed
/// and serves nothing else. For DEAD it is at least the dead threshold.
pub(super) fn silence(json: &str, said: Liveness, now: Now, times: &Times) -> Duration {
    let least = match said {
        Liveness::Live => return Duration::ZERO,
        Liveness::Stale => Duration::ZERO,
        Liveness::Dead => times.dead_after,
    };
    let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let heard = fields.get(HEARD).and_then(Value::as_i64);
    let passed = heard.map_or(0, |heard| now.wall_ms.div_euclid(1_000).saturating_sub(heard));
    Duration::from_secs(u64::try_from(passed).unwrap_or(0)).clamp(least, LONGEST_SILENCE.max(least))
}

/// Returns the status in a document of `platforms`; 0 if it has none or an unknown one.
pub(super) fn status_of(fields: &Map<String, Value>) -> i32 {
    let number = match fields.get("status") {
        Some(Value::String(name)) => {
            let name = name.to_ascii_uppercase();
            PlatformStatus::from_str_name(&name)
                .or_else(|| PlatformStatus::from_str_name(&format!("PLATFORM_STATUS_{name}")))
                .map(i32::from)
        }
        Some(value) => value.as_i64().and_then(|number| number.try_into().ok()),
        None => None,
    };
    number.filter(|number| PlatformStatus::is_valid(*number)).unwrap_or_default()
}
