-- Tables of the hub kit. Every statement of this file runs in one transaction.

-- A number of a document; NULL for any other JSON value. numeric holds every number that jsonb holds.
CREATE FUNCTION peat.number(value jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN jsonb_typeof(value) = 'number' THEN (value #>> '{}')::numeric END $$;

-- Unix seconds of a document; NULL for 0, which means "not set", and outside the years 1970 to 9999.
CREATE FUNCTION peat.instant(value jsonb) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN peat.number(value) > 0 AND peat.number(value) < 253402300800
               THEN to_timestamp(peat.number(value)::double precision) END $$;

-- One row for each source that was ever followed: where to resume, and the number of its newest row of history.
CREATE TABLE peat.sources (
    source      text PRIMARY KEY CHECK (octet_length(source) BETWEEN 1 AND 255),
    -- Resume token; NULL: begin with a snapshot. It belongs to the collections named here (empty: all).
    run         bytea,
    sequence    bigint,
    collections text[] NOT NULL DEFAULT '{}',
    change      bigint NOT NULL DEFAULT 0,
    snapshots   bigint NOT NULL DEFAULT 0,
    -- Fences writers: a follower writes only while this is the number it was given at its start.
    generation  bigint NOT NULL DEFAULT 0,
    address     text,
    followed_by text,
    changed_at  timestamptz
);

-- Current documents of collections without a table below. The tables below inherit from it, so a query of
-- peat.documents shows all documents of all collections.
CREATE TABLE peat.documents (
    source     text        NOT NULL,
    collection text        NOT NULL,
    id         text        NOT NULL,
    document   jsonb       NOT NULL,
    -- The JSON text as the node has it, where jsonb cannot hold it exactly (U+0000 is U+FFFD in "document").
    original   text,
    -- Endpoint id of the node that wrote this version, and its sequence number at the node that is followed.
    origin     text        NOT NULL,
    sequence   bigint      NOT NULL,
    -- The row of peat.history that this version is.
    change     bigint      NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, collection, id)
);

CREATE TABLE peat.platforms (
    agent_id       text    GENERATED ALWAYS AS (coalesce(document ->> 'agent_id', id)) STORED,
    name           text    GENERATED ALWAYS AS (document ->> 'name') STORED,
    "group"        text    GENERATED ALWAYS AS (document ->> 'group') STORED,
    platform_type  text    GENERATED ALWAYS AS (document ->> 'platform_type') STORED,
    version        text    GENERATED ALWAYS AS (document ->> 'version') STORED,
    status         text    GENERATED ALWAYS AS (document ->> 'status') STORED,
    architecture   text    GENERATED ALWAYS AS (document ->> 'architecture') STORED,
    classification text    GENERATED ALWAYS AS (document ->> 'classification') STORED,
    run_mode       text    GENERATED ALWAYS AS (document ->> 'run_mode') STORED,
    callsign       text    GENERATED ALWAYS AS (document ->> 'callsign') STORED,
    unit_id        text    GENERATED ALWAYS AS (document ->> 'unit_id') STORED,
    latitude       numeric GENERATED ALWAYS AS (peat.number(document -> 'latitude')) STORED,
    longitude      numeric GENERATED ALWAYS AS (peat.number(document -> 'longitude')) STORED,
    altitude_m     numeric GENERATED ALWAYS AS (peat.number(document -> 'altitude_m')) STORED,
    readiness      numeric GENERATED ALWAYS AS (peat.number(document -> 'readiness')) STORED,
    capabilities   jsonb   GENERATED ALWAYS AS (document -> 'capabilities') STORED,
    labels         jsonb   GENERATED ALWAYS AS (document -> 'labels') STORED,
    PRIMARY KEY (source, collection, id),
    CHECK (collection = 'platforms')
) INHERITS (peat.documents);

CREATE TABLE peat.deployments (
    agent_id           text  GENERATED ALWAYS AS (coalesce(document ->> 'agent_id', split_part(id, ':', 1))) STORED,
    package            text  GENERATED ALWAYS AS (document ->> 'package') STORED,
    version            text  GENERATED ALWAYS AS (document ->> 'version') STORED,
    status             text  GENERATED ALWAYS AS (document ->> 'status') STORED,
    flavor             text  GENERATED ALWAYS AS (document ->> 'flavor') STORED,
    namespace_override text  GENERATED ALWAYS AS (document ->> 'namespace_override') STORED,
    annotations        jsonb GENERATED ALWAYS AS (document -> 'annotations') STORED,
    labels             jsonb GENERATED ALWAYS AS (document -> 'labels') STORED,
    PRIMARY KEY (source, collection, id),
    CHECK (collection = 'deployments')
) INHERITS (peat.documents);

CREATE TABLE peat.packages (
    agent_id    text    GENERATED ALWAYS AS (coalesce(document ->> 'agent_id', split_part(id, ':', 1))) STORED,
    registry    text    GENERATED ALWAYS AS (document ->> 'registry') STORED,
    package     text    GENERATED ALWAYS AS (document ->> 'package') STORED,
    reference   text    GENERATED ALWAYS AS (document ->> 'reference') STORED,
    arch        text    GENERATED ALWAYS AS (document ->> 'arch') STORED,
    version     text    GENERATED ALWAYS AS (document ->> 'version') STORED,
    total_bytes numeric GENERATED ALWAYS AS (peat.number(document -> 'total_bytes')) STORED,
    pull_status text    GENERATED ALWAYS AS (document ->> 'pull_status') STORED,
    PRIMARY KEY (source, collection, id),
    CHECK (collection = 'packages')
) INHERITS (peat.documents);

-- Liveness is derived by each node and not a document's: peat.agent_liveness.
CREATE TABLE peat.agents (
    name         text  GENERATED ALWAYS AS (document ->> 'name') STORED,
    "group"      text  GENERATED ALWAYS AS (document ->> 'group') STORED,
    version      text  GENERATED ALWAYS AS (document ->> 'version') STORED,
    via          text  GENERATED ALWAYS AS (document ->> 'via') STORED,
    endpoint     text  GENERATED ALWAYS AS (document ->> 'endpoint') STORED,
    owner        text  GENERATED ALWAYS AS (document ->> 'owner') STORED,
    capabilities jsonb GENERATED ALWAYS AS (document -> 'capabilities') STORED,
    labels       jsonb GENERATED ALWAYS AS (document -> 'labels') STORED,
    PRIMARY KEY (source, collection, id),
    CHECK (collection = 'agents')
) INHERITS (peat.documents);

-- Commands, and beside each command COMMAND one document COMMAND:AGENT for each agent that has reported on it.
CREATE TABLE peat.commands (
    command_id   text        GENERATED ALWAYS AS (coalesce(document ->> 'command_id', id)) STORED,
    agent_id     text        GENERATED ALWAYS AS (document ->> 'agent_id') STORED,
    result       text        GENERATED ALWAYS AS (document ->> 'result_json') STORED,
    error        text        GENERATED ALWAYS AS (document ->> 'error') STORED,
    progress     text        GENERATED ALWAYS AS (document ->> 'progress') STORED,
    percent      numeric     GENERATED ALWAYS AS (peat.number(document -> 'percent')) STORED,
    command_type text        GENERATED ALWAYS AS (document ->> 'command_type') STORED,
    target_id    text        GENERATED ALWAYS AS (document ->> 'target_id') STORED,
    "group"      text        GENERATED ALWAYS AS (document ->> 'group') STORED,
    everyone     boolean     GENERATED ALWAYS AS (coalesce(document -> 'all' = 'true', false)) STORED,
    status       text        GENERATED ALWAYS AS (document ->> 'status') STORED,
    issuer       text        GENERATED ALWAYS AS (document ->> 'issuer') STORED,
    payload      text        GENERATED ALWAYS AS (document ->> 'payload_json') STORED,
    issued_at    timestamptz GENERATED ALWAYS AS (peat.instant(document -> 'created_at')) STORED,
    expires_at   timestamptz GENERATED ALWAYS AS (peat.instant(document -> 'expires_at')) STORED,
    targets      jsonb       GENERATED ALWAYS AS (document -> 'targets') STORED,
    cancel_requested boolean GENERATED ALWAYS AS (coalesce(document -> 'cancel_requested' = 'true', false)) STORED,
    PRIMARY KEY (source, collection, id),
    CHECK (collection = 'commands')
) INHERITS (peat.documents);

CREATE VIEW peat.issued_commands AS
    SELECT source, id, command_type, target_id, "group", everyone, status, issuer, payload, issued_at, expires_at, targets,
        cancel_requested, changed_at
    FROM peat.commands WHERE command_type IS NOT NULL;
CREATE VIEW peat.command_results AS
    SELECT source, command_id, agent_id, status, result, error, progress, percent, changed_at
    FROM peat.commands WHERE command_type IS NULL AND agent_id IS NOT NULL;

-- LIVE, STALE or DEAD as the followed node sees each agent. State only; it has no history.
CREATE TABLE peat.agent_liveness (
    source     text        NOT NULL,
    id         text        NOT NULL,
    liveness   text        NOT NULL,
    status     text        NOT NULL,
    via        text        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, id)
);

-- Every change that a node delivered, once, numbered without gaps for each source.
CREATE TABLE peat.history (
    source      text        NOT NULL,
    change      bigint      NOT NULL,
    collection  text        NOT NULL,
    id          text        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('upsert', 'delete')),
    document    jsonb,
    original    text,
    origin      text        NOT NULL,
    sequence    bigint      NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, change)
);
CREATE INDEX history_of_document ON peat.history (source, collection, id, change);
CREATE INDEX history_by_time ON peat.history USING brin (recorded_at);
