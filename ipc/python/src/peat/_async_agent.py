"""The asyncio agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType

from ._aclient import AsyncClient
from ._agent import CLOSE_PATIENCE, WORKERS
from ._command import BaseCommand
from ._connection import deadline_of
from ._core import Core, Shared
from ._jobs import Job, Update
from ._registration import Registration, State, Terms, Workload
from ._runner import Runner
from ._types import to_json
from .errors import Cancelled, Closed, PeatError


class AsyncAgent:
    """An application's end of the agent link, for asyncio. It is what `Agent` is; handlers are coroutines.

    The link has a thread, so that heartbeats go on while the caller's event loop is busy.
    """

    def __init__(
        self,
        address: str,
        registration: Registration,
        *,
        token: str = "",
        directory: str | os.PathLike[str] | None = None,
        polling: float | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Starts an agent of the node at `address`.

        `directory`, which no other agent uses, keeps the record of commands, so that none runs twice, even when the agent
        restarts during one; without it the record ends with the process. `polling` is an interval in seconds: the agent asks
        for commands at each interval instead of holding a stream."""
        self._address, self._token = address, token
        self._logger = logger or logging.getLogger("peat")
        self._runner = Runner(Core(address, token, registration, directory, polling, self._logger))
        self._client: AsyncClient | None = None

    def __repr__(self) -> str:
        return f"<peat.AsyncAgent {self.id}>"

    async def __aenter__(self) -> AsyncAgent:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """The agent's id."""
        return self._runner.core.id

    @property
    def registration(self) -> Registration:
        """The registration that the node gets next, or has."""
        return self._runner.core.registration

    @property
    def connected(self) -> bool:
        """Reports whether the node has accepted the registration and the stream is open."""
        return self._runner.core.connected

    @property
    def terms(self) -> Terms | None:
        """The node's answer to the registration; None before it."""
        return self._runner.core.terms

    @property
    def client(self) -> AsyncClient:
        """A client of the same node, for all other calls. It closes with the agent."""
        if self._client is None:
            self._client = AsyncClient(self._address, token=self._token)
        return self._client

    async def wait_registered(self, timeout: float | None = None) -> Terms:
        """Waits until the node has accepted the newest registration. A rejection is the error."""
        return await self._runner.acall(self._runner.core.wait_registered(deadline_of(timeout)))

    async def update(self, registration: Registration, *, timeout: float | None = None) -> None:
        """Replaces the registration, except its id (`dataclasses.replace(agent.registration, ...)`), and waits until the node
        has accepted it. A rejected registration is reverted."""
        await self._apply(lambda _: registration, True, timeout)

    async def heartbeat(self, state: State, *, timeout: float | None = None) -> None:
        """Reports a new state and waits until the node has accepted it. A rejected state is reverted. Plain signs of life need
        no call."""
        await self._apply(lambda before: before.with_state(state), False, timeout)

    async def report_deployment(self, workload: Workload, *, timeout: float | None = None) -> None:
        """Adds a workload to the state, or replaces the one of the same name, and waits until the node has accepted it."""
        await self._apply(lambda before: before.with_workload(workload), False, timeout)

    async def remove_deployment(self, name: str, *, timeout: float | None = None) -> None:
        """Removes a workload from the state and waits until the node has accepted that."""
        await self._apply(lambda before: before.without_workload(name), False, timeout)

    async def _apply(
        self, change: Callable[[Registration], Registration], register: bool, timeout: float | None
    ) -> None:
        await self._runner.acall(self._runner.core.apply(change, register, deadline_of(timeout)))

    async def next_command(self, timeout: float | None = None) -> AsyncCommand | None:
        """Returns the next command for this agent, each once; None after the agent was closed."""
        core = self._runner.core

        def undo(job: Job | None) -> None:
            if job is not None:
                core.jobs.put_back(job)

        try:
            job = await self._runner.acall(core.next_command(deadline_of(timeout)), undo)
        except Closed:
            return None
        return None if job is None else AsyncCommand(self._runner, job)

    async def commands(self) -> AsyncIterator[AsyncCommand]:
        """Delivers the commands for this agent, each once, until it is closed. A command that expires before its acceptance is
        not delivered, or its `accept` fails."""
        while (command := await self.next_command()) is not None:
            yield command

    async def handle(self, handler: Callable[[AsyncCommand], Awaitable[object]], *, workers: int = WORKERS) -> None:
        """Accepts commands and runs a handler for each, several at a time, until the agent is closed or this task is cancelled.
        Returns after the last handler.

        The handler's result is the command's, and the exception it raises is the command's failure. When a cancellation is
        requested the handler's task is cancelled, which confirms it."""
        slots = asyncio.Semaphore(workers)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await slots.acquire()
                command = await self.next_command()
                if command is None:
                    return
                task = asyncio.create_task(self._carry_out(command, handler))
                running.add(task)
                task.add_done_callback(partial(self._carried_out, command, running, slots))
        except asyncio.CancelledError:
            for task in running:
                task.cancel()
            raise
        finally:
            if running:
                await asyncio.wait(running)

    def _carried_out(
        self,
        command: AsyncCommand,
        running: set[asyncio.Task[None]],
        slots: asyncio.Semaphore,
        task: asyncio.Task[None],
    ) -> None:
        running.discard(task)
        slots.release()
        # One that was cancelled before it began is given again.
        self._runner.post(self._runner.core.jobs.put_back, command._job)

    async def _carry_out(self, command: AsyncCommand, handler: Callable[[AsyncCommand], Awaitable[object]]) -> None:
        """Carries one command out from acceptance to its end."""
        try:
            await command.accept()
            work = asyncio.ensure_future(_awaited(handler, command))
            loop = asyncio.get_running_loop()
            command._on_stop(lambda: _post(loop, work.cancel))
            update = await self._outcome(command, work)
            # The end is written down even when this task is cancelled meanwhile.
            await asyncio.shield(asyncio.wrap_future(self._runner.submit(command._end(update))))
        except PeatError as error:
            self._logger.warning("command %s was not carried out: %s", command.id, error)

    async def _outcome(self, command: AsyncCommand, work: asyncio.Task[object]) -> Update:
        while not work.done():
            try:
                await asyncio.wait((work,))
            except asyncio.CancelledError:
                # `handle` was cancelled: so is the work, and its end is reported.
                work.cancel()
        if work.cancelled():
            return command._broken(None)
        error = work.exception()
        if error is None:
            try:
                return command._completed(work.result())
            except PeatError as cause:
                error = cause
        if not command.stopping:
            self._logger.error("command %s failed", command.id, exc_info=error)
        return command._broken(error)

    async def close(self, patience: float = CLOSE_PATIENCE) -> bool:
        """Cancels running commands, waits at most `patience` seconds until the node has all results, and says goodbye.

        False: a result was not delivered. With a directory it is delivered after the next start."""
        with contextlib.suppress(Closed):
            delivered = await self._runner.acall(self._runner.core.close(patience))
            await asyncio.to_thread(self._runner.join)
            if self._client is not None:
                await self._client.close()
            return delivered
        return True


class AsyncCommand(BaseCommand):
    """A command for this agent. It begins with `accept` and ends with `complete`, `fail` or `cancelled`; `AsyncAgent.handle`
    calls these itself."""

    async def accept(self, timeout: float | None = None) -> None:
        """Begins the command: after it returns, the node and this agent have the acceptance on disk, and the command is not
        delivered again.

        After an exception the command must not be carried out: the node has rejected it because it expired or was cancelled;
        or the timeout passed first, or the agent's present node does not have the command yet, and it is delivered again."""
        core = self._runner.core
        await self._runner.acall(core.accept(self._job, deadline_of(timeout)), lambda _: core.jobs.give_back(self._job))

    async def complete(self, result: object = None) -> None:
        """Ends the command with a result: JSON text, None, or a value that encodes to JSON, up to 256 KiB. After it returns,
        the result is on disk and is delivered now or when the node is back."""
        await self._runner.acall(self._end(self._completed(result)))

    async def fail(self, why: BaseException | str) -> None:
        """Ends the command with the reason that it failed for."""
        await self._runner.acall(self._end(self._failed(why)))

    async def cancelled(self) -> None:
        """Confirms the cancellation of the command."""
        await self._runner.acall(self._end(self._cancelled()))

    async def wait_stop(self) -> None:
        """Waits until the work should end (see `stopping`)."""
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        self._on_stop(lambda: _post(loop, stopped.set))
        await stopped.wait()

    def _on_stop(self, callback: Callable[[], object]) -> None:
        def register() -> None:
            if self._job.stopping:
                callback()
            else:
                self._job.on_stop.append(callback)

        self._runner.post(register)

    async def once(self, content_key: str, work: Callable[[], Awaitable[object]]) -> str:
        """Runs work under a key that names its effect, so that a command sent again under a new id does not repeat it, and
        returns its result as JSON text.

        While the work of another command runs under the key, this command waits for it and shares its result. When the agent
        lost its node, or restarted, before it delivered the other command's result, that result is used again for an hour.
        After a delivered result, the same key starts new work. A failure is not shared with later commands. The work is
        cancelled when no command waits for it any more."""
        core = self._runner.core

        async def begin() -> tuple[str | None, Shared | None, bool]:
            return core.once_begin(self._job, content_key)

        result, shared, leads = await self._runner.acall(begin())
        if shared is None:
            return result or ""
        if leads:
            self._lead(content_key, shared, work)
        shown = asyncio.wrap_future(shared.result)
        # A caller that gave up does not look at a failure any more.
        shown.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(shown)
        except asyncio.CancelledError:

            async def leave() -> bool:
                return core.once_leave(shared)

            # The last to give up waits for the work's end.
            if await self._runner.acall(leave()):
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await asyncio.wrap_future(shared.result)
            raise

    def _lead(self, key: str, shared: Shared, work: Callable[[], Awaitable[object]]) -> None:
        """Begins shared work, as a task that outlives this command while others wait."""
        loop, core = asyncio.get_running_loop(), self._runner.core

        async def carry() -> None:
            result = ""
            error: BaseException | None = None
            try:
                made = await work()
                result = "" if made is None else to_json(made)
            except asyncio.CancelledError:
                error = Cancelled("the work was cancelled")
            except BaseException as cause:
                error = cause

            async def end() -> None:
                core.once_end(key, shared, result, error)

            await self._runner.acall(end())

        task = asyncio.create_task(carry())
        _WORK.add(task)
        task.add_done_callback(_WORK.discard)
        shared.on_abandoned = lambda: _post(loop, task.cancel)


# References to shared work: event loops hold none.
_WORK: set[asyncio.Task[None]] = set()


async def _awaited(handler: Callable[[AsyncCommand], Awaitable[object]], command: AsyncCommand) -> object:
    return await handler(command)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Calls back on a loop, unless it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
