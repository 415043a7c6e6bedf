"""Commands of an agent from push to confirmed end.

Performs no I/O but the ledger's, and reads no clock: the caller gives the time. Must never let a command begin twice, nor
begin before the node has confirmed its acceptance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import IntEnum
from typing import cast

from google.protobuf.message import DecodeError

from . import _ledger
from ._ledger import Ledger, Line
from .agent.v1 import agent_pb2
from .errors import Aborted, DeadlineExceeded, FailedPrecondition, PeatError, Unavailable
from .sidecar.v1 import sidecar_pb2 as pb

Update = agent_pb2.CommandUpdate

# Commands that may be unfinished at an agent; further ones stay PENDING at the node.
OPEN_COMMANDS = 1_000
# The node's limits of a result and of texts.
RESULT_BYTES, ERROR_BYTES, PROGRESS_BYTES = 256 << 10, 4 << 10, 1 << 10
# Bytes of results that travel in a registration at most; the others follow it one by one.
REGISTER_BYTES = 1 << 20
# Seconds before an update is sent again to a node that does not have the command. They double each time, up to the most.
AGAIN_LEAST, AGAIN_MOST = 5.0, 600.0
# Seconds that every node may lack a command before the agent drops its update.
ABSENT_FOR = 86_400.0
# Seconds after its end that the result of interrupted work is used again.
REUSE_FOR = 3_600

RESTARTED = "the agent was restarted while the command ran"
CANCEL_REQUESTED = "the command was cancelled"


class Stage(IntEnum):
    """The progress of a job."""

    WAITING = 0  # Waits for `take`.
    TAKEN = 1  # Delivered, not accepted.
    ACCEPTING = 2  # Waits for the node to confirm the acceptance.
    RUNNING = 3  # The handler runs; a restart reports it as interrupted.
    DONE = 4  # Ended; the node has not confirmed the end.


class Job:
    """An unfinished command."""

    def __init__(self, command: pb.Command) -> None:
        self.command = command
        self.stage = Stage.WAITING
        # The time after which the node rejects its acceptance; None: none.
        self.deadline: float | None = None
        # The ledger has the acceptance, and registrations report it.
        self.accepted = False
        # The update that the node has not confirmed, None without one, and whether this connection has sent it.
        self.update: Update | None = None
        self.sent = False
        # The node's answer to ACCEPTED.
        self.confirmed = False
        self.refused = ""
        self.progress: Update | None = None
        # The link was lost between the acceptance and the confirmation of the end.
        self.interrupted = False
        # Keys of `once`.
        self.keys: list[str] = []
        # The node lacks the command: the time of the next attempt, the time of the first, and the number of attempts.
        self.again: float | None = None
        self.absent: float | None = None
        self.told = 0
        self.cancel_requested = False
        self.stopping = False
        # Called once, when the command is cancelled or the agent closes.
        self.on_stop: list[Callable[[], object]] = []

    @property
    def id(self) -> str:
        """The command's id."""
        return self.command.id

    def late(self, now: float) -> bool:
        """Reports whether it can no longer be accepted."""
        return self.deadline is not None and now >= self.deadline

    def said(self) -> Update:
        """Returns its newest update."""
        return self.update if self.update is not None else acceptance(self.id)

    def stop(self) -> None:
        """Ends the context of its work."""
        self.stopping = True
        callbacks, self.on_stop = self.on_stop, []
        for callback in callbacks:
            callback()

    def refusal(self) -> PeatError:
        """The error of a command that must not begin."""
        return Aborted(f"command {self.id} must not begin: {self.refused}")


class Jobs:
    """The unfinished commands of one agent. `changed` is called when a waiter may go on, `tell` when the node lacks
    something."""

    def __init__(
        self, ledger: Ledger, changed: Callable[[], None], tell: Callable[[], None], logger: logging.Logger
    ) -> None:
        self.ledger = ledger
        self.closed = False
        self._changed, self._tell, self._logger = changed, tell, logger
        self._jobs: dict[str, Job] = {}
        self._inbox: list[Job] = []
        self._resume()

    def _resume(self) -> None:
        """Restores the commands in the ledger."""
        for id, line in list(self.ledger.open.items()):
            command = pb.Command(id=id)
            try:
                readable = bool(line.command) and command.MergeFromString(line.command) >= 0
            except DecodeError:
                readable, command = False, pb.Command(id=id)
            job = Job(command)
            job.accepted = job.interrupted = True
            self._jobs[id] = job
            if line.kind == _ledger.DONE:
                job.stage = Stage.DONE
                job.update = Update(command_id=id, stage=_stage(line.stage), result_json=line.result, error=line.error)
            elif line.kind == _ledger.STARTED or not readable:
                job.stage = Stage.RUNNING
                self._finish_or_log(job, Update(command_id=id, stage=Update.STAGE_FAILED, error=RESTARTED))
            else:
                job.update = acceptance(id)
                self._inbox.append(job)

    def pushed(self, push: agent_pb2.CommandPush, now: float) -> Update | None:
        """Handles the node's request to run a command, which may arrive any number of times. Returns the update to send at
        once."""
        id = push.command.id
        if id in self.ledger.settled:
            return Update(command_id=id, stage=_stage(self.ledger.settled[id]))
        deadline = now + push.time_left_ms / 1000 if push.time_left_ms else None
        known = self._jobs.get(id)
        if known is not None:
            known.deadline = deadline
            # The node repeats its request because it lacks the update.
            return known.said() if known.stage > Stage.TAKEN else None
        if not id or len(self._jobs) >= OPEN_COMMANDS or self.closed:
            return None
        job = Job(push.command)
        job.deadline = deadline
        self._jobs[id] = job
        self._inbox.append(job)
        self._changed()
        return None

    def cancelled(self, id: str) -> Update | None:
        """Handles the node's request to cancel a command. Returns the update to send at once."""
        confirmed = Update(command_id=id, stage=Update.STAGE_CANCELLED)
        job = self._jobs.get(id)
        if job is None:
            if id in self.ledger.settled:
                confirmed.stage = _stage(self.ledger.settled[id])
            elif not self._recorded(Line(_ledger.SETTLED, id, stage=confirmed.stage)):
                return None
            return confirmed
        if job.stage is Stage.DONE:
            return job.update
        job.cancel_requested = True
        if job.stage is not Stage.RUNNING:
            job.refused = CANCEL_REQUESTED
            # The command has not begun, so it ends here. On failure the node repeats its request.
            self._finish_or_log(job, confirmed)
        job.stop()
        return None

    def repeat(self, now: float) -> None:
        """Sends updates again that the node could not match to a command and may match by now."""
        for job in self._jobs.values():
            if job.again is not None and now >= job.again:
                job.again, job.sent = None, False
                self._queue(job)
                self._tell()
                self._changed()

    def answered(self, ack: agent_pb2.UpdateAck, now: float) -> None:
        """Handles the node's answer to an update."""
        job = self._jobs.get(ack.command_id)
        if job is None or job.update is None or job.update.stage != ack.stage:
            return
        if ack.refused:
            stage = Update.Stage.Name(ack.stage)
            self._logger.warning("the node rejected %s of command %s: %s", stage, ack.command_id, ack.refused)
        if ack.not_here and _outlasts(job, now):
            self._changed()
            return
        job.again, job.absent, job.told = None, None, 0
        if job.stage is Stage.DONE:
            self._settle(job, ack.stage)
        elif ack.refused:
            # The command expired, was cancelled or is not for this agent: it must not begin.
            job.refused = ack.refused
            self._settle(job, 0)
        else:
            job.update, job.confirmed = None, True
        self._changed()

    def _settle(self, job: Job, stage: int) -> None:
        """Removes a job and keeps its id; after a rejected acceptance the id is forgotten too."""
        lines = [Line(_ledger.SETTLED, job.id, stage=stage)]
        for key in job.keys:
            shared = any(key in other.keys for other in self._jobs.values() if other is not job)
            if not job.interrupted and not shared and key in self.ledger.work:
                lines.append(Line(_ledger.FORGET, key))
        # On failure the next start sends the update again.
        self._recorded(*lines)
        self._drop(job)

    def _recorded(self, *lines: Line) -> bool:
        try:
            self.ledger.append(*lines)
        except PeatError as error:
            self._logger.warning("%s", error)
            return False
        return True

    def _drop(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._unqueue(job)
        job.stop()
        self._changed()

    def _queue(self, job: Job) -> None:
        if job.stage is Stage.WAITING and job not in self._inbox:
            self._inbox.append(job)

    def _unqueue(self, job: Job) -> None:
        if job in self._inbox:
            self._inbox.remove(job)

    def take(self, now: float) -> Job | None:
        """Returns the next command that may still begin."""
        while self._inbox:
            job = self._inbox.pop(0)
            if not job.accepted and job.late(now):
                self._drop(job)
                continue
            job.stage = Stage.TAKEN
            return job
        return None

    def put_back(self, job: Job) -> None:
        """Queues a command again that was not begun."""
        if self._jobs.get(job.id) is job and job.stage < Stage.RUNNING:
            job.stage = Stage.WAITING
            if job.again is None:
                self._queue(job)
            self._changed()

    def announce(self, job: Job, now: float) -> None:
        """Records the acceptance and queues it for the node."""
        if job.refused:
            raise job.refusal()
        if job.stage is not Stage.TAKEN:
            raise FailedPrecondition(f"command {job.id} has been accepted already")
        if not job.accepted:
            if job.late(now):
                self._drop(job)
                raise DeadlineExceeded(f"command {job.id} expired before it was accepted")
            try:
                self.ledger.append(Line(_ledger.ACCEPTED, job.id, command=job.command.SerializeToString()))
            except PeatError:
                self.put_back(job)
                raise
            job.accepted, job.update, job.sent = True, acceptance(job.id), False
        job.stage = Stage.ACCEPTING
        self._tell()

    def decided(self, job: Job) -> bool:
        """Reports whether the node has answered an acceptance."""
        return job.confirmed or bool(job.refused) or job.again is not None

    def begin(self, job: Job) -> None:
        """Records the point after which the handler may have had effects."""
        if job.refused:
            raise job.refusal()
        try:
            if not job.confirmed:
                raise Unavailable(f"the node does not hold command {job.id} yet")
            self.ledger.append(Line(_ledger.STARTED, job.id))
        except PeatError:
            self.put_back(job)
            raise
        job.stage = Stage.RUNNING

    def give_back(self, job: Job) -> None:
        """Reverts a begin that its caller did not wait for."""
        if job.stage is not Stage.RUNNING or self._jobs.get(job.id) is not job:
            return
        if self._recorded(Line(_ledger.ACCEPTED, job.id, command=job.command.SerializeToString())):
            job.stage = Stage.WAITING
            self._queue(job)
            self._changed()

    def finish(self, job: Job, update: Update) -> None:
        """Records the end of a job and queues it for the node."""
        self.ledger.append(
            Line(_ledger.DONE, job.id, stage=update.stage, result=update.result_json, error=update.error)
        )
        job.stage, job.update, job.sent, job.progress = Stage.DONE, update, False, None
        self._unqueue(job)
        self._tell()
        self._changed()

    def _finish_or_log(self, job: Job, update: Update) -> None:
        try:
            self.finish(job, update)
        except PeatError as error:
            self._logger.warning("%s", error)

    def end(self, job: Job, update: Update) -> None:
        """Ends a running command."""
        if job.stage is not Stage.RUNNING:
            raise FailedPrecondition(f"command {job.id} is not running")
        self.finish(job, update)

    def any(self, stage: Stage) -> bool:
        """Reports whether a job is at this stage."""
        return any(job.stage is stage for job in self._jobs.values())

    def stop_all(self) -> None:
        """Ends the context of all work."""
        self.closed = True
        for job in list(self._jobs.values()):
            job.stop()

    def unfinished(self) -> list[Update]:
        """Returns an update for each accepted command without a confirmed end, for a registration. Results beyond
        REGISTER_BYTES follow the registration."""
        updates, size = [], 0
        for job in self._jobs.values():
            if not job.accepted and job.stage < Stage.RUNNING:
                continue
            update = job.said()
            bytes = len(update.result_json.encode()) + len(update.error.encode())
            if size + bytes > REGISTER_BYTES:
                update = acceptance(job.id)
            else:
                size += bytes
                job.sent = job.update is not None
            updates.append(update)
        return updates

    def outgoing(self) -> list[Update]:
        """Returns the updates that this connection has not sent."""
        updates = []
        for job in self._jobs.values():
            if job.update is not None and not job.sent:
                job.sent = True
                updates.append(job.update)
            if job.progress is not None:
                updates.append(job.progress)
                job.progress = None
        return updates

    def lost_link(self) -> None:
        """Marks all unconfirmed updates as not sent."""
        for job in self._jobs.values():
            if job.again is not None:
                self._queue(job)
            job.sent, job.progress, job.again = False, None, None
            job.interrupted = job.interrupted or job.accepted

    def finished_work(self, key: str, now: float) -> str | None:
        """The result under a key, of a command that did not get through. A clock that was set back makes it last longer, never
        shorter."""
        line = self.ledger.work.get(key)
        return None if line is None or now - line.at > REUSE_FOR else line.result


def acceptance(id: str) -> Update:
    """The update that says that a command will run."""
    return Update(command_id=id, stage=Update.STAGE_ACCEPTED)


def _stage(number: int) -> Update.Stage:
    return cast(Update.Stage, number)


def _outlasts(job: Job, now: float) -> bool:
    """Schedules the next attempt for a command that may still reach the node. False: the agent gives up."""
    if job.absent is None:
        job.absent = now
    job.again = now + min(AGAIN_LEAST * 2 ** min(job.told, 10), AGAIN_MOST)
    job.told += 1
    return now - job.absent < ABSENT_FOR
