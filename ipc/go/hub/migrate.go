package hub

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/*.sql
var migrations embed.FS

// errSchema is wrapped by the error about a schema of a newer hub.
var errSchema = errors.New("the schema is newer than this hub")

// Migrate brings the schema "peat" up to date. Any number of hubs may call it at once. It refuses a schema that a newer hub
// has made.
func Migrate(ctx context.Context, conn *pgx.Conn) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('peat-hub migrate', 0))`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS peat;
			CREATE TABLE IF NOT EXISTS peat.migrations (version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`); err != nil {
			return fmt.Errorf("schema peat: %w", err)
		}
		var version int
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM peat.migrations").Scan(&version); err != nil {
			return err
		}
		if version > len(names) {
			return fmt.Errorf("%w: version %d, this hub knows %d; use the newer hub", errSchema, version, len(names))
		}
		return apply(ctx, tx, names, version)
	})
}

// apply runs the migrations after version. The file names sort in their order.
func apply(ctx context.Context, tx pgx.Tx, names []string, version int) error {
	for ; version < len(names); version++ {
		text, err := migrations.ReadFile(names[version])
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, string(text)); err != nil {
			return fmt.Errorf("%s: %w", names[version], err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO peat.migrations (version) VALUES ($1)", version+1); err != nil {
			return err
		}
	}
	return nil
}
