//! The sixteen error codes that a call can end with.

/// gRPC's canonical status codes (grpc/doc/statuscodes.md), without `OK`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Code {
    /// The caller cancelled the call.
    Cancelled = 1,
    /// The cause is unknown.
    Unknown = 2,
    /// The request is invalid, independent of the node's state.
    InvalidArgument = 3,
    /// The deadline passed first. A write that had begun remains in effect.
    DeadlineExceeded = 4,
    /// The requested object does not exist.
    NotFound = 5,
    /// The object exists with different content.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached or the disk is full; the message names the limit.
    ResourceExhausted = 8,
    /// The node's state does not allow this operation now.
    FailedPrecondition = 9,
    /// The base version is not current; read again and retry.
    Aborted = 10,
    /// The token refers to a position that the node no longer knows.
    OutOfRange = 11,
    /// The method does not exist.
    Unimplemented = 12,
    /// A bug in the node.
    Internal = 13,
    /// The node cannot serve this now; retry later.
    Unavailable = 14,
    /// Stored bytes are damaged.
    DataLoss = 15,
    /// The caller's identity is unknown.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in numeric order.
    pub const ALL: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// Returns the code with this number, or [`Code::Unknown`] for a number outside 1 to 16.
    #[must_use]
    pub fn from_number(number: u32) -> Code {
        Code::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Code::Unknown)
    }

    /// Returns the number on the wire, 1 to 16.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// Returns the name in the specification's spelling, such as `INVALID_ARGUMENT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}
