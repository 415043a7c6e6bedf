//! Requests over HTTP: dispatch to service methods and to the route table, and from there to calls and streams.

use peat_ipc::envelope::Request as RequestFrame;
use peat_ipc::method::Response as Answer;
use peat_ipc::{CallError, Code};

use super::Engine;
use super::calls::Terms;
use crate::api::call::NO_METHOD;
use crate::api::caller::Caller;
use crate::api::connection::ConnectionId;
use crate::api::http::guard::{self, Reach};
use crate::api::http::health::{self, Serving};
use crate::api::http::message::{Body, HttpRequest, Response};
use crate::api::http::reply::Reply;
use crate::api::http::route::{self, Found, Route};
use crate::api::http::rpc::{Rpc, Target, unimplemented};
use crate::api::http::{self, Event, Http, Refusal, ResponseMode, reflection};
use crate::clock::Now;

/// A call of the health service's Watch, and the status it was sent last.
#[derive(Debug)]
pub(super) struct HealthWatcher {
    connection: ConnectionId,
    call: u64,
    told: Serving,
}

impl Engine {
    pub(super) fn handle_http(&mut self, now: Now, id: ConnectionId, event: Event) {
        match event {
            Event::Request(call, request) => self.handle_exchange(now, id, call, *request, None),
            Event::Refused(call, request, refusal) => self.handle_exchange(now, id, call, *request, Some(refusal)),
            Event::Upload(call, bytes) => self.handle_upload(now, id, call, &bytes),
            Event::HalfClose(call) => self.handle_half_close(now, id, call),
            Event::Cancel(call) => {
                self.with_http(id, |http, _| http.forget(call));
                self.cancel(now, id, call);
            }
        }
    }

    /// Handles a request. `refusal` is set if the request was not read to its end.
    fn handle_exchange(
        &mut self,
        now: Now,
        id: ConnectionId,
        call: u64,
        mut request: HttpRequest,
        refusal: Option<Refusal>,
    ) {
        let rights = self.admit(id, bearer(&request));
        request.role = rights.as_ref().ok().copied();
        request.owner = self.owner(id);
        if let Some(why) = guard::refusal(&request, self.reach(id)) {
            return self.say(now, id, call, &Response::text(403, why));
        }
        if let Some(refusal) = refusal {
            let streams = self.with_http(id, |http, _| http.streams()).unwrap_or(false);
            return self.say(now, id, call, &refuse(&request, streams, rights.err(), &refusal));
        }
        match Target::find(&request.path) {
            Some(Ok(target)) => self.handle_rpc(now, id, call, target, &request, rights.err()),
            Some(Err(error)) => self.say(now, id, call, &unimplemented(&request, &error)),
            None => self.handle_path(now, id, call, &request, rights.err()),
        }
    }

    /// Returns how far the `Host` header of this caller is trusted.
    fn reach(&self, id: ConnectionId) -> Reach {
        match self.connections.get(&id).map(|connection| &connection.caller) {
            Some(Caller::Tcp) if self.policy.tcp_token.is_some() => Reach::Proven,
            Some(Caller::Tcp) if self.policy.insecure => Reach::Open,
            Some(Caller::Tcp) => Reach::Loopback,
            _ => Reach::Proven,
        }
    }

    // Methods of services.

    fn handle_rpc(
        &mut self,
        now: Now,
        id: ConnectionId,
        call: u64,
        target: Target,
        request: &HttpRequest,
        denied: Option<CallError>,
    ) {
        let streams = self.with_http(id, |http, _| http.streams()).unwrap_or(false);
        let rpc = match Rpc::parse(target, request, streams) {
            Ok(rpc) => rpc,
            Err(response) => return self.say(now, id, call, &response),
        };
        if let Some(error) = denied {
            return self.say(now, id, call, &asking(rpc.refusal(&error), &error));
        }
        let payload = if target.takes_uploads() { Ok(Vec::new()) } else { rpc.request(&request.body) };
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => return self.say(now, id, call, &rpc.refusal(&error)),
        };
        let deadline_ms = rpc.deadline_ms;
        self.expect(id, call, ResponseMode::Rpc(target, Box::new(rpc)));
        match target {
            Target::HealthCheck => self.tell_health(now, id, call, target, &payload),
            Target::HealthWatch | Target::Reflection => match self.check_room(id, false) {
                Err(error) => self.respond(now, id, call, Err(&error)),
                Ok(()) if target == Target::Reflection => self.begin_stream(id, call),
                Ok(()) => self.tell_health(now, id, call, target, &payload),
            },
            Target::Sidecar(_) | Target::AgentLink => {
                let token = bearer(request).to_owned();
                let payload = payload.into();
                let frame = RequestFrame {
                    method: target.number(),
                    payload,
                    deadline_ms,
                    credit: u32::MAX,
                    token,
                    ..RequestFrame::default()
                };
                self.begin(now, id, call, &frame);
            }
        }
    }

    fn tell_health(&mut self, now: Now, id: ConnectionId, call: u64, target: Target, request: &[u8]) {
        let serving = self.serving(now);
        let result = health::service(request);
        if target == Target::HealthCheck {
            let result = result.map(|_| health::response(serving));
            self.with_http(id, |http, out| http.respond_encoded(out, call, result.as_deref()));
        } else {
            let serving = if result.is_ok() { serving } else { Serving::Unknown };
            self.begin_stream(id, call);
            self.with_http(id, |http, out| http.put_item(now.mono, out, call, &health::response(serving)));
            if serving != Serving::Unknown {
                self.health_watchers.push(HealthWatcher { connection: id, call, told: serving });
            }
        }
        self.said(now, id);
    }

    fn serving(&self, now: Now) -> Serving {
        if self.view.is_healthy(now) { Serving::Yes } else { Serving::No }
    }

    /// Sends the health status to its watchers if it changed.
    pub(super) fn follow_health(&mut self, now: Now) {
        if self.health_watchers.is_empty() {
            return;
        }
        let serving = self.serving(now);
        let mut watchers = std::mem::take(&mut self.health_watchers);
        watchers.retain_mut(|HealthWatcher { connection, call, told }| {
            let (id, call) = (*connection, *call);
            if self.with_http(id, |http, _| http.target(call)).flatten() != Some(Target::HealthWatch) {
                return false;
            }
            if std::mem::replace(told, serving) != serving {
                self.with_http(id, |http, out| http.put_item(now.mono, out, call, &health::response(serving)));
                self.said(now, id);
            }
            true
        });
        self.health_watchers = watchers;
    }

    fn handle_upload(&mut self, now: Now, id: ConnectionId, call: u64, bytes: &[u8]) {
        self.with_http(id, |http, _| http.add_upload(call, bytes));
        loop {
            match self.with_http(id, |http, _| http.take_upload(call)) {
                Some(Ok(Some(message))) => self.handle_message(now, id, call, &message),
                Some(Err(error)) => return self.refuse_upload(now, id, call, &error),
                _ => return,
            }
        }
    }

    fn handle_message(&mut self, now: Now, id: ConnectionId, call: u64, message: &[u8]) {
        match self.with_http(id, |http, _| http.target(call)).flatten() {
            Some(Target::Reflection) => {
                self.with_http(id, |http, out| http.put_item(now.mono, out, call, &reflection::answer(message)));
                self.said(now, id);
            }
            Some(_) => self.upload(now, id, call, message),
            None => {}
        }
    }

    fn refuse_upload(&mut self, now: Now, id: ConnectionId, call: u64, error: &CallError) {
        match self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied()) {
            Some(number) => self.finish(now, number, Err::<&Answer, _>(error)),
            None => self.respond(now, id, call, Err(error)),
        }
    }

    fn handle_half_close(&mut self, now: Now, id: ConnectionId, call: u64) {
        if self.with_http(id, |http, _| http.target(call)).flatten() == Some(Target::Reflection) {
            self.with_http(id, |http, out| http.end(out, call));
            return self.said(now, id);
        }
        // Messages that are due to the agent are sent before its stream ends.
        self.settle_fleet(now);
        self.half_close(now, id, call);
    }

    // Routes.

    fn handle_path(&mut self, now: Now, id: ConnectionId, call: u64, request: &HttpRequest, denied: Option<CallError>) {
        let denied = denied.or_else(|| self.check_room(id, false).err());
        match (route::find(request), denied) {
            (Found::Route(route), None) => self.handle_route(now, id, call, route, request),
            (Found::Route(route), Some(_)) if route.open => self.handle_route(now, id, call, route, request),
            (_, Some(error)) => self.say(now, id, call, &asking(http::refusal(&error), &error)),
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

    fn handle_route(&mut self, now: Now, id: ConnectionId, call: u64, route: &Route, request: &HttpRequest) {
        match (route.handler)(self, now, request) {
            Reply::Now(response) => self.say(now, id, call, &response),
            Reply::Call { request: asked, shape } => {
                let Some(role) = request.role else {
                    let error = CallError::new(Code::Internal, "a call of nobody");
                    return self.say(now, id, call, &http::refusal(&error));
                };
                self.expect(id, call, ResponseMode::Plain(shape));
                let terms = Terms { deadline_ms: 0, credit: u32::MAX, bytes: request.body.len() };
                self.carry_out(now, id, call, role, asked, terms);
            }
            // A HEAD request gets the head alone: no stream is opened or taken over.
            Reply::Hold { head, .. } if request.method == "HEAD" => {
                self.say(now, id, call, &Response { body: Body::Whole(bytes::Bytes::new()), ..head });
            }
            Reply::Hold { head, stage } => {
                if let Err(error) = self.web.events.take(self.principal(id)) {
                    return self.say(now, id, call, &http::refusal(&error));
                }
                self.expect(id, call, ResponseMode::Held);
                self.method = NO_METHOD;
                let number = self.register(id, call, stage, None, 0);
                self.with_http(id, |http, out| http.begin(now.mono, out, call, Some(&head)));
                self.said(now, id);
                self.events_begun(now, number);
            }
            Reply::Write { write, shape } => {
                self.expect(id, call, ResponseMode::Plain(shape));
                self.method = NO_METHOD;
                self.write_for(now, id, call, write);
            }
            Reply::Probe(probe) => {
                self.method = NO_METHOD;
                self.begin_probe(now, id, call, probe);
            }
        }
    }

    fn expect(&mut self, id: ConnectionId, call: u64, speech: ResponseMode) {
        self.with_http(id, |http, _| http.expect(call, speech));
    }

    fn with_http<T>(&mut self, id: ConnectionId, work: impl FnOnce(&mut Http, &mut Vec<u8>) -> T) -> Option<T> {
        let (http, out) = self.connections.get_mut(&id)?.http()?;
        Some(work(http, out))
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

    /// Notes output that belongs to no call.
    fn said(&mut self, now: Now, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.replied(now);
        }
        self.queue_output(id);
        self.settle(id);
    }
}

/// Returns the answer to a request that is not read to its end, in the protocol of the request.
fn refuse(request: &HttpRequest, streams: bool, denied: Option<CallError>, refusal: &Refusal) -> Response {
    // A caller without rights gets that error, not the one about its body.
    let status = if denied.is_none() { Some(refusal.status) } else { None };
    let error = denied.unwrap_or_else(|| refusal.error());
    let response = match Target::find(&request.path) {
        Some(Ok(target)) => match Rpc::parse(target, request, streams) {
            Ok(rpc) if rpc.is_plain() => rpc.refusal(&error),
            Ok(rpc) => return rpc.refusal(&error),
            Err(response) => return *response,
        },
        Some(Err(unknown)) => return unimplemented(request, &unknown),
        None => http::refusal(&error),
    };
    let status = status.unwrap_or(response.status);
    asking(Response { status, ..response }, &error)
}

/// Adds `www-authenticate` to an answer that asks for a token.
fn asking(response: Response, error: &CallError) -> Response {
    match error.code {
        Code::Unauthenticated => response.with("www-authenticate", "Bearer"),
        _ => response,
    }
}

/// Returns the bearer token of a request; empty if there is none.
fn bearer(request: &HttpRequest) -> &str {
    let value = request.headers.get("authorization").unwrap_or("");
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    }
}
