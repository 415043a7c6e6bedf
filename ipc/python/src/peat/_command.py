"""The common part of the blocking and the asyncio command."""

from __future__ import annotations

import json
from typing import Any

from ._jobs import CANCEL_REQUESTED, ERROR_BYTES, PROGRESS_BYTES, RESULT_BYTES, Job, Update
from ._runner import Runner
from ._types import CommandRecord, to_json
from .errors import InvalidArgument, PeatError, ResourceExhausted

CLOSED = "the agent was closed while the command ran"


class BaseCommand:
    """A command for this agent."""

    def __init__(self, runner: Runner, job: Job) -> None:
        self._runner, self._job = runner, job

    def __repr__(self) -> str:
        return f"<peat.{type(self).__name__} {self.type} {self.id}>"

    @property
    def id(self) -> str:
        """The command's id, which runs once."""
        return self._job.id

    @property
    def type(self) -> str:
        """The kind of command."""
        return self._job.command.command_type

    @property
    def payload(self) -> str:
        """JSON."""
        return self._job.command.payload_json

    @property
    def issuer(self) -> str:
        """Endpoint id of the node that issued and signed it."""
        return self._job.command.issuer

    @property
    def record(self) -> CommandRecord:
        """The whole record."""
        return self._job.command

    @property
    def cancel_requested(self) -> bool:
        """Reports whether its sender has cancelled it."""
        return self._job.cancel_requested

    @property
    def stopping(self) -> bool:
        """Reports whether the work should end, since the command was cancelled or the agent closes. A lost connection ends no
        work."""
        return self._job.stopping

    def decode(self) -> Any:
        """The parsed payload."""
        try:
            return json.loads(self.payload)
        except ValueError as cause:
            raise InvalidArgument(f"the payload of command {self.id} is not JSON: {cause}") from cause

    def progress(self, percent: int, text: str = "") -> None:
        """Shows the progress of the command to its watchers, if the node can be reached: the newest text, at most every five
        seconds, up to 1 KiB."""
        update = Update(
            command_id=self.id,
            stage=Update.STAGE_PROGRESS,
            progress=clip(text, PROGRESS_BYTES),
            percent=min(max(percent, 0), 100),
        )
        self._runner.post(self._runner.core.progress, self._job, update)

    async def _end(self, update: Update) -> None:
        self._runner.core.jobs.end(self._job, update)

    def _completed(self, result: object) -> Update:
        text = ""
        if result is not None:
            text = to_json(result)
            try:
                json.loads(text)
            except (ValueError, RecursionError) as cause:
                raise InvalidArgument(f"the result of command {self.id} is not JSON: {cause}") from cause
        size = len(text.encode())
        if size > RESULT_BYTES:
            raise ResourceExhausted(f"the result of command {self.id} has {size} bytes; the limit is {RESULT_BYTES}")
        return Update(command_id=self.id, stage=Update.STAGE_COMPLETED, result_json=text)

    def _failed(self, why: BaseException | str) -> Update:
        text = why if isinstance(why, str) else (why.message if isinstance(why, PeatError) else str(why))
        return Update(
            command_id=self.id, stage=Update.STAGE_FAILED, error=clip(text or type(why).__name__, ERROR_BYTES)
        )

    def _cancelled(self) -> Update:
        return Update(command_id=self.id, stage=Update.STAGE_CANCELLED)

    def _broken(self, error: BaseException | None) -> Update:
        """The end of a command without a result of its handler: cancelled after a request for that, else failed."""
        if self.cancel_requested:
            return self._cancelled()
        return self._failed(CLOSED if error is None else error)


def clip(text: str, most: int) -> str:
    """Shortens text to a number of bytes; lone surrogates, which UTF-8 cannot encode, become question marks."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= most:
        return encoded.decode()
    more = "…"
    return encoded[: most - len(more.encode())].decode(errors="ignore") + more


def stopped(error: BaseException | None) -> str:
    """The error of shared work that a command no longer waits for."""
    return CANCEL_REQUESTED if error is None else str(error)
