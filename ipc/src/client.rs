//! Calls over one connection, blocking.
//!
//! A [`Client`] owns its socket and two buffers. It must never lose a response: frames of other calls than the one being waited
//! for are kept until their call is finished or cancelled.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use prost::Message;

use crate::envelope::frame::Body;
use crate::frame::{Decoder, RequestHeader, put_cancel, put_credit, put_request};
use crate::sidecar::*;
use crate::stream::Stream;
use crate::subscription::WINDOW;
use crate::{CallError, Code, Error, PREFACE, Rpc, Subscription, Target};

/// Maximum number of bytes per read.
const READ_BYTES: usize = 64 << 10;
/// Queue size, in bytes, at which [`Client::start`] writes without waiting for a `Client::finish`.
const QUEUE_BYTES: usize = 64 << 10;
/// Time beyond a call's deadline that the client allows the node to report the deadline.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// Idle time after which the client checks that the connection is still open before the next call.
const REST: Duration = Duration::from_secs(1);

/// Options of a single call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CallOptions {
    /// Time after which the node ends the call with DEADLINE_EXCEEDED. `None`: the method's default.
    pub deadline: Option<Duration>,
    /// Time after which the client gives up, when the node does not read the request or does not answer; the connection counts
    /// as failed. `None`: a second after the deadline, or never if there is no deadline.
    pub limit: Option<Duration>,
}

/// A call in flight; see [`Client::start`].
#[derive(Debug)]
#[must_use = "the response stays in the client until it is finished or forgotten"]
pub struct Pending<R> {
    call: u64,
    request: PhantomData<fn() -> R>,
}

/// A connection to a node.
///
/// This keeps thirty-two calls in flight:
///
/// ```no_run
/// use peat_ipc::{Client, sidecar::GetStatusRequest};
///
/// let mut client = Client::connect(&"unix:///run/peat-node.sock".parse()?)?;
/// let mut flying = std::collections::VecDeque::new();
/// for _ in 0..1_000 {
///     if flying.len() == 32 {
///         client.finish(flying.pop_front().expect("32 are flying"))?;
///     }
///     flying.push_back(client.start(&GetStatusRequest {})?);
/// }
/// for call in flying {
///     client.finish(call)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Address for reconnecting; `None` if the socket was passed in.
    target: Option<Target>,
    /// Time of the last request.
    used: Instant,
    decoder: Decoder,
    /// Buffer that reads fill.
    scratch: Box<[u8]>,
    /// Frames not yet written.
    queue: Vec<u8>,
    last_call: u64,
    /// Frames of calls that are not being waited for.
    arrived: BTreeMap<u64, Vec<Body>>,
    /// Calls that have not ended; frames of other calls are dropped.
    open: Calls,
    /// True once reading or writing failed. The calls that were open are lost.
    failed: bool,
    token: String,
}

/// Ids of unfinished calls. Ids only grow and most calls end in order, so a short sorted list is fastest.
#[derive(Debug, Default)]
struct Calls(Vec<u64>);

impl Calls {
    fn insert(&mut self, call: u64) {
        self.0.push(call);
    }

    fn remove(&mut self, call: u64) {
        if let Ok(index) = self.0.binary_search(&call) {
            self.0.remove(index);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, call: u64) -> bool {
        self.0.binary_search(&call).is_ok()
    }
}

impl Client {
    /// Connects and queues the preface, which is sent with the first call. If the node closes the connection while no call is
    /// in flight, because it was idle or the node restarted, the next call reconnects.
    ///
    /// # Errors
    /// No node listens at `target`, or this process may not open the socket.
    pub fn connect(target: &Target) -> Result<Client, Error> {
        Ok(Client { target: Some(target.clone()), ..Client::on(Stream::connect(target)?) })
    }

    /// Creates a client on a connected socket. Unlike [`Client::connect`], it cannot reconnect.
    #[must_use]
    pub fn over(socket: UnixStream) -> Client {
        Client::on(Stream::from(socket))
    }

    fn on(stream: Stream) -> Client {
        Client {
            stream,
            target: None,
            used: deadline_in(Duration::ZERO),
            decoder: Decoder::joining(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            queue: PREFACE.to_vec(),
            last_call: 0,
            arrived: BTreeMap::new(),
            open: Calls::default(),
            failed: false,
            token: String::new(),
        }
    }

    /// Sends `token` with every call from now on; TCP listeners may require one.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Client {
        self.token = token.into();
        self
    }

    /// Makes a unary call and waits for its response.
    ///
    /// # Errors
    /// The node answered with an error, or the connection failed.
    pub fn call<R: Rpc>(&mut self, request: &R, options: CallOptions) -> Result<R::Response, Error> {
        let call = self.queue_request(request, options, 0);
        // Let the node report the deadline first: its answer keeps the connection usable.
        let limit = options.limit.or_else(|| options.deadline.map(|deadline| deadline + DEADLINE_GRACE));
        self.take_response::<R>(call, limit)
    }

    /// Queues a unary call without waiting. It is written by the next `Client::finish` that has to read, by
    /// [`Client::flush`], or once 64 KiB are queued.
    ///
    /// # Errors
    /// The connection failed.
    pub fn start<R: Rpc>(&mut self, request: &R) -> Result<Pending<R>, Error> {
        let call = self.queue_request(request, CallOptions::default(), 0);
        if self.queue.len() >= QUEUE_BYTES {
            self.flush()?;
        }
        Ok(Pending { call, request: PhantomData })
    }

    /// Waits for the response of a started call. Calls may be finished in any order.
    ///
    /// # Errors
    /// The node answered with an error, or the connection failed.
    #[expect(clippy::needless_pass_by_value, reason = "a call is finished once")]
    pub fn finish<R: Rpc>(&mut self, pending: Pending<R>) -> Result<R::Response, Error> {
        self.take_response::<R>(pending.call, None)
    }

    /// Cancels a started call; its response is dropped.
    ///
    /// # Errors
    /// The connection failed.
    #[expect(clippy::needless_pass_by_value, reason = "a call ends once")]
    pub fn forget<R>(&mut self, pending: Pending<R>) -> Result<(), Error> {
        self.cancel(pending.call)
    }

    /// Writes the queued frames.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.flush_until(None)
    }

    fn flush_until(&mut self, end: Option<Instant>) -> Result<(), Error> {
        if !self.queue.is_empty() {
            let written = self.stream.write_all(&self.queue, || end.map(remaining));
            self.queue.clear();
            self.queue.shrink_to(QUEUE_BYTES);
            self.failed |= written.is_err();
            written.map_err(|cause| self.last_words().unwrap_or(cause.into()))?;
        }
        Ok(())
    }

    /// Returns the error that the node sent before it closed the connection, after a write has failed.
    fn last_words(&mut self) -> Option<Error> {
        self.stream.set_timeout(Some(DEADLINE_GRACE)).ok()?;
        loop {
            while let Some((call, body)) = self.decoder.next_frame().ok()? {
                if call == 0 {
                    return self.keep(call, body).err();
                }
            }
            self.read().ok()?;
        }
    }

    /// Subscribes to changes. The client is borrowed until the subscription is dropped.
    ///
    /// ```no_run
    /// # let mut client = peat_ipc::Client::connect(&"unix:///run/peat-node.sock".parse()?)?;
    /// use peat_ipc::sidecar::SubscribeRequest;
    ///
    /// let everything = SubscribeRequest { snapshot: true, ..Default::default() };
    /// for change in client.subscribe(&everything)? {
    ///     let change = change?;
    ///     println!("{} {}/{}", change.sequence, change.collection, change.doc_id);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The connection failed. An error of the node is returned as the first item.
    pub fn subscribe(&mut self, request: &SubscribeRequest) -> Result<Subscription<&mut Client>, Error> {
        let call = self.open_stream(request)?;
        Ok(Subscription::new(self, call))
    }

    /// Subscribes to changes like [`Client::subscribe`], but moves the client into the subscription.
    ///
    /// # Errors
    /// The connection failed.
    pub fn into_subscription(mut self, request: &SubscribeRequest) -> Result<Subscription<Client>, Error> {
        let call = self.open_stream(request)?;
        Ok(Subscription::new(self, call))
    }

    /// Watches the agents of the fleet: returns the current ones, `SNAPSHOT_END`, then every change. The client is borrowed
    /// until the watch is dropped.
    ///
    /// # Errors
    /// The connection failed. An error of the node is returned as the first item.
    pub fn watch_agents(&mut self) -> Result<Subscription<&mut Client, AgentChange>, Error> {
        let call = self.open_stream(&WatchAgentsRequest {})?;
        Ok(Subscription::new(self, call))
    }

    fn open_stream<R: Rpc>(&mut self, request: &R) -> Result<u64, Error> {
        let call = self.queue_request(request, CallOptions::default(), WINDOW);
        self.flush()?;
        Ok(call)
    }

    /// Returns the next item of a stream; `None` at its end.
    pub(crate) fn next_item<M: Message + Default>(&mut self, call: u64) -> Result<Option<M>, Error> {
        match self.wait(call, None)? {
            Body::Item(bytes) => M::decode(bytes).map(Some).map_err(Error::Response),
            Body::End(_) => {
                self.open.remove(call);
                Ok(None)
            }
            body => Err(self.failed(call, body)),
        }
    }

    pub(crate) fn grant(&mut self, call: u64, items: u32) -> Result<(), Error> {
        put_credit(&mut self.queue, call, items);
        self.flush()
    }

    pub(crate) fn cancel(&mut self, call: u64) -> Result<(), Error> {
        self.open.remove(call);
        self.arrived.remove(&call);
        put_cancel(&mut self.queue, call);
        self.flush()
    }

    fn queue_request<R: Rpc>(&mut self, request: &R, options: CallOptions, credit: u32) -> u64 {
        self.connect_again();
        self.last_call += 1;
        let call = self.last_call;
        let deadline_ms = options.deadline.map_or(0, milliseconds);
        let header =
            RequestHeader { method: R::METHOD.number(), deadline_ms, credit, token: &self.token, takes_parts: true };
        put_request(&mut self.queue, call, header, request);
        self.open.insert(call);
        call
    }

    /// Reconnects if the connection failed, or was idle and has ended. An idle connection loses nothing, since no call was in
    /// flight. If reconnecting fails, the call that follows reports the failure.
    fn connect_again(&mut self) {
        let now = deadline_in(Duration::ZERO);
        let rested = now.saturating_duration_since(std::mem::replace(&mut self.used, now)) >= REST;
        let is_over = self.failed || rested && self.open.is_empty() && self.has_ended();
        if self.target.is_none() || !is_over {
            return;
        }
        if let Some(Ok(stream)) = self.target.as_ref().map(Stream::connect) {
            self.stream = stream;
            self.decoder = Decoder::joining();
            self.arrived.clear();
            self.open = Calls::default();
            self.failed = false;
            self.queue = PREFACE.to_vec();
        }
    }

    /// Returns true if the node has closed the connection. Frames of cancelled calls that are read meanwhile go to the decoder.
    fn has_ended(&mut self) -> bool {
        loop {
            match self.stream.read_waiting(&mut self.scratch) {
                Ok(None) => return false,
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(count)) => self.decoder.extend(&self.scratch[..count]),
            }
        }
    }

    fn take_response<R: Rpc>(&mut self, call: u64, limit: Option<Duration>) -> Result<R::Response, Error> {
        match self.wait(call, limit)? {
            Body::Response(bytes) => {
                self.open.remove(call);
                R::Response::decode(bytes).map_err(Error::Response)
            }
            body => Err(self.failed(call, body)),
        }
    }

    /// Converts a frame that ends the call into an error.
    fn failed(&mut self, call: u64, body: Body) -> Error {
        self.open.remove(call);
        match body {
            Body::Error(error) => Error::Call(CallError::new(Code::from_number(error.code), error.message)),
            Body::Response(_) => Error::Unexpected("a response to a streaming call"),
            Body::Item(_) | Body::End(_) => Error::Unexpected("a stream item for a unary call"),
            _ => Error::Unexpected("a frame that only clients send"),
        }
    }

    /// Returns the next frame of `call`. An error means that the connection failed.
    fn wait(&mut self, call: u64, limit: Option<Duration>) -> Result<Body, Error> {
        if !self.open.contains(call) {
            let lost = "the connection failed before this call ended; the client has connected again since";
            return Err(io::Error::new(io::ErrorKind::NotConnected, lost).into());
        }
        let body = self.next_body(call, limit);
        self.failed |= body.is_err();
        body
    }

    /// Returns the next frame of `call`. Writes queued frames only if it has to read, so that requests are batched.
    fn next_body(&mut self, call: u64, limit: Option<Duration>) -> Result<Body, Error> {
        if let Some(body) = self.take_arrived(call) {
            return Ok(body);
        }
        let end = limit.map(deadline_in);
        loop {
            while let Some((from, body)) = self.decoder.next_frame()? {
                if from == call {
                    return Ok(body);
                }
                self.keep(from, body)?;
            }
            self.flush_until(end)?;
            self.stream.set_timeout(end.map(remaining))?;
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        let count = self.stream.read(&mut self.scratch)?;
        self.decoder.extend(&self.scratch[..count]);
        Ok(())
    }

    fn take_arrived(&mut self, call: u64) -> Option<Body> {
        let bodies = self.arrived.get_mut(&call)?;
        let body = bodies.remove(0);
        if bodies.is_empty() {
            self.arrived.remove(&call);
        }
        Some(body)
    }

    /// Stores a frame of a call that is not being waited for. Call 0 is the connection: its error ends all calls.
    fn keep(&mut self, call: u64, body: Body) -> Result<(), Error> {
        if call == 0 {
            let Body::Error(error) = body else { return Err(Error::Unexpected("a frame without a call")) };
            return Err(Error::Closed(CallError::new(Code::from_number(error.code), error.message)));
        }
        // Frames of a cancelled call may still arrive.
        if self.open.contains(call) {
            self.arrived.entry(call).or_default().push(body);
        }
        Ok(())
    }
}

/// Defines one typed method per unary RPC, with default options.
macro_rules! typed {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        impl Client {
            $(
                #[doc = concat!("Calls the method that takes a [`", stringify!($request), "`].")]
                ///
                /// # Errors
                /// The node answered with an error, or the connection failed.
                pub fn $name(&mut self, request: &$request) -> Result<$response, Error> {
                    self.call(request, CallOptions::default())
                }
            )*
        }
    };
}

typed! {
    get_status(GetStatusRequest) -> GetStatusResponse;
    connect_peer(ConnectPeerRequest) -> ConnectPeerResponse;
    disconnect_peer(DisconnectPeerRequest) -> DisconnectPeerResponse;
    list_peers(ListPeersRequest) -> ListPeersResponse;
    put_document(PutDocumentRequest) -> PutDocumentResponse;
    get_document(GetDocumentRequest) -> GetDocumentResponse;
    delete_document(DeleteDocumentRequest) -> DeleteDocumentResponse;
    list_documents(ListDocumentsRequest) -> ListDocumentsResponse;
    put_platform(PutPlatformRequest) -> PutPlatformResponse;
    get_platforms(GetPlatformsRequest) -> GetPlatformsResponse;
    put_cell(PutCellRequest) -> PutCellResponse;
    get_cells(GetCellsRequest) -> GetCellsResponse;
    put_track(PutTrackRequest) -> PutTrackResponse;
    get_tracks(GetTracksRequest) -> GetTracksResponse;
    put_command(PutCommandRequest) -> PutCommandResponse;
    get_commands(GetCommandsRequest) -> GetCommandsResponse;
    start_sync(StartSyncRequest) -> StartSyncResponse;
    stop_sync(StopSyncRequest) -> StopSyncResponse;
    get_sync_stats(GetSyncStatsRequest) -> GetSyncStatsResponse;
    patch_document(PatchDocumentRequest) -> PatchDocumentResponse;
    compact_document(CompactDocumentRequest) -> CompactDocumentResponse;
    get_health(GetHealthRequest) -> GetHealthResponse;
    cancel_command(CancelCommandRequest) -> CancelCommandResponse;
    list_agents(ListAgentsRequest) -> ListAgentsResponse;
}

/// Converts a deadline to milliseconds, at least 1, since 0 requests the default.
fn milliseconds(deadline: Duration) -> u32 {
    u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[expect(clippy::disallowed_methods, reason = "a blocking client keeps its own time")]
fn deadline_in(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// Returns the time left until `end`, at least a millisecond: a socket timeout of 0 is invalid.
#[expect(clippy::disallowed_methods, reason = "a blocking client keeps its own time")]
fn remaining(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers one GetStatus, in two parts, and closes the connection when the stream is dropped.
    fn serve_once(listener: &UnixListener) -> UnixStream {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut bytes = [0; 64];
        let count = stream.read(&mut bytes).expect("a request");
        assert_eq!(bytes[..PREFACE.len()], PREFACE, "of {count} bytes");
        let response = GetStatusResponse { node_id: "n1".into(), ..Default::default() }.encode_to_vec();
        let (part, rest) = response.split_at(2);
        for body in [Body::Part(part.to_vec().into()), Body::Response(rest.to_vec().into())] {
            let frame = crate::envelope::Frame { call: u64::from(bytes[PREFACE.len() + 2]), body: Some(body) };
            stream.write_all(&frame.encode_length_delimited_to_vec()).expect("answered");
        }
        stream
    }

    #[test]
    fn a_call_that_is_given_up_ends_its_connection_and_the_next_call_makes_another() {
        let directory = std::env::temp_dir().join(format!("peat-ipc-limit-{}", std::process::id()));
        let _ = std::fs::remove_file(&directory);
        let listener = UnixListener::bind(&directory).expect("a socket");
        let node = std::thread::Builder::new().spawn(move || {
            let silent = listener.accept().expect("a client");
            drop(serve_once(&listener));
            drop(silent);
        });
        let mut client = Client::connect(&Target::Unix(directory.clone())).expect("connected");
        let lost = client.start(&GetStatusRequest {}).expect("queued");
        let options = CallOptions { limit: Some(Duration::from_millis(50)), ..CallOptions::default() };
        assert!(matches!(client.call(&GetStatusRequest {}, options), Err(Error::Transport(_))), "nothing answers");
        assert_eq!(client.get_status(&GetStatusRequest {}).expect("answered").node_id, "n1");
        assert!(matches!(client.finish(lost), Err(Error::Transport(_))), "it went with its connection");
        node.expect("started").join().expect("served");
        std::fs::remove_file(directory).expect("removed");
    }

    #[test]
    fn a_connection_that_ended_while_it_rested_is_made_again() {
        let directory = std::env::temp_dir().join(format!("peat-ipc-rest-{}", std::process::id()));
        let _ = std::fs::remove_file(&directory);
        let listener = UnixListener::bind(&directory).expect("a socket");
        let node = std::thread::Builder::new().spawn(move || {
            drop(serve_once(&listener));
            drop(serve_once(&listener));
        });
        let mut client = Client::connect(&Target::Unix(directory.clone())).expect("connected");
        assert_eq!(client.get_status(&GetStatusRequest {}).expect("answered").node_id, "n1");
        // Once a read has seen the end, only the idle time is missing.
        client.stream.set_timeout(Some(Duration::from_secs(20))).expect("set");
        client.read().expect_err("the node ended it");
        client.used -= REST;
        assert_eq!(client.get_status(&GetStatusRequest {}).expect("answered").node_id, "n1");
        node.expect("started").join().expect("served");
        std::fs::remove_file(directory).expect("removed");
    }
}
