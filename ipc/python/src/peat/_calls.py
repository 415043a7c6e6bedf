"""Each call as a value: its method, its request, and how its response is read. Both clients send these."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from ._methods import Method
from ._types import (
    PENDING,
    AgentInfo,
    Cell,
    CommandRecord,
    CommandStatus,
    Compacted,
    Document,
    Health,
    Liveness,
    Peer,
    Platform,
    Status,
    SyncStats,
    TargetStatus,
    Track,
    Written,
    to_json,
)
from .errors import InvalidArgument, NotFound, ProtocolError
from .sidecar.v1 import sidecar_pb2 as pb

T = TypeVar("T")
M = TypeVar("M", bound=Message)

# Seconds a command may wait to be accepted when its sender does not say.
DEFAULT_TTL = 60.0
# Elements that the node is asked for at a time; a list may have any number of them.
PAGE = 1_000


@dataclass(frozen=True)
class Call(Generic[T]):
    """One unary call."""

    method: Method
    request: Message
    read: Callable[[bytes], T]


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list, and where the next begins; empty after the last. A page may be empty and have others after it."""

    elements: list[T]
    next: bytes


def decode(kind: type[M], payload: bytes) -> M:
    """A message of the node."""
    try:
        return kind.FromString(payload)
    except DecodeError as cause:
        raise ProtocolError(f"a {kind.__name__} that cannot be read: {cause}") from cause


def _nothing(_: bytes) -> None:
    return None


def status() -> Call[Status]:
    return Call(Method.GetStatus, pb.GetStatusRequest(), lambda payload: decode(pb.GetStatusResponse, payload))


def health() -> Call[Health]:
    return Call(Method.GetHealth, pb.GetHealthRequest(), lambda payload: decode(pb.GetHealthResponse, payload))


def peers(all: bool) -> Call[list[Peer]]:
    request = pb.ListPeersRequest(all=all)
    return Call(Method.ListPeers, request, lambda payload: list(decode(pb.ListPeersResponse, payload).peers))


def connect_peer(endpoint_id: str, addresses: Iterable[str], relay: str, wait: bool) -> Call[None]:
    request = pb.ConnectPeerRequest(endpoint_id=endpoint_id, addresses=addresses, relay_url=relay, wait=wait)
    return Call(Method.ConnectPeer, request, _nothing)


def disconnect_peer(endpoint_id: str) -> Call[None]:
    return Call(Method.DisconnectPeer, pb.DisconnectPeerRequest(endpoint_id=endpoint_id), _nothing)


def start_sync() -> Call[None]:
    return Call(Method.StartSync, pb.StartSyncRequest(), _nothing)


def stop_sync() -> Call[None]:
    return Call(Method.StopSync, pb.StopSyncRequest(), _nothing)


def sync_stats() -> Call[SyncStats]:
    return Call(Method.GetSyncStats, pb.GetSyncStatsRequest(), lambda payload: decode(pb.GetSyncStatsResponse, payload))


def put(collection: str, id: str, document: object, base: bytes, wait_peers: int, durable: bool) -> Call[Written]:
    request = pb.PutDocumentRequest(
        collection=collection, doc_id=id, json_data=to_json(document), base=base, wait_peers=wait_peers, durable=durable
    )
    return Call(Method.PutDocument, request, _written(pb.PutDocumentResponse))


def patch(collection: str, id: str, patch: object, base: bytes, wait_peers: int, durable: bool) -> Call[Written]:
    request = pb.PatchDocumentRequest(
        collection=collection, doc_id=id, patch_json=to_json(patch), base=base, wait_peers=wait_peers, durable=durable
    )
    return Call(Method.PatchDocument, request, _written(pb.PatchDocumentResponse))


def _written(kind: type[pb.PutDocumentResponse] | type[pb.PatchDocumentResponse]) -> Callable[[bytes], Written]:
    def read(payload: bytes) -> Written:
        response: Any = decode(kind, payload)
        return Written(response.version, response.durable)

    return read


def get(collection: str, id: str) -> Call[Document]:
    def read(payload: bytes) -> Document:
        response = decode(pb.GetDocumentResponse, payload)
        if not response.HasField("json_data"):
            raise NotFound(f"there is no {collection}/{id}")
        return Document(response.json_data, response.version, response.durable)

    return Call(Method.GetDocument, pb.GetDocumentRequest(collection=collection, doc_id=id), read)


def delete(collection: str, id: str) -> Call[None]:
    return Call(Method.DeleteDocument, pb.DeleteDocumentRequest(collection=collection, doc_id=id), _nothing)


def list_ids(collection: str) -> Call[list[str]]:
    request = pb.ListDocumentsRequest(collection=collection)
    return Call(Method.ListDocuments, request, lambda payload: list(decode(pb.ListDocumentsResponse, payload).doc_ids))


def compact(collection: str, id: str) -> Call[Compacted]:
    def read(payload: bytes) -> Compacted:
        response = decode(pb.CompactDocumentResponse, payload)
        return Compacted(response.version, response.dropped_bytes)

    return Call(Method.CompactDocument, pb.CompactDocumentRequest(collection=collection, doc_id=id), read)


def put_platform(platform: Platform) -> Call[None]:
    return Call(Method.PutPlatform, pb.PutPlatformRequest(platform=platform), _nothing)


def platforms() -> Call[list[Platform]]:
    request = pb.GetPlatformsRequest()
    return Call(Method.GetPlatforms, request, lambda payload: list(decode(pb.GetPlatformsResponse, payload).platforms))


def put_cell(cell: Cell) -> Call[None]:
    return Call(Method.PutCell, pb.PutCellRequest(cell=cell), _nothing)


def cells() -> Call[list[Cell]]:
    return Call(Method.GetCells, pb.GetCellsRequest(), lambda payload: list(decode(pb.GetCellsResponse, payload).cells))


def put_track(track: Track) -> Call[None]:
    return Call(Method.PutTrack, pb.PutTrackRequest(track=track), _nothing)


def tracks() -> Call[list[Track]]:
    return Call(
        Method.GetTracks, pb.GetTracksRequest(), lambda payload: list(decode(pb.GetTracksResponse, payload).tracks)
    )


def put_command(command: CommandRecord) -> Call[None]:
    return Call(Method.PutCommand, pb.PutCommandRequest(command=command), _nothing)


def new_command(
    type: str, payload: object, agent: str, group: str, all: bool, ttl: float | None, id: str, now: float
) -> CommandRecord:
    """The record of a command to be sent."""
    if ttl is not None and not 0 < ttl < 1e9:
        raise InvalidArgument(
            f"a command's ttl of {ttl} s; expected more than 0, or None for a command that never expires"
        )
    created_at = int(now)
    return pb.Command(
        id=id or secrets.token_hex(16),
        target_id=agent,
        group=group,
        all=all,
        command_type=type,
        payload_json="{}" if payload is None else to_json(payload),
        created_at=created_at,
        expires_at=0 if ttl is None else created_at + math.ceil(ttl),
        status=PENDING,
    )


def commands(
    agent_id: str, pending_only: bool, status: Iterable[CommandStatus], token: bytes
) -> Call[Page[CommandRecord]]:
    request = pb.GetCommandsRequest(
        target_id=agent_id, pending_only=pending_only, status=status, page_size=PAGE, page_token=token
    )

    def read(payload: bytes) -> Page[CommandRecord]:
        response = decode(pb.GetCommandsResponse, payload)
        return Page(list(response.commands), response.next_page_token)

    return Call(Method.GetCommands, request, read)


def command(id: str) -> Call[CommandRecord]:
    def read(payload: bytes) -> CommandRecord:
        for command in decode(pb.GetCommandsResponse, payload).commands:
            if command.id == id:
                return command
        raise NotFound(f"there is no command {id}")

    if not id:
        raise InvalidArgument("a command's id is empty")
    return Call(Method.GetCommands, pb.GetCommandsRequest(id=id), read)


def cancel_command(id: str) -> Call[list[TargetStatus]]:
    request = pb.CancelCommandRequest(id=id)
    return Call(Method.CancelCommand, request, lambda payload: list(decode(pb.CancelCommandResponse, payload).targets))


def agents(liveness: Liveness, group: str, token: bytes) -> Call[Page[AgentInfo]]:
    request = pb.ListAgentsRequest(liveness=liveness, group=group, page_size=PAGE, page_token=token)

    def read(payload: bytes) -> Page[AgentInfo]:
        response = decode(pb.ListAgentsResponse, payload)
        return Page(list(response.agents), response.next_page_token)

    return Call(Method.ListAgents, request, read)
