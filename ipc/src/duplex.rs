//! The bidirectional call, an agent's stream, split into two halves that two threads can own.

use std::net::Shutdown;
use std::time::Duration;

use prost::Message;

use crate::agent::{AgentMessage, NodeMessage, agent_message};
use crate::envelope::frame::Body;
use crate::frame::{Decoder, RequestHeader, put_credit, put_request, put_upload};
use crate::method::AGENT_LINK;
use crate::stream::Stream;
use crate::subscription::WINDOW;
use crate::{CallError, Code, Error, PREFACE, Target};

/// Id of the stream, the only call on its connection.
const CALL: u64 = 1;
const READ_BYTES: usize = 64 << 10;
/// Write timeout: a node that does not read for this long has failed.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Connects and opens the stream with `first`.
pub(crate) fn open(target: &Target, token: &str, first: agent_message::Body) -> Result<(Uplink, Downlink), Error> {
    begin(Stream::connect(target)?, token, first)
}

fn begin(stream: Stream, token: &str, first: agent_message::Body) -> Result<(Uplink, Downlink), Error> {
    let scratch = vec![0; READ_BYTES].into_boxed_slice();
    let downlink = Downlink { stream: stream.try_clone()?, decoder: Decoder::joining(), scratch, taken: 0 };
    let mut uplink = Uplink { stream, buffer: PREFACE.to_vec() };
    let header = RequestHeader { method: AGENT_LINK, deadline_ms: 0, credit: WINDOW, token, takes_parts: true };
    put_request(&mut uplink.buffer, CALL, header, &AgentMessage { body: Some(first) });
    uplink.flush()?;
    Ok((uplink, downlink))
}

/// Half of the stream that carries messages from the agent to the node.
#[derive(Debug)]
pub(crate) struct Uplink {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Uplink {
    pub(crate) fn send(&mut self, body: agent_message::Body) -> Result<(), Error> {
        put_upload(&mut self.buffer, CALL, &AgentMessage { body: Some(body) });
        self.flush()
    }

    /// Grants the node credit for `items` more messages.
    pub(crate) fn grant(&mut self, items: u32) -> Result<(), Error> {
        put_credit(&mut self.buffer, CALL, items);
        self.flush()
    }

    /// Closes the sending direction. Messages from the node can still be read.
    pub(crate) fn finish(&self) {
        // A connection that has already failed needs no shutdown.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Shuts the connection down in both directions, which also ends the `Downlink`.
    pub(crate) fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn flush(&mut self) -> Result<(), Error> {
        let written = self.stream.write_all(&self.buffer, || Some(WRITE_PATIENCE));
        self.buffer.clear();
        self.buffer.shrink_to(READ_BYTES);
        written.map_err(Error::Transport)
    }
}

/// Half of the stream that carries messages from the node to the agent.
#[derive(Debug)]
pub(crate) struct Downlink {
    stream: Stream,
    decoder: Decoder,
    scratch: Box<[u8]>,
    taken: u32,
}

impl Downlink {
    /// Returns the next message, or `None` if none arrives within `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Option<NodeMessage>, Error> {
        loop {
            if let Some((call, body)) = self.decoder.next_frame()? {
                return self.message(call, body).map(Some);
            }
            self.stream.set_timeout(Some(patience.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut self.scratch) {
                Ok(count) => self.decoder.extend(&self.scratch[..count]),
                Err(cause) if cause.kind() == std::io::ErrorKind::TimedOut => return Ok(None),
                Err(cause) => return Err(Error::Transport(cause)),
            }
        }
    }

    /// Returns the credit to grant once half a window has been consumed, which saves one write per message.
    pub(crate) fn spent(&mut self) -> Option<u32> {
        (self.taken >= WINDOW / 2).then(|| std::mem::take(&mut self.taken))
    }

    fn message(&mut self, call: u64, body: Body) -> Result<NodeMessage, Error> {
        match (call, body) {
            (CALL, Body::Item(bytes)) => {
                self.taken += 1;
                NodeMessage::decode(bytes).map_err(Error::Response)
            }
            (CALL, Body::End(_)) => Err(Error::Closed(CallError::new(Code::Unavailable, "the node ended the stream"))),
            (CALL, Body::Error(error)) => {
                Err(Error::Call(CallError::new(Code::from_number(error.code), error.message)))
            }
            (0, Body::Error(error)) => Err(Error::Closed(CallError::new(Code::from_number(error.code), error.message))),
            _ => Err(Error::Unexpected("a frame that is no part of an agent's stream")),
        }
    }
}
