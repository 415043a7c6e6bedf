//! Clients that use the native IPC. Every call is answered once, with its response or an error that is allowed for it.

use peat_ipc::Code;
use peat_ipc::envelope::frame::Body;
use peat_ipc::sidecar::*;
use peat_node::api::Engine;
use peat_node::clock::Now;
use peat_node::store::{DocumentWrite, Key, Put};

use crate::mesh::wire::{Outstanding, Wire};
use crate::prng::Prng;
use crate::seeds::Violation;

/// A call that has not been answered.
#[derive(Debug)]
struct ControlRequest {
    key: Key,
    what: &'static str,
    /// The field added by a write that waits for a peer.
    waits_for: Option<String>,
}

/// A write that a peer was reported to hold.
#[derive(Debug)]
pub struct Held {
    pub key: Key,
    pub field: String,
}

/// One client with one connection to a node.
#[derive(Debug, Default)]
pub struct CallerAt {
    wire: Option<Wire>,
    calls: Outstanding<ControlRequest>,
    pub answered: u64,
}

impl CallerAt {
    /// Drops all calls: the node is off and answers nothing more.
    pub fn cut_off(&mut self) {
        *self = CallerAt { answered: self.answered, ..CallerAt::default() };
    }

    /// Returns the number of unanswered calls.
    pub fn outstanding(&self) -> usize {
        self.calls.len()
    }

    fn wire(&mut self, engine: &mut Engine, now: Now, id: u64) -> Option<&mut Wire> {
        if self.wire.is_none() {
            self.wire = Wire::open(engine, now, id);
        }
        self.wire.as_mut()
    }

    /// Writes or reads a document.
    pub fn write(&mut self, engine: &mut Engine, now: Now, id: u64, write: DocumentWrite, wait: bool) {
        let DocumentWrite { key, put, durable } = write;
        let Some(wire) = self.wire(engine, now, id) else { return };
        let (collection, doc_id) = (key.collection().to_owned(), key.id().to_owned());
        let field = crate::workload::grown(&put).filter(|_| wait);
        let wait_peers = u32::from(field.is_some());
        let (call, what) = match put {
            Put::Whole { json, .. } => {
                let request = PutDocumentRequest { collection, doc_id, json_data: json, durable, ..Default::default() };
                (wire.call(&request, 0), "put")
            }
            Put::Patch { json, .. } => {
                let request = PatchDocumentRequest {
                    collection,
                    doc_id,
                    patch_json: json,
                    durable,
                    wait_peers,
                    ..Default::default()
                };
                (wire.call(&request, 0), "patch")
            }
            Put::Delete => (wire.call(&DeleteDocumentRequest { collection, doc_id }, 0), "delete"),
            Put::Compact => (wire.call(&CompactDocumentRequest { collection, doc_id }, 0), "compact"),
            Put::Fields(_) | Put::Command(_) => (wire.call(&GetDocumentRequest { collection, doc_id }, 0), "get"),
        };
        self.calls.insert(call, ControlRequest { key, what, waits_for: field.filter(|_| what == "patch") });
    }

    /// Passes bytes both ways and checks the answers; returns the writes that peers are reported to hold.
    pub fn turn(
        &mut self,
        engine: &mut Engine,
        now: Now,
        random: &mut Prng,
        troubled: bool,
    ) -> Result<Vec<Held>, Violation> {
        let mut held = Vec::new();
        let Some(wire) = &mut self.wire else { return Ok(held) };
        wire.exchange(engine, now, random, usize::MAX);
        while let Some((call, body)) = wire.next_frame() {
            let Some(asked) = self.calls.remove(&call) else {
                return Err(Violation::new("every call is answered once", format!("call {call}: {body:?}")));
            };
            self.answered += 1;
            match body {
                Body::Response(_) => held.extend(asked.waits_for.map(|field| Held { key: asked.key, field })),
                Body::Error(error) if may_fail(&asked, Code::from_number(error.code), troubled) => {}
                other => return Err(Violation::new("no unexpected error", format!("{asked:?}: {other:?}"))),
            }
        }
        Ok(held)
    }
}

fn may_fail(asked: &ControlRequest, code: Code, troubled: bool) -> bool {
    match code {
        Code::ResourceExhausted | Code::Unavailable | Code::DataLoss => troubled,
        Code::NotFound | Code::FailedPrecondition => asked.what == "compact",
        Code::DeadlineExceeded => asked.waits_for.is_some(),
        _ => false,
    }
}
