"""The blocking agent."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ._client import Client
from ._command import BaseCommand
from ._connection import deadline_of
from ._core import Core, Shared
from ._jobs import Job
from ._registration import Registration, State, Terms, Workload
from ._runner import Runner
from ._types import to_json
from .errors import Cancelled, Closed, PeatError

# Commands that `handle` works on at the same time; others wait to be accepted.
WORKERS = 16
# Seconds that `close` waits for the node to take the last results.
CLOSE_PATIENCE = 5.0


class Agent:
    """An application's end of the agent link, for threads.

    It registers as soon as the node can be reached and again whenever it was lost, gives signs of life as often as the node
    wants them, and runs each command once. A lost connection does not cancel accepted work: its result is delivered when the
    node is back. Close it, or use it as a context manager.
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
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"<peat.Agent {self.id}>"

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
    def client(self) -> Client:
        """A client of the same node, for all other calls. It closes with the agent."""
        if self._client is None:
            self._client = Client(self._address, token=self._token)
        return self._client

    def wait_registered(self, timeout: float | None = None) -> Terms:
        """Waits until the node has accepted the newest registration. A rejection is the error."""
        return self._runner.call(self._runner.core.wait_registered(deadline_of(timeout)))

    def update(self, registration: Registration, *, timeout: float | None = None) -> None:
        """Replaces the registration, except its id (`dataclasses.replace(agent.registration, ...)`), and waits until the node
        has accepted it. A rejected registration is reverted."""
        self._apply(lambda _: registration, True, timeout)

    def heartbeat(self, state: State, *, timeout: float | None = None) -> None:
        """Reports a new state and waits until the node has accepted it. A rejected state is reverted. Plain signs of life need
        no call."""
        self._apply(lambda before: before.with_state(state), False, timeout)

    def report_deployment(self, workload: Workload, *, timeout: float | None = None) -> None:
        """Adds a workload to the state, or replaces the one of the same name, and waits until the node has accepted it."""
        self._apply(lambda before: before.with_workload(workload), False, timeout)

    def remove_deployment(self, name: str, *, timeout: float | None = None) -> None:
        """Removes a workload from the state and waits until the node has accepted that."""
        self._apply(lambda before: before.without_workload(name), False, timeout)

    def _apply(self, change: Callable[[Registration], Registration], register: bool, timeout: float | None) -> None:
        self._runner.call(self._runner.core.apply(change, register, deadline_of(timeout)))

    def next_command(self, timeout: float | None = None) -> Command | None:
        """Returns the next command for this agent, each once; None after the agent was closed."""
        core = self._runner.core

        def undo(job: Job | None) -> None:
            if job is not None:
                core.jobs.put_back(job)

        try:
            job = self._runner.call(core.next_command(deadline_of(timeout)), undo)
        except Closed:
            return None
        return None if job is None else Command(self._runner, job)

    def commands(self) -> Iterator[Command]:
        """Delivers the commands for this agent, each once, until it is closed. A command that expires before its acceptance is
        not delivered, or its `accept` fails."""
        while (command := self.next_command()) is not None:
            yield command

    def handle(self, handler: Callable[[Command], object], *, workers: int = WORKERS) -> None:
        """Accepts commands and runs a handler for each, several at a time, until the agent is closed. Returns after the last
        handler.

        The handler's result is the command's, and the exception it raises is the command's failure. After a cancellation was
        requested (`command.stopping`), any exception confirms it."""
        slots = threading.Semaphore(workers)
        with ThreadPoolExecutor(workers, thread_name_prefix=f"peat-{self.id}") as pool:
            while True:
                slots.acquire()
                command = self.next_command()
                if command is None:
                    return
                pool.submit(self._carry_out, command, handler).add_done_callback(lambda _: slots.release())

    def _carry_out(self, command: Command, handler: Callable[[Command], object]) -> None:
        """Carries one command out from acceptance to its end."""
        try:
            command.accept()
            try:
                # A result that is no JSON is a failure of the handler too.
                update = command._completed(handler(command))
            except Exception as error:
                if not command.stopping:
                    self._logger.exception("command %s failed", command.id)
                update = command._broken(error)
            self._runner.call(command._end(update))
        except PeatError as error:
            self._logger.warning("command %s was not carried out: %s", command.id, error)

    def close(self, patience: float = CLOSE_PATIENCE) -> bool:
        """Asks running commands to end, waits at most `patience` seconds until the node has all results, and says goodbye.

        False: a result was not delivered. With a directory it is delivered after the next start."""
        with contextlib.suppress(Closed):
            delivered = self._runner.call(self._runner.core.close(patience))
            self._runner.join()
            if self._client is not None:
                self._client.close()
            return delivered
        return True


class Command(BaseCommand):
    """A command for this agent. It begins with `accept` and ends with `complete`, `fail` or `cancelled`; `Agent.handle` calls
    these itself."""

    def accept(self, timeout: float | None = None) -> None:
        """Begins the command: after it returns, the node and this agent have the acceptance on disk, and the command is not
        delivered again.

        After an exception the command must not be carried out: the node has rejected it because it expired or was cancelled;
        or the timeout passed first, or the agent's present node does not have the command yet, and it is delivered again."""
        core = self._runner.core
        self._runner.call(core.accept(self._job, deadline_of(timeout)), lambda _: core.jobs.give_back(self._job))

    def complete(self, result: object = None) -> None:
        """Ends the command with a result: JSON text, None, or a value that encodes to JSON, up to 256 KiB. After it returns,
        the result is on disk and is delivered now or when the node is back."""
        self._runner.call(self._end(self._completed(result)))

    def fail(self, why: BaseException | str) -> None:
        """Ends the command with the reason that it failed for."""
        self._runner.call(self._end(self._failed(why)))

    def cancelled(self) -> None:
        """Confirms the cancellation of the command."""
        self._runner.call(self._end(self._cancelled()))

    def wait_stop(self, timeout: float | None = None) -> bool:
        """Waits until the work should end (see `stopping`). False: the timeout passed first."""
        stopped = threading.Event()
        self._on_stop(stopped.set)
        return stopped.wait(timeout)

    def _on_stop(self, callback: Callable[[], object]) -> None:
        def register() -> None:
            if self._job.stopping:
                callback()
            else:
                self._job.on_stop.append(callback)

        self._runner.post(register)

    def once(self, content_key: str, work: Callable[[Attempt], object]) -> str:
        """Runs work under a key that names its effect, so that a command sent again under a new id does not repeat it, and
        returns its result as JSON text.

        While the work of another command runs under the key, this command waits for it and shares its result. When the agent
        lost its node, or restarted, before it delivered the other command's result, that result is used again for an hour.
        After a delivered result, the same key starts new work. A failure is not shared with later commands. The work runs on
        the thread of the first command; `attempt.stopping` says when no command waits for it any more."""
        core = self._runner.core

        async def begin() -> tuple[str | None, Shared | None, bool]:
            return core.once_begin(self._job, content_key)

        result, shared, leads = self._runner.call(begin())
        if shared is None:
            return result or ""
        self._on_stop(lambda: core.once_leave(shared))
        if leads:
            self._lead(content_key, shared, work)
            return shared.result.result()
        return self._join(shared)

    def _lead(self, key: str, shared: Shared, work: Callable[[Attempt], object]) -> None:
        result, error = "", None
        try:
            made = work(Attempt(shared))
            result = "" if made is None else to_json(made)
        except BaseException as cause:
            error = cause

        async def end() -> None:
            self._runner.core.once_end(key, shared, result, error)

        self._runner.call(end())
        if error is not None:
            raise error

    def _join(self, shared: Shared) -> str:
        """Waits for the work of another command. The last to give up waits for its end all the same."""
        woken: Future[None] = Future()

        def wake(*_: object) -> None:
            with contextlib.suppress(Exception):
                woken.set_result(None)

        shared.result.add_done_callback(wake)
        self._on_stop(wake)
        woken.result()
        if shared.result.done() or shared.waiting == 0:
            return shared.result.result()
        raise Cancelled("the command was cancelled while it waited for shared work")


class Attempt:
    """Work done once, seen by the function that does it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    @property
    def stopping(self) -> bool:
        """Reports whether no command waits for the work any more."""
        return self._shared.abandoned
