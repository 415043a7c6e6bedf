from peat.sidecar.v1 import sidecar_pb2 as _sidecar_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AgentMessage(_message.Message):
    __slots__ = ("register", "heartbeat", "command_update", "goodbye")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    COMMAND_UPDATE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    register: Register
    heartbeat: Heartbeat
    command_update: CommandUpdate
    goodbye: Goodbye
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., command_update: _Optional[_Union[CommandUpdate, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class NodeMessage(_message.Message):
    __slots__ = ("registered", "command_push", "cancel_push", "config_update", "heartbeat_ack", "update_ack")
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    COMMAND_PUSH_FIELD_NUMBER: _ClassVar[int]
    CANCEL_PUSH_FIELD_NUMBER: _ClassVar[int]
    CONFIG_UPDATE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ACK_FIELD_NUMBER: _ClassVar[int]
    registered: Registered
    command_push: CommandPush
    cancel_push: CancelPush
    config_update: ConfigUpdate
    heartbeat_ack: HeartbeatAck
    update_ack: UpdateAck
    def __init__(self, registered: _Optional[_Union[Registered, _Mapping]] = ..., command_push: _Optional[_Union[CommandPush, _Mapping]] = ..., cancel_push: _Optional[_Union[CancelPush, _Mapping]] = ..., config_update: _Optional[_Union[ConfigUpdate, _Mapping]] = ..., heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., update_ack: _Optional[_Union[UpdateAck, _Mapping]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("agent_id", "name", "group", "version", "capabilities", "labels", "routes", "commands", "workloads", "capacity")
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
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    name: str
    group: str
    version: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    routes: _containers.RepeatedScalarFieldContainer[str]
    commands: _containers.RepeatedCompositeFieldContainer[CommandUpdate]
    workloads: _containers.RepeatedCompositeFieldContainer[Workload]
    capacity: Capacity
    def __init__(self, agent_id: _Optional[str] = ..., name: _Optional[str] = ..., group: _Optional[str] = ..., version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., routes: _Optional[_Iterable[str]] = ..., commands: _Optional[_Iterable[_Union[CommandUpdate, _Mapping]]] = ..., workloads: _Optional[_Iterable[_Union[Workload, _Mapping]]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("name", "version", "status", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    status: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., status: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("cpu_used", "cpu_total", "memory_used_bytes", "memory_total_bytes", "disk_used_bytes", "disk_total_bytes")
    CPU_USED_FIELD_NUMBER: _ClassVar[int]
    CPU_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_used: float
    cpu_total: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    def __init__(self, cpu_used: _Optional[float] = ..., cpu_total: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., memory_total_bytes: _Optional[int] = ..., disk_used_bytes: _Optional[int] = ..., disk_total_bytes: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("number", "state")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: State
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("status", "labels", "workloads_complete", "workloads", "capacity")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    status: _sidecar_pb2.PlatformStatus
    labels: _containers.ScalarMap[str, str]
    workloads_complete: bool
    workloads: _containers.RepeatedCompositeFieldContainer[Workload]
    capacity: Capacity
    def __init__(self, status: _Optional[_Union[_sidecar_pb2.PlatformStatus, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., workloads_complete: bool = ..., workloads: _Optional[_Iterable[_Union[Workload, _Mapping]]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ...) -> None: ...

class CommandUpdate(_message.Message):
    __slots__ = ("command_id", "stage", "result_json", "error", "progress", "percent")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STAGE_UNSPECIFIED: _ClassVar[CommandUpdate.Stage]
        STAGE_ACCEPTED: _ClassVar[CommandUpdate.Stage]
        STAGE_PROGRESS: _ClassVar[CommandUpdate.Stage]
        STAGE_COMPLETED: _ClassVar[CommandUpdate.Stage]
        STAGE_FAILED: _ClassVar[CommandUpdate.Stage]
        STAGE_CANCELLED: _ClassVar[CommandUpdate.Stage]
    STAGE_UNSPECIFIED: CommandUpdate.Stage
    STAGE_ACCEPTED: CommandUpdate.Stage
    STAGE_PROGRESS: CommandUpdate.Stage
    STAGE_COMPLETED: CommandUpdate.Stage
    STAGE_FAILED: CommandUpdate.Stage
    STAGE_CANCELLED: CommandUpdate.Stage
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    stage: CommandUpdate.Stage
    result_json: str
    error: str
    progress: str
    percent: int
    def __init__(self, command_id: _Optional[str] = ..., stage: _Optional[_Union[CommandUpdate.Stage, str]] = ..., result_json: _Optional[str] = ..., error: _Optional[str] = ..., progress: _Optional[str] = ..., percent: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Registered(_message.Message):
    __slots__ = ("heartbeat_interval_ms", "stale_after_ms", "dead_after_ms", "events_url", "node_public_key", "node_id")
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    STALE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_URL_FIELD_NUMBER: _ClassVar[int]
    NODE_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    heartbeat_interval_ms: int
    stale_after_ms: int
    dead_after_ms: int
    events_url: str
    node_public_key: bytes
    node_id: str
    def __init__(self, heartbeat_interval_ms: _Optional[int] = ..., stale_after_ms: _Optional[int] = ..., dead_after_ms: _Optional[int] = ..., events_url: _Optional[str] = ..., node_public_key: _Optional[bytes] = ..., node_id: _Optional[str] = ...) -> None: ...

class CommandPush(_message.Message):
    __slots__ = ("command", "time_left_ms")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    command: _sidecar_pb2.Command
    time_left_ms: int
    def __init__(self, command: _Optional[_Union[_sidecar_pb2.Command, _Mapping]] = ..., time_left_ms: _Optional[int] = ...) -> None: ...

class CancelPush(_message.Message):
    __slots__ = ("command_id",)
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    def __init__(self, command_id: _Optional[str] = ...) -> None: ...

class ConfigUpdate(_message.Message):
    __slots__ = ("heartbeat_interval_ms", "stale_after_ms", "dead_after_ms", "events_url")
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    STALE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_URL_FIELD_NUMBER: _ClassVar[int]
    heartbeat_interval_ms: int
    stale_after_ms: int
    dead_after_ms: int
    events_url: str
    def __init__(self, heartbeat_interval_ms: _Optional[int] = ..., stale_after_ms: _Optional[int] = ..., dead_after_ms: _Optional[int] = ..., events_url: _Optional[str] = ...) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class UpdateAck(_message.Message):
    __slots__ = ("command_id", "stage", "refused", "not_here")
    COMMAND_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    NOT_HERE_FIELD_NUMBER: _ClassVar[int]
    command_id: str
    stage: CommandUpdate.Stage
    refused: str
    not_here: bool
    def __init__(self, command_id: _Optional[str] = ..., stage: _Optional[_Union[CommandUpdate.Stage, str]] = ..., refused: _Optional[str] = ..., not_here: bool = ...) -> None: ...
