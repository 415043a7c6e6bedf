// An agent's registration and the node's answer.

/** A piece of software that the agent runs; `name` is the last part of deployments/{agent}:{name}. */
export interface Workload {
  readonly name: string;
  readonly version?: string;
  readonly status?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

/** The size of the machine's resources and their use. */
export interface Capacity {
  readonly cpuUsed?: number;
  readonly cpuTotal?: number;
  readonly memoryUsedBytes?: number;
  readonly memoryTotalBytes?: number;
  readonly diskUsedBytes?: number;
  readonly diskTotalBytes?: number;
}

/** Becomes platforms/{id} and deployments/{id}:{name}. It replaces the state of the registration and of earlier calls. */
export interface State {
  readonly status?: "READY" | "BUSY" | "DEGRADED" | "OFFLINE";
  readonly labels?: Readonly<Record<string, string>>;
  readonly workloads?: readonly Workload[];
  readonly capacity?: Capacity;
}

/** An agent's description of itself. */
export interface Registration extends State {
  /** Identifies the agent across restarts. */
  readonly id: string;
  readonly name?: string;
  readonly group?: string;
  readonly version?: string;
  readonly capabilities?: readonly string[];
  /** Addresses of the application, in a form of its choice. */
  readonly routes?: readonly string[];
}

/** The node's answer to the registration and its later updates. */
export interface Terms {
  readonly heartbeatIntervalMs: number;
  readonly staleAfterMs: number;
  readonly deadAfterMs: number;
  readonly eventsUrl: string;
  readonly nodeId: string;
  /** The Ed25519 key that signs the node's own commands, in hexadecimal. */
  readonly nodePublicKey: string;
}

/** The body of POST /api/v1/agents. */
export function registerBody(registration: Registration): string {
  const { id, name, group, version, capabilities, routes, labels, workloads, capacity } = registration;
  return JSON.stringify({
    agent_id: id,
    name,
    group,
    version,
    capabilities,
    labels,
    routes,
    workloads,
    capacity: capacity && capacityBody(capacity),
  });
}

/** The body of a heartbeat with a whole state. */
export function stateBody(state: State): string {
  const { status, labels, workloads, capacity } = state;
  return JSON.stringify({
    status,
    labels,
    workloads: workloads ?? [],
    workloads_complete: true,
    capacity: capacity && capacityBody(capacity),
  });
}

function capacityBody(capacity: Capacity) {
  return {
    cpu_used: capacity.cpuUsed,
    cpu_total: capacity.cpuTotal,
    memory_used_bytes: capacity.memoryUsedBytes,
    memory_total_bytes: capacity.memoryTotalBytes,
    disk_used_bytes: capacity.diskUsedBytes,
    disk_total_bytes: capacity.diskTotalBytes,
  };
}

/** Reads the terms in an answer or a config event; absent fields keep their values. */
export function termsOf(json: string, before?: Terms): Terms {
  const said = JSON.parse(json) as Record<string, unknown>;
  const number = (key: string, otherwise: number | undefined): number =>
    typeof said[key] === "number" ? said[key] : (otherwise ?? 0);
  const text = (key: string, otherwise: string | undefined): string =>
    typeof said[key] === "string" ? said[key] : (otherwise ?? "");
  return {
    heartbeatIntervalMs: number("heartbeat_interval_ms", before?.heartbeatIntervalMs),
    staleAfterMs: number("stale_after_ms", before?.staleAfterMs),
    deadAfterMs: number("dead_after_ms", before?.deadAfterMs),
    eventsUrl: text("events_url", before?.eventsUrl),
    nodeId: text("node_id", before?.nodeId),
    nodePublicKey: text("node_public_key", before?.nodePublicKey),
  };
}
