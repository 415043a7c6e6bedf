//! Requests over HTTP: to the table of routes, and from there to calls and streams like any others.

use peat_ipc::{CallError, Code};

use super::Engine;
use super::calls::Terms;
use crate::api::call::NO_METHOD;
use crate::api::connection::ConnectionId;
use crate::api::http::message::{Request, Response};
use crate::api::http::reply::Reply;
use crate::api::http::route::{self, Found, Route};
use crate::api::http::{self, Event, Speech};
use crate::clock::Now;

impl Engine {
    pub(super) fn handle_http(&mut self, now: Now, id: ConnectionId, event: Event) {
        match event {
            Event::Request(call, request) => self.handle_exchange(now, id, call, *request),
        }
    }

    fn handle_exchange(&mut self, now: Now, id: ConnectionId, call: u64, mut request: Request) {
        let rights = self.admit(id, bearer(&request));
        request.role = rights.as_ref().ok().copied();
        request.owner = self.owner(id);
        match (route::find(&request), rights) {
            (Found::Route(route), Err(error)) if !route.open => self.say(now, id, call, &http::refusal(&error)),
            (Found::Route(route), _) => self.handle_route(now, id, call, route, &request),
            (_, Err(error)) => self.say(now, id, call, &http::refusal(&error)),
            (Found::Methods(methods), _) => {
                let words = format!("{} takes {methods}", request.path);
                self.say(now, id, call, &Response::text(405, words).with("allow", methods));
            }
            (Found::Nothing, _) => {
                let words = format!("there is nothing at {}", request.path);
                self.say(now, id, call, &Response::text(404, words));
            }
        }
    }

    fn handle_route(&mut self, now: Now, id: ConnectionId, call: u64, route: &Route, request: &Request) {
        match (route.handler)(self, now, request) {
            Reply::Now(response) => self.say(now, id, call, &response),
            Reply::Call { request: asked, shape } => {
                let Some(role) = request.role else {
                    let error = CallError::new(Code::Internal, "a call of nobody");
                    return self.say(now, id, call, &http::refusal(&error));
                };
                self.expect(id, call, Speech::Plain(shape));
                let terms = Terms { deadline_ms: 0, credit: u32::MAX, bytes: request.body.len() };
                self.carry_out(now, id, call, role, asked, terms);
            }
            Reply::Hold { head, stage } => {
                self.expect(id, call, Speech::Held);
                self.method = NO_METHOD;
                let number = self.register(id, call, stage, None, 0);
                if let Some((http, out)) = self.connections.get_mut(&id).and_then(|connection| connection.http()) {
                    http.begin(out, call, Some(&head));
                }
                self.queue_output(id);
                self.settle(id);
                self.events_begun(now, number);
            }
            Reply::Write { write, shape } => {
                self.expect(id, call, Speech::Plain(shape));
                self.method = NO_METHOD;
                self.write_for(now, id, call, write);
            }
            Reply::Probe(probe) => {
                self.method = NO_METHOD;
                self.begin_probe(now, id, call, probe);
            }
        }
    }

    fn expect(&mut self, id: ConnectionId, call: u64, speech: Speech) {
        if let Some((http, _)) = self.connections.get_mut(&id).and_then(|connection| connection.http()) {
            http.expect(call, speech);
        }
    }

    pub(super) fn say(&mut self, now: Now, id: ConnectionId, call: u64, response: &Response) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.reply(now, call, response);
            if connection.has_pipelined() {
                self.answered.push(id);
            }
        }
        self.queue_output(id);
        self.settle(id);
    }
}

/// The token a request shows; empty: none.
fn bearer(request: &Request) -> &str {
    let value = request.headers.get("authorization").unwrap_or("");
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    }
}
