"""Values that calls take and give."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from .errors import InvalidArgument
from .sidecar.v1 import sidecar_pb2 as pb

Status: TypeAlias = pb.GetStatusResponse
Health: TypeAlias = pb.GetHealthResponse
SyncStats: TypeAlias = pb.GetSyncStatsResponse
Peer: TypeAlias = pb.PeerInfo
Platform: TypeAlias = pb.Platform
Cell: TypeAlias = pb.Cell
Track: TypeAlias = pb.Track
CommandRecord: TypeAlias = pb.Command
TargetStatus: TypeAlias = pb.TargetStatus
AgentInfo: TypeAlias = pb.Agent
Liveness: TypeAlias = pb.Liveness
PlatformStatus: TypeAlias = pb.PlatformStatus
CellStatus: TypeAlias = pb.CellStatus
TrackCategory: TypeAlias = pb.TrackCategory
CommandStatus: TypeAlias = pb.CommandStatus

LIVE, STALE, DEAD = pb.LIVENESS_LIVE, pb.LIVENESS_STALE, pb.LIVENESS_DEAD
READY, BUSY = pb.PLATFORM_STATUS_READY, pb.PLATFORM_STATUS_BUSY
DEGRADED, OFFLINE = pb.PLATFORM_STATUS_DEGRADED, pb.PLATFORM_STATUS_OFFLINE
PENDING, EXECUTING = pb.COMMAND_STATUS_PENDING, pb.COMMAND_STATUS_EXECUTING
COMPLETED, FAILED = pb.COMMAND_STATUS_COMPLETED, pb.COMMAND_STATUS_FAILED
CANCELLED, EXPIRED = pb.COMMAND_STATUS_CANCELLED, pb.COMMAND_STATUS_EXPIRED

_ENDS = frozenset((COMPLETED, FAILED, CANCELLED, EXPIRED))


@dataclass(frozen=True)
class Document:
    """A document as the node holds it."""

    json: str
    # An opaque name of this version, for `base`.
    version: bytes
    # Whether this version is on disk.
    durable: bool

    def decode(self) -> Any:
        """The parsed JSON."""
        return json.loads(self.json)


@dataclass(frozen=True)
class Written:
    """The version that a put or patch made."""

    version: bytes
    durable: bool


@dataclass(frozen=True)
class Compacted:
    """The version that a compaction made, and the bytes of history it dropped."""

    version: bytes
    dropped_bytes: int


class ChangeType(Enum):
    """The kinds of changes of a subscription."""

    # The document or agent is like this now.
    UPSERT = 1
    # The document or agent no longer exists.
    DELETE = 2
    # Everything that existed when the stream began has been delivered; live changes follow. It has no other fields.
    SNAPSHOT_END = 100
    # The document exists, but is longer than a change of this subscription may be; `error` has the length and the remedy.
    OVERSIZED = 102
    # The node cannot continue where the stream ended. Discard what the stream delivered: a snapshot follows.
    RESET = -1


@dataclass(frozen=True)
class Token:
    """A point of a subscription at which it can be resumed, by another process too."""

    run: bytes = b""
    sequence: int = 0

    def __str__(self) -> str:
        return f"{self.run.hex()}-{self.sequence}"

    @staticmethod
    def parse(text: str) -> Token:
        """Parses the result of `str`."""
        run, _, sequence = text.partition("-")
        try:
            return Token(bytes.fromhex(run), int(sequence))
        except ValueError as cause:
            raise InvalidArgument(f"{text!r} is no token of a subscription; expected HEX-NUMBER") from cause


@dataclass(frozen=True)
class Change:
    """The newest version of one document, or its end."""

    type: ChangeType
    collection: str = ""
    id: str = ""
    # Of an UPSERT.
    json: str = ""
    # Endpoint id of the node that wrote this version.
    origin: str = ""
    # Resuming here repeats nothing up to this change.
    token: Token = Token()
    # Of an OVERSIZED.
    error: str = ""

    def decode(self) -> Any:
        """The parsed JSON of an UPSERT."""
        return json.loads(self.json)


@dataclass(frozen=True)
class AgentChange:
    """The present state of one agent."""

    type: ChangeType
    # Of an UPSERT or DELETE.
    agent: AgentInfo | None = None


@dataclass(frozen=True)
class FleetPlatform:
    """The machine of one agent, read from its document in platforms of any writer. Absent fields are empty."""

    id: str
    agent_id: str = ""
    platform_type: str = ""
    name: str = ""
    group: str = ""
    version: str = ""
    architecture: str = ""
    classification: str = ""
    run_mode: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    # This node's view of the agent's liveness, the node that reported it, and the report's age in seconds.
    liveness: Liveness = pb.LIVENESS_UNSPECIFIED
    via: str = ""
    age: float = 0.0
    # The whole document.
    json: str = ""


@dataclass(frozen=True)
class FleetDeployment:
    """A workload of an agent, read from its document in deployments."""

    id: str
    agent_id: str = ""
    package: str = ""
    version: str = ""
    status: str = ""
    flavor: str = ""
    namespace_override: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    json: str = ""


def to_json(value: object) -> str:
    """Returns JSON text (str, bytes) unchanged and encodes everything else."""
    try:
        if isinstance(value, str):
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode()
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as cause:
        raise InvalidArgument(f"not JSON: {cause}") from cause


def terminal(status: int) -> bool:
    """Reports whether a status is final."""
    return status in _ENDS


def over(command: CommandRecord) -> bool:
    """Reports whether a command has ended at all of its targets."""
    if command.targets:
        return all(terminal(target.status) for target in command.targets)
    return terminal(command.status)
