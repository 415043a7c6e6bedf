//! Commands: clients issue and cancel them at any node, for agents on streams and for one polling agent per node.
//!
//! Invariants: no command begins that its node knew to be expired or to be cancelled with confirmation; no status regresses
//! while a node lives. Convergence of commands is checked together with all other records.

use std::collections::{BTreeMap, BTreeSet};

use peat_ipc::envelope::frame::Body;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use peat_ipc::{Code, Rpc};
use peat_node::api::Engine;
use peat_node::clock::Now;
use peat_node::store::{COMMANDS, Error, Rank, Snapshot};

use crate::mesh::wire::{Outstanding, Wire};
use crate::prng::Prng;
use crate::seeds::Violation;

/// State of all commands, across all clients.
#[derive(Debug, Default)]
pub struct Errands {
    issued: Vec<String>,
    /// Ids of commands for which a node confirmed the cancellation.
    cancelled: BTreeSet<String>,
    begun: BTreeSet<String>,
    /// Pairs of an agent on a stream and a command that a node accepted for it after healing.
    pub due: Vec<(String, String)>,
}

/// Id and signature of a command.
type Name = (String, Vec<u8>);

#[derive(Debug)]
enum ControlRequest {
    Issue,
    /// Sent after healing: to this agent, under this id.
    Send(String, String),
    Poll,
    /// True if the node knew that the command had expired.
    Accept(Box<Command>, bool),
    Report,
    Cancel(String),
    Delete,
}

/// The callers of one node, for one of its lives.
#[derive(Debug, Default)]
pub struct AgentAt {
    wire: Option<Wire>,
    calls: Outstanding<ControlRequest>,
    pending: Vec<Command>,
    running: Vec<Command>,
    /// Highest statuses observed.
    seen: BTreeMap<Name, Vec<Rank>>,
}

impl AgentAt {
    /// Drops all calls: the node is off. Running commands continue.
    pub fn cut_off(&mut self) {
        *self = AgentAt { running: std::mem::take(&mut self.running), ..AgentAt::default() };
    }

    /// Returns the number of unanswered calls.
    pub fn outstanding(&self) -> usize {
        self.calls.len()
    }

    /// Performs one random operation on commands.
    pub fn act(
        &mut self,
        engine: &mut Engine,
        (now, id, number): (Now, u64, usize),
        snapshot: Option<&Snapshot>,
        random: &mut Prng,
        errands: &mut Errands,
        nodes: usize,
    ) -> Result<(), Violation> {
        match random.below(10) {
            0..3 => {
                let command = self.new_command(random, errands, nodes);
                self.call(engine, now, id, &PutCommandRequest { command: Some(command) }, ControlRequest::Issue);
            }
            3..5 => {
                let request = GetCommandsRequest {
                    target_id: format!("a{number}"),
                    pending_only: true,
                    ..GetCommandsRequest::default()
                };
                self.call(engine, now, id, &request, ControlRequest::Poll);
            }
            5..7 => {
                let Some(command) = self.pending.pop() else { return Ok(()) };
                // An agent remembers the commands it began and the acceptances it requested.
                let asked = |asked: &ControlRequest| matches!(asked, ControlRequest::Accept(other, _) if other.id == command.id);
                if errands.begun.contains(&command.id) || self.calls.values().any(asked) {
                    return Ok(());
                }
                let held = snapshot.and_then(|snapshot| snapshot.command(&command.id).ok()?);
                let late = held.is_some_and(|held| held.has_expired(now) && held.signature[..] == command.signature);
                let accepted = Command { status: CommandStatus::Executing.into(), ..command.clone() };
                let asked = ControlRequest::Accept(Box::new(command), late);
                self.call(engine, now, id, &PutCommandRequest { command: Some(accepted) }, asked);
            }
            7..9 => {
                let Some(command) = self.running.pop() else { return Ok(()) };
                let status = *random.pick(&[CommandStatus::Completed, CommandStatus::Failed]);
                let done = Command { status: status.into(), result_json: "[7]".into(), ..command };
                self.call(engine, now, id, &PutCommandRequest { command: Some(done) }, ControlRequest::Report);
            }
            _ if errands.issued.is_empty() => {}
            _ => {
                let command = random.pick(&errands.issued).clone();
                if random.chance(200) {
                    let request = DeleteDocumentRequest { collection: COMMANDS.into(), doc_id: command };
                    self.call(engine, now, id, &request, ControlRequest::Delete);
                } else {
                    let request = CancelCommandRequest { id: command.clone() };
                    self.call(engine, now, id, &request, ControlRequest::Cancel(command));
                }
            }
        }
        Ok(())
    }

    /// Issues a command to an agent on a stream, which must receive it in time.
    pub fn send(&mut self, engine: &mut Engine, now: Now, connection: u64, agent: &str, id: &str, ttl_s: i64) {
        let command = Command {
            id: id.to_owned(),
            target_id: agent.to_owned(),
            command_type: "replay".into(),
            created_at: 100,
            expires_at: if ttl_s == 0 { 0 } else { 100 + ttl_s },
            ..Command::default()
        };
        let asked = ControlRequest::Send(agent.to_owned(), id.to_owned());
        self.call(engine, now, connection, &PutCommandRequest { command: Some(command) }, asked);
    }

    fn call<R: Rpc>(&mut self, engine: &mut Engine, now: Now, id: u64, request: &R, asked: ControlRequest) {
        if self.wire.is_none() {
            self.wire = Wire::open(engine, now, id);
        }
        if let Some(wire) = &mut self.wire {
            let call = wire.call(request, 0);
            self.calls.insert(call, asked);
        }
    }

    /// Creates a command, mostly under a new id; two under one id must do no harm either.
    fn new_command(&self, random: &mut Prng, errands: &mut Errands, nodes: usize) -> Command {
        let twin = random.chance(100);
        let id = if twin { "twin".to_owned() } else { format!("k{}", errands.issued.len()) };
        let (polls, all) = (random.chance(500), random.chance(100));
        let target_id = match random.index(nodes) {
            _ if !polls && all => String::new(),
            node if polls => format!("a{node}"),
            node => format!("agent{}", node + nodes * usize::from(random.chance(500))),
        };
        errands.issued.push(id.clone());
        let expires_at =
            if random.chance(600) { 100 + i64::try_from(random.between(1, 30)).expect("small") } else { 0 };
        Command {
            id,
            all: target_id.is_empty(),
            target_id,
            command_type: "replay".into(),
            payload_json: random.below(1_000).to_string(),
            created_at: 100,
            expires_at,
            ..Command::default()
        }
    }

    /// Passes bytes both ways and checks the answers.
    pub fn turn(
        &mut self,
        engine: &mut Engine,
        now: Now,
        random: &mut Prng,
        errands: &mut Errands,
        (troubled, disaster): (bool, bool),
    ) -> Result<(), Violation> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        wire.exchange(engine, now, random, usize::MAX);
        while let Some((call, body)) = wire.next_frame() {
            let Some(asked) = self.calls.remove(&call) else {
                return Err(Violation::new("every call is answered once", format!("call {call}: {body:?}")));
            };
            match (asked, body) {
                (ControlRequest::Poll, Body::Response(bytes)) => {
                    self.pending = decode::<GetCommandsResponse>(&bytes).commands;
                }
                (ControlRequest::Accept(command, late), Body::Response(_)) => {
                    let confirmed = errands.cancelled.contains(&command.id);
                    if (late || confirmed) && command.id != "twin" && !disaster {
                        let what = format!("{command:?}: late {late}, cancelled {confirmed}");
                        return Err(Violation::new("nothing begins too late", what));
                    }
                    errands.begun.insert(command.id.clone());
                    self.running.push(*command);
                }
                (ControlRequest::Cancel(id), Body::Response(bytes)) => {
                    let targets = decode::<CancelCommandResponse>(&bytes).targets;
                    let status = targets.first().map(TargetStatus::status);
                    let cancelled = status == Some(CommandStatus::Cancelled);
                    if cancelled && errands.begun.contains(&id) && id != "twin" && !disaster {
                        return Err(Violation::new("what runs is not cancelled for the asking", id));
                    }
                    errands.cancelled.extend(cancelled.then_some(id));
                }
                (ControlRequest::Send(agent, id), Body::Response(_)) => errands.due.push((agent, id)),
                (_, Body::Response(_)) => {}
                (asked, Body::Error(error)) if may_fail(&asked, Code::from_number(error.code), troubled) => {}
                (asked, other) => {
                    return Err(Violation::new("no unexpected error", format!("{asked:?}: {other:?}")));
                }
            }
        }
        Ok(())
    }

    /// Checks that no status regresses while the node lives and its disk works.
    pub fn look(&mut self, snapshot: &Snapshot) -> Result<(), Violation> {
        for (name, ranks) in commands(snapshot).map_err(|error| Violation::new("reading", error.to_string()))? {
            let seen = self.seen.entry(name.clone()).or_insert_with(|| ranks.clone());
            if seen.iter().zip(&ranks).any(|(before, now)| now < before) {
                return Err(Violation::new("no status goes back", format!("{}: {seen:?}, then {ranks:?}", name.0)));
            }
            *seen = ranks;
        }
        Ok(())
    }
}

fn commands(snapshot: &Snapshot) -> Result<Vec<(Name, Vec<Rank>)>, Error> {
    let ids = snapshot.list(COMMANDS)?.into_iter().filter(|id| !id.contains(':'));
    let held = ids.map(|id| Ok(snapshot.command(&id)?.map(|held| ((id, held.signature.to_vec()), held.ranks))));
    held.filter_map(Result::transpose).collect()
}

fn decode<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("the method's response")
}

fn may_fail(asked: &ControlRequest, code: Code, troubled: bool) -> bool {
    match (asked, code) {
        (_, Code::ResourceExhausted | Code::Unavailable | Code::DataLoss) => troubled,
        // A command to all agents fails here if none is LIVE.
        (ControlRequest::Issue, code) => matches!(code, Code::AlreadyExists | Code::FailedPrecondition),
        (ControlRequest::Send(..), _) => false,
        (ControlRequest::Cancel(_), code) => code == Code::NotFound,
        // The command may be lost with a disk, or another one with the same id may have won.
        (ControlRequest::Accept(..), code) => {
            matches!(code, Code::FailedPrecondition | Code::NotFound | Code::AlreadyExists)
        }
        (ControlRequest::Report, code) => matches!(code, Code::NotFound | Code::AlreadyExists),
        (ControlRequest::Poll | ControlRequest::Delete, _) => false,
    }
}
