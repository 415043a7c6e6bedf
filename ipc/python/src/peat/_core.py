"""An agent's state, on the one event loop that owns it: registration, work done once, and waiting for changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future

from . import _ledger
from ._jobs import RESULT_BYTES, Job, Jobs, Stage, Update
from ._ledger import Ledger, Line
from ._registration import Registration, Terms
from ._target import Target
from .errors import Closed, DeadlineExceeded, InvalidArgument, PeatError


class Shared:
    """Work under a content key that several commands wait for."""

    def __init__(self) -> None:
        self.result: Future[str] = Future()
        # Commands that still wait for it.
        self.waiting = 0
        # Called when none waits any more.
        self.on_abandoned: Callable[[], None] | None = None
        self.abandoned = False


class Core:
    """The state of one agent. Made by any thread, and from `start` on touched by its event loop alone."""

    def __init__(
        self,
        address: str,
        token: str,
        registration: Registration,
        directory: str | os.PathLike[str] | None,
        polling: float | None,
        logger: logging.Logger,
    ) -> None:
        if not registration.id:
            raise InvalidArgument("the registration has no id")
        if polling is not None and not 0 < polling < 1e9:
            raise InvalidArgument(f"a polling interval of {polling} s; expected more than 0, or None for a stream")
        self.target = Target.parse(address)
        self.address, self.token, self.polling, self.logger = address, token, polling, logger
        self.id = registration.id
        self.registration = registration.copy()
        # Each change increments a count; the node has confirmed everything up to `reached`, and rejected `refused`.
        self.registered, self.registered_reached = 1, 0
        self.state, self.state_reached, self.state_refused = int(registration.status != 0), 0, 0
        self.state_error: PeatError | None = None
        # The node's reason to reject the registration.
        self.refused: PeatError | None = None
        self.connected = False
        self.terms: Terms | None = None
        self.closed = self.leaving = self.gone = False
        # The node lacks something.
        self.dirty = False
        self.once: dict[str, Shared] = {}
        # Set when the link has something to do; replaced at every change that a waiter may wait for.
        self.wake: asyncio.Event | None = None
        self._changed: asyncio.Event | None = None
        self.ledger = Ledger(directory, registration.id)
        self.jobs = Jobs(self.ledger, self.changed, self.tell, logger)

    def start(self) -> None:
        """Called on the loop before anything else."""
        self.wake, self._changed = asyncio.Event(), asyncio.Event()

    def changed(self) -> None:
        """Wakes everything that waits for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = asyncio.Event()

    def tell(self) -> None:
        """Makes the link send what the node lacks."""
        self.dirty = True
        if self.wake is not None:
            self.wake.set()

    async def until(self, condition: Callable[[], bool], deadline: float | None) -> None:
        """Waits until a condition on the agent's state holds."""
        while not condition():
            if self.gone:
                raise Closed("the agent was closed")
            assert self._changed is not None
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise DeadlineExceeded("the node has not answered in time")
            waiter = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait((waiter,), timeout=left)
            finally:
                waiter.cancel()

    # The registration.

    async def wait_registered(self, deadline: float | None) -> Terms:
        """Waits until the node has accepted the newest registration; a rejection is the error."""
        wanted = self.registered
        await self.until(
            lambda: self.refused is not None or (self.connected and self.registered_reached >= wanted), deadline
        )
        if self.refused is not None:
            raise self.refused
        assert self.terms is not None
        return self.terms

    async def apply(
        self, change: Callable[[Registration], Registration], register: bool, deadline: float | None
    ) -> None:
        """Changes the registration, or only its state, and waits until the node has accepted or rejected that. A rejected
        change is reverted."""
        if self.closed:
            raise Closed("the agent was closed")
        before, changed = self.registration, change(self.registration).copy()
        if changed.id != self.id:
            raise InvalidArgument(f"an agent keeps its id: {self.id!r} cannot become {changed.id!r}")
        # The node may accept this one.
        self.registration, self.refused = changed, None
        state, registered = self._count(register)

        def refused() -> PeatError | None:
            return self.refused or (self.state_error if self.state_refused >= state else None)

        await self.until(
            lambda: refused() is not None or (self.state_reached >= state and self.registered_reached >= registered),
            deadline,
        )
        error = refused()
        if error is not None:
            if self.state == state:
                self.registration, self.refused = before, None
                self._count(True)
            raise error

    def _count(self, register: bool) -> tuple[int, int]:
        """Queues a change for the node and returns the counts that confirm it."""
        self.state += 1
        registered = 0
        if register:
            self.registered += 1
            registered = self.registered
        self.tell()
        return self.state, registered

    # Commands.

    async def next_command(self, deadline: float | None) -> Job | None:
        """The next command; None once the agent was closed."""
        job: Job | None = None

        def taken() -> bool:
            nonlocal job
            if job is None and not self.closed:
                job = self.jobs.take(time.monotonic())
            return job is not None or self.closed

        await self.until(taken, deadline)
        return job

    async def accept(self, job: Job, deadline: float | None) -> None:
        """Begins a command: the node and the ledger have the acceptance on disk by then."""
        self.jobs.announce(job, time.monotonic())
        try:
            await self.until(lambda: self.jobs.decided(job), deadline)
        except BaseException:
            self.jobs.put_back(job)
            raise
        self.jobs.begin(job)

    def progress(self, job: Job, update: Update) -> None:
        """Shows how far a command is, if the node can be reached."""
        if job.stage is Stage.RUNNING and self.connected:
            job.progress = update
            self.tell()

    # Work done once.

    def once_begin(self, job: Job, key: str) -> tuple[str | None, Shared | None, bool]:
        """Joins work under a key. Gives its result; or the shared work, and whether the caller is to do it."""
        job.keys.append(key)
        result = self.jobs.finished_work(key, time.time())
        if result is not None:
            return result, None, False
        shared, leads = self.once.get(key), False
        if shared is None:
            shared = self.once[key] = Shared()
            leads = True
        shared.waiting += 1
        return None, shared, leads

    def once_leave(self, shared: Shared) -> bool:
        """Notes that a command no longer waits. True: it was the last, and the work is asked to end."""
        shared.waiting -= 1
        if shared.waiting == 0 and not shared.result.done():
            shared.abandoned = True
            if shared.on_abandoned is not None:
                shared.on_abandoned()
        return shared.waiting == 0

    def once_end(self, key: str, shared: Shared, result: str, error: BaseException | None) -> None:
        """The end of shared work. A result that cannot be written down is none: after a restart it would be forgotten."""
        if error is None and len(result.encode()) > RESULT_BYTES:
            error = InvalidArgument(f"the result of {key!r} has over {RESULT_BYTES} bytes")
        if error is None:
            try:
                self.ledger.append(Line(_ledger.WORK, key, result=result, at=int(time.time())))
            except PeatError as cause:
                error = cause
        self.once.pop(key, None)
        if error is None:
            shared.result.set_result(result)
        else:
            shared.result.set_exception(error)

    # The end.

    async def close(self, patience: float) -> bool:
        """Ends the work of commands, delivers what can be delivered, and takes leave. False: some end is not delivered, and is
        after the next start on the same directory."""
        if not self.closed:
            self.closed = True
            self.jobs.stop_all()
            self.changed()

            def settled() -> bool:
                running = self.jobs.any(Stage.RUNNING)
                return not running and not (self.connected and self.jobs.any(Stage.DONE))

            with contextlib.suppress(DeadlineExceeded, Closed):
                await self.until(settled, time.monotonic() + patience)
        self.leaving = True
        self.tell()
        await self._gone()
        return not self.jobs.any(Stage.RUNNING) and not self.jobs.any(Stage.DONE)

    async def _gone(self) -> None:
        while not self.gone:
            assert self._changed is not None
            await self._changed.wait()
