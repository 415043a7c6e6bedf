"""An agent without a stream: unary calls at each interval."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from ._aclient import AsyncClient
from ._backoff import Backoff
from ._core import Core
from ._jobs import Update
from ._registration import Registration, Terms, Workload
from ._types import EXECUTING, PENDING, CommandRecord, CommandStatus, Status, terminal
from .agent.v1 import agent_pb2
from .errors import Aborted, NotFound, PeatError, ResourceExhausted, Unavailable, passing
from .sidecar.v1 import sidecar_pb2 as pb

# Seconds between signs of life where the node gives no interval.
BEAT = 30.0
# Seconds that the calls of one round may take.
PATIENCE = 10.0
# Attempts to write a document that other writers change at the same time.
ATTEMPTS = 5

PLATFORMS, DEPLOYMENTS = "platforms", "deployments"

_STATUSES = {
    Update.STAGE_ACCEPTED: pb.COMMAND_STATUS_EXECUTING,
    Update.STAGE_COMPLETED: pb.COMMAND_STATUS_COMPLETED,
    Update.STAGE_FAILED: pb.COMMAND_STATUS_FAILED,
    Update.STAGE_CANCELLED: pb.COMMAND_STATUS_CANCELLED,
}


async def attend(core: Core, backoff: Backoff) -> Exception | None:
    """Polls until a call fails, and returns the error; None: the agent was closed."""
    client = AsyncClient(core.address, token=core.token)
    try:
        await _Poll(core, client).run(backoff)
        return None
    except PeatError as error:
        return error
    except Exception as error:
        # A defect of this client must not end the agent.
        core.logger.exception("agent %s lost its node", core.id)
        return error
    finally:
        await client.close()


class _Poll:
    """One period in which the node answers."""

    def __init__(self, core: Core, client: AsyncClient) -> None:
        self._core, self._client = core, client

    async def run(self, backoff: Backoff) -> None:
        """Polls until the agent is closed."""
        core, wake = self._core, self._core.wake
        assert wake is not None
        assert core.polling is not None
        # The times of the next sign of life and of the next look for commands.
        beat = look = time.monotonic()
        while not core.leaving:
            wake.clear()
            dirty, core.dirty = core.dirty, False
            now = time.monotonic()
            if now >= beat or self._lacks_state():
                status = await _bounded(self._sign_of_life())
                interval = status.heartbeat_interval_ms / 1000 or BEAT
                beat = now + interval
            if now >= look or dirty:
                await _bounded(self._look_for_commands())
                look = now + core.polling
            backoff.reset()
            if not wake.is_set():
                with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                    await asyncio.wait_for(wake.wait(), max(min(beat, look) - time.monotonic(), 0))

    def _lacks_state(self) -> bool:
        """Reports whether the node lacks the newest registration or state."""
        core = self._core
        return (
            not core.connected
            or core.state > max(core.state_reached, core.state_refused)
            or core.registered > core.registered_reached
        )

    async def _sign_of_life(self) -> Status:
        """Renews the agent's liveness, and writes the registration if the node lacks it."""
        core = self._core
        registered, state, registration = core.registered, core.state, core.registration
        status = await self._client.status()
        try:
            if self._lacks_state():
                await self._put_registration(registration)
            else:
                await self._client.patch(PLATFORMS, core.id, {"agent_id": core.id})
        except PeatError as error:
            self._note_rejection(error, registered, state)
            raise
        if not core.connected:
            core.logger.info("agent %s polls node %s", core.id, status.node_id)
        core.connected, core.refused = True, None
        core.terms = Terms(
            status.heartbeat_interval_ms / 1000,
            status.stale_after_ms / 1000,
            status.dead_after_ms / 1000,
            "",
            status.node_id,
            # The endpoint id is the node's key in hexadecimal.
            bytes.fromhex(status.endpoint_addr),
        )
        core.registered_reached, core.state_reached = registered, state
        core.changed()
        return status

    def _note_rejection(self, error: PeatError, registered: int, state: int) -> None:
        """Passes a rejection to the callers that wait."""
        core = self._core
        if isinstance(error, (Aborted, TimeoutError)) or (passing(error) and not isinstance(error, ResourceExhausted)):
            return
        if not core.connected or core.registered_reached < registered:
            core.refused = error
        elif state > core.state_reached:
            core.state_refused, core.state_error = state, error
        core.changed()

    async def _put_registration(self, registration: Registration) -> None:
        """Writes the documents that a registration on a stream makes, and deletes those of other workloads."""
        await self._set_fields(PLATFORMS, registration.id, _platform(registration))
        running = {f"{registration.id}:{workload.name}": workload for workload in registration.workloads}
        for id, workload in running.items():
            await self._set_fields(DEPLOYMENTS, id, _deployment(registration.id, workload))
        for id in await self._client.list(DEPLOYMENTS):
            if id.startswith(f"{registration.id}:") and id not in running:
                await self._delete_own(registration.id, id)

    async def _delete_own(self, agent_id: str, id: str) -> None:
        """Deletes a deployment, unless it belongs to another agent: its id may begin with this agent's and a colon."""
        try:
            document = (await self._client.get(DEPLOYMENTS, id)).decode()
        except NotFound:
            return
        if document.get("agent_id", agent_id) == agent_id:
            await self._client.delete(DEPLOYMENTS, id)

    async def _set_fields(self, collection: str, id: str, fields: Mapping[str, object]) -> None:
        """Sets keys of a document, removes those that are None here, and keeps all others."""
        for attempt in range(1, ATTEMPTS + 1):
            document: dict[str, Any] = {}
            base = b""
            with contextlib.suppress(NotFound):
                held = await self._client.get(collection, id)
                document, base = held.decode(), held.version
            document.update(fields)
            kept = {name: value for name, value in document.items() if value is not None or name not in fields}
            try:
                await self._client.put(collection, id, kept, base=base)
                return
            except Aborted:
                if attempt == ATTEMPTS:
                    raise

    async def _look_for_commands(self) -> None:
        """Reports all updates of commands and reads the open commands."""
        core = self._core
        core.jobs.repeat(time.monotonic())
        for update in core.jobs.outgoing():
            await self._report(update)
        # Ended commands may be many and need no work.
        for command in await self._client.commands(core.id, status=(PENDING, EXECUTING)):
            status = _status(command, core.id)
            if terminal(status):
                continue
            if command.cancel_requested:
                await self._report(core.jobs.cancelled(command.id))
            elif status == PENDING:
                # The node rejects the acceptance of an expired command.
                push = agent_pb2.CommandPush(command=command)
                await self._report(core.jobs.pushed(push, time.monotonic()))

    async def _report(self, update: Update | None) -> None:
        """Sends one update by PutCommand; the answer confirms or rejects it."""
        if update is None or update.stage == Update.STAGE_PROGRESS:
            return
        ack = agent_pb2.UpdateAck(command_id=update.command_id, stage=update.stage)
        try:
            command = await self._client.command(update.command_id)
        except NotFound as error:
            ack.not_here, ack.refused = True, error.message
        else:
            try:
                await self._client.put_command(_reported(command, self._core.id, update))
            except PeatError as error:
                if passing(error) or isinstance(error, TimeoutError):
                    raise
                ack.refused = error.message
        self._core.jobs.answered(ack, time.monotonic())


async def _bounded(work: Coroutine[Any, Any, Any]) -> Any:
    """Ends the calls of a round that the node does not answer in time."""
    try:
        return await asyncio.wait_for(work, PATIENCE)
    except (asyncio.TimeoutError, TimeoutError) as cause:
        raise Unavailable("the node did not answer in time") from cause


def _status(command: CommandRecord, agent_id: str) -> CommandStatus:
    """The status of a command at one of its targets."""
    for target in command.targets:
        if target.agent_id == agent_id:
            return target.status
    return command.status


def _reported(command: CommandRecord, agent_id: str, update: Update) -> CommandRecord:
    """The command with the target's status and outcome."""
    report = pb.Command()
    report.CopyFrom(command)
    report.status = _STATUSES[update.stage]
    report.result_json, report.error = update.result_json, update.error
    del report.targets[:]
    report.targets.add(agent_id=agent_id, status=report.status, result_json=update.result_json, error=update.error)
    return report


def _platform(registration: Registration) -> dict[str, object]:
    """The keys of the agent's document in platforms."""
    capacity = registration.capacity
    fields: dict[str, object] = {
        "agent_id": registration.id,
        "name": registration.name or None,
        "group": registration.group or None,
        "version": registration.version or None,
        "capabilities": list(registration.capabilities) or None,
        "routes": list(registration.routes) or None,
        "labels": dict(registration.labels) or None,
        "capacity": None if capacity is None else dict(vars(capacity)),
    }
    if registration.status:
        fields["status"] = pb.PlatformStatus.Name(registration.status)
    return fields


def _deployment(agent_id: str, workload: Workload) -> dict[str, object]:
    """The keys of a workload's document in deployments."""
    return {
        "agent_id": agent_id,
        "package": workload.name,
        "version": workload.version,
        "status": workload.status,
        "labels": dict(workload.labels) or None,
    }
