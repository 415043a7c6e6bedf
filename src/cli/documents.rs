//! The commands on documents: put, patch, get, list, delete, compact and watch.

use std::io::Read;

use peat_ipc::sidecar as pb;
use peat_ipc::{CallOptions, Client};

use super::arguments::{Compact, Delete, Get, List, Patch, Put, Watch};
use super::failure::{Failure, exit};
use super::output::Output;
use super::{patience, remote};
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
    let response = remote::connect(command)?.call(&request, write_patience(command.wait_peers))?;
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
    let response = remote::connect(command)?.call(&request, write_patience(command.wait_peers))?;
    Output::stdout(command.json).response(&response, |out| out.line(&base64(&response.version)))
}

pub(super) fn get(command: &Get) -> Result<(), Failure> {
    let request = pb::GetDocumentRequest { collection: command.collection.clone(), doc_id: command.id.clone() };
    let response = remote::connect(command)?.call(&request, patience())?;
    match &response.json_data {
        Some(data) => Output::stdout(command.json).response(&response, |out| out.line(data)),
        None => {
            Err(Failure::new(exit::NOT_FOUND, format!("there is no document {}/{}", command.collection, command.id)))
        }
    }
}

pub(super) fn list(command: &List) -> Result<(), Failure> {
    let request = pb::ListDocumentsRequest { collection: command.collection.clone() };
    let response = remote::connect(command)?.call(&request, patience())?;
    Output::stdout(command.json).response(&response, |out| response.doc_ids.iter().try_for_each(|id| out.line(id)))
}

pub(super) fn delete(command: &Delete) -> Result<(), Failure> {
    let request = pb::DeleteDocumentRequest { collection: command.collection.clone(), doc_id: command.id.clone() };
    let response = remote::connect(command)?.call(&request, patience())?;
    Output::stdout(command.json).response(&response, |_| Ok(()))
}

pub(super) fn compact(command: &Compact) -> Result<(), Failure> {
    let request = pb::CompactDocumentRequest { collection: command.collection.clone(), doc_id: command.id.clone() };
    let response = remote::connect(command)?.call(&request, patience())?;
    eprintln!(
        "{}/{}: {} bytes of history dropped; edits made elsewhere at the same time are lost",
        command.collection, command.id, response.dropped_bytes
    );
    Output::stdout(command.json).response(&response, |out| out.line(&base64(&response.version)))
}

/// What `watch` shows on a terminal, and how wide.
const COLUMNS: [(&str, usize); 4] = [("SEQUENCE", 8), ("CHANGE", 12), ("DOCUMENT", 32), ("CONTENT", 0)];

pub(super) fn watch(command: &Watch) -> Result<(), Failure> {
    let mut client = remote::connect(command)?;
    let (resume_after, resume_run) = position(command.after.as_deref(), &mut client)?;
    let request = pb::SubscribeRequest {
        collections: command.collections.clone(),
        snapshot: command.snapshot,
        resume_after,
        resume_run,
    };
    let mut output = Output::stdout(command.json);
    for change in client.subscribe(&request)? {
        let change = change?;
        output.response(&change, |out| out.next_row(COLUMNS, &row(&change)))?;
    }
    Err(Failure::new(exit::UNREACHABLE, "the node ended the stream"))
}

fn row(change: &pb::DocumentChange) -> [String; 4] {
    let name = pb::ChangeType::try_from(change.change_type).unwrap_or_default().as_str_name();
    let kind = name.trim_start_matches("CHANGE_TYPE_").to_lowercase().replace('_', "-");
    let document = match change.doc_id.as_str() {
        "" => String::new(),
        id => format!("{}/{id}", change.collection),
    };
    [change.sequence.to_string(), kind, document, change.json_data.clone().unwrap_or_default()]
}

/// Where to continue: `SEQUENCE@RUN`, or a sequence number of the run the node is in.
fn position(after: Option<&str>, client: &mut Client) -> Result<(u64, Vec<u8>), Failure> {
    let Some(after) = after else { return Ok((0, Vec::new())) };
    let wrong = || Failure::usage(format!("--after: '{after}' is neither SEQUENCE nor SEQUENCE@RUN"));
    let (sequence, run) = after.split_once('@').map_or((after, None), |(sequence, run)| (sequence, Some(run)));
    let sequence = sequence.parse().map_err(|_| wrong())?;
    let run = match run {
        Some(run) => from_base64(run).filter(|run| !run.is_empty()).ok_or_else(wrong)?,
        None => current_run(client)?,
    };
    Ok((sequence, run))
}

fn current_run(client: &mut Client) -> Result<Vec<u8>, Failure> {
    now(client).map(|(_, run)| run)
}

/// Where the node is: its newest sequence number, and the run that belongs to.
pub(super) fn now(client: &mut Client) -> Result<(u64, Vec<u8>), Failure> {
    let health = client.call(&pb::GetHealthRequest {}, patience())?;
    let pairs = health.run.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>();
    let strange = || Failure::failed("the node's run id is not hexadecimal; is it newer than this program?");
    Ok((health.sequence, bytes.ok_or_else(strange)?))
}

/// A version as it was printed.
fn version(text: Option<&str>) -> Result<Vec<u8>, Failure> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let bytes = from_base64(text).filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| {
        Failure::usage(format!("--base: '{text}' is not a version; give what get --json or put printed"))
    })
}

/// The document on the command line: itself, `@FILE`, or `@-` for stdin.
pub(super) fn content(text: &str) -> Result<String, Failure> {
    match text.strip_prefix('@') {
        None => Ok(text.to_owned()),
        Some("-") => read("standard input", std::io::stdin().lock()),
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|cause| Failure::failed(format!("{path}: {cause}")))?;
            read(path, file)
        }
    }
}

/// Reads a little more than the limit, so that a file that is too long is refused by the node in its own words, and one
/// that never ends still ends.
fn read(name: &str, input: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let limit = 3 * DOCUMENT_JSON_BYTES as u64;
    input.take(limit).read_to_string(&mut text).map_err(|cause| Failure::failed(format!("{name}: {cause}")))?;
    Ok(text)
}

/// A write that waits for peers has the node's own deadline.
fn write_patience(wait_peers: u32) -> CallOptions {
    if wait_peers > 0 { CallOptions::default() } else { patience() }
}
