"""An agent's stream to its node: registration, heartbeats, the node's messages, and a new stream after each loss."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

from . import _aconnection, _mux, _poll
from ._aconnection import AsyncConnection
from ._backoff import Backoff
from ._calls import decode
from ._core import Core
from ._jobs import Update
from ._methods import Method
from ._mux import WINDOW, Waiting
from ._registration import Terms
from .agent.v1 import agent_pb2
from .errors import Aborted, Closed, NotSent, PeatError, ResourceExhausted, Unavailable, passing

# Seconds that the node may take to be dialled, to answer a registration, or to take what it is sent.
LINK_PATIENCE = 10.0
# The least seconds that a heartbeat may go unanswered, for any interval.
BEAT_PATIENCE = 5.0
# Seconds between heartbeats at least: bounds what a node can ask for.
LEAST_BEAT = 0.1
# Seconds that the node may take to answer a goodbye.
GOODBYE_PATIENCE = 1.0


async def run(core: Core) -> None:
    """Keeps the agent linked until it leaves."""
    backoff = Backoff()
    try:
        while not core.leaving:
            error = await (_attend if core.polling is None else _poll.attend)(core, backoff)
            core.connected = False
            core.jobs.lost_link()
            core.changed()
            if error is None:
                return
            core.logger.warning("agent %s lost its node: %s", core.id, error)
            if isinstance(error, Aborted):
                # Another process uses the id. Two that compete for it must not do so twice a second.
                backoff.most()
            await _rest(core, backoff.pause())
    finally:
        core.gone = True
        core.changed()


async def _rest(core: Core, pause: float) -> None:
    """Pauses, and ends early when the agent leaves."""
    end = time.monotonic() + pause
    assert core.wake is not None
    while not core.leaving and (left := end - time.monotonic()) > 0:
        core.wake.clear()
        try:
            await asyncio.wait_for(core.wake.wait(), left)
        except (asyncio.TimeoutError, TimeoutError):
            return


async def _attend(core: Core, backoff: Backoff) -> Exception | None:
    """Keeps one stream until it fails, and returns the error; None: the agent was closed."""
    connection: AsyncConnection | None = None
    link = _Link(core)
    try:
        connection = await _aconnection.dial(core.target, core.token, LINK_PATIENCE)
        await link.open(connection)
        await link.follow(backoff)
        return None
    except (PeatError, NotSent) as error:
        if isinstance(error, NotSent) and isinstance(error.__cause__, PeatError):
            error = error.__cause__
        if isinstance(error, PeatError):
            error.method = error.method or "AgentLink.Connect"
            link.note_refusal(error)
        return error
    except Exception as error:
        # A defect of this client must not end the agent.
        core.logger.exception("agent %s lost its node", core.id)
        return error
    finally:
        if connection is not None:
            connection.close(Closed("the agent was closed"))


class _Link:
    """One stream, from Register to its end."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._connection: AsyncConnection
        self._waiting: Waiting
        # The last heartbeat, the last that was answered, and since when one is waited for.
        self._number = self._acked = 0
        self._since = 0.0
        # The heartbeat that carried a state, and the state's count.
        self._state_number = self._state = 0
        # The registration that was sent last.
        self._registered = 0
        self._interval = LINK_PATIENCE

    async def open(self, connection: AsyncConnection) -> None:
        """Begins the stream with a registration."""
        self._connection = connection
        payload = self._register().SerializeToString()
        self._waiting = await connection.begin(Method.Connect, payload, None, WINDOW)
        assert self._core.wake is not None
        self._waiting.notify = self._core.wake.set

    def _register(self) -> agent_pb2.AgentMessage:
        core = self._core
        self._registered = core.registered
        register = core.registration.register()
        register.commands.extend(core.jobs.unfinished())
        return agent_pb2.AgentMessage(register=register)

    async def follow(self, backoff: Backoff) -> None:
        """Runs the stream until it ends; returns when the agent was closed."""
        core, wake = self._core, self._core.wake
        assert wake is not None
        # When the answer to the registration, or the next heartbeat, is due.
        due = time.monotonic() + LINK_PATIENCE
        while True:
            wake.clear()
            self._connection.grant(self._waiting)
            while self._waiting.frames:
                if await self._arrived():
                    backoff.reset()
                    due = time.monotonic() + self._interval
            if self._connection.error is not None:
                raise self._connection.error
            if core.leaving:
                return await self._goodbye()
            if core.dirty and core.connected:
                core.dirty = False
                await self._tell()
            now = time.monotonic()
            if now >= due:
                if not core.connected:
                    raise Unavailable("the node did not answer the registration")
                await self._beat()
                core.jobs.repeat(now)
                due = now + self._interval
            if not wake.is_set():
                await _wait(wake, due - time.monotonic())

    async def _arrived(self) -> bool:
        """Handles one frame of the node; true when it answered a registration."""
        payload = _mux.item(self._waiting, self._waiting.frames.popleft())
        if payload is None:
            raise Unavailable("the node ended the link")
        core, message = self._core, decode(agent_pb2.NodeMessage, payload)
        # Messages of unknown types are ignored.
        body = message.WhichOneof("body")
        if body == "registered":
            self._granted(message.registered)
            return True
        if body == "config_update":
            self._reconfigured(message.config_update)
        elif body == "command_push":
            await self._answer(core.jobs.pushed(message.command_push, time.monotonic()))
        elif body == "cancel_push":
            await self._answer(core.jobs.cancelled(message.cancel_push.command_id))
        elif body == "heartbeat_ack":
            self._heard(message.heartbeat_ack.number)
        elif body == "update_ack":
            core.jobs.answered(message.update_ack, time.monotonic())
        return False

    def _granted(self, registered: agent_pb2.Registered) -> None:
        """Notes that the node has the registration."""
        core = self._core
        self._interval = max(registered.heartbeat_interval_ms / 1000, LEAST_BEAT)
        if not core.connected:
            core.logger.info("agent %s is linked with node %s", core.id, registered.node_id)
        core.connected, core.refused = True, None
        core.terms = Terms(
            registered.heartbeat_interval_ms / 1000,
            registered.stale_after_ms / 1000,
            registered.dead_after_ms / 1000,
            registered.events_url,
            registered.node_id,
            registered.node_public_key,
        )
        core.registered_reached = max(core.registered_reached, self._registered)
        core.tell()
        core.changed()

    def _reconfigured(self, update: agent_pb2.ConfigUpdate) -> None:
        self._interval = max(update.heartbeat_interval_ms / 1000, LEAST_BEAT)
        if self._core.terms is not None:
            self._core.terms = dataclasses.replace(
                self._core.terms,
                heartbeat_interval=update.heartbeat_interval_ms / 1000,
                stale_after=update.stale_after_ms / 1000,
                dead_after=update.dead_after_ms / 1000,
                events_url=update.events_url,
            )
            self._core.changed()

    async def _tell(self) -> None:
        """Sends everything that the node lacks."""
        core = self._core
        for update in core.jobs.outgoing():
            await self._answer(update)
        if core.registered > self._registered:
            await self._send(self._register())
        elif core.state > max(self._state, core.state_refused):
            self._state_number, self._state = self._number + 1, core.state
            await self._heartbeat(core.registration.state())

    async def _beat(self) -> None:
        """Sends a sign of life. Raises when the node has not answered an earlier one in time."""
        if self._number > self._acked and time.monotonic() - self._since > max(self._interval, BEAT_PATIENCE):
            raise Unavailable("the node did not answer a heartbeat")
        await self._heartbeat(None)

    async def _heartbeat(self, state: agent_pb2.State | None) -> None:
        if self._number == self._acked:
            self._since = time.monotonic()
        self._number += 1
        await self._send(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(number=self._number, state=state)))

    def _heard(self, number: int) -> None:
        core = self._core
        if number > self._acked:
            self._acked, self._since = min(number, self._number), time.monotonic()
        if 0 < self._state_number <= self._acked and self._state > core.state_reached:
            core.state_reached = self._state
            core.changed()

    async def _answer(self, update: Update | None) -> None:
        if update is not None:
            await self._send(agent_pb2.AgentMessage(command_update=update))

    async def _send(self, message: agent_pb2.AgentMessage) -> None:
        """Sends a message; raises when the node takes no bytes for LINK_PATIENCE."""
        deadline = time.monotonic() + LINK_PATIENCE
        await self._connection.send(self._waiting, message.SerializeToString(), deadline)

    async def _goodbye(self) -> None:
        """Takes leave, and waits until the node has ended the stream."""
        deadline = time.monotonic() + GOODBYE_PATIENCE
        try:
            await self._send(agent_pb2.AgentMessage(goodbye=agent_pb2.Goodbye()))
            self._connection.half_close(self._waiting)
            while await self._connection.item(self._waiting, deadline) is not None:
                pass
        except (PeatError, NotSent):
            # The node has gone without an answer, as after a crash.
            return

    def note_refusal(self, error: PeatError) -> None:
        """Passes a rejection to the callers that wait. The agent repeats a rejected registration, since an operator may change
        what the node accepts."""
        core = self._core
        if isinstance(error, Aborted) or (passing(error) and not isinstance(error, ResourceExhausted)):
            return
        if isinstance(error, TimeoutError):
            return
        if core.registered_reached < self._registered or not core.connected:
            core.refused = error
        elif self._state > core.state_reached:
            core.state_refused, core.state_error = self._state, error
        core.changed()


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
        await asyncio.wait_for(wake.wait(), max(seconds, 0))
