// A client of a peat-node: calls, subscriptions, fleet reads, and agents that run each command once.

export { Agent, type AgentOptions, Command, type Handler } from "./agent.js";
export { Client, DEFAULT_TTL_S } from "./client.js";
export type { Endpoint, RestRequest, RestResponse } from "./endpoint.js";
export { Code, ConnectError, codeOf } from "./errors.js";
export type { SubscribeOptions } from "./follow.js";
export type { LedgerStore } from "./ledger.js";
export type { Capacity, Registration, State, Terms, Workload } from "./registration.js";
export * from "./types.js";
