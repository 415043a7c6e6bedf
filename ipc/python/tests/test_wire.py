"""The bytes of docs/wire.md and the numbers of the service definitions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peat import Method, errors
from peat._frames import FRAME_BYTES, PREFACE, Decoder, encode, varint

ROOT = Path(__file__).parents[3]


def examples() -> dict[str, bytes]:
    found = {}
    page = (ROOT / "docs" / "wire.md").read_text()
    for name, text in re.findall(r"```hex (client-\S+)\n(.*?)```", page, re.DOTALL):
        octets = b""
        for line in text.splitlines():
            for word in line.partition(";")[0].split():
                octet, _, times = word.partition("*")
                octets += bytes.fromhex(octet) * int(times or 1)
        found[name] = octets
    return found


def test_the_frames_of_the_wire_page_are_read_and_written_byte_by_byte() -> None:
    frames = examples()
    assert len(frames) >= 8
    for name, text in frames.items():
        text = text.removeprefix(PREFACE)
        assert b"".join(encode(frame) for frame in Decoder().feed(text)) == text, name


def test_frames_are_read_from_parts_of_any_size() -> None:
    text = b"".join(examples().values()).replace(PREFACE, b"")
    for size in (1, 2, 3, 7, 64):
        decoder, written = Decoder(), b""
        for at in range(0, len(text), size):
            written += b"".join(encode(frame) for frame in decoder.feed(text[at : at + size]))
        assert written == text


@pytest.mark.parametrize("text", [b"\x00", varint(FRAME_BYTES + 1), b"\xff\xff\xff\xff", b"\x02\xff\xff"])
def test_what_is_no_frame_is_refused(text: bytes) -> None:
    with pytest.raises(errors.ProtocolError):
        list(Decoder().feed(text))


def test_methods_are_those_of_the_service_definitions_in_their_order() -> None:
    names = []
    for file in ("sidecar/v1/sidecar", "agent/v1/agent"):
        definition = (ROOT / "proto" / "peat" / f"{file}.proto").read_text()
        names += re.findall(r"^  rpc (\w+)\(", definition, re.MULTILINE)
    for method in Method:
        assert names[method - 1] == method.name


def test_every_code_has_its_exception() -> None:
    for code in errors.Code:
        error = errors.from_code(code, "why")
        assert (error.code, error.message, str(error)) == (code, "why", f"{code.name}: why")
    assert errors.from_code(99, "why").code is errors.Code.UNKNOWN
