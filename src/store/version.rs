//! What tells two versions of a document apart, and which of them is newer.

/// How a record's versions combine. The order is the order in which peers are served.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Kind {
    /// A signed immutable body and statuses that only climb.
    Command = 3,
    /// An Automerge document.
    Merged = 1,
    /// One whole-document register; the highest [`Stamp`] wins.
    Latest = 2,
}

impl Kind {
    /// In the order in which peers are served.
    pub const ALL: [Kind; 3] = [Kind::Command, Kind::Merged, Kind::Latest];

    /// The kind with this number in the file and wire formats.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A start of a node: 16 random bytes, committed before any traffic.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RunId(pub [u8; 16]);

/// The endpoint id (public key) of the node that wrote a version.
pub type Origin = crate::identity::EndpointId;

/// Orders the versions of a `latest` record within one incarnation; the content's SHA-256 breaks what is left of a tie.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stamp {
    /// One more than the highest the writer had seen for this document.
    pub counter: u64,
    /// The writer.
    pub node: Origin,
    /// The writer's run.
    pub run: RunId,
}

/// Names one version of a record: equal on two nodes exactly when their records are equal. 16 bytes of SHA-256 over the
/// incarnation and, by kind, the sorted heads, or the stamp and the content's hash, or nothing more for a tombstone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VersionHash(pub [u8; 16]);

/// A version as clients see it: opaque bytes, given back as `base`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Version(pub Vec<u8>);
