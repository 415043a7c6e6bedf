"""The asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from . import _aconnection, _calls, _fleet
from ._aconnection import AsyncConnection
from ._backoff import Backoff
from ._calls import DEFAULT_TTL, Call, Page
from ._connection import deadline_of, remaining
from ._follow import Agents, Documents, Follow
from ._mux import WINDOW, Waiting
from ._target import Target
from ._types import (
    AgentChange,
    AgentInfo,
    Cell,
    Change,
    ChangeType,
    CommandRecord,
    CommandStatus,
    Compacted,
    Document,
    FleetDeployment,
    FleetPlatform,
    Health,
    Liveness,
    Peer,
    Platform,
    Status,
    SyncStats,
    TargetStatus,
    Token,
    Track,
    Written,
    over,
)
from .errors import Closed, ConnectionLost, DeadlineExceeded, NotSent, PeatError, passing
from .sidecar.v1 import sidecar_pb2 as pb

T = TypeVar("T")


class AsyncClient:
    """Calls a node over one connection, which the tasks of one event loop share. The methods are those of `Client`.

    A task that is cancelled, or runs out of its `timeout`, cancels its call at the node too.
    """

    def __init__(self, address: str, *, token: str = "") -> None:
        """A client of the node at unix:///PATH, tcp://HOST:PORT or http://HOST:PORT; the first call dials. A TCP listener may
        want a token."""
        self._target = Target.parse(address)
        self._token = token
        self._dialing = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._closed = False

    def __repr__(self) -> str:
        where = self._target.path or f"{self._target.host}:{self._target.port}"
        return f"<peat.AsyncClient of {where}>"

    async def __aenter__(self) -> AsyncClient:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self, timeout: float | None = None) -> AsyncClient:
        """Dials now, and fails when the node cannot be reached."""
        await self._connected(deadline_of(timeout))
        return self

    async def close(self) -> None:
        """Ends the connection and every call and subscription on it."""
        self._closed = True
        if self._connection is not None:
            self._connection.close(Closed("the client was closed"))

    async def _connected(self, deadline: float | None) -> AsyncConnection:
        if self._closed:
            raise Closed("the client was closed")
        connection = self._connection
        if connection is not None and connection.error is None:
            return connection
        left = remaining(deadline)
        try:
            await asyncio.wait_for(self._dialing.acquire(), left)
        except (asyncio.TimeoutError, TimeoutError) as cause:
            raise DeadlineExceeded("the node was not reached in time") from cause
        try:
            connection = self._connection
            if connection is None or connection.error is not None:
                connection = await _aconnection.dial(self._target, self._token, remaining(deadline))
                self._connection = connection
                if self._closed:
                    connection.close(Closed("the client was closed"))
            return connection
        finally:
            self._dialing.release()

    async def call(self, call: Call[T], timeout: float | None = None) -> T:
        """Makes one call. A request that cannot have reached the node is sent once more, on a new connection."""
        deadline = deadline_of(timeout)
        payload = call.request.SerializeToString()
        try:
            for _ in range(2):
                try:
                    connection = await self._connected(deadline)
                    return call.read(await connection.unary(call.method, payload, deadline))
                except NotSent:
                    continue
            raise ConnectionLost("the request could not be written")
        except PeatError as error:
            error.method = error.method or call.method.name
            raise

    async def _all(self, page: Callable[[bytes], Call[Page[T]]], timeout: float | None) -> _list[T]:
        """A whole list, page by page."""
        deadline, found, token = deadline_of(timeout), _list[T](), b""
        while True:
            left = remaining(deadline)
            answer = await self.call(page(token), None if left is None else max(left, 1e-3))
            found += answer.elements
            token = answer.next
            if not token:
                return found

    # The node and its links.

    async def status(self, *, timeout: float | None = None) -> Status:
        """Returns the node's id, its phase and its connections."""
        return await self.call(_calls.status(), timeout)

    async def health(self, *, timeout: float | None = None) -> Health:
        """Returns whether the node works, and the faults if not."""
        return await self.call(_calls.health(), timeout)

    async def peers(self, *, all: bool = False, timeout: float | None = None) -> list[Peer]:
        """Returns the nodes that this node connects to or accepts; with `all`, the disconnected ones as well."""
        return await self.call(_calls.peers(all), timeout)

    async def connect_peer(
        self,
        endpoint_id: str,
        addresses: Iterable[str] = (),
        relay: str = "",
        *,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Connects the node to a peer, now and after restarts. Addresses are HOST:PORT; a relay is relay:HOST:PORT.

        `wait` delays the answer until the peer is admitted. When the timeout passes first, the call fails with the reason and
        the node goes on dialling."""
        return await self.call(_calls.connect_peer(endpoint_id, addresses, relay, wait), timeout)

    async def disconnect_peer(self, endpoint_id: str, *, timeout: float | None = None) -> None:
        """Disconnects the node from a peer and rejects that peer until `connect_peer`."""
        return await self.call(_calls.disconnect_peer(endpoint_id), timeout)

    async def start_sync(self, *, timeout: float | None = None) -> None:
        """Ends radio silence."""
        return await self.call(_calls.start_sync(), timeout)

    async def stop_sync(self, *, timeout: float | None = None) -> None:
        """Begins radio silence: after it returns, the node sends no datagram."""
        return await self.call(_calls.stop_sync(), timeout)

    async def sync_stats(self, *, timeout: float | None = None) -> SyncStats:
        """Returns the counters of the node's links to its peers."""
        return await self.call(_calls.sync_stats(), timeout)

    # Documents.

    async def put(
        self,
        collection: str,
        id: str,
        document: object,
        *,
        base: bytes = b"",
        wait_peers: int = 0,
        durable: bool = False,
        timeout: float | None = None,
    ) -> Written:
        """Writes a document: text (str or bytes) that is a JSON object, or a value that encodes to one.

        `base` is the version that the writer has read. A merged document takes only the fields that differ from it; for a
        latest document that has another version by now, the put fails with `Aborted`. Without a base, a put replaces the
        stored document. `wait_peers` delays the answer until this number of peers hold this or a later version on disk; when
        the deadline passes first, the call fails and the write stands. `durable` delays the answer until the write is on disk,
        for every kind of collection."""
        return await self.call(_calls.put(collection, id, document, base, wait_peers, durable), timeout)

    async def patch(
        self,
        collection: str,
        id: str,
        patch: object,
        *,
        base: bytes = b"",
        wait_peers: int = 0,
        durable: bool = False,
        timeout: float | None = None,
    ) -> Written:
        """Changes fields of a document by a JSON merge patch (RFC 7396): null removes a field. Options are those of `put`."""
        return await self.call(_calls.patch(collection, id, patch, base, wait_peers, durable), timeout)

    async def get(self, collection: str, id: str, *, timeout: float | None = None) -> Document:
        """Returns a document, or raises `NotFound`."""
        return await self.call(_calls.get(collection, id), timeout)

    async def delete(self, collection: str, id: str, *, timeout: float | None = None) -> None:
        """Deletes a document, if it exists."""
        return await self.call(_calls.delete(collection, id), timeout)

    async def list(self, collection: str, *, timeout: float | None = None) -> list[str]:
        """Returns the ids of a collection's documents."""
        return await self.call(_calls.list_ids(collection), timeout)

    async def compact(self, collection: str, id: str, *, timeout: float | None = None) -> Compacted:
        """Drops the history of a merged document. Edits that the compaction had not seen are applied to the new version."""
        return await self.call(_calls.compact(collection, id), timeout)

    def subscribe(
        self,
        *collections: str,
        snapshot: bool = False,
        resume_after: Token | None = None,
        exclude: Iterable[str] = (),
        max_change_bytes: int = 0,
    ) -> AsyncSubscription[Change]:
        """Delivers the changes of these collections, or of all, without those in `exclude`. With `snapshot` it begins with all
        existing documents and SNAPSHOT_END. A change longer than `max_change_bytes` (0: 64 MiB) is OVERSIZED.

        After a lost connection the subscription resumes; where it cannot, it delivers a RESET and a snapshot. A slow consumer
        gets the newest version of each document, not every version in between."""
        return AsyncSubscription(self, Documents(collections, snapshot, resume_after, exclude, max_change_bytes))

    # Typed objects and the fleet.

    async def put_platform(self, platform: Platform, *, timeout: float | None = None) -> None:
        """Writes the set fields of the message to platforms/{id}. It is a sign of life of agent {id} as well."""
        return await self.call(_calls.put_platform(platform), timeout)

    async def platforms(self, *, timeout: float | None = None) -> _list[Platform]:
        """Returns all objects in the collection platforms."""
        return await self.call(_calls.platforms(), timeout)

    async def put_cell(self, cell: Cell, *, timeout: float | None = None) -> None:
        """Writes the set fields of the message to cells/{id}."""
        return await self.call(_calls.put_cell(cell), timeout)

    async def cells(self, *, timeout: float | None = None) -> _list[Cell]:
        """Returns all objects in the collection cells."""
        return await self.call(_calls.cells(), timeout)

    async def put_track(self, track: Track, *, timeout: float | None = None) -> None:
        """Writes the set fields of the message to tracks/{id}."""
        return await self.call(_calls.put_track(track), timeout)

    async def tracks(self, *, timeout: float | None = None) -> _list[Track]:
        """Returns all objects in the collection tracks."""
        return await self.call(_calls.tracks(), timeout)

    async def fleet_platforms(self, *, timeout: float | None = None) -> _list[FleetPlatform]:
        """Returns the machines of the fleet that this node knows, sorted by id, from documents of any writer."""
        documents = await self._snapshot("platforms", timeout)
        return _fleet.platforms(documents, await self.platforms(timeout=timeout))

    async def fleet_deployments(self, *, timeout: float | None = None) -> _list[FleetDeployment]:
        """Returns the deployments of the fleet that this node knows, sorted by id."""
        return _fleet.deployments(await self._snapshot("deployments", timeout))

    async def _snapshot(self, collection: str, timeout: float | None) -> _list[Change]:
        """Returns all documents of a collection."""
        deadline = deadline_of(timeout)
        held: dict[str, Change] = {}
        async with AsyncSubscription(self, Documents([collection], True, None), lasting=False) as subscription:
            while (change := await subscription.next(remaining(deadline))) is not None:
                if change.type is ChangeType.SNAPSHOT_END:
                    return _list(held.values())
                if change.type is ChangeType.UPSERT:
                    held[change.id] = change
        raise ConnectionLost("the node ended the snapshot")

    # Commands and agents.

    async def send_command(
        self,
        type: str,
        payload: object = None,
        *,
        agent: str = "",
        group: str = "",
        all: bool = False,
        ttl: float | None = DEFAULT_TTL,
        id: str = "",
        timeout: float | None = None,
    ) -> str:
        """Issues a command to one agent, a group, or all agents, and returns its id.

        The command is on disk by then; `wait_command` returns its outcome. `ttl` is how many seconds it waits for acceptance;
        None never expires. Sending the same command under the same id again has no effect."""
        command = _calls.new_command(type, payload, agent, group, all, ttl, id, time.time())
        await self.put_command(command, timeout=timeout)
        return command.id

    async def put_command(self, command: CommandRecord, *, timeout: float | None = None) -> None:
        """Issues a command as it is, or reports the status of an existing one."""
        return await self.call(_calls.put_command(command), timeout)

    async def command(self, id: str, *, timeout: float | None = None) -> CommandRecord:
        """Returns the command with this id, as far as its updates have reached the node."""
        return await self.call(_calls.command(id), timeout)

    async def commands(
        self,
        agent_id: str = "",
        *,
        pending_only: bool = False,
        status: Iterable[CommandStatus] = (),
        timeout: float | None = None,
    ) -> _list[CommandRecord]:
        """Returns the commands that the node knows, the oldest first.

        With `agent_id`, the commands for that agent, including those for its group and for all agents; of these, `pending_only`
        selects what it may still run. `status` selects commands in one of these statuses: of the agent, or of all their
        targets."""
        return await self._all(partial(_calls.commands, agent_id, pending_only, tuple(status)), timeout)

    async def wait_command(self, id: str, *, timeout: float | None = None) -> CommandRecord:
        """Waits until a command has ended at all of its targets: COMPLETED, FAILED, CANCELLED or EXPIRED."""
        deadline = deadline_of(timeout)
        # Subscribe before the first read, so that no change falls between. An expiry can happen without a change.
        async with self.subscribe("commands") as changes:
            await changes.begin(deadline)
            while True:
                try:
                    command = await self.command(id, timeout=remaining(deadline))
                    if over(command):
                        return command
                except PeatError as error:
                    if not passing(error):
                        raise
                left = remaining(deadline)
                try:
                    await changes.next(1.0 if left is None else max(min(left, 1.0), 1e-3))
                except DeadlineExceeded:
                    if left is not None and left <= 1.0:
                        raise DeadlineExceeded(f"command {id} is not over", "GetCommands") from None

    async def cancel_command(self, id: str, *, timeout: float | None = None) -> _list[TargetStatus]:
        """Requests the end of a command and returns the status of each target. A target that is not CANCELLED yet ends when its
        agent confirms the request."""
        return await self.call(_calls.cancel_command(id), timeout)

    async def agents(
        self, *, liveness: Liveness = pb.LIVENESS_UNSPECIFIED, group: str = "", timeout: float | None = None
    ) -> _list[AgentInfo]:
        """Returns the agents of the fleet that this node knows, dead ones included."""
        return await self._all(partial(_calls.agents, liveness, group), timeout)

    def watch_agents(self) -> AsyncSubscription[AgentChange]:
        """Delivers all agents, SNAPSHOT_END and then every change. After a lost connection it delivers a RESET and all agents
        again."""
        return AsyncSubscription(self, Agents())


# `AsyncClient.list` hides the name inside the class.
_list = list


class AsyncSubscription(Generic[T]):
    """An asynchronous iterator of changes that outlasts connections. One task at a time may use it; a cancelled wait loses
    nothing."""

    def __init__(self, client: AsyncClient, follow: Follow[T], lasting: bool = True) -> None:
        self._client = client
        self._follow = follow
        self._lasting = lasting
        self._backoff = Backoff()
        self._resume_at = 0.0
        self._stream: tuple[AsyncConnection, Waiting] | None = None
        self._pending: T | None = None
        self._closed = False

    def __aiter__(self) -> AsyncSubscription[T]:
        return self

    async def __anext__(self) -> T:
        change = await self.next()
        if change is None:
            raise StopAsyncIteration
        return change

    async def __aenter__(self) -> AsyncSubscription[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def next(self, timeout: float | None = None) -> T | None:
        """The next change; None once it was closed. `DeadlineExceeded` when none came in time: the subscription goes on."""
        deadline = deadline_of(timeout)
        while not self._closed:
            if self._pending is not None:
                change, self._pending = self._pending, None
                return change
            await self._advance(deadline)
        return None

    async def _advance(self, deadline: float | None) -> None:
        """Takes one item, or handles the end of the stream."""
        try:
            connection, waiting = await self._open(deadline)
            payload = await connection.item(waiting, deadline)
        except DeadlineExceeded:
            left = remaining(deadline)
            if left is not None and left <= 0:
                raise
            self._broke(DeadlineExceeded("the node ended the subscription"))
        except (PeatError, NotSent) as error:
            self._broke(error)
        else:
            if payload is None:
                return self._broke(None)
            self._backoff.reset()
            self._pending = self._follow.note(payload)

    async def begin(self, deadline: float | None) -> None:
        """Asks the node for changes now, not at the first `next`."""
        try:
            await self._open(deadline)
        except (PeatError, NotSent) as error:
            self._broke(error)

    async def _open(self, deadline: float | None) -> tuple[AsyncConnection, Waiting]:
        """The stream on the present connection, begun when there is none."""
        if self._stream is None:
            pause = self._resume_at - time.monotonic()
            if pause > 0:
                left = remaining(deadline)
                if left is not None and left < pause:
                    await asyncio.sleep(max(left, 0))
                    raise DeadlineExceeded("the node cannot be reached")
                await asyncio.sleep(pause)
            connection = await self._client._connected(deadline)
            request = self._follow.request().SerializeToString()
            self._stream = connection, await connection.begin(self._follow.method, request, deadline, WINDOW)
        return self._stream

    def _broke(self, error: PeatError | NotSent | None) -> None:
        self._stream = None
        if self._closed:
            return
        if isinstance(error, PeatError):
            error.method = error.method or self._follow.method.name
        if not self._lasting:
            if error is None or isinstance(error, NotSent):
                raise ConnectionLost("the node ended the stream", self._follow.method.name)
            raise error
        pause, self._pending = self._follow.broke(error)
        if pause:
            self._resume_at = time.monotonic() + self._backoff.pause()

    async def close(self) -> None:
        """Ends the subscription."""
        self._closed = True
        stream, self._stream = self._stream, None
        if stream is not None:
            connection, waiting = stream
            connection.cancel(waiting)
