"""One connection on an asyncio loop, shared by tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import cast

from . import _mux
from ._frames import PREFACE
from ._methods import Method
from ._mux import Mux, Waiting
from ._target import Target
from .errors import ConnectionLost, DeadlineExceeded, NotSent, PeatError, Unavailable
from .ipc.v1.ipc_pb2 import Frame

# Seconds that the node may refuse to take bytes before the connection ends.
WRITE_STALL = 30.0


async def dial(target: Target, token: str, timeout: float | None) -> AsyncConnection:
    """Connects to a node."""
    loop = asyncio.get_running_loop()

    async def connect() -> AsyncConnection:
        if target.path:
            _, connection = await loop.create_unix_connection(lambda: AsyncConnection(token), target.path)
        else:
            _, connection = await loop.create_connection(lambda: AsyncConnection(token), target.host, target.port)
        return connection

    try:
        return await asyncio.wait_for(connect(), timeout)
    except (asyncio.TimeoutError, TimeoutError) as cause:
        raise DeadlineExceeded(f"the node at {target.path or target.host} was not reached in time") from cause
    except OSError as cause:
        where = target.path or f"{target.host}:{target.port}"
        raise Unavailable(f"the node at {where} cannot be reached: {cause}") from cause


class AsyncConnection(asyncio.Protocol):
    """Ends once and for all with its first error. Used from the tasks of one loop."""

    def __init__(self, token: str) -> None:
        self._mux = Mux(token)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # Runs while the transport takes no bytes.
        self._stalled: asyncio.TimerHandle | None = None
        # Tasks that wait for the transport, and for one of the connection's calls to end.
        self._writers: deque[asyncio.Future[None]] = deque()
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def error(self) -> PeatError | None:
        """The reason that the connection ended for."""
        return self._mux.error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(PREFACE)

    def data_received(self, data: bytes) -> None:
        self._mux.receive(data)
        if self._mux.error is not None:
            self.close(self._mux.error)
        self._advance()

    def connection_lost(self, cause: Exception | None) -> None:
        self.close(ConnectionLost(str(cause or "the node closed the connection")))

    def pause_writing(self) -> None:
        self._stalled = self._loop.call_later(WRITE_STALL, self._stall)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        _wake(self._writers, len(self._writers))

    def _stall(self) -> None:
        self.close(ConnectionLost(f"the node took no bytes for {WRITE_STALL:.0f} s"))

    def close(self, error: PeatError) -> None:
        """Ends the connection with an error, unless it has ended."""
        self._mux.fail(error)
        self.resume_writing()
        if self._transport is not None:
            self._transport.abort()
        self._advance()

    def _advance(self) -> None:
        """Lets as many tasks begin a call as there is room for."""
        _wake(self._queue, self._mux.free)

    async def unary(self, method: Method, payload: bytes, deadline: float | None) -> bytes:
        """Makes a call with one answer."""
        waiting = await self.begin(method, payload, deadline, 0)
        try:
            frame = await self.next(waiting, deadline)
        except BaseException:
            # Out of time, or the task was cancelled: its caller no longer waits for the answer.
            self.cancel(waiting)
            raise
        return _mux.response(frame)

    async def begin(self, method: Method, payload: bytes, deadline: float | None, credit: int) -> Waiting:
        """Sends a request."""
        while self._mux.full and self._mux.error is None:
            try:
                await self._wait(self._queue, deadline)
            except BaseException:
                # Another task may have the place that was this one's.
                self._advance()
                raise
        await self._room(deadline)
        left = None if deadline is None else deadline - self._loop.time()
        waiting, frame = self._mux.begin(method, payload, left, credit)
        self._write(frame)
        return waiting

    async def send(self, waiting: Waiting, payload: bytes, deadline: float | None) -> None:
        """Sends one message of a client stream."""
        frame = _mux.upload(waiting, payload)
        await self._room(deadline)
        self._write(frame)

    async def _room(self, deadline: float | None) -> None:
        while self._stalled is not None:
            await self._wait(self._writers, deadline)
        if self._mux.error is not None:
            raise NotSent from self._mux.error

    def _write(self, frame: bytes) -> None:
        if frame and self._transport is not None and self._mux.error is None:
            self._transport.write(frame)

    async def next(self, waiting: Waiting, deadline: float | None) -> Frame:
        """Waits for the call's next frame. What arrived before the connection ended still counts."""
        while not waiting.frames:
            if self._mux.error is not None:
                raise self._mux.error
            ready: deque[asyncio.Future[None]] = deque()
            waiting.notify = partial(_wake, ready, 1)
            await self._wait(ready, deadline)
        return waiting.frames.popleft()

    async def _wait(self, queue: deque[asyncio.Future[None]], deadline: float | None) -> None:
        """Waits in a queue to be woken."""
        ready = self._loop.create_future()
        queue.append(ready)
        if deadline is None:
            await ready
            return
        timer = self._loop.call_at(deadline, _late, ready)
        try:
            await ready
        finally:
            timer.cancel()

    async def item(self, waiting: Waiting, deadline: float | None) -> bytes | None:
        """The next item of a stream; None at its end."""
        self.grant(waiting)
        return _mux.item(waiting, await self.next(waiting, deadline))

    def grant(self, waiting: Waiting) -> None:
        """Lets the node send as many items as were taken."""
        self._write(self._mux.grant(waiting))

    def half_close(self, waiting: Waiting) -> None:
        """Ends a client stream."""
        self._write(_mux.half_close(waiting))

    def cancel(self, waiting: Waiting) -> None:
        """Cancels a call, unless it has ended."""
        self._write(self._mux.cancel(waiting))
        self._advance()


def _wake(queue: deque[asyncio.Future[None]], most: int) -> None:
    """Wakes the first tasks of a queue."""
    while queue and most > 0:
        ready = queue.popleft()
        if not ready.done():
            ready.set_result(None)
            most -= 1


def _late(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_exception(DeadlineExceeded("the node did not answer in time"))
