//! One request over HTTP/2 and its answer, with the progress of both.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::api::http::message::HttpRequest;
use crate::api::http::{Event, Refusal};
use crate::limits::{FRAME_STALL, HTTP_BODY_BYTES};

/// One request and its answer.
pub(super) struct Stream {
    pub(super) begun: Option<Instant>,
    /// Set until the request is complete.
    pub(super) receiving: Option<RecvStream>,
    /// Set until the request is passed on.
    pub(super) request: Option<Box<HttpRequest>>,
    pub(super) body: BytesMut,
    /// True if received data is passed on in pieces.
    pub(super) uploads: bool,
    /// Set until the head of the answer is sent.
    pub(super) respond: Option<SendResponse<Bytes>>,
    pub(super) sending: Option<SendStream<Bytes>>,
    /// Output for which the client's window has no room yet.
    pub(super) pending: BytesMut,
    /// Time since which the window has had no room.
    pub(super) stuck: Option<Instant>,
    /// Set once `pending` is final: the trailers that follow it, empty for none.
    pub(super) end: Option<HeaderMap>,
    pub(super) head_only: bool,
}

/// The client has reset the stream.
pub(super) struct Lost;

impl Stream {
    pub(super) fn read(
        &mut self,
        call: u64,
        context: &mut Context<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Lost> {
        while let Some(receiving) = &mut self.receiving {
            match receiving.poll_data(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(bytes))) => {
                    // Fails only if the stream is over, where the window no longer matters.
                    let _ = receiving.flow_control().release_capacity(bytes.len());
                    self.take(call, bytes, events);
                }
                Poll::Ready(Some(Err(_))) => return Err(Lost),
                Poll::Ready(None) => {
                    self.receiving = None;
                    self.complete(call, events);
                }
            }
        }
        let reset = match (&mut self.respond, &mut self.sending) {
            (Some(respond), _) => respond.poll_reset(context).is_ready(),
            (None, Some(sending)) => sending.poll_reset(context).is_ready(),
            (None, None) => false,
        };
        if reset { Err(Lost) } else { Ok(()) }
    }

    fn take(&mut self, call: u64, bytes: Bytes, events: &mut VecDeque<Event>) {
        if self.uploads {
            events.push_back(Event::Upload(call, bytes));
        } else if self.body.len() + bytes.len() > HTTP_BODY_BYTES {
            self.body.clear();
            if let Some(request) = self.request.take() {
                events.push_back(Event::Refused(call, request, Refusal::too_large()));
            }
        } else if self.request.is_some() {
            self.body.extend_from_slice(&bytes);
        }
    }

    fn complete(&mut self, call: u64, events: &mut VecDeque<Event>) {
        if self.uploads {
            events.push_back(Event::HalfClose(call));
        } else if let Some(mut request) = self.request.take() {
            request.body = self.body.split().freeze();
            events.push_back(Event::Request(call, request));
        }
    }

    /// Returns the time at which this stream times out because its request does not arrive or its answer is not taken. An
    /// unfinished answer, such as a subscription, may wait for the client indefinitely.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        let since = match (&self.request, &self.end) {
            (Some(_), _) => self.begun,
            (None, Some(_)) => self.stuck,
            (None, None) => None,
        };
        since.map(|since| since + FRAME_STALL)
    }

    /// Sends as much as the window has room for; returns true if the stream is over.
    pub(super) fn write(&mut self, now: Option<Instant>) -> bool {
        let (before, over) = (self.pending.len(), self.write_pending());
        let waits = !self.pending.is_empty() && self.pending.len() == before;
        self.stuck = if waits { self.stuck.or(now) } else { None };
        over
    }

    fn write_pending(&mut self) -> bool {
        let Some(sending) = &mut self.sending else { return false };
        while !self.pending.is_empty() {
            sending.reserve_capacity(self.pending.len());
            let count = sending.capacity().min(self.pending.len());
            if count == 0 {
                return false;
            }
            let last = count == self.pending.len() && self.end.as_ref().is_some_and(HeaderMap::is_empty);
            if sending.send_data(self.pending.split_to(count).freeze(), last).is_err() {
                return false;
            }
            if last {
                return true;
            }
        }
        match self.end.take() {
            // An end without trailers was sent with the head or the last bytes, unless there were no bytes.
            Some(end) if end.is_empty() => _ = sending.send_data(Bytes::new(), true),
            Some(end) => _ = sending.send_trailers(end),
            None => return false,
        }
        true
    }
}
