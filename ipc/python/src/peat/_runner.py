"""The thread that owns an agent's event loop, and how other threads and loops call into it.

Heartbeats therefore go on while a handler computes or blocks its own loop, and writes to the ledger never block a caller's
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from . import _link
from ._core import Core
from .errors import Closed

T = TypeVar("T")


class Runner:
    """One agent's thread."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._loop = asyncio.new_event_loop()
        # References to what runs: the loop holds none.
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"peat-agent-{core.id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        self.core.start()
        await _link.run(self.core)
        # Callers that still wait get the error that the agent was closed.
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.core.ledger.close()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function on the loop, unless the agent has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def submit(self, work: Coroutine[Any, Any, T], undo: Callable[[T], object] | None = None) -> Future[T]:
        """Runs a coroutine on the loop. When the result comes after its future was cancelled, `undo` gets it, on the loop."""
        future: Future[T] = Future()

        async def carry() -> None:
            try:
                result = await work
            except asyncio.CancelledError:
                future.cancel()
            except BaseException as error:
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(error)
            else:
                try:
                    future.set_result(result)
                except InvalidStateError:
                    if undo is not None:
                        undo(result)

        def begin() -> None:
            if self.core.gone:
                work.close()
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(Closed("the agent was closed"))
                return
            task = self._loop.create_task(carry())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            future.add_done_callback(lambda done: self.post(task.cancel) if done.cancelled() else None)

        try:
            self._loop.call_soon_threadsafe(begin)
        except RuntimeError:
            work.close()
            future.set_exception(Closed("the agent was closed"))
        return future

    def call(self, work: Coroutine[Any, Any, T], undo: Callable[[T], object] | None = None) -> T:
        """Runs a coroutine on the loop and waits for it."""
        future = self.submit(work, undo)
        try:
            return future.result()
        except BaseException:
            self._drop(future, undo)
            raise

    async def acall(self, work: Coroutine[Any, Any, T], undo: Callable[[T], object] | None = None) -> T:
        """Runs a coroutine on the loop and waits for it on the caller's."""
        future = self.submit(work, undo)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._drop(future, undo)
            raise

    def _drop(self, future: Future[T], undo: Callable[[T], object] | None) -> None:
        """Gives up on a call. A result that was there already, and reached no caller, is undone."""
        if not future.cancel() and not future.cancelled() and undo is not None and future.exception() is None:
            self.post(undo, future.result())

    def join(self) -> None:
        """Waits until the thread has ended."""
        if threading.current_thread() is not self._thread:
            self._thread.join()
