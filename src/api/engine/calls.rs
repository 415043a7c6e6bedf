//! Life of a call: begin, wait for the store or the sync thread, answer, cancel, time out.

use std::time::{Duration, Instant};

use peat_ipc::envelope::Request as RequestFrame;
use peat_ipc::method::{AGENT_LINK, Request, Response};
use peat_ipc::{CallError, Code, Method};

use super::{Engine, Principal};
use crate::api::Role;
use crate::api::call::{self, AgentEffect, Call, CallStage, NO_METHOD};
use crate::api::commands::RequestContext;
use crate::api::connection::ConnectionId;
use crate::api::dispatch::{self, BuildAnswer, BuildResponse, CommittedWrite, Dispatched, OnCommit};
use crate::api::timers::Wake;
use crate::clock::Now;
use crate::fleet::{COLLECTION, Owner, StreamId};
use crate::limits::{CONNECTION_CALLS, STORE_QUEUE};
use crate::schema;
use crate::store::{DocumentWrite, Envelope, Outcome, Put, Reply, Ticket};
use crate::sync::{Answer, Control, ControlError, ControlRequest, Event};

/// Time before the deadline of a ConnectPeer at which the sync thread must give its reason, so that the caller receives it; at
/// most a fifth of the whole time.
const WORDS_AHEAD: Duration = Duration::from_millis(500);

/// Parameters of a call beside its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Deadline in milliseconds; 0 for the method's default.
    pub(super) deadline_ms: u32,
    /// Initial credit: number of stream items the client takes.
    pub(super) credit: u32,
    /// Bytes the request is charged for while it is unanswered.
    pub(super) bytes: usize,
}

impl Engine {
    /// Handles a reply of the store.
    pub fn handle_reply(&mut self, now: Now, reply: Reply) {
        self.arrive(now);
        self.store_outstanding -= 1;
        self.view.note_answer(now, self.store_outstanding, &reply.result);
        if let Ticket::Api(number) = reply.ticket
            && !self.own_written(now, number, &reply.result)
        {
            self.written(now, number, reply.result.map_err(CallError::from));
        }
        self.release_held(now);
        self.done(now);
    }

    /// Handles an event of the sync engine.
    pub fn handle_event(&mut self, now: Now, event: Event) {
        self.arrive(now);
        match event {
            Event::Status(status) => self.view.set_status(status),
            Event::Answered { call, answer } => self.answered(now, call, answer),
            Event::Presence(node) => self.fleet.handle_presence(now, node),
            Event::Notices(notices) => self.view.set_notices(notices),
        }
        self.done(now);
    }

    /// Begins a call from a frame; answers it at once where possible.
    pub(super) fn begin(&mut self, now: Now, id: ConnectionId, call: u64, frame: &RequestFrame) {
        let role = match self.admit(id, &frame.token) {
            Ok(_) if frame.method == AGENT_LINK => match self.check_room(id, false) {
                Ok(()) => return self.begin_link(now, id, call, frame),
                Err(error) => return self.refuse(now, id, call, frame.method, &error),
            },
            Ok(role) => role,
            Err(error) => return self.refuse(now, id, call, frame.method, &error),
        };
        let method = Method::from_number(frame.method).ok_or_else(|| {
            CallError::new(Code::Unimplemented, format!("there is no method with number {}", frame.method))
        });
        let request = method.and_then(|method| {
            call::affordable(schema::method(method).0, method.name(), &frame.payload)?;
            Request::decode(method, &frame.payload)
                .map_err(|error| CallError::new(Code::InvalidArgument, format!("{}: {error}", method.name())))
        });
        let terms = Terms { deadline_ms: frame.deadline_ms, credit: frame.credit, bytes: frame.payload.len() };
        match request {
            Ok(request) => self.carry_out(now, id, call, role, request, terms),
            Err(error) => self.refuse(now, id, call, frame.method, &error),
        }
    }

    /// Carries out a decoded request with the rights of `role`.
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        id: ConnectionId,
        call: u64,
        role: Role,
        request: Request,
        terms: Terms,
    ) {
        let (method, owner) = (request.method(), self.owner(id).unwrap_or(Owner::Nobody));
        self.method = method.number();
        let known = RequestContext {
            fleet: &self.fleet,
            commands: &self.commands,
            now,
            owner,
            role,
            open_documents: self.policy.open_documents,
        };
        let room = self.check_room(id, matches!(method, Method::GetHealth | Method::GetStatus));
        let step = room.and_then(|()| dispatch::begin(&mut self.view, &known, request));
        let step = step.and_then(|step| self.check_watcher(now, id, &step).map(|()| step));
        match step {
            Ok(Dispatched::Answer(response)) => {
                self.count(method.number(), None, now.mono);
                self.respond(now, id, call, Ok(&response));
            }
            Ok(step) => self.wait(now, id, call, method, terms, step),
            Err(error) => self.refuse(now, id, call, method.number(), &error),
        }
    }

    /// Counts a call that ended now, with its outcome and duration.
    pub(super) fn count(&self, method: u32, code: Option<Code>, begun: Instant) {
        if method != NO_METHOD {
            self.rpcs.note(method, code, self.latest.mono.saturating_duration_since(begun));
        }
    }

    /// Counts and answers a call that does not begin.
    pub(super) fn refuse(&mut self, now: Now, id: ConnectionId, call: u64, method: u32, error: &CallError) {
        self.count(method, Some(error.code), now.mono);
        self.respond(now, id, call, Err(error));
    }

    /// Rejects a write of the watcher while the watched agent reports for itself.
    fn check_watcher(&self, now: Now, id: ConnectionId, step: &Dispatched) -> Result<(), CallError> {
        let watcher = matches!(step, Dispatched::Write { .. }) && self.owner(id) == Some(Owner::Watcher);
        if watcher && self.fleet.speaks_for_itself(now, self.view.watched_agent()) {
            Err(CallError::new(Code::FailedPrecondition, "the agent speaks for itself"))
        } else {
            Ok(())
        }
    }

    /// Checks the limit of unfinished calls, and returns the role of the caller.
    pub(super) fn admit(&self, id: ConnectionId, token: &str) -> Result<Role, CallError> {
        let Some(connection) = self.connections.get(&id) else {
            return Err(CallError::new(Code::Internal, "the connection is gone"));
        };
        if connection.calls.len() >= CONNECTION_CALLS {
            let message = format!("{CONNECTION_CALLS} calls are unfinished on this connection, which is the limit");
            return Err(CallError::new(Code::ResourceExhausted, message));
        }
        match connection.role {
            Some(role) => Ok(role),
            None => self.policy.role(&connection.caller, token),
        }
    }

    /// Registers a call that is not answered yet, and submits its work.
    fn wait(&mut self, now: Now, id: ConnectionId, call: u64, method: Method, terms: Terms, step: Dispatched) {
        let waits_for_peers = matches!(&step, Dispatched::Write { then, .. } if then.peers > 0);
        let Terms { deadline_ms, credit, bytes } = terms;
        let deadline = call::limit(method, deadline_ms, waits_for_peers).map(|limit| now.after(limit));
        match step {
            Dispatched::Answer(_) => {}
            Dispatched::Write { write, then } => {
                let meaning = self.meaning_of(id, &write).map(Box::new);
                let number = self.register(id, call, CallStage::Writing { then, meaning }, deadline, bytes);
                let request = crate::store::StoreRequest::Write(write);
                self.submit(now, id, Envelope { ticket: Ticket::Api(number), request });
            }
            Dispatched::Ask { mut control, answered } => {
                if let (Control::Connect { wait: Some(wait), .. }, Some(limit)) =
                    (&mut control, call::limit(method, deadline_ms, false))
                {
                    // The sync thread must give its reason before the call's deadline passes.
                    *wait = limit - WORDS_AHEAD.min(limit / 5);
                }
                self.ask(now, id, call, control, answered, deadline);
            }
            Dispatched::Stream(mut feed) => {
                if let Err(error) = self.subscriptions.take(self.principal(id)) {
                    return self.refuse(now, id, call, method.number(), &error);
                }
                feed.grant(credit);
                let number = self.register(id, call, CallStage::Streaming(Box::new(feed)), deadline, bytes);
                self.streams.insert(number);
                self.begin_stream(id, call);
                self.advance_stream(now, number);
            }
            Dispatched::Watch(mut watch) => {
                if let Err(error) = self.subscriptions.take(self.principal(id)) {
                    return self.refuse(now, id, call, method.number(), &error);
                }
                watch.grant(credit);
                let number = self.register(id, call, CallStage::Watching(Box::new(watch)), deadline, bytes);
                self.watchers.insert(number);
                self.begin_stream(id, call);
                self.advance_watch(now, number);
            }
        }
    }

    /// Submits a write to a command on behalf of a route; the answer holds the status of each target after it.
    #[cfg(feature = "http")]
    pub(super) fn write_for(&mut self, now: Now, id: ConnectionId, call: u64, write: DocumentWrite) {
        let respond = BuildResponse::FromCommand(|held, now| crate::api::commands::cancelled(held, now).into());
        let then = OnCommit { key: write.key.hash(), peers: 0, respond };
        let terms = Terms { deadline_ms: 0, credit: 0, bytes: 0 };
        self.wait(now, id, call, Method::PutCommand, terms, Dispatched::Write { write, then });
    }

    fn meaning_of(&self, id: ConnectionId, write: &DocumentWrite) -> Option<AgentEffect> {
        let agent = write.key.id().to_owned();
        match (write.key.collection(), &write.put) {
            ("platforms", Put::Whole { .. } | Put::Patch { .. } | Put::Fields(_)) => {
                Some(AgentEffect::Seen(agent, self.owner(id)?))
            }
            (COLLECTION, Put::Delete) => Some(AgentEffect::Removed(agent)),
            _ => None,
        }
    }

    pub(super) fn register(
        &mut self,
        connection: ConnectionId,
        id: u64,
        stage: CallStage,
        deadline: Option<Instant>,
        bytes: usize,
    ) -> u64 {
        self.last_call += 1;
        let number = self.last_call;
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.calls.insert(id, number);
            connection.request_bytes += bytes;
        }
        self.timers.change(Wake::Call(number), None, deadline);
        let (method, begun) = (self.method, self.latest.mono);
        let principal = self.principal(connection);
        self.calls.insert(number, Call { connection, principal, id, stage, deadline, method, begun, bytes });
        number
    }

    /// Returns the principal that a connection's calls are charged to.
    pub(super) fn principal(&self, id: ConnectionId) -> Principal {
        self.connections.get(&id).map_or(Principal::Tcp, |connection| connection.principal)
    }

    /// Submits a write to the store, or holds it with its connection until the queue has room.
    fn submit(&mut self, now: Now, id: ConnectionId, submitted: Envelope) {
        if self.store_outstanding < STORE_QUEUE {
            self.store_outstanding += 1;
            self.view.note_request(now);
            self.to_store.push_back(submitted);
        } else if let Some(connection) = self.connections.get_mut(&id) {
            connection.held = Some(submitted);
            self.waiting.push_back(id);
        }
    }

    /// Submits held writes while the queue has room, and continues their connections.
    fn release_held(&mut self, now: Now) {
        while self.store_outstanding < STORE_QUEUE {
            let Some(id) = self.waiting.pop_front() else { return };
            let Some(submitted) = self.connections.get_mut(&id).and_then(|connection| connection.held.take()) else {
                continue;
            };
            // A call that was cancelled or timed out in the meantime is not carried out.
            if let Ticket::Api(number) = submitted.ticket
                && self.calls.contains_key(&number)
            {
                self.submit(now, id, submitted);
            }
            self.advance(now, id);
        }
    }

    fn ask(
        &mut self,
        now: Now,
        id: ConnectionId,
        call: u64,
        control: Control,
        answered: BuildAnswer,
        deadline: Option<Instant>,
    ) {
        match self.questions.take(self.principal(id)) {
            Ok(()) => {
                let number = self.register(id, call, CallStage::Asking(answered), deadline, 0);
                self.to_sync.push_back(ControlRequest { call: number, control });
            }
            Err(error) => self.refuse(now, id, call, self.method, &error),
        }
    }

    /// Handles the outcome of a client's write.
    fn written(&mut self, now: Now, number: u64, result: Result<Outcome, CallError>) {
        let Some(Call { stage: CallStage::Writing { then, meaning }, .. }) = self.calls.get_mut(&number) else {
            return;
        };
        let (then, meaning) = (*then, meaning.take().filter(|_| result.is_ok()));
        match meaning.map(|meaning| *meaning) {
            Some(AgentEffect::Seen(agent, owner)) => self.note_sign(now, &agent, owner),
            Some(AgentEffect::Removed(agent)) => self.fleet.handle_record(now, &agent, None),
            None => {}
        }
        match result {
            Ok(Outcome::Written { version, sequence, durable, dropped_bytes }) => {
                let written = CommittedWrite { version: version.0, durable, dropped_bytes };
                match self.response(now, then, written) {
                    Ok(response) => self.confirm(now, number, then, sequence, response),
                    Err(error) => self.finish(now, number, Err(&error)),
                }
            }
            Ok(_) => {
                let error = CallError::new(Code::Internal, "the store answered another question");
                self.finish(now, number, Err(&error));
            }
            Err(error) => self.finish(now, number, Err(&error)),
        }
    }

    fn response(&mut self, now: Now, then: OnCommit, written: CommittedWrite) -> Result<Response, CallError> {
        match then.respond {
            BuildResponse::FromWrite(respond) => Ok(respond(written)),
            BuildResponse::FromCommand(respond) => {
                let snapshot = self.view.snapshot()?;
                let held = snapshot.record(&then.key)?.and_then(|record| snapshot.view(&record));
                Ok(respond(held.as_ref(), now))
            }
        }
    }

    /// Answers a committed write, once enough peers have confirmed it.
    fn confirm(&mut self, now: Now, number: u64, then: OnCommit, sequence: u64, response: Response) {
        if then.peers == 0 {
            return self.finish(now, number, Ok(&response));
        }
        let principal = self.calls.get(&number).map_or(Principal::Tcp, |call| call.principal);
        match self.questions.take(principal) {
            Err(error) => {
                let message = format!("the write stands, but nobody waits for its peers: {}", error.message);
                self.finish(now, number, Err(&CallError::new(error.code, message)));
            }
            Ok(()) => {
                let control = Control::WaitPeers { key: then.key, sequence, peers: then.peers };
                self.to_sync.push_back(ControlRequest { call: number, control });
                if let Some(call) = self.calls.get_mut(&number) {
                    call.stage = CallStage::AwaitingPeers { peers: then.peers, response };
                }
            }
        }
    }

    /// Handles an answer of the sync engine.
    fn answered(&mut self, now: Now, number: u64, answer: Result<Answer, ControlError>) {
        #[cfg(feature = "http")]
        let Some(answer) = self.probed_sync(now, number, answer) else { return };
        let Some(call) = self.calls.get_mut(&number) else { return };
        let result = match &call.stage {
            CallStage::Asking(answered) => {
                let answered = *answered;
                answer.map_err(CallError::from).and_then(|answer| {
                    answered(answer).ok_or_else(|| CallError::new(Code::Internal, "sync answered another question"))
                })
            }
            CallStage::AwaitingPeers { response, .. } => answer.map(|_| response.clone()).map_err(CallError::from),
            _ => return,
        };
        self.finish(now, number, result.as_ref());
    }

    pub(super) fn cancel(&mut self, now: Now, id: ConnectionId, call: u64) {
        let number = self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied());
        if let Some(number) = number {
            self.forget(number);
            // Requests behind a held write that is cancelled now may continue.
            self.release_held(now);
        }
    }

    pub(super) fn time_out(&mut self, now: Now, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.deadline = None;
        #[cfg(feature = "http")]
        if self.time_out_route(now, number) {
            return;
        }
        let Some(call) = self.calls.get(&number) else { return };
        let error = call.stage.timed_out();
        if let Some(call) = self.forget_for(number, error.code) {
            self.respond(now, call.connection, call.id, Err(&error));
        }
    }

    /// Ends a call with its answer.
    pub(super) fn finish(&mut self, now: Now, number: u64, result: Result<&Response, &CallError>) {
        if let Some(call) = self.end(number) {
            self.count(call.method, result.err().map(|error| error.code), call.begun);
            self.respond(now, call.connection, call.id, result);
        }
    }

    /// Drops a call after its client cancelled it or disconnected; it is counted as cancelled.
    pub(super) fn forget(&mut self, number: u64) -> Option<Call> {
        self.forget_for(number, Code::Cancelled)
    }

    fn forget_for(&mut self, number: u64, code: Code) -> Option<Call> {
        let call = self.end(number)?;
        self.count(call.method, Some(code), call.begun);
        if matches!(call.stage, CallStage::AwaitingPeers { .. }) {
            self.to_sync.push_back(ControlRequest { call: number, control: Control::Abandon { call: number } });
        }
        Some(call)
    }

    pub(super) fn end(&mut self, number: u64) -> Option<Call> {
        let call = self.calls.remove(&number)?;
        self.timers.change(Wake::Call(number), call.deadline, None);
        if let Some(connection) = self.connections.get_mut(&call.connection) {
            connection.calls.remove(&call.id);
            connection.request_bytes -= call.bytes;
        }
        match call.stage {
            CallStage::Writing { .. } => {}
            CallStage::Streaming(_) => {
                self.streams.remove(&number);
                self.subscriptions.give(call.principal);
            }
            CallStage::Watching(_) => {
                self.watchers.remove(&number);
                self.subscriptions.give(call.principal);
            }
            CallStage::Link(_) => {
                self.links.give(call.principal);
                self.fleet.handle_dropped(self.latest, StreamId(number));
            }
            // A late answer of the sync engine finds no call and is ignored, so the request stops counting now.
            CallStage::Asking(_) | CallStage::AwaitingPeers { .. } => self.questions.give(call.principal),
            #[cfg(feature = "http")]
            CallStage::Probing(ref probe) if probe.asked_sync => self.questions.give(call.principal),
            #[cfg(feature = "http")]
            CallStage::Probing(_) => {}
            #[cfg(feature = "http")]
            CallStage::Events(ref events) => {
                self.web.events.give(call.principal);
                self.events_ended(number, &events.agent);
            }
        }
        Some(call)
    }

    pub(super) fn respond(&mut self, now: Now, id: ConnectionId, call: u64, result: Result<&Response, &CallError>) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.respond(now, call, result);
            if connection.has_pipelined() {
                self.answered.push(id);
            }
        }
        self.queue_output(id);
        self.settle(id);
    }
}
