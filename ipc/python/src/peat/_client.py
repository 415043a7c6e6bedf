"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from . import _calls, _connection, _fleet
from ._backoff import Backoff
from ._calls import DEFAULT_TTL, Call, Page
from ._connection import Connection, deadline_of, remaining
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


class Client:
    """Calls a node over one connection, which any number of threads may share.

    When the connection is lost, unfinished calls fail with `ConnectionLost`: whether the node carried them out is not known, so
    they are not repeated. The next call dials again, once, and fails with `Unavailable` when no node listens. Subscriptions
    connect again by themselves. Each call takes `timeout` in seconds; the node hears of it and gives up too.
    """

    def __init__(self, address: str, *, token: str = "") -> None:
        """A client of the node at unix:///PATH, tcp://HOST:PORT or http://HOST:PORT; the first call dials. A TCP listener may
        want a token."""
        self._target = Target.parse(address)
        self._token = token
        self._dialing = threading.Lock()
        self._connection: Connection | None = None
        self._ended = threading.Event()

    def __repr__(self) -> str:
        where = self._target.path or f"{self._target.host}:{self._target.port}"
        return f"<peat.Client of {where}>"

    def __enter__(self) -> Client:
        return self.connect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, timeout: float | None = None) -> Client:
        """Dials now, and fails when the node cannot be reached."""
        self._connected(deadline_of(timeout))
        return self

    def close(self) -> None:
        """Ends the connection and every call and subscription on it."""
        self._ended.set()
        connection = self._connection
        if connection is not None:
            connection.close(Closed("the client was closed"))

    def _connected(self, deadline: float | None) -> Connection:
        left = remaining(deadline)
        if not self._dialing.acquire(timeout=-1 if left is None else max(left, 0)):
            raise DeadlineExceeded("the node was not reached in time")
        try:
            self._check_open()
            connection = self._connection
            if connection is not None and not connection.alive:
                connection.close(ConnectionLost("the connection was lost"))
                connection = None
            if connection is None:
                left = remaining(deadline)
                connection = _connection.dial(self._target, self._token, None if left is None else max(left, 1e-3))
                self._connection = connection
                if self._ended.is_set():
                    connection.close(Closed("the client was closed"))
            return connection
        finally:
            self._dialing.release()

    def _check_open(self) -> None:
        if self._ended.is_set():
            raise Closed("the client was closed")

    def call(self, call: Call[T], timeout: float | None = None) -> T:
        """Makes one call. A request that cannot have reached the node whole is sent once more, on a new connection."""
        deadline = deadline_of(timeout)
        payload = call.request.SerializeToString()
        try:
            for _ in range(2):
                try:
                    return call.read(self._connected(deadline).unary(call.method, payload, deadline))
                except NotSent:
                    continue
            raise ConnectionLost("the request could not be written")
        except PeatError as error:
            error.method = error.method or call.method.name
            raise

    def _all(self, page: Callable[[bytes], Call[Page[T]]], timeout: float | None) -> _list[T]:
        """A whole list, page by page."""
        deadline, found, token = deadline_of(timeout), _list[T](), b""
        while True:
            left = remaining(deadline)
            answer = self.call(page(token), None if left is None else max(left, 1e-3))
            found += answer.elements
            token = answer.next
            if not token:
                return found

    # The node and its links.

    def status(self, *, timeout: float | None = None) -> Status:
        """Returns the node's id, its phase and its connections."""
        return self.call(_calls.status(), timeout)

    def health(self, *, timeout: float | None = None) -> Health:
        """Returns whether the node works, and the faults if not."""
        return self.call(_calls.health(), timeout)

    def peers(self, *, all: bool = False, timeout: float | None = None) -> list[Peer]:
        """Returns the nodes that this node connects to or accepts; with `all`, the disconnected ones as well."""
        return self.call(_calls.peers(all), timeout)

    def connect_peer(
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
        return self.call(_calls.connect_peer(endpoint_id, addresses, relay, wait), timeout)

    def disconnect_peer(self, endpoint_id: str, *, timeout: float | None = None) -> None:
        """Disconnects the node from a peer and rejects that peer until `connect_peer`."""
        return self.call(_calls.disconnect_peer(endpoint_id), timeout)

    def start_sync(self, *, timeout: float | None = None) -> None:
        """Ends radio silence."""
        return self.call(_calls.start_sync(), timeout)

    def stop_sync(self, *, timeout: float | None = None) -> None:
        """Begins radio silence: after it returns, the node sends no datagram."""
        return self.call(_calls.stop_sync(), timeout)

    def sync_stats(self, *, timeout: float | None = None) -> SyncStats:
        """Returns the counters of the node's links to its peers."""
        return self.call(_calls.sync_stats(), timeout)

    # Documents.

    def put(
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
        return self.call(_calls.put(collection, id, document, base, wait_peers, durable), timeout)

    def patch(
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
        return self.call(_calls.patch(collection, id, patch, base, wait_peers, durable), timeout)

    def get(self, collection: str, id: str, *, timeout: float | None = None) -> Document:
        """Returns a document, or raises `NotFound`."""
        return self.call(_calls.get(collection, id), timeout)

    def delete(self, collection: str, id: str, *, timeout: float | None = None) -> None:
        """Deletes a document, if it exists."""
        return self.call(_calls.delete(collection, id), timeout)

    def list(self, collection: str, *, timeout: float | None = None) -> list[str]:
        """Returns the ids of a collection's documents."""
        return self.call(_calls.list_ids(collection), timeout)

    def compact(self, collection: str, id: str, *, timeout: float | None = None) -> Compacted:
        """Drops the history of a merged document. Edits that the compaction had not seen are applied to the new version."""
        return self.call(_calls.compact(collection, id), timeout)

    def subscribe(
        self,
        *collections: str,
        snapshot: bool = False,
        resume_after: Token | None = None,
        exclude: Iterable[str] = (),
        max_change_bytes: int = 0,
    ) -> Subscription[Change]:
        """Delivers the changes of these collections, or of all, without those in `exclude`. With `snapshot` it begins with all
        existing documents and SNAPSHOT_END. A change longer than `max_change_bytes` (0: 64 MiB) is OVERSIZED.

        After a lost connection the subscription resumes; where it cannot, it delivers a RESET and a snapshot. A slow consumer
        gets the newest version of each document, not every version in between."""
        return Subscription(self, Documents(collections, snapshot, resume_after, exclude, max_change_bytes))

    # Typed objects and the fleet.

    def put_platform(self, platform: Platform, *, timeout: float | None = None) -> None:
        """Writes the set fields of the message to platforms/{id}. It is a sign of life of agent {id} as well."""
        return self.call(_calls.put_platform(platform), timeout)

    def platforms(self, *, timeout: float | None = None) -> _list[Platform]:
        """Returns all objects in the collection platforms."""
        return self.call(_calls.platforms(), timeout)

    def put_cell(self, cell: Cell, *, timeout: float | None = None) -> None:
        """Writes the set fields of the message to cells/{id}."""
        return self.call(_calls.put_cell(cell), timeout)

    def cells(self, *, timeout: float | None = None) -> _list[Cell]:
        """Returns all objects in the collection cells."""
        return self.call(_calls.cells(), timeout)

    def put_track(self, track: Track, *, timeout: float | None = None) -> None:
        """Writes the set fields of the message to tracks/{id}."""
        return self.call(_calls.put_track(track), timeout)

    def tracks(self, *, timeout: float | None = None) -> _list[Track]:
        """Returns all objects in the collection tracks."""
        return self.call(_calls.tracks(), timeout)

    def fleet_platforms(self, *, timeout: float | None = None) -> _list[FleetPlatform]:
        """Returns the machines of the fleet that this node knows, sorted by id, from documents of any writer."""
        return _fleet.platforms(self._snapshot("platforms", timeout), self.platforms(timeout=timeout))

    def fleet_deployments(self, *, timeout: float | None = None) -> _list[FleetDeployment]:
        """Returns the deployments of the fleet that this node knows, sorted by id."""
        return _fleet.deployments(self._snapshot("deployments", timeout))

    def _snapshot(self, collection: str, timeout: float | None) -> _list[Change]:
        """Returns all documents of a collection."""
        deadline = deadline_of(timeout)
        held: dict[str, Change] = {}
        with Subscription(self, Documents([collection], True, None), lasting=False) as subscription:
            while (change := subscription.next(remaining(deadline))) is not None:
                if change.type is ChangeType.SNAPSHOT_END:
                    return _list(held.values())
                if change.type is ChangeType.UPSERT:
                    held[change.id] = change
        raise ConnectionLost("the node ended the snapshot")

    # Commands and agents.

    def send_command(
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
        self.put_command(command, timeout=timeout)
        return command.id

    def put_command(self, command: CommandRecord, *, timeout: float | None = None) -> None:
        """Issues a command as it is, or reports the status of an existing one."""
        return self.call(_calls.put_command(command), timeout)

    def command(self, id: str, *, timeout: float | None = None) -> CommandRecord:
        """Returns the command with this id, as far as its updates have reached the node."""
        return self.call(_calls.command(id), timeout)

    def commands(
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
        return self._all(partial(_calls.commands, agent_id, pending_only, tuple(status)), timeout)

    def wait_command(self, id: str, *, timeout: float | None = None) -> CommandRecord:
        """Waits until a command has ended at all of its targets: COMPLETED, FAILED, CANCELLED or EXPIRED."""
        deadline = deadline_of(timeout)
        # Subscribe before the first read, so that no change falls between. An expiry can happen without a change.
        with self.subscribe("commands") as changes:
            changes.begin(deadline)
            while True:
                try:
                    command = self.command(id, timeout=remaining(deadline))
                    if over(command):
                        return command
                except PeatError as error:
                    if not passing(error):
                        raise
                left = remaining(deadline)
                try:
                    changes.next(1.0 if left is None else max(min(left, 1.0), 1e-3))
                except DeadlineExceeded:
                    if left is not None and left <= 1.0:
                        raise DeadlineExceeded(f"command {id} is not over", "GetCommands") from None

    def cancel_command(self, id: str, *, timeout: float | None = None) -> _list[TargetStatus]:
        """Requests the end of a command and returns the status of each target. A target that is not CANCELLED yet ends when its
        agent confirms the request."""
        return self.call(_calls.cancel_command(id), timeout)

    def agents(
        self, *, liveness: Liveness = pb.LIVENESS_UNSPECIFIED, group: str = "", timeout: float | None = None
    ) -> _list[AgentInfo]:
        """Returns the agents of the fleet that this node knows, dead ones included."""
        return self._all(partial(_calls.agents, liveness, group), timeout)

    def watch_agents(self) -> Subscription[AgentChange]:
        """Delivers all agents, SNAPSHOT_END and then every change. After a lost connection it delivers a RESET and all agents
        again."""
        return Subscription(self, Agents())


# `Client.list` hides the name inside the class.
_list = list


class Subscription(Generic[T]):
    """An iterator of changes that outlasts connections. One thread at a time may use it."""

    def __init__(self, client: Client, follow: Follow[T], lasting: bool = True) -> None:
        self._client = client
        self._follow = follow
        self._lasting = lasting
        self._backoff = Backoff()
        self._resume_at = 0.0
        self._stream: tuple[Connection, Waiting] | None = None
        self._pending: T | None = None
        self._closed = False

    def __iter__(self) -> Subscription[T]:
        return self

    def __next__(self) -> T:
        change = self.next()
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def next(self, timeout: float | None = None) -> T | None:
        """The next change; None once it was closed. `DeadlineExceeded` when none came in time: the subscription goes on."""
        deadline = deadline_of(timeout)
        while not self._closed:
            if self._pending is not None:
                change, self._pending = self._pending, None
                return change
            self._advance(deadline)
        return None

    def _advance(self, deadline: float | None) -> None:
        """Takes one item, or handles the end of the stream."""
        try:
            connection, waiting = self._open(deadline)
            payload = connection.item(waiting, deadline)
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

    def begin(self, deadline: float | None) -> None:
        """Asks the node for changes now, not at the first `next`."""
        try:
            self._open(deadline)
        except (PeatError, NotSent) as error:
            self._broke(error)

    def _open(self, deadline: float | None) -> tuple[Connection, Waiting]:
        """The stream on the present connection, begun when there is none."""
        if self._stream is None:
            pause = self._resume_at - time.monotonic()
            if pause > 0:
                left = remaining(deadline)
                if left is not None and left < pause:
                    self._client._ended.wait(max(left, 0))
                    raise DeadlineExceeded("the node cannot be reached")
                self._client._ended.wait(pause)
            connection = self._client._connected(deadline)
            request = self._follow.request().SerializeToString()
            self._stream = connection, connection.begin(self._follow.method, request, deadline, WINDOW)
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

    def close(self) -> None:
        """Ends the subscription."""
        self._closed = True
        stream, self._stream = self._stream, None
        if stream is not None:
            connection, waiting = stream
            connection.cancel(waiting)
