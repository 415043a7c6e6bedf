//! Client of one relay: requests an allocation, and renews it before it expires.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::relay::wire::{AllocationClaim, AllocationRequest, Answer, Refusal, RelayId, RelayKey, Token};

/// Interval of requests while the relay answers. Keeps NAT bindings alive, and detects soon that a relay has restarted.
const REFRESH: Duration = Duration::from_secs(10);
/// Delay before an unanswered request is repeated; doubles each time, up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest delay before an unanswered request is repeated.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Minimum interval of requests prompted by an unanswered link.
const HURRY: Duration = Duration::from_secs(1);
/// Number of consecutive unanswered requests after which the name is resolved again.
const LOOK_AGAIN: u32 = 4;
/// Time for which a relay that forwards another one's answers is not used: its cookie, and the allocation that it holds in this
/// node's name, have expired by then.
const SUSPENDED: Duration = Duration::from_secs(180);

/// Result of a relay's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// Nothing has changed for other parts.
    None,
    /// An allocation was granted; there was none before.
    Up,
    /// The relay serves this node's id at another address.
    Elsewhere,
}

#[derive(Debug)]
pub(super) struct Client {
    /// `HOST:PORT`.
    pub(super) host: String,
    /// Known addresses of the host.
    addresses: Vec<SocketAddr>,
    /// Index of the address in use, modulo their number.
    turn: usize,
    pub(super) looking_up: bool,
    /// Claim of the next request, from the relay's last answers.
    claim: AllocationClaim,
    token: Option<(Token, Instant)>,
    nonce: u64,
    asked: Option<Instant>,
    next: Instant,
    failures: u32,
    /// Reason why there is no allocation.
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
            claim: AllocationClaim::default(),
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

    /// Returns the token of the current allocation.
    pub(super) fn token(&self, now: Now) -> Option<Token> {
        self.token.filter(|(_, until)| !now.reached(*until)).map(|(token, _)| token)
    }

    pub(super) fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Returns true if there is an allocation, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.token.is_some()
    }

    /// Drops the allocation and all state of requests; name, addresses and claim stay.
    pub(super) fn forget(&mut self, now: Now) {
        self.token = None;
        self.asked = None;
        self.looking_up = false;
        self.failures = 0;
        self.next = now.mono;
    }

    /// Returns true if its name has to be looked up before a request can be sent.
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

    /// Returns the request that is due.
    pub(super) fn poll_request(&mut self, now: Now, identity: &Identity, key: &RelayKey) -> Option<Vec<u8>> {
        if self.addresses.is_empty() || !now.reached(self.next) {
            return None;
        }
        // Drops an expired token, and keeps the expiry of a valid one.
        self.token = self.token(now).map(|token| (token, self.token.map_or(now.mono, |(_, until)| until)));
        if self.asked.is_some() {
            self.failures += 1;
            "it does not answer; it may be off, out of reach, or have another key".clone_into(&mut self.trouble);
            // The allocation may be at another address of a host that has several.
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
        Some(AllocationRequest::new(identity, self.nonce.to_be_bytes(), self.claim).to_bytes(key))
    }

    pub(super) fn on_answer(&mut self, now: Now, datagram: &[u8], id: &EndpointId, key: &RelayKey) -> Progress {
        let Some((nonce, answer)) = Answer::parse(datagram, id, key) else { return Progress::None };
        if self.asked.is_none() || nonce != self.nonce.to_be_bytes() {
            return Progress::None;
        }
        self.asked = None;
        match answer {
            Answer::Cookie { relay, cookie } => {
                // A relay that accepts none of its own cookies is polled at the rate of one that does not answer.
                let unchanged = self.claim.cookie == cookie && self.claim.relay == relay;
                self.claim = AllocationClaim { relay, cookie, ..self.claim };
                self.next = if unchanged { now.after(RETRY_MAX) } else { now.mono };
                Progress::None
            }
            Answer::Refused(reason) => {
                self.trouble = reason.to_string();
                self.token = None;
                self.next = now.after(REFRESH);
                if reason == Refusal::Elsewhere { Progress::Elsewhere } else { Progress::None }
            }
            Answer::Allocated { token, seconds } => {
                let news = self.token(now).is_none();
                self.claim.token = token;
                self.token = Some((token, now.after(Duration::from_secs(seconds.into()))));
                self.failures = 0;
                self.next = now.after(REFRESH.min(Duration::from_secs(seconds.into()) / 3).max(RETRY_MIN));
                if news { Progress::Up } else { Progress::None }
            }
        }
    }

    /// Returns the relay's id; zeros before its first answer.
    pub(super) fn relay(&self) -> RelayId {
        self.claim.relay
    }

    /// Suspends requests: it presented the id of the relay at `host`, which serves this node's id at another address.
    pub(super) fn suspend(&mut self, now: Now, host: &str) {
        self.forget(now);
        self.claim = AllocationClaim::default();
        self.trouble = format!("it passes on the answers of relay {host}");
        self.next = now.after(SUSPENDED);
    }

    /// Sends a request at once, as if none had been sent before.
    pub(super) fn ask_again(&mut self, now: Now) {
        self.asked = None;
        self.failures = 0;
        self.next = now.mono;
    }

    /// Verifies that the allocation still exists, because a link is unanswered, unless a request is outstanding.
    pub(super) fn hurry(&mut self, now: Now) {
        if self.asked.is_none() {
            let due = now.after(HURRY);
            self.next = self.next.min(due);
        }
    }
}
