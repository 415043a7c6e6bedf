// Fleet reads: documents of any writer as platforms and deployments.

import { Liveness, type Platform } from "./gen/peat/sidecar/v1/sidecar_pb.js";
import type { FleetDeployment, FleetPlatform } from "./types.js";

/** A document of a snapshot. */
export interface Held {
  readonly id: string;
  readonly json: string;
}

/** Returns the documents of `platforms`, sorted by id, with the node's view of their liveness. */
export function platformsOf(documents: Iterable<Held>, typed: readonly Platform[]): FleetPlatform[] {
  const known = new Map(typed.map((platform) => [platform.id, platform]));
  return sorted(documents).map((document) => {
    const fields = new Fields(document.json);
    const live = known.get(document.id);
    return {
      id: document.id,
      agentId: fields.text("agent_id") || document.id,
      platformType: fields.text("platform_type"),
      name: fields.text("name"),
      group: fields.text("group"),
      version: fields.text("version"),
      architecture: fields.text("architecture"),
      classification: fields.text("classification"),
      runMode: fields.text("run_mode"),
      labels: fields.texts("labels"),
      capabilities: fields.list("capabilities"),
      liveness: live?.liveness ?? Liveness.UNSPECIFIED,
      via: live?.via ?? "",
      ageMs: Number(live?.ageMs ?? 0n),
      json: document.json,
    };
  });
}

/** Returns the documents of `deployments`, sorted by id. */
export function deploymentsOf(documents: Iterable<Held>): FleetDeployment[] {
  return sorted(documents).map((document) => {
    const fields = new Fields(document.json);
    const colon = document.id.indexOf(":");
    const agent = colon < 0 ? document.id : document.id.slice(0, colon);
    return {
      id: document.id,
      agentId: fields.text("agent_id") || agent,
      package: fields.text("package") || (colon < 0 ? "" : document.id.slice(colon + 1)),
      version: fields.text("version"),
      status: fields.text("status"),
      flavor: fields.text("flavor"),
      namespaceOverride: fields.text("namespace_override"),
      annotations: fields.texts("annotations"),
      labels: fields.texts("labels"),
      json: document.json,
    };
  });
}

function sorted(documents: Iterable<Held>): Held[] {
  return [...documents].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}

/** Returns the fields of the expected type and accepts a number as text, since enums may be numbers: one malformed document must not hide
 * the rest of a fleet. */
class Fields {
  readonly #fields: ReadonlyMap<string, unknown>;

  constructor(json: string) {
    let value: unknown;
    try {
      value = JSON.parse(json);
    } catch {
      value = undefined;
    }
    this.#fields = new Map(isObject(value) ? Object.entries(value) : []);
  }

  text(name: string): string {
    const value = this.#fields.get(name);
    return typeof value === "string" ? value : ["number", "boolean"].includes(typeof value) ? String(value) : "";
  }

  list(name: string): string[] {
    const value = this.#fields.get(name);
    return Array.isArray(value) && value.every((entry) => typeof entry === "string") ? value : [];
  }

  texts(name: string): Record<string, string> {
    const value = this.#fields.get(name);
    const texts = isObject(value) && Object.values(value).every((entry) => typeof entry === "string");
    return texts ? { ...(value as Record<string, string>) } : {};
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
