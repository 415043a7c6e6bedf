//! Finds which records two nodes hold in different versions, in few and small messages.
//!
//! Range-based set reconciliation: both sides sort their records by key hash; one sends a fingerprint of everything;
//! whoever sees a fingerprint that is not its own splits that range, until a range is small enough to list. Owns one
//! side of one exchange over a fixed [`Set`]; must never look at a document, a store or a connection. The bytes are in
//! `docs/wire.md`.
//!
//! The sides take turns. Hand every message to [`Reconciler::handle`] and send what it returns; the exchange is over for
//! this side once [`Reconciler::is_done`]:
//!
//! ```
//! use peat_node::store::{KeyHash, VersionHash};
//! use peat_node::sync::reconcile::{Differences, Item, Reconciler, Set, Theirs};
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
//! assert_eq!(ours.send, [(KeyHash([1; 16]), Theirs::Lacks)]);
//! assert_eq!(theirs.send, [(KeyHash([2; 16]), Theirs::Differs)], "7 orders above 1");
//! # Ok::<(), peat_node::sync::reconcile::ReconcileError>(())
//! ```
//!
//! Whatever the other side sends, the work is bounded: messages by [`MESSAGE_BYTES`], turns and unanswered ranges by the
//! size of our own set, and no key is reported twice.

mod set;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use crate::store::KeyHash;
use crate::store::fingerprint::{FINGERPRINT_BYTES, Fingerprint};
pub use set::{Item, Set};
use wire::{Entry, Reader, Span, Status, Writer};

/// No message is longer, ours or theirs.
pub const MESSAGE_BYTES: usize = 60 << 10;
/// Ranges are answered while a message's weight is below this; one more still fits.
const FILL_BYTES: usize = MESSAGE_BYTES - (2 << 10);
/// What an answer takes at most besides its statuses: two bounds of 18 bytes and a count.
const ANSWER_BYTES: usize = 40;
/// A range with no more records than this is listed, not split.
const LEAF_ITEMS: usize = 16;
/// Parts of the whole key space, once it is known to differ. Only one range pays for this width, and it saves a turn.
const ROOT_PARTS: usize = 64;
/// Parts of any other range.
const PARTS: usize = 12;
/// Turns an exchange may take whatever the size of the set, and one more for every 64 items.
const BASE_TURNS: usize = 64;

const _: () = assert!(
    FILL_BYTES + ROOT_PARTS * (18 + FINGERPRINT_BYTES) + 18 < MESSAGE_BYTES,
    "the widest split fits after the last check"
);
const _: () = assert!(FILL_BYTES + LEAF_ITEMS * 32 + 38 < MESSAGE_BYTES, "the longest list fits after the last check");

/// What the other side has under a key of ours.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Theirs {
    /// Nothing.
    Lacks,
    /// Another version, which may need ours: one that orders before it or beside it.
    Differs,
}

/// What an exchange has found so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Differences {
    /// Keys the other side lacks or holds in a version that ours may add to, each once, in no particular order. What it
    /// holds in a version that orders above ours is not among them.
    pub send: Vec<(KeyHash, Theirs)>,
}

/// Why an exchange was given up. The other side is to blame for all of them but [`ReconcileError::Finished`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReconcileError {
    /// A message of this many bytes, over [`MESSAGE_BYTES`].
    Long(usize),
    /// Bytes that are no message: what is wrong with them.
    Malformed(&'static str),
    /// A message that does not fit what was said before: how.
    Inconsistent(&'static str),
    /// More turns than any honest exchange over our set takes.
    Endless,
    /// A message after the end of the exchange.
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
    /// Ranges known to differ that we have not answered yet: first key to last key, disjoint.
    open: BTreeMap<u128, u128>,
    /// Ranges our last message listed, ascending; only these can be answered.
    listed: Vec<Span>,
    /// A bit for each item of the set that was reported.
    reported: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Talking,
    Done,
    Failed(ReconcileError),
}

/// What a message asks of the side that received it.
#[derive(Default)]
struct Received {
    answers: Vec<(Span, Vec<Status>)>,
    /// It wants a reply, even one that says nothing.
    expects: bool,
    /// Its sender has more to say.
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

    /// Starts an exchange between sides that know already that they differ, a turn further on; also returns the first message.
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

    /// Waits for the first message of the other side.
    #[must_use]
    pub fn respond(set: Set) -> Reconciler {
        let reported = vec![0; set.len().div_ceil(64)];
        Reconciler { set, state: State::Talking, turns: 0, open: BTreeMap::new(), listed: Vec::new(), reported }
    }

    /// Whether everything is found and nothing further will be sent or expected.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the other side's message, adds what it reveals to `found`, and returns the reply: possibly an empty one,
    /// which must be sent all the same, or `None` when none is expected and the exchange is over.
    ///
    /// # Errors
    /// The message is malformed, contradicts what was said, or there are too many. Nothing more can be done with this
    /// exchange then; what was found up to there is right if the other side was honest, and harmless if not.
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
                Entry::Fingerprint(theirs) => {
                    received.expects = true;
                    self.compare(span, theirs)?;
                }
                Entry::Items(theirs) => {
                    received.expects |= !theirs.is_empty();
                    let statuses = self.match_items(span, &theirs, found)?;
                    if !statuses.is_empty() {
                        received.answers.push((span, statuses));
                    }
                }
                Entry::Answer(statuses) => self.take_answer(span, &statuses, found)?,
            }
        }
        received.more = reader.more();
        Ok(received)
    }

    /// Keeps the range open if its fingerprint is not ours.
    fn compare(&mut self, span: Span, theirs: Fingerprint) -> Result<(), ReconcileError> {
        self.check_not_open(span)?;
        if self.set.fingerprint(self.set.within(span)) == theirs {
            return Ok(());
        }
        // They are parts of ranges we split, and but for the root's every such range has two items or more.
        if self.open.len() >= ROOT_PARTS * PARTS + self.set.len() / 2 * PARTS {
            return Err(ReconcileError::Inconsistent("more ranges than our set can have"));
        }
        self.open.insert(span.first, span.last);
        Ok(())
    }

    /// A range of theirs must be one we gave away, so not one that waits here.
    fn check_not_open(&self, span: Span) -> Result<(), ReconcileError> {
        match self.open.range(..=span.last).next_back() {
            Some((_, last)) if *last >= span.first => Err(ReconcileError::Inconsistent("a range that is not theirs")),
            _ => Ok(()),
        }
    }

    /// Goes through both sides' items of a range; returns what to tell the other side about its own.
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
                self.report(index, Theirs::Lacks, found)?;
            }
            match ours.next_if(|index| self.set.item(*index).hash == item.hash) {
                None => statuses.push(Status { position, theirs: Theirs::Lacks }),
                Some(index) if self.set.item(index).version == item.version => {}
                Some(index) => {
                    let (ours, theirs) = (self.set.item(index).version.order(), item.version.order());
                    if ours >= theirs {
                        self.report(index, Theirs::Differs, found)?;
                    }
                    if ours <= theirs {
                        statuses.push(Status { position, theirs: Theirs::Differs });
                    }
                }
            }
        }
        ours.try_for_each(|index| self.report(index, Theirs::Lacks, found))?;
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

    fn report(&mut self, index: usize, theirs: Theirs, found: &mut Differences) -> Result<(), ReconcileError> {
        let (word, bit) = (&mut self.reported[index / 64], 1 << (index % 64));
        if *word & bit != 0 {
            return Err(ReconcileError::Inconsistent("the same key twice"));
        }
        *word |= bit;
        found.send.push((self.set.item(index).hash, theirs));
        Ok(())
    }

    /// Writes all answers, and as many of the open ranges as fit, in key order. Also returns whether that expects a reply.
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
            // A list's answer can be longer than the list; it has to fit the other side's message too.
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

    /// Lists or splits a range that differs; returns whether that expects a reply.
    fn advance(&mut self, span: Span, writer: &mut Writer) -> bool {
        let ours = self.set.within(span);
        if ours.len() <= LEAF_ITEMS {
            self.list(span, writer);
            return !ours.is_empty();
        }
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
