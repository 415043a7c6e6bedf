package hub

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	retentionInterval = time.Minute
	retentionBatch    = 5000
)

// retain removes what is older than KeepHistory. Rows that a publisher of this hub's stream has not published stay.
func (h *hub) retain(ctx context.Context, conn *pgx.Conn) error {
	for {
		if err := h.removeOld(ctx, conn); err != nil {
			return err
		}
		if !sleep(ctx, retentionInterval) {
			return ctx.Err()
		}
	}
}

const removeHistory = `DELETE FROM peat.history WHERE (source, change) IN (
	SELECT source, change FROM peat.history h WHERE recorded_at < now() - make_interval(secs => $1)
	AND ($2 = '' OR change <= (SELECT change FROM peat.publishers p WHERE p.source = h.source AND p.stream = $2)) LIMIT $3)`

const removeOutbox = `DELETE FROM peat.outbox WHERE id IN (SELECT id FROM peat.outbox WHERE state <> 'pending'
	AND created_at < now() - make_interval(secs => $1) LIMIT $2)`

func (h *hub) removeOld(ctx context.Context, conn *pgx.Conn) error {
	stream := ""
	if h.NATS != nil {
		stream = h.NATS.Stream
	}
	if err := removeAll(ctx, conn, removeHistory, h.KeepHistory.Seconds(), stream, retentionBatch); err != nil {
		return err
	}
	return removeAll(ctx, conn, removeOutbox, h.KeepHistory.Seconds(), retentionBatch)
}

// removeAll repeats a statement that removes at most retentionBatch rows, so that no transaction is long.
func removeAll(ctx context.Context, conn *pgx.Conn, sql string, arguments ...any) error {
	for {
		removed, err := execute(ctx, conn, sql, arguments...)
		if err != nil || removed < retentionBatch {
			return err
		}
	}
}
