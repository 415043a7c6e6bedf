//! The client side of one connection to a node's api engine: bytes in pieces, frames, calls.

use std::collections::BTreeMap;

use peat_ipc::agent::AgentMessage;
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{Decoder, RequestHeader, put_credit, put_request, put_upload};
use peat_ipc::method::AGENT_LINK;
use peat_ipc::{PREFACE, Rpc};
use peat_node::api::{Caller, ConnectionId, Engine};
use peat_node::clock::Now;

use crate::prng::Prng;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    id: ConnectionId,
    decoder: Decoder,
    unsent: Vec<u8>,
    last_call: u64,
}

impl Wire {
    /// Connects as the user that the node runs as.
    pub fn open(engine: &mut Engine, now: Now, id: u64) -> Option<Wire> {
        let id = ConnectionId(id);
        let caller = Caller::Unix { uid: 0, gid: 0, groups: Vec::new() };
        engine.handle_open(now, id, caller).ok()?;
        Some(Wire { id, decoder: Decoder::default(), unsent: PREFACE.to_vec(), last_call: 0 })
    }

    /// Queues a request and returns its call number.
    pub fn call<R: Rpc>(&mut self, request: &R, credit: u32) -> u64 {
        self.last_call += 1;
        let header = RequestHeader { method: R::METHOD.number(), credit, ..RequestHeader::default() };
        put_request(&mut self.unsent, self.last_call, header, request);
        self.last_call
    }

    /// Opens an agent's stream with its first message and returns its call number.
    pub fn link(&mut self, first: &AgentMessage, credit: u32) -> u64 {
        self.last_call += 1;
        let header = RequestHeader { method: AGENT_LINK, credit, ..RequestHeader::default() };
        put_request(&mut self.unsent, self.last_call, header, first);
        self.last_call
    }

    /// Queues one more message of an agent's stream.
    pub fn upload(&mut self, call: u64, message: &AgentMessage) {
        put_upload(&mut self.unsent, call, message);
    }

    /// Returns true if the node has read everything that was written.
    pub fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Grants credit for `items` more items of a stream.
    pub fn credit(&mut self, call: u64, items: u32) {
        put_credit(&mut self.unsent, call, items);
    }

    /// Passes queued bytes to the node in pieces, and reads at most `most` bytes of its output.
    pub fn exchange(&mut self, engine: &mut Engine, now: Now, random: &mut Prng, most: usize) {
        while !self.unsent.is_empty() && engine.wants_bytes(self.id) {
            let piece = random.index(self.unsent.len()) + 1;
            engine.handle_bytes(now, self.id, &self.unsent[..piece]);
            self.unsent.drain(..piece);
        }
        let output = engine.output(self.id);
        let taken = output.len().min(most);
        self.decoder.extend(&output[..taken]);
        if taken > 0 {
            engine.handle_written(now, self.id, taken);
        }
    }

    /// Returns the connection's id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Returns the next whole frame from the node.
    pub fn next_frame(&mut self) -> Option<(u64, Body)> {
        self.decoder.next_frame().expect("the node writes frames")
    }

    /// Closes the connection.
    pub fn close(&self, engine: &mut Engine, now: Now) {
        engine.handle_closed(now, self.id);
    }
}

/// Calls that have not been answered.
pub type Outstanding<T> = BTreeMap<u64, T>;
