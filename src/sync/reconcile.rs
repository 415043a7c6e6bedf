//! Range-based set reconciliation: finds the records that two nodes hold in different versions, in few and small messages.
//!
//! Owns one side of one exchange over a fixed [`Set`]; must never read a document, a store or a connection. The bytes are in
//! `docs/wire.md`.
//!
//! # The problem
//!
//! Two nodes hold up to hundreds of thousands of records each, nearly all of them equal, and no cursor describes the difference:
//! one was restored from a backup, or they exchanged documents through third nodes. To list every key and version costs 32 bytes
//! per record on a link that may carry 1 kB/s. A Merkle tree has to be maintained on disk with every commit, in a shape on which
//! both nodes agree.
//!
//! # The algorithm
//!
//! Both sides sort their records by key hash. The fingerprint of a range of keys is a hash of the number of its records and of
//! the sum of their hashes, so that prefix sums yield the fingerprint of any range. One side sends the fingerprint of all keys.
//! A side that receives
//!
//! * a fingerprint equal to its own is done with that range;
//! * a different fingerprint splits the range into `PARTS` of equal numbers of its own records and sends their fingerprints, or
//!   lists its records if there are at most `LEAF_ITEMS`;
//! * a list compares it with its own records, notes the records that the other side needs, and answers with the items of the list
//!   that it needs itself.
//!
//! The number of turns thus grows with the logarithm of the set, and the bytes with the number of differences.
//!
//! The sides take turns. Pass every message to [`Reconciler::handle`] and send what it returns; the exchange is over for this
//! side once [`Reconciler::is_done`]:
//!
//! ```
//! use peat_node::store::{KeyHash, VersionHash};
//! use peat_node::sync::reconcile::{Differences, Item, Reconciler, RemoteHas, Set};
//!
//! let item = |key, version| Item { hash: KeyHash([key; 16]), version: VersionHash([version; 16]) };
//! let (mut ours, mut theirs) = (Differences::default(), Differences::default());
//!
//! let (mut a, first) = Reconciler::initiate(Set::build(vec![item(1, 1), item(2, 1)]));
//! let mut b = Reconciler::respond(Set::build(vec![item(2, 7)]));
//! let mut message = Some(first);
//! while let Some(from_a) = message {
//!     let Some(from_b) = b.handle(&from_a, &mut theirs)? else { break };
//!     message = a.handle(&from_b, &mut ours)?;
//! }
//! assert!(a.is_done() && b.is_done());
//! assert_eq!(ours.send, [(KeyHash([1; 16]), RemoteHas::Lacks)]);
//! assert_eq!(theirs.send, [(KeyHash([2; 16]), RemoteHas::Differs)], "7 orders above 1");
//! # Ok::<(), peat_node::sync::reconcile::ReconcileError>(())
//! ```
//!
//! # Bounds
//!
//! The work is bounded regardless of what the other side sends: messages by [`MESSAGE_BYTES`], turns and unanswered ranges by the
//! size of this side's set, and no key is reported twice.
//!
//! # Tests
//!
//! `reconcile/tests.rs` compares exchanges with a model, bounds their messages, and mutates honest messages.

mod set;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use crate::store::KeyHash;
use crate::store::fingerprint::{FINGERPRINT_BYTES, Fingerprint};
pub use set::{Item, Set};
use wire::{Reader, Span, SpanContent, Status, Writer};

/// Maximum size of a message in either direction, in bytes.
pub const MESSAGE_BYTES: usize = 60 << 10;
/// Weight of a message, in bytes, up to which further ranges are answered; one more still fits.
const FILL_BYTES: usize = MESSAGE_BYTES - (2 << 10);
/// Maximum size of an answer without its statuses, in bytes: two bounds of 18 bytes and a count.
const ANSWER_BYTES: usize = 40;
/// Number of records up to which a range is listed rather than split.
const LEAF_ITEMS: usize = 16;
/// Number of parts of the whole key space, once it is known to differ. Only one range pays for this width, and it saves a turn.
const ROOT_PARTS: usize = 64;
/// Number of parts of any other range.
const PARTS: usize = 12;
/// Maximum number of turns of an exchange, plus one for every 64 items of the set.
const BASE_TURNS: usize = 64;

const _: () = assert!(
    FILL_BYTES + ROOT_PARTS * (18 + FINGERPRINT_BYTES) + 18 < MESSAGE_BYTES,
    "the widest split fits after the last check"
);
const _: () = assert!(FILL_BYTES + LEAF_ITEMS * 32 + 38 < MESSAGE_BYTES, "the longest list fits after the last check");

/// State of the other side under a key of this side.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RemoteHas {
    /// The other side has no record.
    Lacks,
    /// The other side has another version, which may need this one: it orders before it or is concurrent.
    Differs,
}

/// Differences found so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Differences {
    /// Keys that the other side lacks or holds in a version that this side's may add to, each once, in no particular order.
    /// Excludes keys that it holds in a version that orders above.
    pub send: Vec<(KeyHash, RemoteHas)>,
}

/// Reason for which an exchange was abandoned. The other side is to blame for all of them except [`ReconcileError::Finished`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReconcileError {
    /// The message has this many bytes, over [`MESSAGE_BYTES`].
    Long(usize),
    /// The bytes are not a message, for this reason.
    Malformed(&'static str),
    /// The message contradicts earlier ones, in this way.
    Inconsistent(&'static str),
    /// The exchange takes more turns than any honest one over this set.
    Endless,
    /// The message came after the end of the exchange.
    Finished,
}

impl fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReconcileError::Long(bytes) => {
                write!(f, "a reconciliation message has {bytes} bytes; the limit is {MESSAGE_BYTES}")
            }
            ReconcileError::Malformed(what) => write!(f, "malformed reconciliation message: {what}"),
            ReconcileError::Inconsistent(what) => write!(f, "inconsistent reconciliation message: {what}"),
            ReconcileError::Endless => write!(f, "the reconciliation does not come to an end"),
            ReconcileError::Finished => write!(f, "a reconciliation message after the end"),
        }
    }
}

impl std::error::Error for ReconcileError {}

/// One side of one exchange.
#[derive(Debug)]
pub struct Reconciler {
    set: Set,
    state: State,
    turns: usize,
    /// Ranges known to differ and not answered yet: first key to last key, disjoint.
    open: BTreeMap<u128, u128>,
    /// Ranges listed by the last message sent, ascending; only these can be answered.
    listed: Vec<Span>,
    /// One bit for each item of the set, set once it is reported.
    reported: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Talking,
    Done,
    Failed(ReconcileError),
}

/// Content of a received message that requires a reply.
#[derive(Default)]
struct Received {
    answers: Vec<(Span, Vec<Status>)>,
    /// True if it expects a reply, even an empty one.
    expects: bool,
    /// True if its sender has more to send.
    more: bool,
}

impl Reconciler {
    /// Starts an exchange; also returns the first message.
    #[must_use]
    pub fn initiate(set: Set) -> (Reconciler, Vec<u8>) {
        Reconciler::begin(set, |reconciler, writer| {
            let everything = reconciler.set.within(Span::ALL);
            if everything.len() <= LEAF_ITEMS {
                reconciler.list(Span::ALL, writer);
            } else {
                writer.fingerprint(Span::ALL, &reconciler.set.fingerprint(everything));
            }
        })
    }

    /// Starts an exchange between sides known to differ, which saves a turn; also returns the first message.
    #[must_use]
    pub fn initiate_differing(set: Set) -> (Reconciler, Vec<u8>) {
        Reconciler::begin(set, |reconciler, writer| _ = reconciler.advance(Span::ALL, writer))
    }

    fn begin(set: Set, say: impl FnOnce(&mut Reconciler, &mut Writer)) -> (Reconciler, Vec<u8>) {
        let mut reconciler = Reconciler::respond(set);
        let mut writer = Writer::default();
        say(&mut reconciler, &mut writer);
        if reconciler.set.is_empty() {
            reconciler.state = State::Done;
        }
        (reconciler, writer.into_bytes())
    }

    /// Creates the side that waits for the first message.
    #[must_use]
    pub fn respond(set: Set) -> Reconciler {
        let reported = vec![0; set.len().div_ceil(64)];
        Reconciler { set, state: State::Talking, turns: 0, open: BTreeMap::new(), listed: Vec::new(), reported }
    }

    /// Returns true if everything is found, and no message will be sent or is expected.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Handles a message of the other side, adds its findings to `found`, and returns the reply: possibly an empty one, which
    /// must be sent all the same, or `None` if none is expected and the exchange is over.
    ///
    /// # Errors
    /// The message is malformed, contradicts earlier ones, or exceeds the number of turns. The exchange cannot continue then;
    /// its findings so far are right if the other side was honest, and harmless if not.
    pub fn handle(&mut self, message: &[u8], found: &mut Differences) -> Result<Option<Vec<u8>>, ReconcileError> {
        let reply = self.turn(message, found);
        if let Err(error) = reply {
            self.state = State::Failed(error);
            self.open.clear();
        }
        reply
    }

    fn turn(&mut self, message: &[u8], found: &mut Differences) -> Result<Option<Vec<u8>>, ReconcileError> {
        self.admit(message)?;
        let received = self.receive(message, found)?;
        if !received.expects && !received.more && self.open.is_empty() {
            self.state = State::Done;
            return Ok(None);
        }
        let (reply, expects) = self.compose(received.answers)?;
        if !expects && !received.more && self.open.is_empty() {
            self.state = State::Done;
        }
        Ok(Some(reply))
    }

    fn admit(&mut self, message: &[u8]) -> Result<(), ReconcileError> {
        match self.state {
            State::Talking if message.len() > MESSAGE_BYTES => return Err(ReconcileError::Long(message.len())),
            State::Talking => self.turns += 1,
            State::Done => return Err(ReconcileError::Finished),
            State::Failed(error) => return Err(error),
        }
        if self.turns > BASE_TURNS + self.set.len() / 64 {
            return Err(ReconcileError::Endless);
        }
        Ok(())
    }

    fn receive(&mut self, message: &[u8], found: &mut Differences) -> Result<Received, ReconcileError> {
        let mut received = Received::default();
        let mut reader = Reader::new(message);
        while let Some((span, entry)) = reader.next_entry()? {
            match entry {
                SpanContent::Fingerprint(theirs) => {
                    received.expects = true;
                    self.compare(span, theirs)?;
                }
                SpanContent::Items(theirs) => {
                    received.expects |= !theirs.is_empty();
                    let statuses = self.match_items(span, &theirs, found)?;
                    if !statuses.is_empty() {
                        received.answers.push((span, statuses));
                    }
                }
                SpanContent::Answer(statuses) => self.take_answer(span, &statuses, found)?,
            }
        }
        received.more = reader.more();
        Ok(received)
    }

    /// Keeps the range open if its fingerprint differs.
    fn compare(&mut self, span: Span, theirs: Fingerprint) -> Result<(), ReconcileError> {
        self.check_not_open(span)?;
        if self.set.fingerprint(self.set.within(span)) == theirs {
            return Ok(());
        }
        // They are parts of ranges split by this side, and except for the root every such range has at least two items.
        if self.open.len() >= ROOT_PARTS * PARTS + self.set.len() / 2 * PARTS {
            return Err(ReconcileError::Inconsistent("more ranges than our set can have"));
        }
        self.open.insert(span.first, span.last);
        Ok(())
    }

    /// Checks that a range was handed to the other side, and so does not wait here.
    fn check_not_open(&self, span: Span) -> Result<(), ReconcileError> {
        match self.open.range(..=span.last).next_back() {
            Some((_, last)) if *last >= span.first => Err(ReconcileError::Inconsistent("a range that is not theirs")),
            _ => Ok(()),
        }
    }

    /// Merges both sides' items of a range; returns the statuses of the other side's items, to be sent to it.
    fn match_items(
        &mut self,
        span: Span,
        theirs: &[Item],
        found: &mut Differences,
    ) -> Result<Vec<Status>, ReconcileError> {
        self.check_not_open(span)?;
        let mut statuses = Vec::new();
        let mut ours = self.set.within(span).peekable();
        for (position, item) in theirs.iter().enumerate() {
            while let Some(index) = ours.next_if(|index| self.set.item(*index).hash < item.hash) {
                self.report(index, RemoteHas::Lacks, found)?;
            }
            match ours.next_if(|index| self.set.item(*index).hash == item.hash) {
                None => statuses.push(Status { position, theirs: RemoteHas::Lacks }),
                Some(index) if self.set.item(index).version == item.version => {}
                Some(index) => {
                    let (ours, theirs) = (self.set.item(index).version.order(), item.version.order());
                    if ours >= theirs {
                        self.report(index, RemoteHas::Differs, found)?;
                    }
                    if ours <= theirs {
                        statuses.push(Status { position, theirs: RemoteHas::Differs });
                    }
                }
            }
        }
        ours.try_for_each(|index| self.report(index, RemoteHas::Lacks, found))?;
        Ok(statuses)
    }

    fn take_answer(&mut self, span: Span, statuses: &[Status], found: &mut Differences) -> Result<(), ReconcileError> {
        if self.listed.binary_search_by_key(&span.first, |listed| listed.first).map(|at| self.listed[at]) != Ok(span) {
            return Err(ReconcileError::Inconsistent("an answer to a list that was not sent"));
        }
        let ours = self.set.within(span);
        for status in statuses {
            if status.position >= ours.len() {
                return Err(ReconcileError::Inconsistent("an answer about more items than were listed"));
            }
            self.report(ours.start + status.position, status.theirs, found)?;
        }
        Ok(())
    }

    fn report(&mut self, index: usize, theirs: RemoteHas, found: &mut Differences) -> Result<(), ReconcileError> {
        let (word, bit) = (&mut self.reported[index / 64], 1 << (index % 64));
        if *word & bit != 0 {
            return Err(ReconcileError::Inconsistent("the same key twice"));
        }
        *word |= bit;
        found.send.push((self.set.item(index).hash, theirs));
        Ok(())
    }

    /// Writes all answers, and as many of the open ranges as fit, in key order. Also returns true if that expects a reply.
    fn compose(&mut self, answers: Vec<(Span, Vec<Status>)>) -> Result<(Vec<u8>, bool), ReconcileError> {
        let mut weight: usize = answers.iter().map(|(_, statuses)| ANSWER_BYTES + 2 * statuses.len()).sum();
        let mut answers = answers.into_iter().peekable();
        let mut writer = Writer::default();
        let mut expects = false;
        self.listed.clear();
        while weight < FILL_BYTES {
            let Some((first, last)) = self.open.pop_first() else { break };
            while let Some((span, statuses)) = answers.next_if(|(span, _)| span.first < first) {
                writer.answer(span, &statuses);
            }
            let before = writer.len();
            expects |= self.advance(Span { first, last }, &mut writer);
            // A list's answer can be longer than the list, and has to fit the other side's message too.
            weight += (writer.len() - before).max(ANSWER_BYTES + LEAF_ITEMS);
        }
        answers.for_each(|(span, statuses)| writer.answer(span, &statuses));
        if !self.open.is_empty() {
            writer.more();
        }
        match writer.len() {
            bytes if bytes > MESSAGE_BYTES => Err(ReconcileError::Inconsistent("lists whose answer is too long")),
            _ => Ok((writer.into_bytes(), expects)),
        }
    }

    /// Lists or splits a range that differs; returns true if that expects a reply.
    fn advance(&mut self, span: Span, writer: &mut Writer) -> bool {
        let ours = self.set.within(span);
        if ours.len() <= LEAF_ITEMS {
            self.list(span, writer);
            return !ours.is_empty();
        }
        // Parts have equal numbers of this side's records, not equal spans of keys.
        let parts = if span == Span::ALL { ROOT_PARTS.min(ours.len()) } else { PARTS };
        let mut first = span.first;
        let mut start = ours.start;
        for part in 1..=parts {
            let end = ours.start + ours.len() * part / parts;
            let last = if part == parts { span.last } else { self.set.bound_before(end) - 1 };
            writer.fingerprint(Span { first, last }, &self.set.fingerprint(start..end));
            (first, start) = (last.wrapping_add(1), end);
        }
        true
    }

    fn list(&mut self, span: Span, writer: &mut Writer) {
        let ours = self.set.within(span);
        if !ours.is_empty() {
            self.listed.push(span);
        }
        writer.items(span, self.set.items(ours));
    }
}
