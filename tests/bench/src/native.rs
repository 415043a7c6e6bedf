//! The node's native IPC as a caller.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bench_peers::{Caller, Failure, Sizes};
use peat_ipc::envelope::frame::Body;
use peat_ipc::envelope::{Frame, Request};
use peat_ipc::prost::Message;
use peat_ipc::{CallOptions, Client, Rpc};

/// Repeats the same call.
pub(crate) struct Native<R> {
    client: Client,
    request: R,
}

impl<R: Rpc> Native<R> {
    pub(crate) fn new(client: Client, request: R) -> Native<R> {
        Native { client, request }
    }

    /// Returns the bytes that the call moves over the socket in each direction, for the echo.
    pub(crate) fn sizes(&mut self) -> Result<Sizes, Failure> {
        let response = self.client.call(&self.request, CallOptions::default())?;
        let payload = self.request.encode_to_vec().into();
        let request = Body::Request(Request { method: R::METHOD.number(), payload, ..Default::default() });
        Ok(Sizes { request: framed(request), response: framed(Body::Response(response.encode_to_vec().into())) })
    }
}

/// Returns the size of a frame with a two-byte call id, the most frequent size.
fn framed(body: Body) -> usize {
    Frame { call: 300, body: Some(body) }.encode_length_delimited_to_vec().len()
}

impl<R: Rpc> Caller for Native<R> {
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure> {
        for _ in 0..calls {
            let begun = Instant::now();
            self.client.call(&self.request, CallOptions::default())?;
            took.push(begun.elapsed());
        }
        Ok(())
    }

    fn in_flight(&mut self, calls: usize, width: usize) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let mut flying = VecDeque::with_capacity(width);
        for _ in 0..calls {
            if let Some(oldest) = (flying.len() == width).then(|| flying.pop_front()).flatten() {
                self.client.finish(oldest)?;
            }
            flying.push_back(self.client.start(&self.request)?);
        }
        flying.into_iter().try_for_each(|call| self.client.finish(call).map(drop))?;
        Ok(begun.elapsed())
    }
}
