//! Session with one peer over one connection: admission, hello, plan, comparison, then documents in both directions.
//!
//! Symmetric, except that the dialler proves itself first. Takes decoded messages, and leaves bytes for the link in one buffer
//! per lane. Never touches the QUIC connection, and never decides which peer to dial.

mod comparison;
mod deficit_round_robin;
mod greeting;
mod offers;
mod serve;
mod watch;

use comparison::Comparison;
use greeting::{SentPlan, SyncPlan};
use offers::{Answer, Declined, answer_offer};
use std::collections::BTreeSet;
use std::time::Instant;

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::BATCH_BYTES;
use crate::store::{self, Applied, Apply, Reader, RunId};
use crate::sync::convert;
use crate::sync::frame::{self, Decoder, Received, Standing};
use crate::sync::inbox::Inbox;
use crate::sync::link::{CloseCode, Lane, LinkId, PerLane};
use crate::sync::mesh::{self, Ack, Batch, Want, message::Body};
use crate::sync::outbox::Outbox;
use deficit_round_robin::DeficitRoundRobin;
pub(crate) use watch::Awaited;
use watch::Watch;

/// Divisor of the quantum: a lane's turn is its weight times this fraction of a batch.
const QUANTA: usize = 16;
/// Maximum number of offers with answers that wait for room on the control lane.
const OFFERS: usize = 2 * crate::limits::EXCEPTIONS;

/// Reason for which this node ends a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SessionError {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
}

impl SessionError {
    pub(crate) fn new(code: CloseCode, reason: impl Into<String>) -> SessionError {
        SessionError { code, reason: reason.into() }
    }

    fn protocol(reason: &str) -> SessionError {
        SessionError::new(CloseCode::Protocol, format!("the peer {reason}"))
    }

    fn store(error: &store::Error) -> SessionError {
        SessionError::new(CloseCode::Internal, format!("reading the store: {error}"))
    }
}

impl From<&'static str> for SessionError {
    fn from(reason: &'static str) -> SessionError {
        SessionError::new(CloseCode::Protocol, format!("the peer sent {reason}"))
    }
}

/// Reports of a session to the engine.
#[derive(Debug)]
pub(crate) enum Report {
    /// The peer sent its proof; answer with [`Session::admit`] or close.
    Proved { proof: Vec<u8> },
    /// The peer's hello arrived.
    Met { run: RunId, skew_ms: i64, name: String, mismatched: Vec<String> },
    /// The peer has changes of this node's database that the database itself lacks: it was restored from a backup.
    WentBack,
    /// Both plans are known; `compares` if one of them requires a comparison.
    Live { compares: bool },
    /// Some node, not necessarily the peer, is present.
    Present(mesh::Presence),
    /// The peer holds these documents durably.
    Acked(Vec<(store::KeyHash, u64)>),
    /// The peer did not keep the version of this document that it was sent or offered.
    Refused(store::KeyHash),
    /// This document is not sent, for this reason.
    Withheld(store::KeyHash, String),
    /// This node does not accept the peer's version of a document, or the peer cannot send it.
    Declined(Declined),
}

/// Properties of this node that its sessions share.
#[derive(Debug)]
pub(crate) struct LocalNode {
    pub(crate) id: EndpointId,
    pub(crate) node_id: String,
    pub(crate) app_id: String,
    pub(crate) latest: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum SessionPhase {
    Proving,
    Greeting,
    Planning,
    Live,
}

/// Parts of the peer's hello that are needed later.
#[derive(Debug)]
struct PeerHello {
    run: RunId,
    database: [u8; 16],
    records: u64,
    cursors: Vec<mesh::Cursor>,
    excluded: (BTreeSet<String>, u64),
}

#[derive(Debug, Default)]
struct LaneIo {
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
    readable: bool,
    /// Number of bytes handed to the link.
    sent: u64,
}

/// State of one session; see the module documentation.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: LinkId,
    pub(crate) peer: EndpointId,
    pub(crate) dialled: bool,
    pub(crate) since: Instant,
    stage: SessionPhase,
    lanes: PerLane<LaneIo>,
    met: Option<PeerHello>,
    plan: Option<SentPlan>,
    theirs: Option<SyncPlan>,
    comparison: Option<Comparison>,
    outbox: Option<Outbox>,
    inbox: Option<Inbox>,
    /// Answers to offers, not sent yet.
    wants: Vec<Want>,
    /// Number of offers received since the last answers were sent.
    offers: usize,
    /// Received documents that the store refused, not reported to the peer yet.
    refused: Vec<store::KeyHash>,
    move_at: Option<Instant>,
    reports: Vec<Report>,
    /// Deficit round robin among the lanes that share the rest of the link.
    turns: DeficitRoundRobin,
    batch_bytes: usize,
    watch: Watch,
    /// Time since which some answer has been outstanding.
    expects_since: Option<Instant>,
    /// True to compare even if the cursors suffice.
    pub(crate) audit: bool,
}

impl Session {
    pub(crate) fn new(link: LinkId, peer: EndpointId, dialled: bool, now: Now) -> Session {
        Session {
            link,
            peer,
            dialled,
            since: now.mono,
            stage: SessionPhase::Proving,
            lanes: Default::default(),
            met: None,
            plan: None,
            theirs: None,
            comparison: None,
            outbox: None,
            inbox: None,
            wants: Vec::new(),
            offers: 0,
            refused: Vec::new(),
            move_at: None,
            reports: Vec::new(),
            turns: DeficitRoundRobin::default(),
            batch_bytes: BATCH_BYTES,
            watch: Watch::default(),
            expects_since: None,
            audit: false,
        }
    }

    /// Returns the reports since the last call.
    pub(crate) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Returns true once documents flow.
    pub(crate) fn is_live(&self) -> bool {
        self.stage == SessionPhase::Live
    }

    /// Returns true if the peer has everything that existed at the start of the session.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.outbox.as_ref().is_some_and(Outbox::is_caught_up)
    }

    /// Returns the peer's run, once its hello arrived.
    pub(crate) fn run(&self) -> Option<RunId> {
        self.met.as_ref().map(|met| met.run)
    }

    pub(crate) fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// Returns true if an answer of the peer is outstanding, so that silence is detected earlier.
    pub(crate) fn expects_answer(&self) -> bool {
        let unsent = self.lanes.iter().any(|(_, lane)| lane.written < lane.out.len());
        !self.is_live() || unsent || self.outbox.as_ref().is_some_and(Outbox::awaits_ack)
    }

    /// Returns the time since which an answer has been outstanding without interruption: earlier silence says nothing about the
    /// link.
    pub(crate) fn expects_since(&self) -> Instant {
        self.expects_since.unwrap_or(self.since)
    }

    /// Returns the number of bytes buffered for this peer in both directions, without the buffers of its QUIC connection.
    pub(crate) fn held(&self) -> usize {
        let lanes: usize = self.lanes.iter().map(|(_, lane)| lane.decoder.held() + lane.out.len()).sum();
        lanes + self.inbox.as_ref().map_or(0, Inbox::held)
    }

    // Outgoing bytes.

    fn say(&mut self, lane: Lane, body: Body) {
        frame::encode(body, &mut self.lanes[lane].out);
    }

    /// Sets the number of document bytes after which a batch is closed.
    pub(crate) fn set_batch_bytes(&mut self, bytes: usize) {
        self.batch_bytes = bytes;
    }

    /// Passes each lane's bytes to `write`, which returns how many the link took: control and commands first, then the others
    /// in turns.
    pub(crate) fn flush(&mut self, mut write: impl FnMut(Lane, &[u8]) -> usize) {
        for lane in [Lane::Control, Lane::Command] {
            let io = &mut self.lanes[lane];
            let taken = write(lane, &io.out[io.written..]);
            io.written += taken;
            io.sent += taken as u64;
        }
        let quantum = self.batch_bytes / QUANTA;
        let lanes = &mut self.lanes;
        self.turns.share(quantum, |lane, most| {
            let io = &mut lanes[lane];
            let waits = io.out.len() - io.written;
            let taken = write(lane, &io.out[io.written..io.written + waits.min(most)]);
            io.written += taken;
            io.sent += taken as u64;
            (taken, waits - taken)
        });
        for (_, io) in self.lanes.iter_mut().filter(|(_, io)| io.written == io.out.len()) {
            io.out.clear();
            io.out.shrink_to(BATCH_BYTES);
            io.written = 0;
        }
    }

    /// Sends an announcement of presence, unless too many bytes wait already; another one will follow. Returns true if it was
    /// sent.
    pub(crate) fn tell_presence(&mut self, presence: &mesh::Presence) -> bool {
        let control = &self.lanes[Lane::Control];
        let told = self.is_live() && control.out.len() - control.written < BATCH_BYTES;
        if told {
            self.say(Lane::Control, Body::Presence(presence.clone()));
        }
        told
    }

    fn is_clear(&self, lane: Lane) -> bool {
        self.lanes[lane].out.is_empty()
    }

    // Incoming bytes.

    /// Marks `lane` as readable.
    pub(crate) fn mark_readable(&mut self, lane: Lane) {
        self.lanes[lane].readable = true;
    }

    /// Returns the lanes that should be read now.
    pub(crate) fn lanes_to_read(&self) -> Vec<Lane> {
        let full = self.inbox.as_ref().is_some_and(Inbox::is_full);
        let open = |lane: &Lane| *lane == Lane::Control || (!full && self.is_live());
        Lane::ALL.into_iter().filter(|lane| self.lanes[*lane].readable && open(lane)).collect()
    }

    /// Takes bytes of one lane; `more` is true if the link holds more of them.
    pub(crate) fn feed(&mut self, lane: Lane, bytes: &[u8], more: bool) {
        let io = &mut self.lanes[lane];
        io.readable = more;
        io.decoder.extend(bytes);
    }

    /// Handles the next message on `lane`; returns false if there is none. Take the reports after each call.
    ///
    /// # Errors
    /// The peer broke the protocol, or the store could not be read.
    pub(crate) fn step(
        &mut self,
        now: Now,
        lane: Lane,
        ours: &LocalNode,
        reader: &Reader,
    ) -> Result<bool, SessionError> {
        let standing = if self.stage == SessionPhase::Proving { Standing::Stranger } else { Standing::Member };
        let next = self.lanes[lane].decoder.poll(lane, standing);
        match next.map_err(|error| SessionError::new(CloseCode::Protocol, format!("the peer sent {error}")))? {
            Some(received) => self.handle_message(now, lane, received, ours, reader).map(|()| true),
            None => Ok(false),
        }
    }

    fn handle_message(
        &mut self,
        now: Now,
        lane: Lane,
        received: Received,
        ours: &LocalNode,
        reader: &Reader,
    ) -> Result<(), SessionError> {
        match (self.stage, received.body) {
            (SessionPhase::Proving, Body::Auth(auth)) => {
                self.reports.push(Report::Proved { proof: auth.proof.to_vec() });
            }
            (SessionPhase::Greeting, Body::Hello(hello)) => self.on_hello(now, hello, ours, reader)?,
            (SessionPhase::Planning, Body::Plan(plan)) => self.on_plan(&plan, ours, reader)?,
            (SessionPhase::Live, Body::Reconcile(message)) => self.on_reconcile(message.ranges)?,
            (SessionPhase::Live, Body::Batch(batch)) => self.on_batch(now, lane, (batch, received.weight), reader)?,
            (SessionPhase::Live, Body::Ack(ack)) => self.on_ack(&ack)?,
            (SessionPhase::Live, Body::Want(want)) => self.on_want(&want)?,
            (SessionPhase::Live, Body::Refused(refused)) => self.on_refused(&refused.keys, reader)?,
            (SessionPhase::Live, Body::Presence(presence)) => self.reports.push(Report::Present(presence)),
            (_, Body::Presence(_)) => {}
            (stage, _) => {
                return Err(SessionError::protocol(&format!("sent a message that has no place while {stage:?}")));
            }
        }
        Ok(())
    }

    // Documents.

    fn on_batch(&mut self, now: Now, lane: Lane, batch: (Batch, usize), reader: &Reader) -> Result<(), SessionError> {
        let Some(inbox) = &mut self.inbox else { return Ok(()) };
        for offer in inbox.receive(now, lane, batch)? {
            self.offers += 1;
            if self.offers > OFFERS {
                return Err(SessionError::protocol("offers too many documents at once"));
            }
            match answer_offer(&offer, reader)? {
                Answer::Want(want) => self.wants.push(want),
                Answer::Decline(declined) => {
                    if !declined.is_withheld {
                        self.refused.push(declined.hash);
                    }
                    self.reports.push(Report::Declined(declined));
                }
            }
        }
        Ok(())
    }

    fn on_want(&mut self, want: &Want) -> Result<(), SessionError> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        let hash = convert::key_hash(&want.key)?;
        if want.satisfied {
            outbox.satisfied(&hash);
            return Ok(());
        }
        outbox.want(hash, convert::change_hashes(&want.have)?).map_err(SessionError::protocol)
    }

    fn on_refused(&mut self, keys: &[bytes::Bytes], reader: &Reader) -> Result<(), SessionError> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        let snapshot = reader.snapshot().map_err(|error| SessionError::store(&error))?;
        for key in keys {
            let hash = convert::key_hash(key)?;
            // To the peer, a record that cannot be read counts as not held.
            let held = || snapshot.record(&hash).ok().flatten().map(|record| (record.sequence, record.incarnation));
            if outbox.decline(hash, held).map_err(SessionError::protocol)? {
                self.reports.push(Report::Refused(hash));
            }
        }
        Ok(())
    }

    fn on_ack(&mut self, ack: &Ack) -> Result<(), SessionError> {
        let lane = Lane::ALL.into_iter().find(|known| *known as u32 == ack.lane);
        let lane = lane.ok_or("an acknowledgement for an unknown lane")?;
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        let lacking = ack.lacking.iter().map(|key| convert::key_hash(key)).collect::<Result<BTreeSet<_>, _>>()?;
        let mut acked = Vec::new();
        let taken = outbox.ack(lane, ack.number, &lacking, |hash, sequence| acked.push((hash, sequence)));
        taken.map_err(SessionError::protocol)?;
        self.reports.push(Report::Acked(acked));
        Ok(())
    }

    /// Returns the next request to the store.
    ///
    /// # Errors
    /// A received document is malformed.
    pub(crate) fn poll_apply(&mut self, now: Now) -> Result<Option<Apply>, SessionError> {
        match &mut self.inbox {
            Some(inbox) => Ok(inbox.poll_apply(now)?),
            None => Ok(None),
        }
    }

    /// Handles the store's result of [`Session::poll_apply`].
    ///
    /// # Errors
    /// The peer builds on too many missing documents.
    pub(crate) fn handle_applied(&mut self, applied: Applied) -> Result<(), SessionError> {
        let Some(inbox) = &mut self.inbox else { return Ok(()) };
        self.refused.extend(applied.refused.iter().map(|(hash, _)| *hash));
        if let Some(outbox) = &mut self.outbox {
            inbox.submitted().for_each(|hash| outbox.heard_of(&hash));
        }
        inbox.applied(applied).map_err(SessionError::protocol)
    }

    /// Returns the documents of the outstanding [`Session::poll_apply`].
    pub(crate) fn submitted(&self) -> impl Iterator<Item = store::KeyHash> + '_ {
        self.inbox.iter().flat_map(Inbox::submitted)
    }

    /// Handles a temporary refusal by the store; the same documents are submitted again later.
    pub(crate) fn handle_refused(&mut self, now: Now) {
        if let Some(inbox) = &mut self.inbox {
            inbox.refused(now);
        }
    }

    /// Returns the time at which this session is to be run although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let retry = self.inbox.as_ref().and_then(Inbox::retry_at);
        self.move_at.into_iter().chain(retry).min()
    }
}
