//! Variables of the first peat-node, which this program replaces: the replacement of each, or the reason for which it has no
//! effect.
//!
//! A deployment that migrates has all of them in its environment. A setting with a replacement is an error, because the node
//! would otherwise ignore an instruction; one without effect is a warning.

use super::Error;

/// Treatment of a variable of the first peat-node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Original {
    /// An error; the text names the replacement.
    Replaced(&'static str),
    /// A warning; the text gives the reason.
    NoEffect(&'static str),
}

use Original::{NoEffect, Replaced};

const DISCOVERY: Original = NoEffect("peers are named with PEAT_NODE_PEERS");
const NATS: Original = NoEffect("there is no NATS bridge");
const ATTACHMENTS: Original = NoEffect("files are not distributed");
const TOMBSTONES: Original = NoEffect("deleted documents are remembered for as long as a peer may lack the deletion");

/// Variables without the prefix `PEAT_NODE_`. Families, which end in `*`, come last.
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

/// Returns the treatment of the variable with this name after the prefix, if the first peat-node had it.
pub(super) fn original(ending: &str, value: &str) -> Option<Original> {
    let is_it = |name: &str| match name.strip_suffix('*') {
        Some(family) => ending.starts_with(family),
        None => ending == name,
    };
    let (name, original) = VARIABLES.iter().find(|(name, _)| is_it(name))?;
    match *name {
        // Set to false it asks for nothing that the node lacks.
        "ENABLE_KUBERNETES_DISCOVERY" if value == "false" => Some(DISCOVERY),
        _ => Some(*original),
    }
}

/// Variables that are no settings of this version, by treatment.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    replaced: Vec<String>,
    unknown: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Unknown {
    /// Adds a variable that corresponds to no flag. `place` is empty, or the place where it is set, followed by `: `.
    pub(super) fn add(&mut self, place: &str, name: &str, ending: &str, value: &str) {
        match original(ending, value) {
            Some(Replaced(instead)) => self.replaced.push(format!("{place}{name}: {instead}")),
            Some(NoEffect(why)) => self.warnings.push(format!("{place}{name} has no effect: {why}")),
            None => self.unknown.push(format!("{place}{name}")),
        }
    }

    /// Returns one error for all variables, or the warnings if there is none.
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
