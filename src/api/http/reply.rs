//! What a route makes of a request.

use std::fmt;

use peat_ipc::CallError;
use peat_ipc::method;

use super::message::Response;
use super::probe::Probe;
use crate::api::call::Stage;
use crate::store::Write;

/// What a handler says.
#[derive(Debug)]
pub(in crate::api) enum Reply {
    /// The answer is known at once.
    Now(Response),
    /// A call like any other is to be carried out with the caller's rights; `shape` makes HTTP of what comes of it.
    Call { request: method::Request, shape: Shape },
    /// A write of the node's own making; `shape` makes HTTP of what the store says of it.
    Write { write: Write, shape: Shape },
    /// Other threads are asked for what the answer is made of.
    Probe(Probe),
    /// The head is sent, and the stream held open: `stage` becomes the call's, and what it gives is sent with
    /// [`Connection::put_bytes`](crate::api::connection::Connection::put_bytes), while there is room.
    Hold { head: Response, stage: Stage },
}

type Whole = Box<dyn FnOnce(Result<&method::Response, &CallError>) -> Response + Send>;

/// How what a call gives is said.
pub(in crate::api) struct Shape {
    /// The answer of a unary call, or its error.
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
