package hub

import (
	"fmt"
	"slices"
	"strings"
)

// tables of single collections; documents of all others are in peat.documents itself.
var tables = []string{"agents", "commands", "deployments", "packages", "platforms"}

const otherDocuments = "documents"

// tableOf is the table of a collection's documents.
func tableOf(collection string) string {
	if _, found := slices.BinarySearch(tables, collection); found {
		return collection
	}
	return otherDocuments
}

// fromBase is the number of the newest change, locked against other writers; empty when this follower was replaced.
const fromBase = `base AS (SELECT change FROM peat.sources WHERE source = $1 AND generation = $2 FOR UPDATE)`

// liveStatement writes a batch of live changes and the token after it. It changes no row when this follower was replaced.
//
// $1 source, $2 generation, $3 run, $4 sequence, then one array for each of [columns].
func liveStatement(into []string) string {
	return `WITH ` + fromBase + `, input AS (
	SELECT * FROM unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::boolean[])
	WITH ORDINALITY AS i (collection, id, kind, document, original, origin, sequence, certain, n)
), kept AS (
	SELECT * FROM input i WHERE kind = 'upsert' OR certain OR EXISTS (
		SELECT FROM peat.documents d WHERE d.source = $1 AND d.collection = i.collection AND d.id = i.id)
), fresh AS (
	INSERT INTO peat.history (source, change, collection, id, kind, document, original, origin, sequence)
	SELECT $1, base.change + row_number() OVER (ORDER BY n), collection, id, kind, document::jsonb, original, origin, sequence
	FROM kept, base
	RETURNING change, collection, id, kind, document, original, origin, sequence
), newest AS (
	SELECT DISTINCT ON (collection, id) * FROM fresh ORDER BY collection, id, change DESC
), gone AS (
	DELETE FROM peat.documents d USING newest n
	WHERE n.kind = 'delete' AND d.source = $1 AND d.collection = n.collection AND d.id = n.id
)` + upserts("newest", into) + `
UPDATE peat.sources SET run = $3, sequence = $4, change = change + (SELECT count(*) FROM fresh), changed_at = now()
WHERE source = $1 AND generation = $2`
}

// upserts are the parts of a statement that bring rows into their tables.
func upserts(from string, into []string) string {
	var text strings.Builder
	for _, table := range into {
		condition := fmt.Sprintf("collection = '%s'", table)
		if table == otherDocuments {
			condition = fmt.Sprintf("collection NOT IN ('%s')", strings.Join(tables, "', '"))
		}
		fmt.Fprintf(&text, `, into_%[1]s AS (
	INSERT INTO peat.%[1]s (source, collection, id, document, original, origin, sequence, change)
	SELECT $1, collection, id, document, original, origin, sequence, change FROM %[2]s WHERE kind = 'upsert' AND %[3]s
	ON CONFLICT (source, collection, id) DO UPDATE SET document = excluded.document, original = excluded.original,
		origin = excluded.origin, sequence = excluded.sequence, change = excluded.change, changed_at = now()
)`, table, from, condition)
	}
	return text.String()
}

// stagingTables hold a snapshot until it is complete. They belong to the session and end with it.
const stagingTables = `
CREATE TEMPORARY TABLE IF NOT EXISTS staged (collection text NOT NULL, id text NOT NULL, document jsonb NOT NULL, original text,
	origin text NOT NULL, sequence bigint NOT NULL);
CREATE TEMPORARY TABLE IF NOT EXISTS missing (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, collection text NOT NULL,
	id text NOT NULL);
TRUNCATE staged, missing RESTART IDENTITY`

// findMissing lists the documents that are held and not in the snapshot. $1 source, $2 the collections that are followed.
const findMissing = `INSERT INTO missing (collection, id)
SELECT d.collection, d.id FROM peat.documents d
WHERE d.source = $1 AND (cardinality($2::text[]) = 0 OR d.collection = ANY ($2::text[]))
AND NOT EXISTS (SELECT FROM staged s WHERE s.collection = d.collection AND s.id = d.id)`

// mergeStatement makes the tables equal to the snapshot, and writes what that changes and the token after it.
//
// $1 source, $2 generation, $3 run, $4 sequence, $5 collections.
func mergeStatement() string {
	return `WITH ` + fromBase + `, differing AS (
	SELECT s.* FROM staged s LEFT JOIN peat.documents d ON d.source = $1 AND d.collection = s.collection AND d.id = s.id
	WHERE d.id IS NULL OR d.document <> s.document OR d.original IS DISTINCT FROM s.original
), input AS (
	SELECT 'delete' AS kind, collection, id, NULL::jsonb AS document, NULL::text AS original, '' AS origin, $4::bigint AS sequence
	FROM missing
	UNION ALL
	SELECT 'upsert', collection, id, document, original, origin, sequence FROM differing
), fresh AS (
	INSERT INTO peat.history (source, change, collection, id, kind, document, original, origin, sequence)
	SELECT $1, base.change + row_number() OVER (), collection, id, kind, document, original, origin, sequence FROM input, base
	RETURNING change, collection, id, kind, document, original, origin, sequence
), gone AS (
	DELETE FROM peat.documents d USING fresh n
	WHERE n.kind = 'delete' AND d.source = $1 AND d.collection = n.collection AND d.id = n.id
)` + upserts("fresh", append(slices.Clone(tables), otherDocuments)) + `
UPDATE peat.sources SET run = $3, sequence = $4, collections = $5, change = change + (SELECT count(*) FROM fresh),
	snapshots = snapshots + 1, changed_at = now()
WHERE source = $1 AND generation = $2`
}
