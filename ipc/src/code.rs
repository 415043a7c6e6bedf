//! The sixteen error codes every call can end with.

/// gRPC's canonical status codes (grpc/doc/statuscodes.md), without `OK`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Code {
    /// The caller cancelled the call.
    Cancelled = 1,
    /// A failure nothing more is known about.
    Unknown = 2,
    /// The request is wrong whatever the node's state.
    InvalidArgument = 3,
    /// The deadline passed first; a write that had begun stands.
    DeadlineExceeded = 4,
    /// No such thing.
    NotFound = 5,
    /// It exists already, with other content.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit or the disk is full; the message names which.
    ResourceExhausted = 8,
    /// The node's state does not allow this now.
    FailedPrecondition = 9,
    /// The base is not current; read again and retry.
    Aborted = 10,
    /// A token that points at nothing the node still knows.
    OutOfRange = 11,
    /// No such method.
    Unimplemented = 12,
    /// A bug in the node.
    Internal = 13,
    /// Not now; try again.
    Unavailable = 14,
    /// Stored bytes are damaged.
    DataLoss = 15,
    /// Who is calling is not known.
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

    /// The code with this number; a number outside 1 to 16 is [`Code::Unknown`].
    #[must_use]
    pub fn from_number(number: u32) -> Code {
        Code::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Code::Unknown)
    }

    /// 1 to 16.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The name as the specification spells it, `INVALID_ARGUMENT`.
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
