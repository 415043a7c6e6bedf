//! One blocking request over HTTP/2 and its answer.
//!
//! The `h2` crate does frames, header compression and flow control over an in-memory pipe ([`crate::pipe`]) and is polled
//! whenever bytes arrive. A connection serves one request: an agent gets three requests in ten seconds.

use std::future::Future as _;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, Connection, ResponseFuture};
use http::{HeaderMap, Request, StatusCode};

use crate::limits::{WATCHED_ANSWER_BYTES, WATCHED_HEAD_BYTES};
use crate::pipe::{Flag, Pipe};
use crate::watcher::Failure;

/// Bytes that may be buffered in the connection in one direction.
const AHEAD_BYTES: usize = 64 << 10;
/// Flow-control window: bytes that the agent may send before a WINDOW_UPDATE.
const WINDOW_BYTES: u32 = 1 << 20;
/// Maximum number of polls of the library per input. The loop ends earlier once a poll makes no progress.
const TURNS: usize = 64;

/// A connected socket with a timeout.
pub(super) trait Socket: Read + Write {
    /// Limits the time of each later read or write.
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()>;
}

/// A complete answer: head, body and trailers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

/// Makes a request on a new connection. `left` returns the time left, or `None` when there is none.
///
/// # Errors
/// The agent did not answer in time, speaks another protocol, or exceeds a limit.
pub(super) fn ask(
    socket: &mut impl Socket,
    request: Request<()>,
    body: Bytes,
    left: impl Fn() -> Option<Duration>,
) -> Result<Answer, Failure> {
    let pipe = Pipe::default();
    let flag = Arc::<Flag>::default();
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    pipe.lock().allowance = AHEAD_BYTES;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(u32::try_from(WATCHED_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let mut greeting = pin!(builder.handshake::<_, Bytes>(pipe.clone()));
    let Poll::Ready(greeted) = greeting.as_mut().poll(&mut context) else {
        return Err(Failure::Unusable("HTTP/2 does not begin".into()));
    };
    let (mut send, connection) = greeted.map_err(|error| broken(&error))?;
    let (response, mut sending) = send.send_request(request, body.is_empty()).map_err(|error| broken(&error))?;
    if !body.is_empty() {
        sending.send_data(body, true).map_err(|error| broken(&error))?;
    }
    let mut exchange = Exchange { connection, response: Some(response), receiving: None, answer: None, over: false };
    loop {
        for _ in 0..TURNS {
            flag.take();
            exchange.advance(&mut context)?;
            if exchange.over || !flag.take() {
                break;
            }
        }
        write(socket, &pipe, &left)?;
        if let Some(answer) = exchange.answer.take_if(|_| exchange.over) {
            return Ok(answer);
        }
        read(socket, &pipe, &left)?;
    }
}

/// A request in progress.
struct Exchange {
    connection: Connection<Pipe, Bytes>,
    /// Pending head of the answer; `None` once it has arrived.
    response: Option<ResponseFuture>,
    receiving: Option<RecvStream>,
    answer: Option<Answer>,
    over: bool,
}

impl Exchange {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let ended = match Pin::new(&mut self.connection).poll(context) {
            Poll::Ready(Err(error)) => return Err(broken(&error)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if let Some(response) = &mut self.response
            && let Poll::Ready(response) = Pin::new(response).poll(context)
        {
            let (head, receiving) = response.map_err(|error| broken(&error))?.into_parts();
            let (headers, trailers) = (head.headers, HeaderMap::new());
            self.answer = Some(Answer { status: head.status, headers, body: Vec::new(), trailers });
            (self.response, self.receiving) = (None, Some(receiving));
        }
        self.receive(context)?;
        if ended && !self.over { Err(Failure::Unreachable("the agent ended the connection".into())) } else { Ok(()) }
    }

    fn receive(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let (Some(receiving), Some(answer)) = (&mut self.receiving, &mut self.answer) else { return Ok(()) };
        while let Poll::Ready(data) = receiving.poll_data(context) {
            let Some(data) = data else {
                if let Poll::Ready(trailers) = receiving.poll_trailers(context) {
                    answer.trailers = trailers.map_err(|error| broken(&error))?.unwrap_or_default();
                    self.over = true;
                }
                return Ok(());
            };
            let data = data.map_err(|error| broken(&error))?;
            if answer.body.len() + data.len() > WATCHED_ANSWER_BYTES {
                return Err(Failure::TooLarge);
            }
            answer.body.extend_from_slice(&data);
            // Releasing capacity fails only for a stream that has ended, which needs no window.
            let _ = receiving.flow_control().release_capacity(data.len());
        }
        Ok(())
    }
}

fn write(socket: &mut impl Socket, pipe: &Pipe, left: &impl Fn() -> Option<Duration>) -> Result<(), Failure> {
    let bytes = std::mem::take(&mut pipe.lock().outgoing);
    if bytes.is_empty() {
        return Ok(());
    }
    socket.set_timeout(left().ok_or(Failure::TimedOut)?).and_then(|()| socket.write_all(&bytes)).map_err(|e| cut(&e))
}

fn read(socket: &mut impl Socket, pipe: &Pipe, left: &impl Fn() -> Option<Duration>) -> Result<(), Failure> {
    let mut bytes = [0; 16 << 10];
    loop {
        socket.set_timeout(left().ok_or(Failure::TimedOut)?).map_err(|cause| cut(&cause))?;
        match socket.read(&mut bytes) {
            Ok(0) => return Err(Failure::Unreachable("the agent ended the connection".into())),
            Ok(count) => {
                pipe.lock().incoming.extend_from_slice(&bytes[..count]);
                return Ok(());
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cut(&cause)),
        }
    }
}

fn broken(error: &h2::Error) -> Failure {
    Failure::Unusable(format!("HTTP/2: {error}"))
}

fn cut(cause: &io::Error) -> Failure {
    match cause.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Unreachable(cause.to_string()),
    }
}
