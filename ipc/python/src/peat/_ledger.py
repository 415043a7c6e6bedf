"""A record of accepted, begun and ended commands across restarts, so that none runs twice.

One file of lines, each the CRC-32 of a JSON object in hex, a space, and that object: the format of the Go client. What is
appended is on disk before the append returns. Without a directory the record lasts as long as the process.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import FailedPrecondition, PeatError

try:
    import fcntl
except ImportError:  # Windows: the record works, and is not guarded against a second process.
    fcntl = None  # type: ignore[assignment]

NAME = "commands.ledger"
# What may be appended beyond twice the size after the last compaction before the next.
SLACK_BYTES = 1 << 20
# Ids of commands that are over, the newest ones.
REMEMBERED_IDS = 10_000
# Results of interrupted work.
REMEMBERED_WORK = 256

OWNER = "owner"  # The agent that the ledger belongs to; the first line.
ACCEPTED = "accepted"  # Accepted; the handler has not begun.
STARTED = "started"  # The handler may have had effects from here on.
DONE = "done"  # Ended; the node may lack the end.
SETTLED = "settled"  # The node has the end. Without a stage: rejected before it began, so it may come again.
WORK = "work"  # The result of `once` under a key.
FORGET = "forget"  # That result is dropped.


@dataclass(frozen=True)
class Line:
    """One line."""

    kind: str
    # The command's id, the agent's, or a content key.
    id: str
    # The command, encoded; of ACCEPTED.
    command: bytes = b""
    # Of DONE and SETTLED: a number of CommandUpdate.Stage.
    stage: int = 0
    result: str = ""
    error: str = ""
    # Unix seconds; of WORK.
    at: int = 0

    def encode(self) -> bytes:
        """The line as it is stored."""
        fields: dict[str, object] = {"kind": self.kind, "id": self.id}
        if self.command:
            fields["command"] = base64.b64encode(self.command).decode()
        for name in ("stage", "result", "error", "at"):
            value = getattr(self, name)
            if value:
                fields[name] = value
        body = json.dumps(fields, separators=(",", ":")).encode()
        return b"%08x %s\n" % (zlib.crc32(body), body)

    @staticmethod
    def parse(text: bytes) -> Line:
        """Reads a line without its end; ValueError says what is wrong with it."""
        checksum, found, body = text.partition(b" ")
        if not found or int(checksum, 16) != zlib.crc32(body):
            raise ValueError("its checksum is another")
        fields = json.loads(body)
        fields["command"] = base64.b64decode(fields.get("command", ""))
        return Line(**fields)


class Ledger:
    """The record of one agent."""

    def __init__(self, directory: str | os.PathLike[str] | None, owner: str) -> None:
        self._directory = Path(directory) if directory else None
        self._owner = owner
        self._lock: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._size = self._compact_at = 0
        self._broken: Exception | None = None
        # Accepted, started or done; the command of ACCEPTED stays with STARTED.
        self.open: dict[str, Line] = {}
        # Ids that are over, with their stage, oldest first.
        self.settled: dict[str, int] = {}
        # By content key, oldest first.
        self.work: dict[str, Line] = {}
        if self._directory is not None:
            try:
                self._open_files(self._directory)
            except PeatError:
                self.close()
                raise
            except (OSError, ValueError) as cause:
                self.close()
                raise FailedPrecondition(f"the record of commands in {self._directory}: {cause}") from cause

    def _open_files(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _private(directory / f"{NAME}.lock", os.O_RDWR | os.O_CREAT)
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise FailedPrecondition(f"the record of commands in {directory}: another agent uses it") from cause
        self._load(directory / NAME)
        self._compact(directory)

    def close(self) -> None:
        """Lets another process use the record."""
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._broken = self._broken or FailedPrecondition("the agent was closed")

    def _load(self, path: Path) -> None:
        """Reads the file. It ignores an incomplete last line, which `append` never confirmed. Any other unreadable line is an
        error, since a forgotten command would run again."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return
        for number, encoded in enumerate(text.split(b"\n")[:-1], 1):
            try:
                line = Line.parse(encoded)
            except (ValueError, TypeError, AttributeError) as cause:
                raise ValueError(f"line {number} is damaged: {cause}") from cause
            if number == 1 and (line.kind != OWNER or line.id != self._owner):
                raise ValueError(f"it belongs to agent {line.id!r}, not {self._owner!r}")
            self._note(line)

    def _note(self, line: Line) -> None:
        """Applies one line."""
        if line.kind in (ACCEPTED, STARTED, DONE):
            before = self.open.get(line.id)
            if line.kind == STARTED and before is not None:
                line = Line(STARTED, line.id, command=before.command)
            self.open[line.id] = line
        elif line.kind == SETTLED:
            self.open.pop(line.id, None)
            if line.stage:
                self.settled.setdefault(line.id, line.stage)
                while len(self.settled) > REMEMBERED_IDS:
                    del self.settled[next(iter(self.settled))]
        elif line.kind in (WORK, FORGET):
            self.work.pop(line.id, None)
            if line.kind == WORK:
                self.work[line.id] = line
                while len(self.work) > REMEMBERED_WORK:
                    del self.work[next(iter(self.work))]

    def append(self, *lines: Line) -> None:
        """Writes lines to disk and applies them. Raises FailedPrecondition when that is not possible."""
        if self._broken is not None:
            raise FailedPrecondition(f"the record of commands in {self._directory}: {self._broken}") from self._broken
        try:
            if self._file is not None:
                self._write(self._file, b"".join(line.encode() for line in lines))
        except OSError as cause:
            raise FailedPrecondition(f"the record of commands in {self._directory}: {cause}") from cause
        for line in lines:
            self._note(line)
        if self._directory is not None and self._size > self._compact_at:
            try:
                self._compact(self._directory)
            except OSError:
                # The lines are on disk. The file in use is whole, only longer than it need be.
                self._compact_at = self._size + SLACK_BYTES

    def _write(self, file: BinaryIO, text: bytes) -> None:
        """Appends everything or nothing. It never writes again to a file that it could not truncate after a failure."""
        try:
            _write_all(file, text)
            os.fsync(file.fileno())
        except OSError as cause:
            try:
                os.ftruncate(file.fileno(), self._size)
            except OSError:
                self._broken = cause
            raise
        self._size += len(text)

    def _compact(self, directory: Path) -> None:
        """Replaces the file by one that has only the current lines."""
        path, new = directory / NAME, directory / f"{NAME}.new"
        text = b"".join(line.encode() for line in self._lines())
        file = _private(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            _write_all(file, text)
            os.fsync(file.fileno())
            os.replace(new, path)
            _sync_directory(directory)
        except OSError:
            file.close()
            raise
        if self._file is not None:
            self._file.close()
        self._file, self._size, self._compact_at = file, len(text), 2 * len(text) + SLACK_BYTES

    def _lines(self) -> Iterator[Line]:
        yield Line(OWNER, self._owner)
        for id, stage in self.settled.items():
            yield Line(SETTLED, id, stage=stage)
        yield from self.open.values()
        yield from self.work.values()


def _private(path: Path, flags: int) -> BinaryIO:
    """Opens a file that only its owner can read, unbuffered."""
    return os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600), "r+b" if flags & os.O_RDWR else "wb", 0)


def _write_all(file: BinaryIO, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
