package hub

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	peat "peat.internal/peat-node.git/ipc/go"
)

// watcher keeps peat.agent_liveness of one source.
type watcher struct {
	*hub
	source Source
}

func (w *watcher) run(ctx context.Context, conn *pgx.Conn) error {
	var pause backoff
	for n := 0; ; n++ {
		address := w.source.Addresses[n%len(w.source.Addresses)]
		began := time.Now()
		err := w.watch(ctx, conn, address)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if conn.IsClosed() {
			return err
		}
		w.Log.Warn("agents cannot be watched", "source", w.source.Name, "address", address, "error", err)
		if time.Since(began) > pauseMost {
			pause.reset()
		}
		pause.wait(ctx)
	}
}

func (w *watcher) watch(ctx context.Context, conn *pgx.Conn, address string) error {
	node, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := dial(node, address, w.source.Token)
	if err != nil {
		return err
	}
	defer client.Close()
	if len(w.source.Addresses) > 1 {
		go probe(node, client, cancel)
	}
	// Before the end of a snapshot; nil after it. A node knows 65,536 agents at most.
	snapshot := map[string]*peat.AgentInfo{}
	for change, err := range client.WatchAgents(node) {
		switch {
		case err != nil:
			return errors.Join(err, context.Cause(node))
		case change.Type == peat.ChangeReset:
			snapshot = map[string]*peat.AgentInfo{}
		case change.Type == peat.ChangeSnapshotEnd:
			if err := w.replace(ctx, conn, snapshot); err != nil {
				return err
			}
			snapshot = nil
		case snapshot != nil:
			note(snapshot, change)
		default:
			if err := w.write(ctx, conn, change); err != nil {
				return err
			}
		}
	}
	return nil
}

func note(snapshot map[string]*peat.AgentInfo, change *peat.AgentChange) {
	if change.Type == peat.ChangeDelete {
		delete(snapshot, change.Agent.AgentId)
	} else {
		snapshot[change.Agent.AgentId] = change.Agent
	}
}

const upsertLiveness = `INSERT INTO peat.agent_liveness AS l (source, id, liveness, status, via)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (source, id) DO UPDATE SET liveness = excluded.liveness, status = excluded.status, via = excluded.via, changed_at = now()
WHERE (l.liveness, l.status, l.via) IS DISTINCT FROM (excluded.liveness, excluded.status, excluded.via)`

func livenessColumns(agents ...*peat.AgentInfo) (ids, liveness, status, via []string) {
	for _, agent := range agents {
		ids = append(ids, agent.AgentId)
		liveness = append(liveness, livenessName(agent))
		status = append(status, statusName(agent))
		via = append(via, agent.Via)
	}
	return ids, liveness, status, via
}

// replace makes the table equal to a snapshot.
func (w *watcher) replace(ctx context.Context, conn *pgx.Conn, snapshot map[string]*peat.AgentInfo) error {
	agents := make([]*peat.AgentInfo, 0, len(snapshot))
	for _, agent := range snapshot {
		agents = append(agents, agent)
	}
	ids, liveness, status, via := livenessColumns(agents...)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM peat.agent_liveness l WHERE source = $1
			AND NOT EXISTS (SELECT FROM unnest($2::text[]) AS s (id) WHERE s.id = l.id)`, w.source.Name, ids); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, upsertLiveness, w.source.Name, ids, liveness, status, via)
		return err
	})
}

func (w *watcher) write(ctx context.Context, conn *pgx.Conn, change *peat.AgentChange) error {
	if change.Type == peat.ChangeDelete {
		_, err := execute(ctx, conn, "DELETE FROM peat.agent_liveness WHERE source = $1 AND id = $2", w.source.Name, change.Agent.AgentId)
		return err
	}
	ids, liveness, status, via := livenessColumns(change.Agent)
	_, err := execute(ctx, conn, upsertLiveness, w.source.Name, ids, liveness, status, via)
	return err
}

// livenessName is LIVE, STALE or DEAD.
func livenessName(agent *peat.AgentInfo) string {
	return strings.TrimPrefix(agent.Liveness.String(), "LIVENESS_")
}

// statusName is READY, BUSY, DEGRADED or OFFLINE, or UNSPECIFIED for an agent that reports none.
func statusName(agent *peat.AgentInfo) string {
	return strings.TrimPrefix(agent.Status.String(), "PLATFORM_STATUS_")
}
