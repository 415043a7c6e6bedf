//! A client's end of one connection to a node's api engine: bytes in pieces, frames, calls.

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
    /// Connects as the user the node runs as.
    pub fn open(engine: &mut Engine, now: Now, id: u64) -> Option<Wire> {
        let id = ConnectionId(id);
        let caller = Caller::Unix { uid: 0, gid: 0, groups: Vec::new() };
        engine.handle_open(now, id, caller).ok()?;
        Some(Wire { id, decoder: Decoder::default(), unsent: PREFACE.to_vec(), last_call: 0 })
    }

    /// A request; its call's number.
    pub fn call<R: Rpc>(&mut self, request: &R, credit: u32) -> u64 {
        self.last_call += 1;
        let header = RequestHeader { method: R::METHOD.number(), credit, ..RequestHeader::default() };
        put_request(&mut self.unsent, self.last_call, header, request);
        self.last_call
    }

    /// Opens the stream of an agent with its first message; its call's number.
    pub fn link(&mut self, first: &AgentMessage, credit: u32) -> u64 {
        self.last_call += 1;
        let header = RequestHeader { method: AGENT_LINK, credit, ..RequestHeader::default() };
        put_request(&mut self.unsent, self.last_call, header, first);
        self.last_call
    }

    /// One more message of such a stream.
    pub fn upload(&mut self, call: u64, message: &AgentMessage) {
        put_upload(&mut self.unsent, call, message);
    }

    /// Whether the node has taken all that was written.
    pub fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// The client takes this many more items of a stream.
    pub fn credit(&mut self, call: u64, items: u32) {
        put_credit(&mut self.unsent, call, items);
    }

    /// Hands over what the client wrote, in pieces, and takes at most `most` bytes of what the node wrote.
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

    /// Which connection it is.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The next whole frame the node sent.
    pub fn next_frame(&mut self) -> Option<(u64, Body)> {
        self.decoder.next_frame().expect("the node writes frames")
    }

    /// Hangs up.
    pub fn close(&self, engine: &mut Engine, now: Now) {
        engine.handle_closed(now, self.id);
    }
}

/// Calls that wait for their answer.
pub type Outstanding<T> = BTreeMap<u64, T>;
