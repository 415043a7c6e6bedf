"""An agent's registration and the node's answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ._types import PlatformStatus
from .agent.v1 import agent_pb2
from .errors import InvalidArgument
from .sidecar.v1 import sidecar_pb2 as pb


@dataclass(frozen=True)
class Workload:
    """A piece of software that the agent runs; `name` is the last part of deployments/{agent}:{name}."""

    name: str
    version: str = ""
    status: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def message(self) -> agent_pb2.Workload:
        """The workload as it travels."""
        return agent_pb2.Workload(name=self.name, version=self.version, status=self.status, labels=self.labels)


@dataclass(frozen=True)
class Capacity:
    """The size of the machine's resources and their use."""

    cpu_used: float = 0.0
    cpu_total: float = 0.0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    disk_used_bytes: int = 0
    disk_total_bytes: int = 0

    def message(self) -> agent_pb2.Capacity:
        """The capacity as it travels."""
        return agent_pb2.Capacity(**dataclasses.asdict(self))


@dataclass(frozen=True)
class State:
    """Becomes platforms/{id} and deployments/{id}:{name}. It replaces the state of the registration and of earlier calls."""

    status: PlatformStatus = pb.PLATFORM_STATUS_UNSPECIFIED
    labels: Mapping[str, str] = field(default_factory=dict)
    workloads: Sequence[Workload] = ()
    capacity: Capacity | None = None


@dataclass(frozen=True)
class Registration:
    """An agent's description of itself."""

    # Identifies the agent across restarts.
    id: str
    name: str = ""
    group: str = ""
    version: str = ""
    capabilities: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    # Where the application can be reached by others, in a form of its choice.
    routes: Sequence[str] = ()
    status: PlatformStatus = pb.PLATFORM_STATUS_UNSPECIFIED
    workloads: Sequence[Workload] = ()
    capacity: Capacity | None = None

    def copy(self) -> Registration:
        """Returns a copy that shares nothing with the caller's value. Rejects values of a wrong type."""
        copied = dataclasses.replace(
            self,
            capabilities=tuple(self.capabilities),
            labels=dict(self.labels),
            routes=tuple(self.routes),
            workloads=tuple(dataclasses.replace(w, labels=dict(w.labels)) for w in self.workloads),
        )
        try:
            copied.register()
            copied.state()
        except (TypeError, ValueError) as cause:
            raise InvalidArgument(f"a registration that cannot be encoded: {cause}") from cause
        return copied

    def register(self) -> agent_pb2.Register:
        """The registration as it travels."""
        return agent_pb2.Register(
            agent_id=self.id,
            name=self.name,
            group=self.group,
            version=self.version,
            capabilities=self.capabilities,
            labels=self.labels,
            routes=self.routes,
            workloads=[workload.message() for workload in self.workloads],
            capacity=None if self.capacity is None else self.capacity.message(),
        )

    def state(self) -> agent_pb2.State:
        """The whole state as it travels."""
        return agent_pb2.State(
            status=self.status,
            labels=self.labels,
            workloads_complete=True,
            workloads=[workload.message() for workload in self.workloads],
            capacity=None if self.capacity is None else self.capacity.message(),
        )

    def with_state(self, state: State) -> Registration:
        """This registration with another state."""
        return dataclasses.replace(
            self, status=state.status, labels=state.labels, workloads=state.workloads, capacity=state.capacity
        )

    def with_workload(self, workload: Workload) -> Registration:
        """This registration with a workload added, or replaced by its name."""
        return dataclasses.replace(
            self.without_workload(workload.name), workloads=(*self._others(workload.name), workload)
        )

    def without_workload(self, name: str) -> Registration:
        """This registration without the workload of that name."""
        return dataclasses.replace(self, workloads=self._others(name))

    def _others(self, name: str) -> tuple[Workload, ...]:
        return tuple(workload for workload in self.workloads if workload.name != name)


@dataclass(frozen=True)
class Terms:
    """The node's answer to the registration and its later updates. Times are in seconds."""

    heartbeat_interval: float
    stale_after: float
    dead_after: float
    # Where this agent's server-sent events are; empty when the node does not listen on TCP.
    events_url: str
    node_id: str
    # The Ed25519 key that the node's own commands are signed with.
    node_public_key: bytes
