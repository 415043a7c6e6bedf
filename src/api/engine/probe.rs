//! Probes: routes that ask other threads before they answer.

use super::{Engine, InternalWrite};
use crate::api::call::{Call, CallStage};
use crate::api::connection::ConnectionId;
use crate::api::http::events::PING;
use crate::api::http::message::{HttpRequest, Response};
use crate::api::http::probe::{PATIENCE, Probe};
use crate::api::http::reply::Reply;
use crate::api::timers::Wake;
use crate::clock::Now;
use crate::store;
use crate::sync::{Answer, Control, ControlError, ControlRequest};

impl Engine {
    /// `GET /healthz`: 200 if every thread answers.
    pub(in crate::api) fn route_healthz(&mut self, _now: Now, _request: &HttpRequest) -> Reply {
        Reply::Probe(Probe::all(|engine, _, probe| {
            let mut silent: Vec<&str> = probe.silent().collect();
            silent.extend(engine.view.silent().iter().copied().filter(|thread| !probe.silent().any(|s| s == *thread)));
            match silent.as_slice() {
                [] => Response::text(200, "ok"),
                silent => Response::text(503, format!("no answer from: {}", silent.join(", "))),
            }
        }))
    }

    /// `GET /readyz`: 200 once the database is readable and a peer was tried.
    pub(in crate::api) fn route_readyz(&mut self, _now: Now, _request: &HttpRequest) -> Reply {
        Reply::Now(match self.view.unready() {
            None => Response::text(200, "ready"),
            Some(why) => Response::text(503, why),
        })
    }

    /// Sends the questions of a probe. A thread that cannot be asked counts as silent.
    pub(super) fn begin_probe(&mut self, now: Now, id: ConnectionId, call: u64, mut probe: Probe) {
        probe.asked_sync = probe.sync_owes && self.questions.take(self.principal(id)).is_ok();
        let (asked_sync, of_store) = (probe.asked_sync, probe.of_store && self.has_room_of_its_own());
        let number = self.register(id, call, CallStage::Probing(probe), Some(now.after(PATIENCE)), 0);
        if asked_sync {
            self.to_sync.push_back(ControlRequest { call: number, control: Control::Measure });
        }
        if of_store {
            self.submit_request(now, InternalWrite::Probe(number), store::StoreRequest::Nothing);
        }
    }

    fn probe_of(&mut self, number: u64) -> Option<&mut Probe> {
        match self.calls.get_mut(&number) {
            Some(Call { stage: CallStage::Probing(probe), .. }) => Some(probe),
            _ => None,
        }
    }

    /// Handles an answer of the sync thread to a probe; returns the answer if the call is not a probe.
    pub(super) fn probed_sync(
        &mut self,
        now: Now,
        number: u64,
        answer: Result<Answer, ControlError>,
    ) -> Option<Result<Answer, ControlError>> {
        let Some(probe) = self.probe_of(number) else { return Some(answer) };
        probe.sync_owes = false;
        if let Ok(Answer::Measured(measured)) = answer {
            probe.measured = Some(measured);
        }
        self.end_probe(now, number, false);
        None
    }

    /// Handles the reply of the store to a probe.
    pub(super) fn probed_store(&mut self, now: Now, number: u64) {
        if let Some(probe) = self.probe_of(number) {
            probe.store_owes = false;
            self.end_probe(now, number, false);
        }
    }

    fn end_probe(&mut self, now: Now, number: u64, late: bool) {
        if !late && !self.probe_of(number).is_some_and(|probe| probe.is_complete()) {
            return;
        }
        let Some(Call { stage: CallStage::Probing(probe), connection, id, .. }) = self.end(number) else { return };
        let response = (probe.answer)(self, now, &probe);
        self.say(now, connection, id, &response);
    }

    /// Handles the deadline of a route's call; returns false if the call is not a route's.
    pub(super) fn time_out_route(&mut self, now: Now, number: u64) -> bool {
        match self.calls.get(&number).map(|call| &call.stage) {
            Some(CallStage::Probing(_)) => self.end_probe(now, number, true),
            Some(CallStage::Events(_)) => {
                self.ping(now, number);
                self.wake_at(number, now.after(PING));
            }
            _ => return false,
        }
        true
    }

    /// Sets the next deadline of a call, in place of the one that passed.
    pub(super) fn wake_at(&mut self, number: u64, at: std::time::Instant) {
        if let Some(call) = self.calls.get_mut(&number) {
            let before = call.deadline.replace(at);
            self.timers.change(Wake::Call(number), before, Some(at));
        }
    }
}
