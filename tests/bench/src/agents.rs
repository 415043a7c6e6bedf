//! Agents on the native IPC, several per connection: frames in and out, without a socket.

use bench_peers::Failure;
use peat_ipc::PREFACE;
use peat_ipc::agent::{AgentMessage, Heartbeat, NodeMessage, Register, State, Workload, agent_message, node_message};
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{Decoder, RequestHeader, put_credit, put_request, put_upload};
use peat_ipc::method::AGENT_LINK;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::PlatformStatus;

/// Number of messages a node may send on a stream before more are granted.
const CREDIT: u32 = 64;

/// The content of a heartbeat: bare, or with the agent's state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Beat {
    Bare,
    WithState,
}

/// The streams of several agents on one connection.
pub(crate) struct Agents {
    first: usize,
    /// Bytes to write.
    pub(crate) out: Vec<u8>,
    decoder: Decoder,
    /// Messages received on each stream since its last grant.
    taken: Vec<u32>,
    beats: u64,
    registered: usize,
    acknowledged: u64,
}

impl Agents {
    /// Creates `count` agents, numbered from `first`, with their registrations queued.
    pub(crate) fn new(first: usize, count: usize) -> Agents {
        let mut agents = Agents {
            first,
            out: PREFACE.to_vec(),
            decoder: Decoder::default(),
            taken: vec![0; count],
            beats: 0,
            registered: 0,
            acknowledged: 0,
        };
        for stream in 0..count {
            let header = RequestHeader { method: AGENT_LINK, credit: CREDIT, ..RequestHeader::default() };
            let register = message(agent_message::Body::Register(register(first + stream)));
            put_request(&mut agents.out, call(stream), header, &register);
        }
        agents
    }

    pub(crate) fn count(&self) -> usize {
        self.taken.len()
    }

    /// Queues a heartbeat of one agent.
    pub(crate) fn beat(&mut self, stream: usize, beat: Beat) {
        self.beats += 1;
        let state = (beat == Beat::WithState).then(|| state(self.first + stream));
        let heartbeat = Heartbeat { number: self.beats, state };
        put_upload(&mut self.out, call(stream), &message(agent_message::Body::Heartbeat(heartbeat)));
    }

    /// Handles bytes from the node.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.decoder.extend(bytes);
        while let Some((call, body)) = self.decoder.next_frame()? {
            let Body::Item(item) = body else { return Err(format!("call {call}: {body:?}").into()) };
            match NodeMessage::decode(item)?.body {
                Some(node_message::Body::Registered(_)) => self.registered += 1,
                Some(node_message::Body::HeartbeatAck(_)) => self.acknowledged += 1,
                other => return Err(format!("an agent was sent {other:?}").into()),
            }
            self.grant(call);
        }
        Ok(())
    }

    fn grant(&mut self, call: u64) {
        let taken = &mut self.taken[call as usize - 1];
        *taken += 1;
        if *taken == CREDIT / 2 {
            put_credit(&mut self.out, call, std::mem::take(taken));
        }
    }

    /// Returns true if every registration was answered.
    pub(crate) fn are_registered(&self) -> bool {
        self.registered == self.count()
    }

    /// Returns the number of unanswered heartbeats.
    pub(crate) fn unanswered(&self) -> u64 {
        self.beats - self.acknowledged
    }
}

/// Returns the call id of a stream; the ids of a connection start at 1.
fn call(stream: usize) -> u64 {
    stream as u64 + 1
}

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

fn register(number: usize) -> Register {
    Register {
        agent_id: format!("agent-{number:04}"),
        name: format!("agent number {number}"),
        group: format!("group-{}", number % 10),
        version: "1.4.2".into(),
        labels: [("site".into(), format!("site-{}", number % 20))].into(),
        workloads: vec![workload(number)],
        ..Register::default()
    }
}

/// Returns the registered state with a different status, so that only the first heartbeat changes anything.
fn state(number: usize) -> State {
    State { status: PlatformStatus::Ready.into(), workloads: vec![workload(number)], ..State::default() }
}

fn workload(number: usize) -> Workload {
    let status = "RUNNING".into();
    Workload { name: "podinfo".into(), version: format!("6.{}.0", number % 7), status, ..Workload::default() }
}
