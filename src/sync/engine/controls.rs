//! Requests of the api thread: connecting, radio silence, lists, waits.

use std::time::{Duration, Instant};

use super::{Engine, Pending, Roaming};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::LISTED_PEERS;
use crate::store::{self, KeyHash, Kind, PeerSetting, SavedPeer, StoreRequest};
use crate::sync::control::{Answer, Control, ControlError, ControlRequest, Event, Measured, Peer};
use crate::sync::link::CloseCode;
use crate::sync::outbox::Outbox;
use crate::sync::peers::{self, Address};
use crate::sync::session::{Session, SessionError};

/// Error shown for a peer that is configured by its id alone and not connected.
pub(super) const NO_ADDRESS: &str = "no address of it is known here and it has not dialled this node; give one of the two the \
                                     other's address (--peer ID@HOST:PORT)";
/// Maximum number of calls that wait for a peer to be admitted.
const ARRIVALS: usize = 256;

/// Call that waits for a peer to be admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    call: u64,
    peer: EndpointId,
    pub(super) until: Instant,
    /// True once the setting is on disk.
    saved: bool,
}

/// Close reason of an attempt that is replaced by another.
pub(super) const DIALLED_ANEW: &str = "dialled anew";
/// Maximum number of index entries counted to estimate the pending documents of a peer.
const PENDING_COUNTED: usize = 100_000;
/// Time for which a cached pending count of a disconnected peer is reused between scrapes.
const EVERYTHING_STANDS: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn on_control(&mut self, now: Now, asked: ControlRequest) {
        let call = asked.call;
        let answer = match asked.control {
            Control::Connect { peer, addresses, wait } => {
                let wait = wait.map(|wait| Arrival { call, peer, until: now.after(wait), saved: false });
                self.connect(now, call, peer, &addresses, wait).err().map(Err)
            }
            Control::Disconnect(peer) => self.disconnect(now, call, peer).err().map(Err),
            Control::ListPeers => Some(Ok(Answer::Peers(self.list_peers(now, false)))),
            Control::ListAllPeers => Some(Ok(Answer::Peers(self.list_peers(now, true)))),
            Control::StartSync => {
                self.start_sync(now);
                Some(Ok(Answer::Done))
            }
            Control::StopSync => {
                self.stop_sync(now, call);
                None
            }
            Control::Stats => Some(Ok(Answer::Stats(self.stats()))),
            Control::Measure => Some(Ok(Answer::Measured(Box::new(self.measure(now))))),
            Control::WaitPeers { key, sequence, peers } => {
                self.wait_peers(call, key, sequence, peers);
                None
            }
            Control::Abandon { call } => {
                self.waits.abandon(call);
                self.arrivals.retain(|arrival| arrival.call != call);
                None
            }
            Control::Announce => {
                self.announce(now);
                None
            }
        };
        if let Some(answer) = answer {
            self.events.push_back(Event::Answered { call, answer });
        }
    }

    fn done(&mut self, call: u64) {
        self.events.push_back(Event::Answered { call, answer: Ok(Answer::Done) });
    }

    // Peers.

    fn connect(
        &mut self,
        now: Now,
        call: u64,
        id: EndpointId,
        texts: &[String],
        wait: Option<Arrival>,
    ) -> Result<(), ControlError> {
        if id == self.ours.id {
            return Err(ControlError::Ourselves);
        }
        if wait.is_some() && self.arrivals.len() >= ARRIVALS {
            return Err(ControlError::TooManyWait);
        }
        let parse = |text: &String| Address::parse(text).ok_or_else(|| ControlError::BadAddress(text.clone()));
        let addresses = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let known = self.peers.get(&id).is_some_and(|peer| !peer.addresses.is_empty());
        if addresses.is_empty() && !known {
            return Err(ControlError::NoAddress(id));
        }
        let peer = self.peers.entry(id).ok_or(ControlError::TooManyPeers)?;
        peer.pinned = true;
        if std::mem::take(&mut peer.refused) {
            peer.last_error.clear();
        }
        if !addresses.is_empty() {
            peer.addresses = addresses;
        }
        // An attempt may have begun without a network, or at other addresses: it is restarted. A link that appears to be up is
        // pinged, and QUIC retransmits what was lost on it.
        peer.resolving.clear();
        if let Some(attempt) = peer.dialling.take_if(|link| !self.sessions.contains_key(link)) {
            self.links.close(now, attempt, CloseCode::Replaced, DIALLED_ANEW);
        }
        if let Some(session) = peer.session {
            self.links.ping(now, session);
        }
        peer.dial_now(now);
        self.know_relays(now);
        let Some(peer) = self.peers.get(&id) else { return Ok(()) };
        let wish = PeerSetting::Connect(peer.addresses.iter().map(ToString::to_string).collect());
        self.submit(StoreRequest::SaveLink(SavedPeer { peer: id, wish }), Pending::Save { call: Some(call) });
        self.arrivals.extend(wait);
        Ok(())
    }

    fn disconnect(&mut self, now: Now, call: u64, id: EndpointId) -> Result<(), ControlError> {
        let peer = self.peers.get_mut(&id).ok_or(ControlError::Unknown(id))?;
        peer.refused = true;
        peer.resolving.clear();
        self.held.forget(id);
        let links = [peer.session.take(), peer.dialling.take()];
        for link in links.into_iter().flatten() {
            let fault = SessionError::new(CloseCode::NotAdmitted, "the operator disconnected this peer");
            self.drop_session(link);
            self.links.close(now, link, fault.code, &fault.reason);
        }
        self.know_relays(now);
        let addresses = self.peers.get(&id).map(|peer| peer.addresses.iter().map(ToString::to_string).collect());
        let link = SavedPeer { peer: id, wish: PeerSetting::Refuse(addresses.unwrap_or_default()) };
        self.submit(StoreRequest::SaveLink(link), Pending::Save { call: Some(call) });
        Ok(())
    }

    pub(super) fn on_saved(&mut self, call: u64, error: Option<store::Error>) {
        if error.is_none()
            && let Some(arrival) = self.arrivals.iter_mut().find(|arrival| arrival.call == call)
        {
            arrival.saved = true;
            return;
        }
        self.arrivals.retain(|arrival| arrival.call != call);
        let answer = error.map_or(Ok(Answer::Done), |error| Err(ControlError::NotSaved(error.to_string())));
        self.events.push_back(Event::Answered { call, answer });
    }

    /// Answers the calls for peers that are admitted.
    fn answer_arrivals(&mut self) {
        for arrival in std::mem::take(&mut self.arrivals) {
            if arrival.saved && self.is_live(&arrival.peer) {
                self.done(arrival.call);
            } else {
                self.arrivals.push(arrival);
            }
        }
    }

    /// Answers the calls for peers that are admitted, and fails those past their deadline with the reason.
    pub(super) fn check_arrivals(&mut self, now: Now) {
        if self.arrivals.is_empty() {
            return;
        }
        self.answer_arrivals();
        let (late, others): (Vec<_>, _) =
            std::mem::take(&mut self.arrivals).into_iter().partition(|arrival| now.reached(arrival.until));
        self.arrivals = others;
        for Arrival { call, peer, .. } in late {
            let why = self.peers.get(&peer).map(|known| self.why_not(known)).filter(|why| !why.is_empty());
            let why = why.unwrap_or_else(|| "there was no answer yet".to_owned());
            self.events.push_back(Event::Answered { call, answer: Err(ControlError::NotAdmitted(peer, why)) });
        }
    }

    fn is_live(&self, id: &EndpointId) -> bool {
        let session = self.peers.get(id).and_then(|peer| self.sessions.get(&peer.session?));
        session.is_some_and(Session::is_live)
    }

    fn list_peers(&self, now: Now, all: bool) -> Vec<Peer> {
        let mut everything = None;
        self.peers
            .iter()
            .filter(|(_, peer)| all || !peer.refused)
            .map(|(id, peer)| self.show(now, *id, peer, &mut everything))
            .collect()
    }

    /// Adds a warning to the reason of a path if this database is a restored backup and the peer was admitted by the formation
    /// key: the backup may lack a later `disconnect`.
    fn with_doubt(&self, peer: &peers::Peer, reason: String) -> String {
        if self.went_back && !peer.pinned {
            format!("{reason}; this database is a restored backup, which may lack a `disconnect` of this peer")
        } else {
            reason
        }
    }

    fn measure(&mut self, now: Now) -> Measured {
        let recent = self.everything.filter(|(at, _)| !now.reached(*at + EVERYTHING_STANDS));
        let mut everything = recent.map(|(_, count)| count);
        let measured = self.measure_with(now, &mut everything);
        self.everything = recent.or(everything.map(|count| (now.mono, count)));
        measured
    }

    fn measure_with(&self, now: Now, everything: &mut Option<u64>) -> Measured {
        let known = || self.peers.iter().filter(|(_, peer)| !peer.refused);
        let (connected, others): (Vec<_>, Vec<_>) = known().partition(|(_, peer)| peer.session.is_some());
        let listed = connected.iter().chain(&others).take(LISTED_PEERS);
        let peers = listed.map(|(id, peer)| self.show(now, **id, peer, everything)).collect();
        Measured { stats: self.stats(), known_peers: known().count(), peers }
    }

    /// Returns one peer as lists show it; `everything` caches the pending count shared by all disconnected peers.
    fn show(&self, now: Now, id: EndpointId, peer: &peers::Peer, everything: &mut Option<u64>) -> Peer {
        let session = peer.session.and_then(|link| self.sessions.get(&link)).filter(|session| session.is_live());
        let dialled = peer.addresses.iter().map(ToString::to_string);
        let seen = peer.seen_at.map(|address| self.relays.show(address)).filter(|_| peer.addresses.is_empty());
        let way = session.and_then(|session| self.links.way(session.link));
        let age = peer.last_ack.map_or(0, |at| (now.mono - at).as_millis());
        Peer {
            id,
            addresses: dialled.chain(seen).collect(),
            connected: session.is_some(),
            path: way.map(|(through, _)| if through { "relay" } else { "direct" }),
            path_reason: way.map(|(_, reason)| self.with_doubt(peer, reason.to_string())).unwrap_or_default(),
            rtt_micros: session.map_or(0, |session| micros(self.links.rtt(session.link))),
            last_ack_age_ms: u64::try_from(age).unwrap_or(u64::MAX),
            pending_documents: match session.and_then(Session::outbox) {
                None => *everything.get_or_insert_with(|| self.pending_documents(None)),
                outbox => self.pending_documents(outbox) + self.held.counts(id)[0],
            },
            held_documents: self.held.counts(id).into_iter().sum(),
            clock_skew_ms: peer.skew_ms,
            last_error: match session {
                Some(session) => self.stall(now, session).unwrap_or_default(),
                None => self.why_not(peer),
            },
            name: peer.name.clone(),
            traffic: peer.traffic,
        }
    }

    /// Returns the stalled wait of a session as text.
    fn stall(&self, now: Now, session: &Session) -> Option<String> {
        session.stall(now, self.links.rtt(session.link)).map(|stall| stall.to_string())
    }

    fn why_not(&self, peer: &peers::Peer) -> String {
        if peer.refused {
            return "disconnected by an operator; `peat-node connect` admits it again".to_owned();
        }
        if !self.active {
            return "radio silence: sync is stopped".to_owned();
        }
        if peer.last_error.is_empty() && peer.addresses.is_empty() {
            return NO_ADDRESS.to_owned();
        }
        let relay = self.relays.trouble(&peer.addresses).filter(|words| *words != peer.last_error);
        let words = [Some(peer.last_error.clone()), relay].into_iter().flatten().filter(|words| !words.is_empty());
        words.collect::<Vec<_>>().join("; ")
    }

    /// Returns the number of documents of which a peer has not acknowledged the newest version; all for a disconnected peer.
    /// Stops at `PENDING_COUNTED`.
    fn pending_documents(&self, outbox: Option<&Outbox>) -> u64 {
        let Ok(snapshot) = self.reader.snapshot() else { return 0 };
        let source = outbox.and_then(Outbox::source);
        let lacking = Kind::ALL.into_iter().filter_map(|kind| {
            let acked = outbox.map_or(0, |outbox| outbox.acked(kind));
            snapshot.entries(kind, acked).ok()
        });
        let owed = lacking
            .flatten()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.from == 0 || Some(entry.from) != source));
        owed.take(PENDING_COUNTED).count() as u64
    }

    // Radio silence.

    fn start_sync(&mut self, now: Now) {
        if !self.active {
            self.active = true;
            self.refuse_silence(&ControlError::StartedAgain);
            self.peers.iter_mut().for_each(|(_, peer)| peer.dial_now(now));
            self.wake_relays(now);
            self.save_sync(true);
        }
    }

    /// Begins radio silence: not one datagram is sent from here on. The call is answered once the resolver and this node's own
    /// relay are quiet and, with `--persist-sync`, the setting is on disk, so that the next start is silent too.
    fn stop_sync(&mut self, now: Now, call: u64) {
        self.falling_silent.push(call);
        if self.active {
            self.active = false;
            self.links.forget_all();
            self.roaming = Roaming::default();
            self.silence_relays(now);
            self.sessions.clear();
            self.dirty.clear();
            for name in self.lookups.drain(..) {
                self.looking_up.remove(&name);
            }
            for (_, peer) in self.peers.iter_mut() {
                peer.session = None;
                peer.dialling = None;
                peer.resolving.clear();
            }
            self.save_sync(false);
        }
        self.answer_silence();
    }

    /// Handles the result of saving the sync setting. A setting that is not on disk is lost at a restart, so waiting calls
    /// fail; the node is silent all the same.
    pub(super) fn on_sync_saved(&mut self, error: Option<store::Error>) {
        self.saving_sync -= 1;
        if let Some(error) = error {
            self.refuse_silence(&ControlError::NotSaved(error.to_string()));
        }
        self.answer_silence();
    }

    /// Fails the calls that wait for silence, with this reason.
    fn refuse_silence(&mut self, why: &ControlError) {
        for call in std::mem::take(&mut self.falling_silent) {
            self.events.push_back(Event::Answered { call, answer: Err(why.clone()) });
        }
    }

    pub(super) fn answer_silence(&mut self) {
        if self.looking_up.is_empty() && self.saving_sync == 0 && self.relay_owes == 0 {
            for call in std::mem::take(&mut self.falling_silent) {
                self.done(call);
            }
        }
    }

    // Waiting for peers.

    fn wait_peers(&mut self, call: u64, key: KeyHash, sequence: u64, peers: u32) {
        if peers == 0 {
            self.done(call);
            return;
        }
        self.waits.add(call, key, sequence, peers);
        let live: Vec<_> = self.sessions.values().filter(|session| session.is_live()).map(|s| s.link).collect();
        for link in live {
            if let Some(session) = self.sessions.remove(&link) {
                self.check_waits(&session, &[]);
                self.sessions.insert(link, session);
            }
            self.dirty.insert(link);
        }
    }

    /// Answers the waits satisfied by a session: by documents it acknowledged, or by its cursors having passed them.
    pub(super) fn check_waits(&mut self, session: &Session, acked: &[(KeyHash, u64)]) {
        if self.waits.is_empty() {
            return;
        }
        let mut done = Vec::new();
        for (key, sequence) in acked {
            done.extend(self.waits.held(session.peer, *key, *sequence));
        }
        let passed: Vec<_> = self.waits.keys().filter(|(key, _)| self.has_passed(session, key)).collect();
        for (key, sequence) in passed {
            done.extend(self.waits.held(session.peer, key, sequence));
        }
        done.into_iter().for_each(|call| self.done(call));
    }

    /// Returns true if the peer has confirmed everything up to the newest version of a document, and holds that version: the
    /// collection syncs with it, and the version was neither refused nor withheld.
    fn has_passed(&self, session: &Session, key: &KeyHash) -> bool {
        let (Ok(snapshot), Some(outbox)) = (self.reader.snapshot(), session.outbox()) else { return false };
        let Ok(Some(record)) = snapshot.record(key) else { return false };
        outbox.has(key, record.kind, record.sequence) && outbox.travels(&record, &snapshot).is_ok_and(|travels| travels)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
