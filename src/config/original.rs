//! Variables of the first peat-node, which this program replaces: what each is called here, or why it has no effect.
//!
//! A deployment that is moved over has all of them in its environment. A setting with a replacement is refused, because the node would do
//! something else than it is told; one without effect is a warning.

use super::Error;

/// What becomes of a variable of the first peat-node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Original {
    /// Refused; the words say what to give instead.
    Replaced(&'static str),
    /// Taken and reported; the words say why.
    NoEffect(&'static str),
}

use Original::{NoEffect, Replaced};

const DISCOVERY: Original = NoEffect("peers are named with PEAT_NODE_PEERS");
const NATS: Original = NoEffect("there is no NATS bridge");
const ATTACHMENTS: Original = NoEffect("files are not distributed");
const TOMBSTONES: Original = NoEffect("deleted documents are remembered for as long as a peer may lack the deletion");

/// Without the `PEAT_NODE_` before them; families by what they begin with come last.
const VARIABLES: [(&str, Original); 16] = [
    ("IROH_UDP_PORT", Replaced("give PEAT_NODE_BIND=0.0.0.0:PORT")),
    ("ENCRYPTION_KEY", Replaced("documents are not encrypted on disk here; unset it, and encrypt the volume")),
    ("ENABLE_KUBERNETES_DISCOVERY", Replaced("name the peers with PEAT_NODE_PEERS, and unset it")),
    ("DISABLE_MDNS", NoEffect("nothing is searched by mDNS")),
    ("BLOB_STALL_TIMEOUT_SECS", ATTACHMENTS),
    ("TOMBSTONE_TTL_HOURS", TOMBSTONES),
    ("GC_INTERVAL_SECS", TOMBSTONES),
    ("GC_BATCH_SIZE", TOMBSTONES),
    ("NATS_URL", NATS),
    ("NATS_MAPPING", NATS),
    ("PRINT_CONFIG", NoEffect("`peat-node check` prints the configuration")),
    ("BIN", NoEffect("it is for test programs, which start a node by it")),
    ("ADDR", NoEffect("it is for client programs; commands of this one take --node")),
    ("IMAGE", NoEffect("it is for test programs, which start a container by it")),
    ("DISCOVERY_*", DISCOVERY),
    ("ATTACHMENT_*", ATTACHMENTS),
];

/// What becomes of the variable whose name ends so, when it is one of the first peat-node.
pub(super) fn original(ending: &str, value: &str) -> Option<Original> {
    let is_it = |name: &str| match name.strip_suffix('*') {
        Some(family) => ending.starts_with(family),
        None => ending == name,
    };
    let (name, original) = VARIABLES.iter().find(|(name, _)| is_it(name))?;
    match *name {
        // Said not to: nothing is asked that the node would not do.
        "ENABLE_KUBERNETES_DISCOVERY" if value == "false" => Some(DISCOVERY),
        _ => Some(*original),
    }
}

/// Variables that were found to be no settings of this version.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    replaced: Vec<String>,
    unknown: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Unknown {
    /// Takes a variable that stands for no flag. `place` says where it is set, with an end of `: `, or nothing.
    pub(super) fn add(&mut self, place: &str, name: &str, ending: &str, value: &str) {
        match original(ending, value) {
            Some(Replaced(instead)) => self.replaced.push(format!("{place}{name}: {instead}")),
            Some(NoEffect(why)) => self.warnings.push(format!("{place}{name} has no effect: {why}")),
            None => self.unknown.push(format!("{place}{name}")),
        }
    }

    /// One error for all of them; the warnings when there is none.
    pub(super) fn end(self) -> Result<Vec<String>, Error> {
        let Unknown { mut replaced, unknown, warnings } = self;
        match unknown.as_slice() {
            [] => {}
            [one] => replaced.insert(0, format!("{one}: stands for no flag of this version")),
            several => replaced.insert(0, format!("{}: stand for no flag of this version", several.join(", "))),
        }
        if replaced.is_empty() { Ok(warnings) } else { Err(Error::sentence(replaced.join("; "))) }
    }
}
