//! Opening and closing of connections: admission, timeouts, and final answers.

use peat_ipc::CallError;

use super::{Closed, Engine, Refused};
use crate::api::caller::Caller;
use crate::api::connection::{Connection, ConnectionId};
use crate::api::timers::Wake;
use crate::clock::Now;
use crate::limits::{CLIENT_IDLE, HEALTH_CONNECTIONS};

impl Engine {
    /// Handles a new connection. A connection over the limit is admitted too, but may ask only for the node's health.
    ///
    /// # Errors
    /// The node is shutting down.
    pub fn handle_open(&mut self, now: Now, id: ConnectionId, caller: Caller) -> Result<(), Refused> {
        self.arrive(now);
        if self.view.shutting_down {
            return Err(Refused);
        }
        let role = self.policy.role(&caller, "").ok();
        let mut connection = Connection::new(now, caller, role);
        if let Err(error) = self.admitted.take(connection.principal) {
            connection.only_health = Some(error);
            if self.only_health.len() >= HEALTH_CONNECTIONS
                && let Some(oldest) = self.only_health.front().copied()
            {
                self.give_up(oldest, "another client asks for the node's health".to_owned());
            }
            self.only_health.push_back(id);
        }
        connection.timer = connection.deadline();
        self.timers.change(Wake::Connection(id), None, connection.timer);
        self.connections.insert(id, connection);
        Ok(())
    }

    /// Handles a closed connection: its calls are dropped; writes already submitted are still carried out.
    pub fn handle_closed(&mut self, now: Now, id: ConnectionId) {
        self.arrive(now);
        self.drop_connection(id);
        self.done(now);
    }

    /// Checks that a call may be made: on a connection over the limit, only one that asks for the node's health.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, naming the limit that is reached.
    pub(super) fn check_room(&self, id: ConnectionId, asks_for_health: bool) -> Result<(), CallError> {
        let refused = self.connections.get(&id).and_then(|connection| connection.only_health.clone());
        match refused {
            Some(error) if !asks_for_health => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes a connection because of an error, which is sent first if the client's codec is known.
    pub(super) fn fail(&mut self, now: Now, id: ConnectionId, error: &CallError) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.closing.is_some() {
            return;
        }
        if connection.is_understood() {
            connection.respond(now, 0, Err(error));
            connection.pump(now.mono);
        }
        if connection.output().is_empty() {
            return self.give_up(id, error.to_string());
        }
        connection.close(now, error.to_string(), !self.view.shutting_down);
        let calls: Vec<u64> = connection.calls.values().copied().collect();
        for number in calls {
            self.forget(number);
        }
        self.queue_output(id);
        self.settle(id);
    }

    pub(super) fn time_out_connection(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.timer = None;
        // The order matters: a keep-alive or the end of one stalled stream saves the connection, so both come before the timeouts
        // that close it.
        match connection.closing.take() {
            Some((reason, _)) => self.give_up(id, reason),
            None if connection.health_until().is_some_and(|at| now.reached(at)) => {
                self.give_up(id, "there is no room for more connections".to_owned());
            }
            None if connection.keep_alive(now) => {
                self.queue_output(id);
                self.settle(id);
            }
            None if connection.end_stalled(now) => self.advance(now, id),
            None if connection.idle_since().is_some_and(|since| now.reached(since + CLIENT_IDLE)) => {
                self.give_up(id, "nothing was asked for long".to_owned());
            }
            None if connection.output().is_empty() => {
                let error = connection.too_slow();
                self.fail(now, id, &error);
            }
            // The client takes no output, so a final answer would not arrive either.
            None => {
                let reason = connection.too_slow().to_string();
                self.give_up(id, reason);
            }
        }
    }

    /// Ends a closing connection that has written everything. If the client may still be sending, the connection is shut for
    /// writing first.
    pub(super) fn end_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.lingers() && !connection.is_shut {
            connection.is_shut = true;
            self.shut.push_back(id);
            self.settle(id);
        } else if !connection.lingers()
            && let Some((reason, _)) = connection.closing.take()
        {
            self.give_up(id, reason);
        }
    }

    pub(super) fn give_up(&mut self, id: ConnectionId, reason: String) {
        self.drop_connection(id);
        self.closed.push_back(Closed { connection: id, reason });
    }

    pub(super) fn drop_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        match connection.only_health {
            Some(_) => self.only_health.retain(|other| *other != id),
            None => self.admitted.give(connection.principal),
        }
        self.timers.change(Wake::Connection(id), connection.timer, None);
        self.buffered_in -= connection.counted.0;
        self.buffered_out -= connection.counted.1;
        for number in connection.calls.into_values() {
            self.forget(number);
        }
    }
}
