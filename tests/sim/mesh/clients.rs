//! Direct clients of the engines: writers on any running node, and operators that stop, start, connect and disconnect.

use std::collections::BTreeMap;

use peat_node::store::{DocumentWrite, Envelope, Error, Key, Outcome, Put, Reply, StoreRequest, Ticket};
use peat_node::sync::{Answer, Control, ControlError, ControlRequest, Event};

use crate::mesh::Mail;
use crate::seeds::Violation;
use crate::workload;

/// An unanswered call.
#[derive(Debug)]
enum Call {
    Write { key: Key, put: Put },
    StopSync,
    Other,
}

/// First call number of clients that use the engines directly; the api engine counts from 1.
pub const DIRECT: u64 = 1 << 48;

/// All direct clients of one node, for one of its lives.
#[derive(Debug, Default)]
pub struct Clients {
    next: u64,
    calls: BTreeMap<u64, Call>,
    pub answered: u64,
}

/// Effect of an answer on the state of its node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Learned {
    Nothing,
    FellSilent,
}

impl Clients {
    fn call(&mut self, call: Call) -> u64 {
        self.next += 1;
        self.calls.insert(DIRECT + self.next, call);
        DIRECT + self.next
    }

    /// Returns the number of unanswered calls.
    pub fn outstanding(&self) -> usize {
        self.calls.len()
    }

    /// Creates a write for the store.
    pub fn write(&mut self, key: Key, put: Put, durable: bool) -> Mail {
        let copy = workload::copy(&put);
        let call = self.call(Call::Write { key: key.clone(), put: copy });
        let request = StoreRequest::Write(DocumentWrite { key, put, durable });
        Mail::Submitted(Envelope { ticket: Ticket::Api(call), request })
    }

    /// Creates another request for the store.
    pub fn submit(&mut self, request: StoreRequest) -> Mail {
        let call = self.call(Call::Other);
        Mail::Submitted(Envelope { ticket: Ticket::Api(call), request })
    }

    /// Creates a request for the sync engine.
    pub fn ask(&mut self, control: Control) -> Mail {
        let call = self.call(if matches!(control, Control::StopSync) { Call::StopSync } else { Call::Other });
        Mail::Asked(ControlRequest { call, control })
    }

    /// Drops all calls: the node was switched off.
    pub fn hang_up(&mut self) {
        self.calls.clear();
    }

    /// Handles a reply of the store.
    pub fn reply(&mut self, reply: Reply, troubled: bool) -> Result<(), Violation> {
        let Ticket::Api(number) = reply.ticket else { return Ok(()) };
        let Some(call) = self.calls.remove(&number) else {
            return Err(Violation::new("every request is answered once", format!("{number} was answered again")));
        };
        self.answered += 1;
        let Call::Write { key, put } = call else { return Ok(()) };
        match reply.result {
            Ok(Outcome::Written { .. }) => Ok(()),
            Err(Error::DiskFull | Error::Io(_)) if troubled => Ok(()),
            Err(Error::NotFound(_) | Error::NoHistory(_)) if matches!(put, Put::Compact) => Ok(()),
            other => Err(Violation::new("no unexpected error", format!("{put:?} to {key}: {other:?}"))),
        }
    }

    /// Handles an event of the sync engine.
    pub fn event(&mut self, event: Event, troubled: bool) -> Result<Learned, Violation> {
        let Event::Answered { call: number, answer } = event else { return Ok(Learned::Nothing) };
        let Some(call) = self.calls.remove(&number) else {
            return Err(Violation::new("every request is answered once", format!("{number} was answered again")));
        };
        self.answered += 1;
        match (call, answer) {
            (Call::StopSync, Ok(Answer::Done)) => Ok(Learned::FellSilent),
            (_, Ok(_)) => Ok(Learned::Nothing),
            (_, Err(ControlError::NotSaved(_))) if troubled => Ok(Learned::Nothing),
            (_, Err(ControlError::Unknown(_) | ControlError::NoAddress(_))) => Ok(Learned::Nothing),
            (Call::StopSync, Err(ControlError::StartedAgain)) => Ok(Learned::Nothing),
            (call, Err(error)) => Err(Violation::new("no unexpected error", format!("{call:?}: {error:?}"))),
        }
    }
}
