"""Frames as bytes: a varint length and that many bytes of one Frame message (docs/wire.md)."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from .errors import ProtocolError
from .ipc.v1.ipc_pb2 import Frame

PREFACE = b"\x00peat/1\n"
# The largest frame, without its length. A request's message may take all of it but what the envelope needs.
FRAME_BYTES = 4 << 20
PAYLOAD_BYTES = FRAME_BYTES - 4096
# The largest response or item in parts.
MESSAGE_BYTES = 64 << 20


def encode(frame: Frame) -> bytes:
    """The frame behind its length."""
    body = frame.SerializeToString()
    return varint(len(body)) + body


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, the high bit set on all but the last."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Decoder:
    """Cuts received bytes into frames. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Gives the frames that are complete now."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while True:
                head = _length(buffer, at)
                if head is None or head[1] + head[0] > len(buffer):
                    return
                length, body = head
                at = body + length
                try:
                    frame = Frame.FromString(bytes(buffer[body:at]))
                except DecodeError as cause:
                    raise ProtocolError(f"bytes that are no frame: {cause}") from cause
                yield frame
        finally:
            del buffer[:at]


def _length(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """A frame's length and where its body begins; None while the length is incomplete."""
    length = shift = 0
    # Four bytes hold every length up to the limit.
    for index in range(at, min(at + 4, len(buffer))):
        byte = buffer[index]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not 1 <= length <= FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes; the limit is {FRAME_BYTES}")
            return length, index + 1
        shift += 7
    if len(buffer) - at >= 4:
        raise ProtocolError(f"a frame's length is over {FRAME_BYTES}")
    return None
