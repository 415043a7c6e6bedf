//! Agents on streams: they register, send heartbeats, work, hang, lose their streams, restart, return and move.

use std::time::Duration;

use peat_ipc::Code;
use peat_ipc::agent::{AgentMessage, Heartbeat, NodeMessage, Register, agent_message, node_message};
use peat_ipc::envelope::frame::Body;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::{Agent, ListAgentsRequest, ListAgentsResponse, Liveness};
use peat_node::api::Engine;
use peat_node::clock::Now;

use crate::checkers::bounds;
use crate::checkers::commands::Begun;
use crate::faults::{Fault, Tally};
use crate::mesh::node::TIMES;
use crate::mesh::wire::Wire;
use crate::mesh::work::Work;
use crate::prng::Prng;
use crate::seeds::{self, Violation};
use crate::time::Time;

/// Time that the full queue of a narrow link (8 kB at 4 kB/s) and its retransmissions may add to the propagation of a
/// transition.
const PATH: Duration = Duration::from_secs(16);

/// One agent.
#[derive(Debug)]
pub struct Linked {
    pub id: String,
    /// Number of the node it is attached to, or will be.
    pub node: usize,
    wire: Option<(Wire, u64)>,
    /// Until this time it keeps its stream and sends nothing.
    hangs_until: Time,
    /// Time of the last message that a node received from it.
    pub heard: Option<Time>,
    beats: u64,
    work: Work,
}

/// The parts of the world that an agent uses in its turn.
pub struct Around<'a> {
    pub random: &'a mut Prng,
    pub begun: &'a mut Begun,
    pub tally: &'a Tally,
    /// True once no more faults are injected.
    pub well: bool,
}

impl Linked {
    pub fn new(number: usize, node: usize) -> Linked {
        let id = format!("agent{number}");
        Linked { id, node, wire: None, hangs_until: Time::ZERO, heard: None, beats: 0, work: Work::default() }
    }

    /// Drops the stream: the node is off, or the agent has left.
    pub fn cut_off(&mut self) {
        self.wire = None;
    }

    /// Closes the connection without a goodbye.
    pub fn hang_up(&mut self, engine: &mut Engine, now: Now) {
        if let Some((wire, _)) = self.wire.take() {
            wire.close(engine, now);
        }
    }

    /// Returns true while a command runs.
    pub fn is_at_work(&self) -> bool {
        self.work.is_at_work()
    }

    fn misbehave(&mut self, engine: &mut Engine, (now, time): (Now, Time), around: &mut Around<'_>) {
        let what = around.random.below(50);
        match what {
            0 => self.hang_up(engine, now),
            1 => self.hangs_until = time + Duration::from_millis(around.random.below(12_000)),
            // The old stream stays open, and the new one takes over.
            2 => self.wire = None,
            3 => {
                if self.is_at_work() {
                    around.tally.count(Fault::AgentRestarted);
                }
                self.hang_up(engine, now);
                self.work.restart();
            }
            _ => {}
        }
        if matches!(what, 0 | 2) && self.is_at_work() {
            around.tally.count(Fault::AgentCut);
        }
    }

    /// Sends heartbeats and works, or misbehaves in one of several ways.
    pub fn turn(
        &mut self,
        engine: &mut Engine,
        (now, time): (Now, Time),
        id: u64,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        if !around.well {
            self.misbehave(engine, (now, time), around);
            if time < self.hangs_until {
                return Ok(());
            }
        }
        match &mut self.wire {
            None => self.connect(engine, now, id),
            Some((wire, call)) => {
                self.beats += 1;
                let beat = agent_message::Body::Heartbeat(Heartbeat { number: self.beats, state: None });
                wire.upload(*call, &AgentMessage { body: Some(beat) });
                wire.credit(*call, 1);
            }
        }
        self.exchange(engine, (now, time), around)?;
        self.report(time, around.random);
        self.exchange(engine, (now, time), around)
    }

    fn report(&mut self, time: Time, random: &mut Prng) {
        let Some((wire, call)) = &mut self.wire else { return };
        for update in self.work.turn(time, random) {
            wire.upload(*call, &AgentMessage { body: Some(agent_message::Body::CommandUpdate(update)) });
        }
    }

    fn connect(&mut self, engine: &mut Engine, now: Now, id: u64) {
        let Some(mut wire) = Wire::open(engine, now, id) else { return };
        let commands = self.work.registered();
        let register = Register { agent_id: self.id.clone(), commands, ..Register::default() };
        seeds::trace(|| format!("{} registers at node {}", self.id, self.node));
        let call = wire.link(&AgentMessage { body: Some(agent_message::Body::Register(register)) }, 100);
        self.wire = Some((wire, call));
    }

    fn exchange(
        &mut self,
        engine: &mut Engine,
        (now, time): (Now, Time),
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        let Some((mut wire, call)) = self.wire.take() else { return Ok(()) };
        bounds::client(engine, wire.id())?;
        wire.exchange(engine, now, around.random, usize::MAX);
        if wire.is_sent() {
            self.heard = Some(time);
        }
        while let Some((_, body)) = wire.next_frame() {
            match body {
                Body::Item(bytes) => {
                    wire.credit(call, 1);
                    self.take(NodeMessage::decode(bytes), time, around)?;
                }
                Body::Error(error) => {
                    wire.close(engine, now);
                    return self.ended(error.code, &error.message);
                }
                other => return Err(Violation::new("agent link", format!("the stream ended with {other:?}"))),
            }
        }
        self.wire = Some((wire, call));
        Ok(())
    }

    fn take(
        &mut self,
        message: Result<NodeMessage, peat_ipc::prost::DecodeError>,
        time: Time,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        let body = message.map_err(|error| Violation::new("agent link", error.to_string()))?.body;
        match body {
            Some(node_message::Body::CommandPush(push)) => {
                self.work.pushed(&push.command.unwrap_or_default().id);
                Ok(())
            }
            Some(node_message::Body::CancelPush(push)) => {
                self.work.cancelled(&push.command_id, around.tally);
                Ok(())
            }
            Some(node_message::Body::UpdateAck(ack)) => {
                self.work.answered((&self.id, time), &ack, around.random, around.begun, around.tally)
            }
            Some(node_message::Body::HeartbeatAck(ack)) if ack.number <= self.beats => Ok(()),
            Some(node_message::Body::Registered(_)) => Ok(()),
            other => Err(Violation::new("agent link", format!("{}: {other:?}", self.id))),
        }
    }

    fn ended(&self, code: u32, message: &str) -> Result<(), Violation> {
        seeds::trace(|| format!("{} is refused: {message}", self.id));
        match Code::from_number(code) {
            // A report that failed because of the disk is kept and repeated by the next registration.
            Code::Aborted | Code::Unavailable | Code::ResourceExhausted | Code::DataLoss => Ok(()),
            code => Err(Violation::new("agent link", format!("{}: {code:?}: {message}", self.id))),
        }
    }
}

/// Returns the agents that a node lists.
pub fn shown(engine: &mut Engine, now: Now, id: u64, random: &mut Prng) -> Vec<Agent> {
    let Some(mut wire) = Wire::open(engine, now, id) else { return Vec::new() };
    wire.call(&ListAgentsRequest::default(), 0);
    wire.exchange(engine, now, random, usize::MAX);
    let answer = wire.next_frame();
    wire.close(engine, now);
    match answer {
        Some((_, Body::Response(bytes))) => {
            ListAgentsResponse::decode(bytes).map(|list| list.agents).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// Checks that no node lists an agent as LIVE if its stream has been closed or silent for longer than the stale delays of its
/// node and of the listing node, plus the path between them.
pub fn check(agents: &[Linked], node: usize, shown: &Agent, time: Time) -> Result<(), Violation> {
    if shown.liveness() != Liveness::Live {
        return Ok(());
    }
    let agent = agents.iter().find(|agent| agent.id == shown.agent_id);
    let heard = agent.and_then(|agent| agent.heard);
    let Some(heard) = heard else {
        return Err(Violation::new(
            "liveness",
            format!("node {node} shows {}, which never registered", shown.agent_id),
        ));
    };
    let most = 2 * TIMES.stale_after + TIMES.heartbeat + PATH;
    match time.saturating_sub(heard) {
        silent if silent <= most => Ok(()),
        silent => {
            Err(Violation::new("liveness", format!("node {node} shows {} LIVE after {silent:?}", shown.agent_id)))
        }
    }
}
