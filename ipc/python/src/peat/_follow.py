"""Streams that outlast connections: their requests, the meaning of items, and the consequence of a broken stream.

Performs no I/O; the clients' subscriptions own the connections and the pauses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ._calls import decode
from ._methods import Method
from ._types import AgentChange, Change, ChangeType, Token
from .errors import InvalidArgument, OutOfRange, passing
from .sidecar.v1 import sidecar_pb2 as pb

T = TypeVar("T")

_TYPES = {
    pb.CHANGE_TYPE_UPSERT: ChangeType.UPSERT,
    pb.CHANGE_TYPE_DELETE: ChangeType.DELETE,
    pb.CHANGE_TYPE_SNAPSHOT_END: ChangeType.SNAPSHOT_END,
    pb.CHANGE_TYPE_OVERSIZED: ChangeType.OVERSIZED,
}


class Follow(ABC, Generic[T]):
    """One subscription over any number of connections."""

    method: Method

    @abstractmethod
    def request(self) -> Message:
        """Returns the request for the next connection."""

    @abstractmethod
    def note(self, payload: bytes) -> T | None:
        """Moves past an item. None: an item of an unknown type."""

    @abstractmethod
    def broke(self, error: Exception | None) -> tuple[bool, T | None]:
        """Handles the end of a stream; without an error the node ended it. Returns whether to pause before the next attempt,
        and an event for the consumer. Raises an error that no further attempt can mend."""


class Documents(Follow[Change]):
    """A subscription to changes of documents."""

    method = Method.Subscribe

    def __init__(
        self,
        collections: Iterable[str],
        snapshot: bool,
        resume_after: Token | None,
        exclude: Iterable[str] = (),
        max_change_bytes: int = 0,
    ) -> None:
        self._collections = list(collections)
        self._exclude = list(exclude)
        if not 0 <= max_change_bytes < 1 << 32:
            raise InvalidArgument(f"max_change_bytes of {max_change_bytes}; expected 0 to 2^32 - 1")
        self._max_change_bytes = max_change_bytes
        # True from the beginning of a snapshot to its end. A snapshot cannot resume in its middle.
        self._snapshot = snapshot
        self._token = resume_after

    def request(self) -> Message:
        request = pb.SubscribeRequest(
            collections=self._collections,
            exclude=self._exclude,
            snapshot=self._snapshot,
            max_change_bytes=self._max_change_bytes,
        )
        if self._token is not None and not self._snapshot:
            request.resume_after, request.resume_run = self._token.sequence, self._token.run
        return request

    def note(self, payload: bytes) -> Change | None:
        item = decode(pb.DocumentChange, payload)
        kind = _TYPES.get(item.change_type)
        if kind is None:
            return None
        if kind is ChangeType.SNAPSHOT_END:
            self._snapshot = False
        token = Token(item.run, item.sequence)
        if not self._snapshot:
            self._token = token
        return Change(kind, item.collection, item.doc_id, item.json_data, item.origin, token, item.error)

    def broke(self, error: Exception | None) -> tuple[bool, Change | None]:
        pause = True
        if isinstance(error, OutOfRange):
            self._token, pause = None, False
        elif error is not None and not passing(error):
            raise error
        if self._token is not None and not self._snapshot:
            return pause, None
        self._token, self._snapshot = None, True
        return pause, Change(ChangeType.RESET)


class Agents(Follow[AgentChange]):
    """The agents of the fleet and their changes."""

    method = Method.WatchAgents

    def request(self) -> Message:
        return pb.WatchAgentsRequest()

    def note(self, payload: bytes) -> AgentChange | None:
        item = decode(pb.AgentChange, payload)
        kind = _TYPES.get(item.change_type)
        if kind is None:
            return None
        return AgentChange(kind, item.agent if item.HasField("agent") else None)

    def broke(self, error: Exception | None) -> tuple[bool, AgentChange | None]:
        if error is not None and not passing(error):
            raise error
        return True, AgentChange(ChangeType.RESET)
