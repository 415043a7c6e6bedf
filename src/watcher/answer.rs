//! Conversion of the agent's three answers to documents.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::failure::Failure;
use super::json::{Message, Wrong, snake};
use crate::limits::WATCHED_DOCUMENTS;
use crate::store::Key;

/// Enum of a deployed package's status, by number.
const DEPLOY_STATUS: [&str; 9] = [
    "DEPLOY_PACKAGE_STATUS_UNSPECIFIED",
    "DEPLOY_PACKAGE_STATUS_DEPLOYING",
    "DEPLOY_PACKAGE_STATUS_DEPLOYED",
    "DEPLOY_PACKAGE_STATUS_DEPLOY_ERROR",
    "DEPLOY_PACKAGE_STATUS_CANCELLED",
    "DEPLOY_PACKAGE_STATUS_RECEIVING",
    "DEPLOY_PACKAGE_STATUS_REMOVING",
    "DEPLOY_PACKAGE_STATUS_REMOVED",
    "DEPLOY_PACKAGE_STATUS_REMOVE_ERROR",
];
/// Enum of a pulled package's status, by number.
const PULL_STATUS: [&str; 6] = [
    "PULL_STATUS_UNSPECIFIED",
    "PULL_STATUS_PENDING",
    "PULL_STATUS_PULLING",
    "PULL_STATUS_PULLED",
    "PULL_STATUS_CANCELLED",
    "PULL_STATUS_ERROR",
];
/// Keys taken from the status answer. `systemTime` and `labels` are read separately.
const STATUS_FIELDS: [&str; 7] =
    ["version", "architecture", "classification", "k8sVersion", "k8sNodeStatus", "zarfVersion", "runMode"];

/// Requests to the agent, in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Question {
    /// Version, architecture and labels of the agent.
    Status,
    /// Deployed packages.
    Packages,
    /// Downloaded packages.
    Pulled,
}

impl Question {
    /// All questions, in the order they are asked.
    pub const ALL: [Question; 3] = [Question::Status, Question::Packages, Question::Pulled];

    /// Returns the path below the agent's address.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Question::Status => "/status",
            Question::Packages => "/zarfapi.v1.ZarfAPIService/ListPackages",
            Question::Pulled => "/registryapi.v1.RegistryService/ListPulledPackages",
        }
    }

    /// Returns the body to POST; `None` for a GET.
    #[must_use]
    pub fn body(self) -> Option<&'static str> {
        (self != Question::Status).then_some("{}")
    }

    /// Returns the collection that the answer is written to.
    #[must_use]
    pub fn collection(self) -> &'static str {
        match self {
            Question::Status => "platforms",
            Question::Packages => "deployments",
            Question::Pulled => "packages",
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.body().is_some() { "POST" } else { "GET" };
        write!(f, "{verb} {}", self.path())
    }
}

/// Documents of one collection, without `last_seen`.
pub(super) type Documents = BTreeMap<Key, Map<String, Value>>;

/// Content of an answer.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) documents: Documents,
    /// Number of entries that cannot be documents: without a name, or with a name that no document can have.
    pub(super) nameless: usize,
}

/// Decodes the body of an answer to `question` by `agent`.
pub(super) fn read(agent: &str, question: Question, body: &[u8]) -> Result<Said, Failure> {
    let value: Value =
        serde_json::from_slice(body).map_err(|cause| Failure::Unusable(format!("it is not JSON: {cause}")))?;
    let entries = entries(agent, question, &value).map_err(Failure::Unusable)?;
    let mut said = Said::default();
    for (id, mut fields) in entries {
        fields.insert("agent_id".into(), agent.into());
        match Key::new(question.collection(), id) {
            Ok(key) => said.add(key, fields),
            Err(_) => said.nameless += 1,
        }
    }
    Ok(said)
}

impl Said {
    /// Adds a document. Of two with the same id it keeps the same one in either order, so that a reordered answer changes
    /// nothing.
    fn add(&mut self, key: Key, fields: Map<String, Value>) {
        let text = |fields: &Map<String, Value>| Value::from(fields.clone()).to_string();
        match self.documents.get(&key) {
            Some(other) if text(other) >= text(&fields) => {}
            _ => _ = self.documents.insert(key, fields),
        }
    }
}

type ListedDocument = (String, Map<String, Value>);

fn entries(agent: &str, question: Question, value: &Value) -> Result<Vec<ListedDocument>, Wrong> {
    let message = Message::of(value, "it")?;
    match question {
        Question::Status => Ok(vec![(agent.to_owned(), status(message)?)]),
        Question::Packages => bounded(message.list("packages")?.iter().map(|package| deployed(agent, package))),
        Question::Pulled => {
            let mut entries = Vec::new();
            for registry in message.list("registries")? {
                pulled(agent, Message::of(registry, "a registry")?, &mut entries)?;
            }
            Ok(entries)
        }
    }
}

fn bounded(
    entries: impl ExactSizeIterator<Item = Result<ListedDocument, Wrong>>,
) -> Result<Vec<ListedDocument>, Wrong> {
    if entries.len() > WATCHED_DOCUMENTS { Err(too_many()) } else { entries.collect() }
}

fn too_many() -> Wrong {
    format!("it lists more than {WATCHED_DOCUMENTS} packages, which is the limit")
}

fn status(status: Message<'_>) -> Result<Map<String, Value>, Wrong> {
    let mut fields = Map::from_iter([("platform_type".to_owned(), Value::from("uds-remote-agent"))]);
    for name in STATUS_FIELDS {
        fields.insert(snake(name), status.plain(name)?);
    }
    fields.insert("system_time".into(), status.plain("systemTime")?);
    fields.insert("labels".into(), status.map("labels")?.into());
    Ok(fields)
}

fn deployed(agent: &str, package: &Value) -> Result<ListedDocument, Wrong> {
    let package = Message::of(package, "a package")?;
    let name = package.text("name")?;
    let fields = Map::from_iter([
        ("package".to_owned(), name.into()),
        ("version".to_owned(), package.text("version")?.into()),
        ("status".to_owned(), package.choice("status", &DEPLOY_STATUS)?),
        ("flavor".to_owned(), package.text("flavor")?.into()),
        ("namespace_override".to_owned(), package.text("namespaceOverride")?.into()),
        ("annotations".to_owned(), package.map("annotations")?.into()),
    ]);
    Ok((id(agent, name), fields))
}

fn pulled(agent: &str, registry: Message<'_>, entries: &mut Vec<ListedDocument>) -> Result<(), Wrong> {
    let none = Map::new();
    let name = either(registry, "host", "name")?;
    for package in registry.list("packages")? {
        let package = Message::of(package, "a package")?;
        let package_name = either(package, "packageName", "repoName")?;
        for tag in package.list("tags")? {
            let tag = Message::of(tag, "a tag")?;
            let (reference, arch) = (tag.text("reference")?, tag.text("arch")?);
            let fields = Map::from_iter([
                ("registry".to_owned(), name.into()),
                ("package".to_owned(), package_name.into()),
                ("reference".to_owned(), reference.into()),
                ("arch".to_owned(), arch.into()),
                ("version".to_owned(), tag.text("version")?.into()),
                ("total_bytes".to_owned(), tag.integer("totalBytes")?.into()),
                ("pull_status".to_owned(), tag.message("pullInfo", &none)?.choice("status", &PULL_STATUS)?),
            ]);
            let tagged = if reference.is_empty() { String::new() } else { format!("{reference}-{arch}") };
            entries.push((id(agent, &tagged), fields));
            if entries.len() > WATCHED_DOCUMENTS {
                return Err(too_many());
            }
        }
    }
    Ok(())
}

fn either<'a>(message: Message<'a>, first: &str, second: &str) -> Result<&'a str, Wrong> {
    match message.text(first)? {
        "" => message.text(second),
        text => Ok(text),
    }
}

/// Returns `{agent}:{name}`; without a name the empty string, which is no valid id.
fn id(agent: &str, name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{agent}:{name}") }
}
