-- How far the history of each source was published to each stream.
CREATE TABLE peat.publishers (
    source text   NOT NULL,
    stream text   NOT NULL,
    change bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (source, stream)
);
-- Identifies this database in message ids, so that a stream never takes the rows of another database for these.
CREATE TABLE peat.identity (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    hub      uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO peat.identity DEFAULT VALUES;

-- Wakes publishers, once for each transaction.
CREATE FUNCTION peat.history_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('peat_history', NEW.source); RETURN NULL; END $$;
CREATE TRIGGER history_notify AFTER UPDATE OF change ON peat.sources
    FOR EACH ROW WHEN (NEW.change <> OLD.change) EXECUTE FUNCTION peat.history_notify();
