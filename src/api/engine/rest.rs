//! Agents and commands over plain HTTP: registering, heartbeats, sending, acknowledging. Reads are in `rest_read.rs`.

use peat_ipc::method::{self, Response as Answer};
use peat_ipc::sidecar::{Command, CommandStatus, PutCommandRequest, TargetStatus};
use peat_ipc::{CallError, Code};
use serde_json::json;

use super::Engine;
use crate::api::Role;
use crate::api::agents;
use crate::api::commands::{AgentDirectory, RequestContext, cancelled};
use crate::api::http::message::{HttpRequest, Response, decode};
use crate::api::http::reply::{Reply, Shape};
use crate::api::http::{body, refusal};
use crate::clock::Now;
use crate::fleet::Owner;
use crate::limits::COMMAND_TTL;
use crate::mesh::command_body::Addressed;
use crate::store;

pub(super) type Replied = Result<Reply, CallError>;

pub(super) fn replied(result: Replied) -> Reply {
    result.unwrap_or_else(|error| Reply::Now(refusal(&error)))
}

pub(super) fn invalid(why: impl Into<String>) -> CallError {
    CallError::new(Code::InvalidArgument, why)
}

/// Returns one segment of a request's path, decoded.
pub(super) fn part(request: &HttpRequest, number: usize) -> Result<String, CallError> {
    let part = request.path.split('/').nth(number).and_then(decode);
    part.ok_or_else(|| invalid(format!("part {number} of the path is no percent-encoded text")))
}

impl Engine {
    /// `POST /api/v1/agents`.
    pub(in crate::api) fn route_register(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(self.register_agent(now, request))
    }

    fn register_agent(&mut self, now: Now, request: &HttpRequest) -> Replied {
        let (register, owner) = (body::register(&request.body)?, owner(request));
        let view = &mut self.view;
        let mut held = |agent: &str| Ok(agents::deployments_of(view.snapshot()?, agent)?);
        self.fleet.handle_registration(now, owner, &register, &mut held)?;
        Ok(self.tell_registered(&register.agent_id, request))
    }

    /// `POST /api/v1/agents/{id}/heartbeat`.
    pub(in crate::api) fn route_heartbeat(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(self.beat(now, request))
    }

    fn beat(&mut self, now: Now, request: &HttpRequest) -> Replied {
        let (agent, state) = (part(request, 4)?, body::state(&request.body)?);
        let view = &mut self.view;
        let mut held = |agent: &str| Ok(agents::deployments_of(view.snapshot()?, agent)?);
        self.fleet.handle_heartbeat(now, owner(request), &agent, state.as_ref(), &mut held)?;
        Ok(self.tell_registered(&agent, request))
    }

    fn tell_registered(&self, agent: &str, request: &HttpRequest) -> Reply {
        Reply::Now(Response::json(200, &body::registered(agent, &self.registered(agent, &request.base_url()))))
    }

    /// `POST /api/v1/agents/{id}/commands`.
    pub(in crate::api) fn route_send_to_agent(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(part(request, 4).and_then(|agent| self.send(now, request, Addressed::Agent(agent))))
    }

    /// `POST /api/v1/agents/groups/{group}/commands`.
    pub(in crate::api) fn route_send_to_group(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(part(request, 5).and_then(|group| self.send(now, request, Addressed::Group(group))))
    }

    /// `POST /api/v1/agents/commands`.
    pub(in crate::api) fn route_send_to_all(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(self.send(now, request, Addressed::All(true)))
    }

    /// Makes a PutCommand of the request. The targets in the answer are those that the call resolves, because both happen at the
    /// same time.
    fn send(&mut self, now: Now, request: &HttpRequest, addressed: Addressed) -> Replied {
        let order = body::order(&request.body)?;
        let held = match order.id.as_str() {
            "" => None,
            id => self.view.snapshot()?.command(id)?,
        };
        let targets = match &held {
            Some(held) => held.targets().map(|(agent, _)| agent.to_owned()).collect(),
            None => {
                let mut targets = self.known(now, request).resolve(&addressed);
                targets.sort();
                targets
            }
        };
        // A repeated request with the same id is the same command, so its times are left unset to match the stored ones.
        let created_at = if held.is_some() { 0 } else { now.wall_ms.div_euclid(1_000).max(1) };
        let ttl_s = order.ttl_s.unwrap_or_else(|| self.commands.ttl().as_secs().max(1));
        if ttl_s > COMMAND_TTL.as_secs() {
            let limit = COMMAND_TTL.as_secs();
            return Err(invalid(format!("ttl_s is {ttl_s}; the limit is {limit}, and with 0 it never expires")));
        }
        let lasts = held.is_some() || ttl_s == 0;
        let expires_at = if lasts { 0 } else { created_at.saturating_add_unsigned(ttl_s) };
        let id = if order.id.is_empty() { self.next_command_id() } else { order.id };
        let (target_id, group, all) = match addressed {
            Addressed::Agent(agent) => (agent, String::new(), false),
            Addressed::Group(group) => (String::new(), group, false),
            Addressed::All(_) => (String::new(), String::new(), true),
        };
        let (command_type, payload_json) = (order.command_type, order.payload);
        let command = Command {
            id: id.clone(),
            target_id,
            group,
            all,
            command_type,
            payload_json,
            created_at,
            expires_at,
            ..Command::default()
        };
        let shape = Shape::unary(move |result| match result {
            Ok(_) => Response::json(202, &json!({ "id": id, "targets": targets })),
            Err(error) => refusal(error),
        });
        let request = method::Request::PutCommand(PutCommandRequest { command: Some(command) });
        Ok(Reply::Call { request, shape })
    }

    /// Returns an id that is unique across nodes, because run ids are random.
    fn next_command_id(&mut self) -> String {
        self.web.ids_given += 1;
        let run: String = self.view.run().0[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{run}-{}", self.web.ids_given)
    }

    /// `POST /api/v1/agents/{id}/commands/{command}/ack`.
    pub(in crate::api) fn route_ack(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(self.acknowledged(now, request))
    }

    fn acknowledged(&mut self, now: Now, request: &HttpRequest) -> Replied {
        let (agent, command) = (part(request, 4)?, part(request, 6)?);
        self.check_speaker(request, &agent)?;
        let update = body::update(command, &request.body)?;
        let write = self.commands.handle_update(now, &agent, &update).map_err(store::Error::from)?;
        let said = update.stage();
        let id = update.command_id.clone();
        let whole = move |result: Result<&Answer, &CallError>| match result {
            Ok(Answer::CancelCommand(held)) => {
                let stands = held.targets.iter().find(|target| target.agent_id == agent);
                let status = stands.map_or(CommandStatus::Unspecified, TargetStatus::status);
                Response::json(200, &json!({ "id": id, "status": body::acknowledged(said, status) }))
            }
            Ok(_) => refusal(&CallError::new(Code::Internal, "another question was answered")),
            Err(error) => refusal(error),
        };
        match write {
            Some(write) => Ok(Reply::Write { write: write.into(), shape: Shape::unary(whole) }),
            None => {
                let held = self.view.snapshot()?.command(&update.command_id)?;
                Ok(Reply::Now(whole(Ok(&cancelled(held.as_ref(), now).into()))))
            }
        }
    }

    /// Checks that the caller may speak for the agent.
    pub(super) fn check_speaker(&self, request: &HttpRequest, agent: &str) -> Result<(), CallError> {
        self.known(self.latest, request).may_report(agent)
    }

    fn known(&self, now: Now, request: &HttpRequest) -> RequestContext<'_> {
        let (owner, role) = (owner(request), request.role.unwrap_or(Role::Agent));
        RequestContext {
            fleet: &self.fleet,
            commands: &self.commands,
            now,
            owner,
            role,
            open_documents: self.policy.open_documents,
        }
    }
}

fn owner(request: &HttpRequest) -> Owner {
    request.owner.unwrap_or(Owner::Nobody)
}
