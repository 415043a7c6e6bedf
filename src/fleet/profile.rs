//! Profile of an agent: the description in its registration, checked against the limits, and its form as keys of a document.

use std::collections::BTreeMap;

use peat_ipc::agent::{Register, Workload};
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use crate::limits::{
    AGENT_CAPABILITIES, AGENT_ID_BYTES, AGENT_LABEL_BYTES, AGENT_LABELS, AGENT_LABELS_BYTES, AGENT_ROUTES,
    AGENT_TEXT_BYTES, AGENT_WORKLOADS,
};
use crate::store::Key;

/// Description that an agent gives of itself when it registers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) capabilities: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) routes: Vec<String>,
}

impl Profile {
    /// Builds the profile of a registration.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the id is empty or cannot be the id of a document. RESOURCE_EXHAUSTED: over the limit that the message
    /// names.
    pub(super) fn of(register: &Register) -> Result<Profile, CallError> {
        check_id(&register.agent_id)?;
        let texts = [("name", &register.name), ("group", &register.group), ("version", &register.version)];
        texts.into_iter().try_for_each(|(what, text)| within(what, text.len(), AGENT_TEXT_BYTES, "bytes"))?;
        list("capabilities", &register.capabilities, AGENT_CAPABILITIES)?;
        list("routes", &register.routes, AGENT_ROUTES)?;
        Ok(Profile {
            name: register.name.clone(),
            group: register.group.clone(),
            version: register.version.clone(),
            capabilities: register.capabilities.clone(),
            labels: labels(&register.labels)?,
            routes: register.routes.clone(),
        })
    }

    /// Returns the profile as keys of a document. Empty fields are left out.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("version", &self.version)] {
            if !text.is_empty() {
                fields.insert(key.into(), text.as_str().into());
            }
        }
        for (key, texts) in [("capabilities", &self.capabilities), ("routes", &self.routes)] {
            if !texts.is_empty() {
                fields.insert(key.into(), texts.clone().into());
            }
        }
        if !self.labels.is_empty() {
            fields.insert("labels".into(), object(&self.labels));
        }
        fields
    }

    /// Returns the keys of a platform that a registration replaces. Keys that the profile leaves empty are null, which removes
    /// them.
    pub(super) fn replacement(&self) -> Map<String, Value> {
        let keys = ["name", "group", "version", "capabilities", "labels", "routes", "capacity"];
        let mut fields: Map<String, Value> = keys.map(|key| (key.to_owned(), Value::Null)).into_iter().collect();
        fields.extend(self.fields());
        fields
    }

    /// Reads a profile back from the keys of a document. Any member may have written the document, so values of the wrong type or
    /// over a limit are skipped.
    pub(super) fn from_fields(fields: &Map<String, Value>) -> Profile {
        let short = |text: &&str| text.len() <= AGENT_TEXT_BYTES;
        let text = |key: &str| {
            let text = fields.get(key).and_then(Value::as_str).filter(short);
            text.unwrap_or_default().to_owned()
        };
        let texts = |key: &str, most: usize| {
            let list = fields.get(key).and_then(Value::as_array);
            let texts = list.into_iter().flatten().filter_map(Value::as_str).filter(short);
            texts.take(most).map(String::from).collect()
        };
        let given = fields.get("labels").and_then(Value::as_object);
        let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        let given: BTreeMap<String, String> = given.into_iter().flatten().filter_map(label).collect();
        Profile {
            name: text("name"),
            group: text("group"),
            version: text("version"),
            capabilities: texts("capabilities", AGENT_CAPABILITIES),
            labels: labels(&given).unwrap_or_default(),
            routes: texts("routes", AGENT_ROUTES),
        }
    }
}

/// Checks that an id can be an agent's, which means that it can name documents.
pub(super) fn check_id(id: &str) -> Result<(), CallError> {
    if id.is_empty() {
        return Err(CallError::new(Code::InvalidArgument, "register.agent_id is empty"));
    }
    within("agent_id", id.len(), AGENT_ID_BYTES, "bytes")?;
    let valid = Key::new(super::COLLECTION, id).map(drop);
    valid.map_err(|error| CallError::new(Code::InvalidArgument, format!("register.agent_id: {error}")))
}

/// Collects labels in order, within the limits.
pub(super) fn labels<'a>(
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<BTreeMap<String, String>, CallError> {
    let labels: BTreeMap<String, String> = labels.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    within("labels", labels.len(), AGENT_LABELS, "entries")?;
    for (key, value) in &labels {
        let named: String = key.chars().take(32).collect();
        within(&format!("label '{named}'"), key.len() + value.len(), AGENT_LABEL_BYTES, "bytes")?;
    }
    let bytes = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    within("labels", bytes, AGENT_LABELS_BYTES, "bytes")?;
    Ok(labels)
}

/// Checks a list of workloads against the limits.
pub(super) fn check_workloads(agent: &str, workloads: &[Workload]) -> Result<(), CallError> {
    within("workloads", workloads.len(), AGENT_WORKLOADS, "entries")?;
    for workload in workloads {
        within("workload.version", workload.version.len(), AGENT_TEXT_BYTES, "bytes")?;
        within("workload.status", workload.status.len(), AGENT_TEXT_BYTES, "bytes")?;
        super::documents::deployment_key(agent, &workload.name)
            .map_err(|error| CallError::new(Code::InvalidArgument, format!("workload.name: {error}")))?;
        labels(&workload.labels)?;
    }
    Ok(())
}

fn list(what: &str, texts: &[String], most: usize) -> Result<(), CallError> {
    within(what, texts.len(), most, "entries")?;
    texts.iter().try_for_each(|text| within(what, text.len(), AGENT_TEXT_BYTES, "bytes in one entry"))
}

fn within(what: &str, size: usize, most: usize, unit: &str) -> Result<(), CallError> {
    if size <= most {
        return Ok(());
    }
    Err(CallError::new(Code::ResourceExhausted, format!("{what} has {size} {unit}; the limit is {most}")))
}

pub(super) fn object(map: &BTreeMap<String, String>) -> Value {
    map.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
}
