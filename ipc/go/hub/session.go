package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// lockPoll is how often an instance that stands by asks for a task's lock.
	lockPoll = time.Second
	// lockShare delays the first request of an instance for each task it holds, so that instances that start together share.
	lockShare = 50 * time.Millisecond
	// statementTime bounds one statement, so that a database that hangs is noticed.
	statementTime = 60 * time.Second
	// closeTime bounds the farewell to the database.
	closeTime = time.Second

	pauseFirst = 250 * time.Millisecond
	pauseMost  = 10 * time.Second
)

// keep does a task whenever its lock is free, until ctx ends.
func (h *hub) keep(ctx context.Context, t task) {
	log := h.Log.With("task", t.name, "source", t.source)
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := h.session(ctx, t)
		if ctx.Err() != nil {
			return
		}
		log.Warn("the task ends and is tried again", "error", err)
		if time.Since(began) > pauseMost {
			pause.reset()
		}
		pause.wait(ctx)
	}
}

// session takes the task's lock on a connection and does the task on the same connection, so that the loss of the lock
// is also the loss of the means to write.
func (h *hub) session(ctx context.Context, t task) error {
	conn, err := h.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := h.lock(ctx, conn, t); err != nil {
		return err
	}
	h.held.Add(1)
	defer h.held.Add(-1)
	return t.run(ctx, conn)
}

// lock waits for the task's advisory lock. It polls, because a statement that waits inside the server would hold back vacuum.
func (h *hub) lock(ctx context.Context, conn *pgx.Conn, t task) error {
	if !sleep(ctx, time.Duration(h.held.Load())*lockShare) {
		return ctx.Err()
	}
	for {
		var taken bool
		err := queryRow(ctx, conn, "SELECT pg_try_advisory_lock(hashtextextended('peat-hub ' || $1 || ' ' || $2, 0))",
			[]any{t.name, t.source}, &taken)
		if err != nil || taken {
			return err
		}
		if !sleep(ctx, lockPoll/2+rand.N(lockPoll)) {
			return ctx.Err()
		}
	}
}

// connect makes a session that the server ends soon after its client's machine is gone.
func (h *hub) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(h.Database)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	config.DialFunc = (&net.Dialer{Timeout: 10 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}).DialContext
	for name, value := range map[string]string{"application_name": "peat-hub", "tcp_keepalives_idle": "10",
		"tcp_keepalives_interval": "5", "tcp_keepalives_count": "3", "timezone": "UTC"} {
		if _, given := config.RuntimeParams[name]; !given {
			config.RuntimeParams[name] = value
		}
	}
	return pgx.ConnectConfig(ctx, config)
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	// The session ends either way, and its lock with it.
	_ = conn.Close(ctx)
}

func queryRow(ctx context.Context, conn *pgx.Conn, sql string, arguments []any, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	return conn.QueryRow(ctx, sql, arguments...).Scan(into...)
}

func execute(ctx context.Context, conn *pgx.Conn, sql string, arguments ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	tag, err := conn.Exec(ctx, sql, arguments...)
	return tag.RowsAffected(), err
}

// passing says whether an error of the database may be gone at the next attempt.
func passing(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		var parse *pgconn.ParseConfigError
		return !errors.As(err, &parse) && !errors.Is(err, errSchema)
	}
	// Connection failures, conflicts, lack of resources, servers that stop, and a server that fails.
	for _, class := range []string{"08", "40", "53", "55", "57", "58", "XX"} {
		if strings.HasPrefix(refused.Code, class) {
			return true
		}
	}
	return false
}

// backoff is the pause before each further attempt: doubling, between half and the whole of it by chance.
type backoff struct {
	next time.Duration
}

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) wait(ctx context.Context) bool {
	pause := max(b.next, pauseFirst)
	b.next = min(2*pause, pauseMost)
	return sleep(ctx, pause/2+rand.N(pause/2+1))
}

// sleep says whether ctx still goes on afterwards.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
