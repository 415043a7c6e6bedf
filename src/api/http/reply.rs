//! Results of route handlers.

use std::fmt;

use peat_ipc::CallError;
use peat_ipc::method;

use super::message::Response;
use super::probe::Probe;
use crate::api::call::CallStage;
use crate::store::DocumentWrite;

/// The result of a route handler.
#[derive(Debug)]
pub(in crate::api) enum Reply {
    /// Answer at once.
    Now(Response),
    /// Carry out a call with the caller's rights; `shape` makes the response of its result.
    Call { request: method::Request, shape: Shape },
    /// Submit a write that the node itself made; `shape` makes the response of its outcome.
    Write { write: DocumentWrite, shape: Shape },
    /// Ask other threads before answering.
    Probe(Probe),
    /// Send the head and hold the stream open: `stage` becomes the call's, and its output is sent with
    /// [`Connection::put_bytes`](crate::api::connection::Connection::put_bytes), while there is room.
    Hold { head: Response, stage: CallStage },
}

type Whole = Box<dyn FnOnce(Result<&method::Response, &CallError>) -> Response + Send>;

/// Converts the result of a call to a response.
pub(in crate::api) struct Shape {
    /// Converts the response of a unary call, or its error.
    pub(in crate::api) whole: Whole,
}

impl Shape {
    pub(in crate::api) fn unary(
        whole: impl FnOnce(Result<&method::Response, &CallError>) -> Response + Send + 'static,
    ) -> Shape {
        Shape { whole: Box::new(whole) }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shape")
    }
}
