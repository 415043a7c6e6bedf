from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodePhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_PHASE_UNSPECIFIED: _ClassVar[NodePhase]
    NODE_PHASE_INITIALIZING: _ClassVar[NodePhase]
    NODE_PHASE_READY: _ClassVar[NodePhase]
    NODE_PHASE_SYNCING: _ClassVar[NodePhase]
    NODE_PHASE_SHUTTING_DOWN: _ClassVar[NodePhase]

class PlatformStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLATFORM_STATUS_UNSPECIFIED: _ClassVar[PlatformStatus]
    PLATFORM_STATUS_READY: _ClassVar[PlatformStatus]
    PLATFORM_STATUS_BUSY: _ClassVar[PlatformStatus]
    PLATFORM_STATUS_DEGRADED: _ClassVar[PlatformStatus]
    PLATFORM_STATUS_OFFLINE: _ClassVar[PlatformStatus]

class CellStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CELL_STATUS_UNSPECIFIED: _ClassVar[CellStatus]
    CELL_STATUS_ACTIVE: _ClassVar[CellStatus]
    CELL_STATUS_INACTIVE: _ClassVar[CellStatus]
    CELL_STATUS_OFFLINE: _ClassVar[CellStatus]

class TrackCategory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACK_CATEGORY_UNSPECIFIED: _ClassVar[TrackCategory]
    TRACK_CATEGORY_PERSON: _ClassVar[TrackCategory]
    TRACK_CATEGORY_VEHICLE: _ClassVar[TrackCategory]
    TRACK_CATEGORY_GROUND: _ClassVar[TrackCategory]
    TRACK_CATEGORY_AIR: _ClassVar[TrackCategory]
    TRACK_CATEGORY_UNKNOWN: _ClassVar[TrackCategory]

class CommandStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMMAND_STATUS_UNSPECIFIED: _ClassVar[CommandStatus]
    COMMAND_STATUS_PENDING: _ClassVar[CommandStatus]
    COMMAND_STATUS_EXECUTING: _ClassVar[CommandStatus]
    COMMAND_STATUS_COMPLETED: _ClassVar[CommandStatus]
    COMMAND_STATUS_FAILED: _ClassVar[CommandStatus]
    COMMAND_STATUS_CANCELLED: _ClassVar[CommandStatus]
    COMMAND_STATUS_EXPIRED: _ClassVar[CommandStatus]

class Liveness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIVENESS_UNSPECIFIED: _ClassVar[Liveness]
    LIVENESS_LIVE: _ClassVar[Liveness]
    LIVENESS_STALE: _ClassVar[Liveness]
    LIVENESS_DEAD: _ClassVar[Liveness]

class ChangeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_TYPE_UNSPECIFIED: _ClassVar[ChangeType]
    CHANGE_TYPE_UPSERT: _ClassVar[ChangeType]
    CHANGE_TYPE_DELETE: _ClassVar[ChangeType]
    CHANGE_TYPE_SNAPSHOT_END: _ClassVar[ChangeType]
    CHANGE_TYPE_OVERSIZED: _ClassVar[ChangeType]
NODE_PHASE_UNSPECIFIED: NodePhase
NODE_PHASE_INITIALIZING: NodePhase
NODE_PHASE_READY: NodePhase
NODE_PHASE_SYNCING: NodePhase
NODE_PHASE_SHUTTING_DOWN: NodePhase
PLATFORM_STATUS_UNSPECIFIED: PlatformStatus
PLATFORM_STATUS_READY: PlatformStatus
PLATFORM_STATUS_BUSY: PlatformStatus
PLATFORM_STATUS_DEGRADED: PlatformStatus
PLATFORM_STATUS_OFFLINE: PlatformStatus
CELL_STATUS_UNSPECIFIED: CellStatus
CELL_STATUS_ACTIVE: CellStatus
CELL_STATUS_INACTIVE: CellStatus
CELL_STATUS_OFFLINE: CellStatus
TRACK_CATEGORY_UNSPECIFIED: TrackCategory
TRACK_CATEGORY_PERSON: TrackCategory
TRACK_CATEGORY_VEHICLE: TrackCategory
TRACK_CATEGORY_GROUND: TrackCategory
TRACK_CATEGORY_AIR: TrackCategory
TRACK_CATEGORY_UNKNOWN: TrackCategory
COMMAND_STATUS_UNSPECIFIED: CommandStatus
COMMAND_STATUS_PENDING: CommandStatus
COMMAND_STATUS_EXECUTING: CommandStatus
COMMAND_STATUS_COMPLETED: CommandStatus
COMMAND_STATUS_FAILED: CommandStatus
COMMAND_STATUS_CANCELLED: CommandStatus
COMMAND_STATUS_EXPIRED: CommandStatus
LIVENESS_UNSPECIFIED: Liveness
LIVENESS_LIVE: Liveness
LIVENESS_STALE: Liveness
LIVENESS_DEAD: Liveness
CHANGE_TYPE_UNSPECIFIED: ChangeType
CHANGE_TYPE_UPSERT: ChangeType
CHANGE_TYPE_DELETE: ChangeType
CHANGE_TYPE_SNAPSHOT_END: ChangeType
CHANGE_TYPE_OVERSIZED: ChangeType

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("node_id", "endpoint_addr", "sync_active", "connected_peers", "phase", "heartbeat_interval_ms", "stale_after_ms", "dead_after_ms")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_ADDR_FIELD_NUMBER: _ClassVar[int]
    SYNC_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_PEERS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    STALE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    endpoint_addr: str
    sync_active: bool
    connected_peers: int
    phase: NodePhase
    heartbeat_interval_ms: int
    stale_after_ms: int
    dead_after_ms: int
    def __init__(self, node_id: _Optional[str] = ..., endpoint_addr: _Optional[str] = ..., sync_active: bool = ..., connected_peers: _Optional[int] = ..., phase: _Optional[_Union[NodePhase, str]] = ..., heartbeat_interval_ms: _Optional[int] = ..., stale_after_ms: _Optional[int] = ..., dead_after_ms: _Optional[int] = ...) -> None: ...

class ConnectPeerRequest(_message.Message):
    __slots__ = ("endpoint_id", "addresses", "relay_url", "wait")
    ENDPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    RELAY_URL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    endpoint_id: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    relay_url: str
    wait: bool
    def __init__(self, endpoint_id: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., relay_url: _Optional[str] = ..., wait: bool = ...) -> None: ...

class ConnectPeerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DisconnectPeerRequest(_message.Message):
    __slots__ = ("endpoint_id",)
    ENDPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    endpoint_id: str
    def __init__(self, endpoint_id: _Optional[str] = ...) -> None: ...

class DisconnectPeerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerInfo(_message.Message):
    __slots__ = ("endpoint_id", "addresses", "connected", "path", "rtt_micros", "last_ack_age_ms", "pending_documents", "clock_skew_ms", "last_error", "path_reason", "held_documents")
    ENDPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RTT_MICROS_FIELD_NUMBER: _ClassVar[int]
    LAST_ACK_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    PENDING_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SKEW_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    PATH_REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    endpoint_id: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    connected: bool
    path: str
    rtt_micros: int
    last_ack_age_ms: int
    pending_documents: int
    clock_skew_ms: int
    last_error: str
    path_reason: str
    held_documents: int
    def __init__(self, endpoint_id: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., connected: bool = ..., path: _Optional[str] = ..., rtt_micros: _Optional[int] = ..., last_ack_age_ms: _Optional[int] = ..., pending_documents: _Optional[int] = ..., clock_skew_ms: _Optional[int] = ..., last_error: _Optional[str] = ..., path_reason: _Optional[str] = ..., held_documents: _Optional[int] = ...) -> None: ...

class ListPeersRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: bool = ...) -> None: ...

class ListPeersResponse(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[PeerInfo]
    def __init__(self, peers: _Optional[_Iterable[_Union[PeerInfo, _Mapping]]] = ...) -> None: ...

class PutDocumentRequest(_message.Message):
    __slots__ = ("collection", "doc_id", "json_data", "base", "wait_peers", "durable")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    JSON_DATA_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    WAIT_PEERS_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    doc_id: str
    json_data: str
    base: bytes
    wait_peers: int
    durable: bool
    def __init__(self, collection: _Optional[str] = ..., doc_id: _Optional[str] = ..., json_data: _Optional[str] = ..., base: _Optional[bytes] = ..., wait_peers: _Optional[int] = ..., durable: bool = ...) -> None: ...

class PutDocumentResponse(_message.Message):
    __slots__ = ("version", "durable")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    durable: bool
    def __init__(self, version: _Optional[bytes] = ..., durable: bool = ...) -> None: ...

class PatchDocumentRequest(_message.Message):
    __slots__ = ("collection", "doc_id", "patch_json", "base", "wait_peers", "durable")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    PATCH_JSON_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    WAIT_PEERS_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    doc_id: str
    patch_json: str
    base: bytes
    wait_peers: int
    durable: bool
    def __init__(self, collection: _Optional[str] = ..., doc_id: _Optional[str] = ..., patch_json: _Optional[str] = ..., base: _Optional[bytes] = ..., wait_peers: _Optional[int] = ..., durable: bool = ...) -> None: ...

class PatchDocumentResponse(_message.Message):
    __slots__ = ("version", "durable")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    durable: bool
    def __init__(self, version: _Optional[bytes] = ..., durable: bool = ...) -> None: ...

class CompactDocumentRequest(_message.Message):
    __slots__ = ("collection", "doc_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    doc_id: str
    def __init__(self, collection: _Optional[str] = ..., doc_id: _Optional[str] = ...) -> None: ...

class CompactDocumentResponse(_message.Message):
    __slots__ = ("version", "dropped_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    dropped_bytes: int
    def __init__(self, version: _Optional[bytes] = ..., dropped_bytes: _Optional[int] = ...) -> None: ...

class GetDocumentRequest(_message.Message):
    __slots__ = ("collection", "doc_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    doc_id: str
    def __init__(self, collection: _Optional[str] = ..., doc_id: _Optional[str] = ...) -> None: ...

class GetDocumentResponse(_message.Message):
    __slots__ = ("json_data", "version", "durable")
    JSON_DATA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    json_data: str
    version: bytes
    durable: bool
    def __init__(self, json_data: _Optional[str] = ..., version: _Optional[bytes] = ..., durable: bool = ...) -> None: ...

class DeleteDocumentRequest(_message.Message):
    __slots__ = ("collection", "doc_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    doc_id: str
    def __init__(self, collection: _Optional[str] = ..., doc_id: _Optional[str] = ...) -> None: ...

class DeleteDocumentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("doc_ids",)
    DOC_IDS_FIELD_NUMBER: _ClassVar[int]
    doc_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, doc_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Platform(_message.Message):
    __slots__ = ("id", "platform_type", "name", "status", "latitude", "longitude", "altitude_m", "readiness", "capabilities", "unit_id", "callsign", "liveness", "via", "age_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LATITUDE_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_FIELD_NUMBER: _ClassVar[int]
    ALTITUDE_M_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    UNIT_ID_FIELD_NUMBER: _ClassVar[int]
    CALLSIGN_FIELD_NUMBER: _ClassVar[int]
    LIVENESS_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    platform_type: str
    name: str
    status: PlatformStatus
    latitude: float
    longitude: float
    altitude_m: float
    readiness: float
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    unit_id: str
    callsign: str
    liveness: Liveness
    via: str
    age_ms: int
    def __init__(self, id: _Optional[str] = ..., platform_type: _Optional[str] = ..., name: _Optional[str] = ..., status: _Optional[_Union[PlatformStatus, str]] = ..., latitude: _Optional[float] = ..., longitude: _Optional[float] = ..., altitude_m: _Optional[float] = ..., readiness: _Optional[float] = ..., capabilities: _Optional[_Iterable[str]] = ..., unit_id: _Optional[str] = ..., callsign: _Optional[str] = ..., liveness: _Optional[_Union[Liveness, str]] = ..., via: _Optional[str] = ..., age_ms: _Optional[int] = ...) -> None: ...

class PutPlatformRequest(_message.Message):
    __slots__ = ("platform",)
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    platform: Platform
    def __init__(self, platform: _Optional[_Union[Platform, _Mapping]] = ...) -> None: ...

class PutPlatformResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPlatformsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPlatformsResponse(_message.Message):
    __slots__ = ("platforms",)
    PLATFORMS_FIELD_NUMBER: _ClassVar[int]
    platforms: _containers.RepeatedCompositeFieldContainer[Platform]
    def __init__(self, platforms: _Optional[_Iterable[_Union[Platform, _Mapping]]] = ...) -> None: ...

class Cell(_message.Message):
    __slots__ = ("id", "name", "status", "platform_count", "center_latitude", "center_longitude", "capabilities", "formation_id", "leader_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_COUNT_FIELD_NUMBER: _ClassVar[int]
    CENTER_LATITUDE_FIELD_NUMBER: _ClassVar[int]
    CENTER_LONGITUDE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    FORMATION_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    status: CellStatus
    platform_count: int
    center_latitude: float
    center_longitude: float
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    formation_id: str
    leader_id: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., status: _Optional[_Union[CellStatus, str]] = ..., platform_count: _Optional[int] = ..., center_latitude: _Optional[float] = ..., center_longitude: _Optional[float] = ..., capabilities: _Optional[_Iterable[str]] = ..., formation_id: _Optional[str] = ..., leader_id: _Optional[str] = ...) -> None: ...

class PutCellRequest(_message.Message):
    __slots__ = ("cell",)
    CELL_FIELD_NUMBER: _ClassVar[int]
    cell: Cell
    def __init__(self, cell: _Optional[_Union[Cell, _Mapping]] = ...) -> None: ...

class PutCellResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCellsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCellsResponse(_message.Message):
    __slots__ = ("cells",)
    CELLS_FIELD_NUMBER: _ClassVar[int]
    cells: _containers.RepeatedCompositeFieldContainer[Cell]
    def __init__(self, cells: _Optional[_Iterable[_Union[Cell, _Mapping]]] = ...) -> None: ...

class Track(_message.Message):
    __slots__ = ("id", "source_platform", "cell_id", "formation_id", "latitude", "longitude", "altitude_m", "cep_m", "heading_deg", "speed_mps", "classification", "confidence", "category")
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PLATFORM_FIELD_NUMBER: _ClassVar[int]
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    FORMATION_ID_FIELD_NUMBER: _ClassVar[int]
    LATITUDE_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_FIELD_NUMBER: _ClassVar[int]
    ALTITUDE_M_FIELD_NUMBER: _ClassVar[int]
    CEP_M_FIELD_NUMBER: _ClassVar[int]
    HEADING_DEG_FIELD_NUMBER: _ClassVar[int]
    SPEED_MPS_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    id: str
    source_platform: str
    cell_id: str
    formation_id: str
    latitude: float
    longitude: float
    altitude_m: float
    cep_m: float
    heading_deg: float
    speed_mps: float
    classification: str
    confidence: float
    category: TrackCategory
    def __init__(self, id: _Optional[str] = ..., source_platform: _Optional[str] = ..., cell_id: _Optional[str] = ..., formation_id: _Optional[str] = ..., latitude: _Optional[float] = ..., longitude: _Optional[float] = ..., altitude_m: _Optional[float] = ..., cep_m: _Optional[float] = ..., heading_deg: _Optional[float] = ..., speed_mps: _Optional[float] = ..., classification: _Optional[str] = ..., confidence: _Optional[float] = ..., category: _Optional[_Union[TrackCategory, str]] = ...) -> None: ...

class PutTrackRequest(_message.Message):
    __slots__ = ("track",)
    TRACK_FIELD_NUMBER: _ClassVar[int]
    track: Track
    def __init__(self, track: _Optional[_Union[Track, _Mapping]] = ...) -> None: ...

class PutTrackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTracksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTracksResponse(_message.Message):
    __slots__ = ("tracks",)
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    tracks: _containers.RepeatedCompositeFieldContainer[Track]
    def __init__(self, tracks: _Optional[_Iterable[_Union[Track, _Mapping]]] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("id", "target_id", "command_type", "status", "created_at", "expires_at", "payload_json", "group", "all", "issuer", "signature", "result_json", "error", "targets", "cancel_requested", "progress", "percent")
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    target_id: str
    command_type: str
    status: CommandStatus
    created_at: int
    expires_at: int
    payload_json: str
    group: str
    all: bool
    issuer: str
    signature: bytes
    result_json: str
    error: str
    targets: _containers.RepeatedCompositeFieldContainer[TargetStatus]
    cancel_requested: bool
    progress: str
    percent: int
    def __init__(self, id: _Optional[str] = ..., target_id: _Optional[str] = ..., command_type: _Optional[str] = ..., status: _Optional[_Union[CommandStatus, str]] = ..., created_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., payload_json: _Optional[str] = ..., group: _Optional[str] = ..., all: bool = ..., issuer: _Optional[str] = ..., signature: _Optional[bytes] = ..., result_json: _Optional[str] = ..., error: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[TargetStatus, _Mapping]]] = ..., cancel_requested: bool = ..., progress: _Optional[str] = ..., percent: _Optional[int] = ...) -> None: ...

class TargetStatus(_message.Message):
    __slots__ = ("agent_id", "status", "result_json", "error", "progress", "percent", "result_omitted")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    RESULT_OMITTED_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    status: CommandStatus
    result_json: str
    error: str
    progress: str
    percent: int
    result_omitted: bool
    def __init__(self, agent_id: _Optional[str] = ..., status: _Optional[_Union[CommandStatus, str]] = ..., result_json: _Optional[str] = ..., error: _Optional[str] = ..., progress: _Optional[str] = ..., percent: _Optional[int] = ..., result_omitted: bool = ...) -> None: ...

class PutCommandRequest(_message.Message):
    __slots__ = ("command",)
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    command: Command
    def __init__(self, command: _Optional[_Union[Command, _Mapping]] = ...) -> None: ...

class PutCommandResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCommandsRequest(_message.Message):
    __slots__ = ("target_id", "pending_only", "id", "page_size", "page_token", "status")
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    PENDING_ONLY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    target_id: str
    pending_only: bool
    id: str
    page_size: int
    page_token: bytes
    status: _containers.RepeatedScalarFieldContainer[CommandStatus]
    def __init__(self, target_id: _Optional[str] = ..., pending_only: bool = ..., id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[bytes] = ..., status: _Optional[_Iterable[_Union[CommandStatus, str]]] = ...) -> None: ...

class GetCommandsResponse(_message.Message):
    __slots__ = ("commands", "next_page_token")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[Command]
    next_page_token: bytes
    def __init__(self, commands: _Optional[_Iterable[_Union[Command, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("collections", "snapshot", "resume_after", "resume_run", "exclude", "max_change_bytes")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    RESUME_AFTER_FIELD_NUMBER: _ClassVar[int]
    RESUME_RUN_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    MAX_CHANGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedScalarFieldContainer[str]
    snapshot: bool
    resume_after: int
    resume_run: bytes
    exclude: _containers.RepeatedScalarFieldContainer[str]
    max_change_bytes: int
    def __init__(self, collections: _Optional[_Iterable[str]] = ..., snapshot: bool = ..., resume_after: _Optional[int] = ..., resume_run: _Optional[bytes] = ..., exclude: _Optional[_Iterable[str]] = ..., max_change_bytes: _Optional[int] = ...) -> None: ...

class DocumentChange(_message.Message):
    __slots__ = ("collection", "doc_id", "change_type", "json_data", "sequence", "origin", "run", "error")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    JSON_DATA_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    collection: str
    doc_id: str
    change_type: ChangeType
    json_data: str
    sequence: int
    origin: str
    run: bytes
    error: str
    def __init__(self, collection: _Optional[str] = ..., doc_id: _Optional[str] = ..., change_type: _Optional[_Union[ChangeType, str]] = ..., json_data: _Optional[str] = ..., sequence: _Optional[int] = ..., origin: _Optional[str] = ..., run: _Optional[bytes] = ..., error: _Optional[str] = ...) -> None: ...

class StartSyncRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartSyncResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopSyncRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopSyncResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSyncStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSyncStatsResponse(_message.Message):
    __slots__ = ("sync_active", "connected_peers", "bytes_sent", "bytes_received")
    SYNC_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_PEERS_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    sync_active: bool
    connected_peers: int
    bytes_sent: int
    bytes_received: int
    def __init__(self, sync_active: bool = ..., connected_peers: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ...) -> None: ...

class GetHealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHealthResponse(_message.Message):
    __slots__ = ("healthy", "problems", "documents", "tombstones", "sequence", "durable_sequence", "file_bytes", "cache_bytes", "run", "database", "uptime_ms", "version", "notices")
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    healthy: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    documents: int
    tombstones: int
    sequence: int
    durable_sequence: int
    file_bytes: int
    cache_bytes: int
    run: str
    database: str
    uptime_ms: int
    version: str
    notices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, healthy: bool = ..., problems: _Optional[_Iterable[str]] = ..., documents: _Optional[int] = ..., tombstones: _Optional[int] = ..., sequence: _Optional[int] = ..., durable_sequence: _Optional[int] = ..., file_bytes: _Optional[int] = ..., cache_bytes: _Optional[int] = ..., run: _Optional[str] = ..., database: _Optional[str] = ..., uptime_ms: _Optional[int] = ..., version: _Optional[str] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...

class CancelCommandRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelCommandResponse(_message.Message):
    __slots__ = ("targets",)
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[TargetStatus]
    def __init__(self, targets: _Optional[_Iterable[_Union[TargetStatus, _Mapping]]] = ...) -> None: ...

class Agent(_message.Message):
    __slots__ = ("agent_id", "name", "group", "version", "capabilities", "labels", "liveness", "via", "via_endpoint", "age_ms", "status", "attached_here", "routes")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LIVENESS_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    VIA_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_HERE_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    name: str
    group: str
    version: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    liveness: Liveness
    via: str
    via_endpoint: str
    age_ms: int
    status: PlatformStatus
    attached_here: bool
    routes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent_id: _Optional[str] = ..., name: _Optional[str] = ..., group: _Optional[str] = ..., version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., liveness: _Optional[_Union[Liveness, str]] = ..., via: _Optional[str] = ..., via_endpoint: _Optional[str] = ..., age_ms: _Optional[int] = ..., status: _Optional[_Union[PlatformStatus, str]] = ..., attached_here: bool = ..., routes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ("liveness", "group", "page_size", "page_token")
    LIVENESS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    liveness: Liveness
    group: str
    page_size: int
    page_token: bytes
    def __init__(self, liveness: _Optional[_Union[Liveness, str]] = ..., group: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[bytes] = ...) -> None: ...

class ListAgentsResponse(_message.Message):
    __slots__ = ("agents", "next_page_token")
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    next_page_token: bytes
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., next_page_token: _Optional[bytes] = ...) -> None: ...

class WatchAgentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AgentChange(_message.Message):
    __slots__ = ("agent", "change_type")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    change_type: ChangeType
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ..., change_type: _Optional[_Union[ChangeType, str]] = ...) -> None: ...
