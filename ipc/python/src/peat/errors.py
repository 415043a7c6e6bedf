"""Errors of calls: one exception class for each of gRPC's canonical codes."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """gRPC's canonical status codes, by number."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class PeatError(Exception):
    """A failed call. `code` and `message` are the node's, or say why there is no answer; `method` names what was called."""

    code = Code.UNKNOWN

    def __init__(self, message: str, method: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.method = method

    def __str__(self) -> str:
        where = f"{self.method}: " if self.method else ""
        return f"{where}{self.code.name}: {self.message}"


class Cancelled(PeatError):
    """The call was ended by its caller."""

    code = Code.CANCELLED


class Closed(Cancelled):
    """The client or agent was closed."""


class Unknown(PeatError):
    """A code this version does not know."""


class InvalidArgument(PeatError, ValueError):
    """The request is wrong in any state of the node; the message names the field."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(PeatError, TimeoutError):
    """The deadline passed first. A write that waited for peers stands."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(PeatError, LookupError):
    """There is no such document, command or peer."""

    code = Code.NOT_FOUND


class AlreadyExists(PeatError):
    """The id is in use with other content."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(PeatError, PermissionError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(PeatError):
    """A limit was reached, or the disk is full; the message names which."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(PeatError):
    """The node's state does not allow this."""

    code = Code.FAILED_PRECONDITION


class Aborted(PeatError):
    """The base is not current (read again and retry), or another stream took over."""

    code = Code.ABORTED


class OutOfRange(PeatError):
    """The node no longer knows the point that a subscription was to resume at."""

    code = Code.OUT_OF_RANGE


class Unimplemented(PeatError):
    """The node has no such method."""

    code = Code.UNIMPLEMENTED


class Internal(PeatError):
    """A defect of the node."""

    code = Code.INTERNAL


class ProtocolError(Internal):
    """The other end does not speak peat/1."""


class Unavailable(PeatError, ConnectionError):
    """Not now: the node cannot be reached, is shutting down, or its disk failed."""

    code = Code.UNAVAILABLE


class ConnectionLost(Unavailable):
    """The connection failed during the call. Whether the node carried it out is not known."""


class DataLoss(PeatError):
    """Stored bytes are damaged."""

    code = Code.DATA_LOSS


class Unauthenticated(PeatError):
    """A TCP listener requires its token with the call."""

    code = Code.UNAUTHENTICATED


class NotSent(Exception):
    """The node cannot have seen the whole request, so it may be sent again. Never leaves this package."""


_CLASSES: dict[int, type[PeatError]] = {
    kind.code: kind
    for kind in (
        Cancelled,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}


def from_code(code: int, message: str) -> PeatError:
    """The error that a code number and a message of the node stand for."""
    return _CLASSES.get(code, Unknown)(message)


def passing(error: Exception) -> bool:
    """Reports whether a stream that ended with this error is worth another attempt."""
    return isinstance(error, (Unavailable, ResourceExhausted, Internal, DataLoss, NotSent))
