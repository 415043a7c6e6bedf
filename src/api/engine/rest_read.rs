//! Agents and commands over plain HTTP: the reads.

use peat_ipc::method::{self, Response as Answer};
use peat_ipc::sidecar::{CommandStatus, GetCommandsRequest, ListAgentsRequest};
use peat_ipc::{CallError, Code};
use serde_json::json;

use super::Engine;
use super::rest::{Replied, invalid, part, replied};
use crate::api::agents;
use crate::api::http::message::{HttpRequest, Response};
use crate::api::http::reply::{Reply, Shape};
use crate::api::http::{body, refusal};
use crate::clock::Now;

/// Commands per page if the request does not set `page_size`.
const COMMANDS: u32 = 100;

impl Engine {
    /// `GET /api/v1/agents?status=&group=&page_size=&page_token=`.
    pub(in crate::api) fn route_agents(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(self.list_agents(now, request))
    }

    fn list_agents(&mut self, now: Now, request: &HttpRequest) -> Replied {
        let status = request.parameter("status").unwrap_or_default();
        let liveness = match status.as_str() {
            "" => 0,
            name => body::liveness_named(name).ok_or_else(|| invalid("status is none of LIVE, STALE and DEAD"))?.into(),
        };
        let group = request.parameter("group").unwrap_or_default();
        let (page_size, page_token) = page(request)?;
        let asked = ListAgentsRequest { liveness, group, page_size: page_size.unwrap_or_default(), page_token };
        let listed = agents::list(&self.fleet, now, &asked)?;
        let agents: Vec<_> = listed.agents.iter().map(body::agent).collect();
        let mut answer = json!({ "agents": agents });
        if !listed.next_page_token.is_empty() {
            answer["next_page_token"] = hex(&listed.next_page_token).into();
        }
        Ok(Reply::Now(Response::json(200, &answer)))
    }

    /// `GET /api/v1/agents/{id}`.
    pub(in crate::api) fn route_agent(&mut self, now: Now, request: &HttpRequest) -> Reply {
        replied(part(request, 4).and_then(|id| {
            let unknown = || CallError::new(Code::NotFound, format!("agent {id} is not known here"));
            let agent = self.fleet.agent(now, &id).ok_or_else(unknown)?;
            Ok(Reply::Now(Response::json(200, &body::agent(&agent))))
        }))
    }

    /// `GET /api/v1/agents/{id}/commands?status=&pending=&page_size=&page_token=`.
    pub(in crate::api) fn route_agent_commands(&mut self, _now: Now, request: &HttpRequest) -> Reply {
        replied(agent_commands(request))
    }

    /// `GET /api/v1/commands/{id}`.
    pub(in crate::api) fn route_command(&mut self, _now: Now, request: &HttpRequest) -> Reply {
        replied(command(request))
    }
}

fn agent_commands(request: &HttpRequest) -> Replied {
    let target_id = part(request, 4)?;
    let (page_size, page_token) = page(request)?;
    let status = request.parameter("status").unwrap_or_default();
    let words = status.split(',').filter(|word| !word.is_empty());
    let status: Result<Vec<i32>, CallError> = words.map(status_named).collect();
    let pending_only = match request.parameter("pending").unwrap_or_default().as_str() {
        "" | "false" => false,
        "true" => true,
        _ => return Err(invalid("pending is neither true nor false")),
    };
    let asked = GetCommandsRequest {
        target_id,
        pending_only,
        id: String::new(),
        page_size: page_size.unwrap_or(COMMANDS),
        page_token,
        status: status?,
    };
    let shape = Shape::unary(|result| match result {
        Ok(Answer::GetCommands(listed)) => {
            let commands: Vec<_> = listed.commands.iter().map(body::command).collect();
            let mut answer = json!({ "commands": commands });
            if !listed.next_page_token.is_empty() {
                answer["next_page_token"] = hex(&listed.next_page_token).into();
            }
            Response::json(200, &answer)
        }
        other => unexpected(other),
    });
    Ok(Reply::Call { request: method::Request::GetCommands(asked), shape })
}

fn command(request: &HttpRequest) -> Replied {
    let id = part(request, 4)?;
    let asked = GetCommandsRequest { id: id.clone(), ..GetCommandsRequest::default() };
    let shape = Shape::unary(move |result| match result {
        Ok(Answer::GetCommands(found)) => match found.commands.first() {
            Some(command) => Response::json(200, &body::command(command)),
            None => refusal(&CallError::new(Code::NotFound, format!("there is no command '{id}' here"))),
        },
        other => unexpected(other),
    });
    Ok(Reply::Call { request: method::Request::GetCommands(asked), shape })
}

fn unexpected(result: Result<&Answer, &CallError>) -> Response {
    match result {
        Err(error) => refusal(error),
        Ok(_) => refusal(&CallError::new(Code::Internal, "another question was answered")),
    }
}

fn status_named(word: &str) -> Result<i32, CallError> {
    let known = CommandStatus::from_str_name(&format!("COMMAND_STATUS_{}", word.to_ascii_uppercase()));
    let known = known.filter(|status| *status != CommandStatus::Unspecified).map(i32::from);
    known.ok_or_else(|| {
        invalid("status is none of PENDING, EXECUTING, COMPLETED, FAILED, CANCELLED and EXPIRED, separated by commas")
    })
}

/// Parses `page_size` and `page_token`.
fn page(request: &HttpRequest) -> Result<(Option<u32>, Vec<u8>), CallError> {
    let size = request.parameter("page_size").filter(|size| !size.is_empty()).map(|size| size.parse());
    let size = size.transpose().map_err(|_| invalid("page_size is no whole number"))?;
    let token = request.parameter("page_token").unwrap_or_default();
    let bytes = unhex(&token).ok_or_else(|| invalid("page_token is none that this route gave"))?;
    Ok((size, bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_a_query_is_hexadecimal() {
        assert_eq!(unhex(&hex(&[0, 0x7f, 0xff])), Some(vec![0, 0x7f, 0xff]));
        assert_eq!((unhex(""), unhex("0"), unhex("0g"), unhex("é0")), (Some(vec![]), None, None, None));
    }
}
