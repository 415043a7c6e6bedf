"""One blocking connection, shared by threads.

It has no thread: of the callers that wait, one reads the socket and hands frames to the others. A caller alone therefore
reads its own answer, without a switch of threads.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time

from . import _mux, errors
from ._frames import PREFACE
from ._methods import Method
from ._mux import Mux, Waiting
from ._target import Target
from .errors import ConnectionLost, DeadlineExceeded, NotSent, PeatError, Unavailable
from .ipc.v1.ipc_pb2 import Frame

READ_BYTES = 64 << 10
LATE = "the node did not answer in time"
# Seconds that the node may refuse to take bytes before the connection ends.
WRITE_STALL = 30.0


def dial(target: Target, token: str, timeout: float | None) -> Connection:
    """Connects to a node."""
    try:
        if target.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout)
                sock.connect(target.path)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection((target.host, target.port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError as cause:
        raise DeadlineExceeded(f"the node at {target.path or target.host} was not reached in time") from cause
    except OSError as cause:
        where = target.path or f"{target.host}:{target.port}"
        raise Unavailable(f"the node at {where} cannot be reached: {cause}") from cause
    return Connection(sock, token)


class Connection:
    """Frames out under one lock, frames in by one caller at a time. Ends once and for all with its first error."""

    def __init__(self, sock: socket.socket, token: str) -> None:
        self._mux = Mux(token)
        # A socket's timeout belongs to the Python object, so each direction has one.
        self._out, self._in = sock, sock.dup()
        self._out.settimeout(WRITE_STALL)
        self._in.settimeout(0)
        self._poll = select.poll()
        self._poll.register(self._in, select.POLLIN)
        self._sending = threading.RLock()
        self._changed = threading.Condition()
        self._reading = False
        self._preface = PREFACE

    @property
    def alive(self) -> bool:
        """Reports whether the connection can carry further calls. Reads what the node sent while no call was waiting."""
        with self._changed:
            if self._mux.error is None and not self._reading:
                self._peek()
            return self._mux.error is None

    def _peek(self) -> None:
        """Takes what is there, without waiting; the caller holds the lock."""
        while self._mux.error is None and self._poll.poll(0):
            self._receive()

    def close(self, error: PeatError) -> None:
        """Ends the connection with an error, unless it has ended."""
        with self._changed:
            self._mux.fail(error)
            self._changed.notify_all()
            self._shut()
            if not self._reading:
                self._in.close()
        # A writer fails at once now.
        with self._sending:
            self._out.close()

    def _shut(self) -> None:
        """Ends the connection for the node, and for the threads that read and write."""
        with contextlib.suppress(OSError):
            self._in.shutdown(socket.SHUT_RDWR)

    def unary(self, method: Method, payload: bytes, deadline: float | None) -> bytes:
        """Makes a call with one answer."""
        waiting = self.begin(method, payload, deadline, 0)
        try:
            frame = self._next(waiting, deadline)
        except BaseException:
            # Out of time, or interrupted: the caller no longer waits for the answer.
            self.cancel(waiting)
            raise
        return _mux.response(frame)

    def begin(self, method: Method, payload: bytes, deadline: float | None, credit: int) -> Waiting:
        """Sends a request."""
        with self._changed:
            while self._mux.full and self._mux.error is None:
                self._wait(deadline)
            if self._mux.error is not None:
                raise NotSent from self._mux.error
            waiting, frame = self._mux.begin(method, payload, remaining(deadline), credit)
        self._send(frame, waiting)
        return waiting

    def _send(self, frame: bytes, waiting: Waiting | None = None) -> None:
        """Writes a frame whole. A request that the socket did not take whole cannot have been carried out."""
        with self._sending:
            preface, self._preface = self._preface, b""
            try:
                self._out.sendall(preface + frame if preface else frame)
            except OSError as cause:
                if waiting is not None:
                    waiting.cut = True
                # The reason that the node sent before it closed the connection is the better one.
                with self._changed:
                    if not self._reading:
                        self._peek()
                self.close(ConnectionLost(str(cause)))
            except BaseException:
                # Interrupted in the middle of a frame: nothing after it can be understood.
                self.close(ConnectionLost("a request was interrupted"))
                raise

    def _next(self, waiting: Waiting, deadline: float | None) -> Frame:
        """Waits for the call's next frame. What arrived before the connection ended still counts."""
        while True:
            with self._changed:
                while not waiting.frames and self._mux.error is None and self._reading:
                    self._wait(deadline)
                if waiting.frames:
                    return waiting.frames.popleft()
                if self._mux.error is not None:
                    if waiting.cut:
                        raise NotSent from self._mux.error
                    raise self._mux.error
                self._reading = True
            try:
                self._read(waiting, deadline)
            finally:
                with self._changed:
                    self._reading = False
                    if self._mux.error is not None:
                        self._in.close()
                    self._changed.notify_all()

    def _read(self, waiting: Waiting, deadline: float | None) -> None:
        """Reads until the caller's own call has a frame."""
        while True:
            left = remaining(deadline)
            if left is not None and left <= 0:
                raise DeadlineExceeded(LATE)
            if not self._poll.poll(None if left is None else math.ceil(min(left, 86400) * 1000)):
                continue
            with self._changed:
                self._receive()
                self._changed.notify_all()
                if waiting.frames or self._mux.error is not None:
                    return

    def _receive(self) -> None:
        """Takes one part of what the node sent; the caller holds the lock."""
        try:
            data = self._in.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as cause:
            self._mux.fail(ConnectionLost(str(cause)))
            return
        if data:
            self._mux.receive(data)
        else:
            self._mux.fail(ConnectionLost("the node closed the connection"))
        if self._mux.error is not None:
            self._shut()

    def _wait(self, deadline: float | None) -> None:
        left = remaining(deadline)
        if left is not None and left <= 0:
            raise DeadlineExceeded(LATE)
        self._changed.wait(left)

    def item(self, waiting: Waiting, deadline: float | None) -> bytes | None:
        """The next item of a stream; None at its end."""
        with self._changed:
            grant = b"" if self._mux.error is not None else self._mux.grant(waiting)
        if grant:
            self._send(grant)
        return _mux.item(waiting, self._next(waiting, deadline))

    def cancel(self, waiting: Waiting) -> None:
        """Cancels a call, unless it has ended."""
        with self._changed:
            frame = self._mux.cancel(waiting)
            self._changed.notify_all()
        if frame:
            self._send(frame)


def remaining(deadline: float | None) -> float | None:
    """Seconds until a deadline of the monotonic clock."""
    return None if deadline is None else deadline - time.monotonic()


def deadline_of(timeout: float | None) -> float | None:
    """The deadline of a timeout in seconds."""
    if timeout is None:
        return None
    if not timeout > 0:
        raise errors.InvalidArgument(f"a timeout of {timeout} s; expected more than 0, or None to wait without end")
    return time.monotonic() + timeout
