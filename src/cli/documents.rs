//! The subcommands for documents: put, patch, get, list, delete, compact and watch.

use std::io::Read;

use peat_ipc::{Code, Error, sidecar as pb};

use super::arguments::{Compact, Delete, Get, List, Patch, Put, Watch};
use super::failure::{Failure, exit};
use super::note;
use super::output::Output;
use super::remote::{self, Connection};
use crate::limits::DOCUMENT_JSON_BYTES;
use crate::schema::{base64, from_base64};

pub(super) fn put(command: &Put) -> Result<(), Failure> {
    let request = pb::PutDocumentRequest {
        json_data: content(&command.json_data)?,
        base: version(command.base.as_deref())?,
        wait_peers: command.wait_peers,
        durable: command.durable,
        collection: command.collection.clone(),
        doc_id: command.id.clone(),
    };
    let response = remote::connect(command)?.call(&request)?;
    Output::stdout(command.json).response(&response, |out| out.line(&base64(&response.version)))
}

pub(super) fn patch(command: &Patch) -> Result<(), Failure> {
    let request = pb::PatchDocumentRequest {
        patch_json: content(&command.patch)?,
        base: version(command.base.as_deref())?,
        wait_peers: command.wait_peers,
        durable: command.durable,
        collection: command.collection.clone(),
        doc_id: command.id.clone(),
    };
    let response = remote::connect(command)?.call(&request)?;
    Output::stdout(command.json).response(&response, |out| out.line(&base64(&response.version)))
}

pub(super) fn get(command: &Get) -> Result<(), Failure> {
    let request = pb::GetDocumentRequest { collection: command.collection.clone(), doc_id: command.id.clone() };
    let response = remote::connect(command)?.call(&request)?;
    match &response.json_data {
        Some(data) => Output::stdout(command.json).response(&response, |out| out.line(data)),
        None => {
            Err(Failure::new(exit::NOT_FOUND, format!("there is no document {}/{}", command.collection, command.id)))
        }
    }
}

pub(super) fn list(command: &List) -> Result<(), Failure> {
    let request = pb::ListDocumentsRequest { collection: command.collection.clone() };
    let response = remote::connect(command)?.call(&request)?;
    Output::stdout(command.json).response(&response, |out| response.doc_ids.iter().try_for_each(|id| out.line(id)))
}

pub(super) fn delete(command: &Delete) -> Result<(), Failure> {
    let request = pb::DeleteDocumentRequest { collection: command.collection.clone(), doc_id: command.id.clone() };
    let response = remote::connect(command)?.call(&request)?;
    Output::stdout(command.json).response(&response, |_| Ok(()))
}

pub(super) fn compact(command: &Compact) -> Result<(), Failure> {
    let request = pb::CompactDocumentRequest { collection: command.collection.clone(), doc_id: command.id.clone() };
    let response = remote::connect(command)?.call(&request)?;
    note(&format!(
        "{}/{}: {} bytes of history dropped; concurrent edits of other nodes are applied again over it",
        command.collection, command.id, response.dropped_bytes
    ));
    Output::stdout(command.json).response(&response, |out| out.line(&base64(&response.version)))
}

/// Valid sizes of the second part of a token, in bytes: a run id, or a run id and the position that a subscriber that is behind
/// depends on.
const RUN_BYTES: [usize; 2] = [16, 24];

/// Columns of `watch`, with their widths on a terminal.
const COLUMNS: [(&str, usize); 4] = [("POSITION", 38), ("CHANGE", 12), ("DOCUMENT", 32), ("CONTENT", 0)];

pub(super) fn watch(command: &Watch) -> Result<(), Failure> {
    let after = command.after.as_deref().map(position).transpose()?;
    let mut connection = remote::connect(command)?;
    // A stream may be idle for any time, so this call finds out first if the node answers at all.
    now(&mut connection)?;
    match (after, command.snapshot) {
        (None, snapshot) => follow(command, &mut connection, snapshot, &Position::default()),
        (Some(after), false) => follow(command, &mut connection, false, &after),
        (Some(after), true) => follow(command, &mut connection, false, &after).or_else(|failure| match failure {
            Ended::Unknown(words) => {
                super::note(&format!("peat-node: {words}; this is what exists now"));
                follow(command, &mut connection, true, &Position::default())
            }
            Ended::Failed(_) => Err(failure),
        }),
    }
    .map_err(Failure::from)
}

/// Reason for which a subscription of `watch` ended.
enum Ended {
    /// Ended before the first change, because the node cannot continue at the position.
    Unknown(String),
    Failed(Failure),
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Failure {
        match ended {
            Ended::Unknown(words) => Failure::failed(format!("--after: {words}; begin again with --snapshot")),
            Ended::Failed(failure) => failure,
        }
    }
}

/// Prints changes until the stream ends.
fn follow(command: &Watch, connection: &mut Connection, snapshot: bool, after: &Position) -> Result<(), Ended> {
    let collections = command.collections.clone();
    let request = pb::SubscribeRequest {
        collections,
        snapshot,
        resume_after: after.sequence,
        resume_run: after.run.clone(),
        exclude: command.exclude.clone(),
        ..pb::SubscribeRequest::default()
    };
    let mut output = Output::stdout(command.json);
    let mut first = !after.run.is_empty();
    for change in connection.client().subscribe(&request).map_err(|error| Ended::Failed(error.into()))? {
        let change = change.map_err(|error| match error {
            Error::Call(call) if first && call.code == Code::OutOfRange => {
                Ended::Unknown("the node does not know what changed since that position".to_owned())
            }
            error => Ended::Failed(error.into()),
        })?;
        first = false;
        output.response(&change, |out| out.next_row(COLUMNS, &row(&change))).map_err(Ended::Failed)?;
    }
    Err(Ended::Failed(Failure::new(exit::UNREACHABLE, "the node ended the stream")))
}

fn row(change: &pb::DocumentChange) -> [String; 4] {
    let name = pb::ChangeType::try_from(change.change_type).unwrap_or_default().as_str_name();
    let kind = name.trim_start_matches("CHANGE_TYPE_").to_lowercase().replace('_', "-");
    let document = match change.doc_id.as_str() {
        "" => String::new(),
        id => format!("{}/{id}", change.collection),
    };
    let content = change.json_data.as_ref().unwrap_or(&change.error);
    [format!("{}@{}", change.sequence, base64(&change.run)), kind, document, content.clone()]
}

/// A token: a sequence number and the run that assigned it. Each start of a node is a new run, which continues from what the
/// previous run left on disk, so a sequence number without its run may mean another change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Position {
    sequence: u64,
    run: Vec<u8>,
}

/// Parses `SEQUENCE@RUN`.
fn position(text: &str) -> Result<Position, Failure> {
    let wrong = |why: &str| Failure::usage(format!("--after: '{text}' {why}; give SEQUENCE@RUN as watch printed it"));
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong("does not begin with a sequence number"));
    let Some((sequence, run)) = text.split_once('@') else {
        number(text)?;
        return Err(wrong("does not name the run of the node it belongs to"));
    };
    let run = from_base64(run)
        .filter(|run| RUN_BYTES.contains(&run.len()))
        .ok_or_else(|| wrong("does not end with a run"))?;
    Ok(Position { sequence: number(sequence)?, run })
}

/// Returns the node's position: its newest sequence number and its run.
pub(super) fn now(connection: &mut Connection) -> Result<(u64, Vec<u8>), Failure> {
    let health = connection.call(&pb::GetHealthRequest {})?;
    let pairs = health.run.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>();
    let strange = || Failure::failed("the node's run id is not hexadecimal; is it newer than this program?");
    Ok((health.sequence, bytes.ok_or_else(strange)?))
}

/// Decodes a version from its printed form.
fn version(text: Option<&str>) -> Result<Vec<u8>, Failure> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let bytes = from_base64(text).filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| {
        Failure::usage(format!("--base: '{text}' is not a version; give what get --json or put printed"))
    })
}

/// Returns the document given on the command line: literally, as `@FILE`, or as `-` or `@-` for standard input.
pub(super) fn content(text: &str) -> Result<String, Failure> {
    match (text, text.strip_prefix('@')) {
        ("-" | "@-", _) => read("standard input", std::io::stdin().lock()),
        (_, None) => Ok(text.to_owned()),
        (_, Some(path)) => {
            let file = std::fs::File::open(path).map_err(|cause| Failure::failed(format!("{path}: {cause}")))?;
            read(path, file)
        }
    }
}

/// Reads somewhat more than the limit, so that the node rejects a file that is too long with its own message, and an endless
/// input still ends.
fn read(name: &str, input: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let limit = 3 * DOCUMENT_JSON_BYTES as u64;
    input.take(limit).read_to_string(&mut text).map_err(|cause| Failure::failed(format!("{name}: {cause}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_a_sequence_number_and_a_run() {
        for length in RUN_BYTES {
            let expected = Position { sequence: 17, run: vec![7; length] };
            assert_eq!(position(&format!("17@{}", base64(&vec![7; length]))), Ok(expected));
        }
        let run = base64(&[7; 16]);
        for (text, words) in [
            ("17", "does not name the run"),
            ("", "does not begin with"),
            ("x", "does not begin with"),
            ("17@", "does not end with"),
            ("17@AAAA", "does not end with"),
            ("17@?", "does not end with"),
            (&format!("-1@{run}"), "does not begin with"),
            (&format!("@{run}"), "does not begin with"),
        ] {
            let failure = position(text).expect_err(text);
            assert!(failure.code == exit::USAGE && failure.words.contains(words), "{text}: {}", failure.words);
        }
    }
}
