//! One relay as a node uses it: asked for a place, and asked again before the place ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::relay::wire::{Answer, RelayKey, Request};

/// Between two requests while the relay answers. It keeps the way through address translators open, and shows soon that a
/// relay has been started anew.
const REFRESH: Duration = Duration::from_secs(10);
/// A request that is not answered is sent again after this, then after twice as long, and so on,
const RETRY_MIN: Duration = Duration::from_millis(250);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// When a link has trouble, its relay is asked at most this often.
const HURRY: Duration = Duration::from_secs(1);
/// After so many unanswered requests in a row the name is looked up again.
const LOOK_AGAIN: u32 = 4;

/// What a relay's answer comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// Nothing has changed that anybody else needs to know.
    None,
    /// There is a place now, and there was none before.
    Up,
}

#[derive(Debug)]
pub(super) struct Client {
    /// `HOST:PORT`.
    pub(super) host: String,
    /// Where the host is, as far as is known.
    addresses: Vec<SocketAddr>,
    /// Which of them is tried.
    turn: usize,
    pub(super) looking_up: bool,
    cookie: [u8; 16],
    token: Option<([u8; 2], Instant)>,
    nonce: u64,
    asked: Option<Instant>,
    next: Instant,
    failures: u32,
    /// Why there is no place.
    trouble: String,
}

impl Client {
    pub(super) fn new(host: String, nonce: u64, now: Now) -> Client {
        let addresses: Vec<SocketAddr> = host.parse().into_iter().collect();
        Client {
            host,
            addresses,
            turn: 0,
            looking_up: false,
            cookie: [0; 16],
            token: None,
            nonce,
            asked: None,
            next: now.mono,
            failures: 0,
            trouble: "it has not answered yet".to_owned(),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        (!self.addresses.is_empty()).then(|| self.addresses[self.turn % self.addresses.len()])
    }

    /// The token of the place there is.
    pub(super) fn token(&self, now: Now) -> Option<[u8; 2]> {
        self.token.filter(|(_, until)| !now.reached(*until)).map(|(token, _)| token)
    }

    pub(super) fn trouble(&self) -> &str {
        &self.trouble
    }

    /// There is a place, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.token.is_some()
    }

    /// No place, and nothing known but its name.
    pub(super) fn forget(&mut self, now: Now) {
        self.token = None;
        self.asked = None;
        self.looking_up = false;
        self.failures = 0;
        self.next = now.mono;
    }

    /// Whether its name is to be looked up before it can be asked.
    pub(super) fn wants_look_up(&self, now: Now) -> bool {
        self.addresses.is_empty() && !self.looking_up && now.reached(self.next)
    }

    pub(super) fn on_resolved(&mut self, now: Now, result: Result<&[SocketAddr], &String>) {
        self.looking_up = false;
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                self.addresses = addresses.to_vec();
                self.next = now.mono;
            }
            other => {
                let why = other.err().map_or("it has no address", String::as_str);
                self.trouble = format!("looking it up: {why}");
                self.next = now.after(RETRY_MAX);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.looking_up).then_some(self.next)
    }

    /// The request that is due.
    pub(super) fn poll_request(&mut self, now: Now, identity: &Identity, key: &RelayKey) -> Option<Vec<u8>> {
        if self.addresses.is_empty() || !now.reached(self.next) {
            return None;
        }
        self.token = self.token(now).map(|token| (token, self.token.map_or(now.mono, |(_, until)| until)));
        if self.asked.is_some() {
            self.failures += 1;
            "it does not answer; it may be off, out of reach, or have another key".clone_into(&mut self.trouble);
            // The place may be at one address of a host that has several.
            if self.token(now).is_none() {
                self.turn += 1;
                if self.failures.is_multiple_of(LOOK_AGAIN) && self.host.parse::<SocketAddr>().is_err() {
                    self.addresses.clear();
                    return None;
                }
            }
        }
        self.asked = Some(now.mono);
        self.next = now.after(RETRY_MIN.saturating_mul(1 << self.failures.min(5)).min(RETRY_MAX));
        self.nonce = self.nonce.wrapping_add(1);
        Some(Request::new(identity, self.nonce.to_be_bytes(), self.cookie).to_bytes(key))
    }

    pub(super) fn on_answer(&mut self, now: Now, datagram: &[u8], id: &EndpointId, key: &RelayKey) -> Progress {
        let Some((nonce, answer)) = Answer::parse(datagram, id, key) else { return Progress::None };
        if self.asked.is_none() || nonce != self.nonce.to_be_bytes() {
            return Progress::None;
        }
        self.asked = None;
        match answer {
            Answer::Cookie(cookie) => {
                // A relay that is content with no cookie it gave is asked at the pace of one that does not answer.
                let wait = if cookie == self.cookie { RETRY_MAX } else { Duration::ZERO };
                self.cookie = cookie;
                self.next = now.after(wait);
                Progress::None
            }
            Answer::Refused(why) => {
                self.trouble = why.to_string();
                self.token = None;
                self.next = now.after(REFRESH);
                Progress::None
            }
            Answer::Allocated { token, seconds } => {
                let news = self.token(now).is_none();
                self.token = Some((token, now.after(Duration::from_secs(seconds.into()))));
                self.failures = 0;
                self.next = now.after(REFRESH.min(Duration::from_secs(seconds.into()) / 3).max(RETRY_MIN));
                if news { Progress::Up } else { Progress::None }
            }
        }
    }

    /// Asks at once, as if nothing had been asked before.
    pub(super) fn ask_again(&mut self, now: Now) {
        self.asked = None;
        self.failures = 0;
        self.next = now.mono;
    }

    /// A link has trouble: asks whether the place is still there, unless that was asked just now.
    pub(super) fn hurry(&mut self, now: Now) {
        if self.asked.is_none() {
            let due = now.after(HURRY);
            self.next = self.next.min(due);
        }
    }
}
