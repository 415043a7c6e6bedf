"""Many calls on one connection: numbers, credit, and what arrived for each call.

Performs no I/O. Frames come in as bytes and go out as bytes; the connection that owns a `Mux` moves them and serialises the
calls. A failure latches: after `fail` every call ends with that error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from . import errors
from ._frames import MESSAGE_BYTES, PAYLOAD_BYTES, Decoder, encode
from ._methods import Method
from .errors import PeatError, ProtocolError
from .ipc.v1.ipc_pb2 import Cancel, End, Frame, Request

# Calls that may be unfinished on one connection, by the node's limit.
CONNECTION_CALLS = 256
# Items of a stream that the node may send ahead of the consumer: few to hold when it pauses, enough to keep the link full.
WINDOW = 64


def _nothing() -> None:
    pass


class Waiting:
    """An unfinished call and what has arrived for it."""

    __slots__ = ("call", "cut", "frames", "notify", "parts", "room", "streams", "taken")

    def __init__(self, call: int, credit: int) -> None:
        self.call = call
        self.streams = credit > 0
        self.frames: deque[Frame] = deque()
        # The beginning of a response or item that is incomplete.
        self.parts = bytearray()
        # Items that may still arrive.
        self.room = credit
        # Items taken since credit was last granted.
        self.taken = 0
        # Called when a frame arrived, or the connection failed.
        self.notify: Callable[[], None] = _nothing
        # The request was not written completely.
        self.cut = False


class Mux:
    """The calls of one connection."""

    def __init__(self, token: str) -> None:
        self.error: PeatError | None = None
        self._token = token
        self._decoder = Decoder()
        self._calls: dict[int, Waiting] = {}
        self._last = 0

    @property
    def full(self) -> bool:
        """Reports whether a further call must wait for another one to end."""
        return self.free <= 0

    @property
    def free(self) -> int:
        """The number of calls that may begin now."""
        return CONNECTION_CALLS - len(self._calls)

    def begin(self, method: Method, payload: bytes, timeout: float | None, credit: int = 0) -> tuple[Waiting, bytes]:
        """Registers a call and gives its request frame. A stream has no deadline."""
        check_size(payload)
        self._last += 1
        waiting = Waiting(self._last, credit)
        deadline_ms = 0 if timeout is None or credit else _deadline(timeout)
        request = Request(
            method=method,
            payload=payload,
            deadline_ms=deadline_ms,
            credit=credit,
            token=self._token,
            takes_parts=True,
        )
        frame = encode(Frame(call=waiting.call, request=request))
        self._calls[waiting.call] = waiting
        return waiting, frame

    def receive(self, data: bytes) -> None:
        """Delivers what the node sent. A breach of the protocol fails the connection."""
        try:
            for frame in self._decoder.feed(data):
                self._deliver(frame)
        except PeatError as error:
            self.fail(error)

    def _deliver(self, frame: Frame) -> None:
        body = frame.WhichOneof("body")
        if frame.call == 0:
            if body != "error":
                raise ProtocolError("a frame without a call")
            said = errors.from_code(frame.error.code, frame.error.message)
            raise errors.ConnectionLost(f"the node closed the connection: {said}") from said
        if body not in ("response", "item", "end", "error", "part"):
            raise ProtocolError("a frame with no body that a node sends")
        waiting = self._calls.get(frame.call)
        # A frame for a call that was just cancelled is dropped.
        if waiting is None:
            return
        if body == "part":
            self._keep(waiting, frame.part)
            return
        _complete(waiting, frame)
        if body == "item":
            if waiting.streams and waiting.room == 0:
                raise ProtocolError("more items than were granted")
            waiting.room -= 1
        else:
            del self._calls[frame.call]
        waiting.frames.append(frame)
        waiting.notify()

    def _keep(self, waiting: Waiting, part: bytes) -> None:
        """Keeps a part until the frame that completes its message arrives."""
        if sum(len(other.parts) for other in self._calls.values()) + len(part) > MESSAGE_BYTES:
            raise ProtocolError(f"messages in parts over {MESSAGE_BYTES} bytes")
        waiting.parts += part

    def fail(self, error: PeatError) -> None:
        """Ends the connection with its first error."""
        if self.error is not None:
            return
        self.error = error
        calls, self._calls = self._calls, {}
        for waiting in calls.values():
            waiting.notify()

    def cancel(self, waiting: Waiting) -> bytes:
        """Cancels a call and returns the frame for that; empty when the call has ended."""
        if self._calls.pop(waiting.call, None) is None:
            return b""
        return encode(Frame(call=waiting.call, cancel=Cancel()))

    def grant(self, waiting: Waiting) -> bytes:
        """Returns credit for consumed items half a window at a time, so that one small frame covers many items."""
        if waiting.taken < WINDOW // 2 or waiting.call not in self._calls:
            return b""
        credit, waiting.taken = waiting.taken, 0
        waiting.room += credit
        return encode(Frame(call=waiting.call, credit=credit))


def _complete(waiting: Waiting, frame: Frame) -> None:
    """Puts the parts of a message in front of its last bytes."""
    if not waiting.parts:
        return
    if frame.HasField("response"):
        frame.response = bytes(waiting.parts + frame.response)
    elif frame.HasField("item"):
        frame.item = bytes(waiting.parts + frame.item)
    waiting.parts = bytearray()


def check_size(payload: bytes) -> None:
    """Rejects a message that fits no frame."""
    if len(payload) > PAYLOAD_BYTES:
        raise errors.ResourceExhausted(f"the request has {len(payload)} bytes; the limit is {PAYLOAD_BYTES}")


def upload(waiting: Waiting, payload: bytes) -> bytes:
    """The frame of one message of a client stream."""
    check_size(payload)
    return encode(Frame(call=waiting.call, upload=payload))


def half_close(waiting: Waiting) -> bytes:
    """The frame that ends a client stream."""
    return encode(Frame(call=waiting.call, half_close=End()))


def response(frame: Frame) -> bytes:
    """The answer of a unary call."""
    if frame.HasField("response"):
        return frame.response
    if frame.HasField("error"):
        raise errors.from_code(frame.error.code, frame.error.message)
    raise ProtocolError("a stream's frame for a unary call")


def item(waiting: Waiting, frame: Frame) -> bytes | None:
    """One item of a stream; None at its end."""
    if frame.HasField("item"):
        waiting.taken += 1
        return frame.item
    if frame.HasField("end"):
        return None
    if frame.HasField("error"):
        raise errors.from_code(frame.error.code, frame.error.message)
    raise ProtocolError("a response to a streaming call")


def _deadline(timeout: float) -> int:
    """A deadline slightly before the caller's own: the node's answer about the work arrives before the caller gives up."""
    milliseconds = timeout * 1000
    milliseconds -= min(milliseconds / 10, 100)
    return int(min(max(milliseconds, 1), 2**32 - 1))
