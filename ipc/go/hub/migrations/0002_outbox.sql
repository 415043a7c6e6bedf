-- What the hub is to send to a node. A row is sent by the instance that holds the source's outbox, in the order of ids.
CREATE TABLE peat.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source     text   NOT NULL,
    action     text   NOT NULL CHECK (action IN ('command', 'cancel', 'put', 'patch', 'delete')),
    -- Of put, patch and delete. A command's id is doc_id, of the collection "commands".
    collection text   NOT NULL,
    doc_id     text   NOT NULL,
    document   jsonb,
    -- Of a command: exactly one of agent, "group" and everyone. ttl_s 0: it never expires.
    agent        text,
    "group"      text,
    everyone     boolean NOT NULL DEFAULT false,
    command_type text,
    payload      jsonb,
    ttl_s        bigint CHECK (ttl_s >= 0),
    -- State: pending rows are sent; sent ones were accepted by the node; failed ones carry the reason.
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'failed')),
    attempts   integer NOT NULL DEFAULT 0,
    refusals   integer NOT NULL DEFAULT 0,
    error      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now(),
    sent_at    timestamptz,
    -- Fixed before the first attempt, so that each attempt sends the same: a command's times, a put's base.
    issued_at  bigint,
    expires_at bigint,
    base       bytea,
    CHECK (action <> 'command' OR (command_type IS NOT NULL AND ttl_s IS NOT NULL
           AND (agent IS NOT NULL)::int + ("group" IS NOT NULL)::int + everyone::int = 1)),
    CHECK (action NOT IN ('put', 'patch') OR jsonb_typeof(document) = 'object')
);
CREATE INDEX outbox_pending ON peat.outbox (source, id) WHERE state = 'pending';
CREATE INDEX outbox_pending_document ON peat.outbox (source, collection, doc_id, id) WHERE state = 'pending';
CREATE INDEX outbox_ended ON peat.outbox (created_at) WHERE state <> 'pending';

CREATE FUNCTION peat.outbox_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('peat_outbox', NEW.source); RETURN NULL; END $$;
CREATE TRIGGER outbox_notify AFTER INSERT OR UPDATE OF state ON peat.outbox
    FOR EACH ROW WHEN (NEW.state = 'pending') EXECUTE FUNCTION peat.outbox_notify();

-- Queues a command and returns its id, which is also its idempotency key. Name exactly one of agent, "group" and everyone.
CREATE FUNCTION peat.send_command(source text, command_type text, payload jsonb DEFAULT '{}', agent text DEFAULT NULL,
    "group" text DEFAULT NULL, everyone boolean DEFAULT false, ttl_s bigint DEFAULT 60,
    id text DEFAULT gen_random_uuid()::text) RETURNS text LANGUAGE sql AS
$$ INSERT INTO peat.outbox (source, action, collection, doc_id, command_type, payload, agent, "group", everyone, ttl_s)
   VALUES ($1, 'command', 'commands', $8, $2, $3, $4, $5, $6, $7) RETURNING doc_id $$;

-- Queues a request to cancel a command.
CREATE FUNCTION peat.cancel_command(source text, id text) RETURNS bigint LANGUAGE sql AS
$$ INSERT INTO peat.outbox (source, action, collection, doc_id) VALUES ($1, 'cancel', 'commands', $2) RETURNING id $$;

-- Queues a document, desired state for example, and returns the row of the outbox.
CREATE FUNCTION peat.put_document(source text, collection text, id text, document jsonb) RETURNS bigint LANGUAGE sql AS
$$ INSERT INTO peat.outbox (source, action, collection, doc_id, document) VALUES ($1, 'put', $2, $3, $4) RETURNING id $$;

-- Queues a merge patch (RFC 7396).
CREATE FUNCTION peat.patch_document(source text, collection text, id text, patch jsonb) RETURNS bigint LANGUAGE sql AS
$$ INSERT INTO peat.outbox (source, action, collection, doc_id, document) VALUES ($1, 'patch', $2, $3, $4) RETURNING id $$;

-- Queues a deletion.
CREATE FUNCTION peat.delete_document(source text, collection text, id text) RETURNS bigint LANGUAGE sql AS
$$ INSERT INTO peat.outbox (source, action, collection, doc_id) VALUES ($1, 'delete', $2, $3) RETURNING id $$;
