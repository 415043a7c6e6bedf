package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// lockPoll is how often an instance that stands by asks for a task's lock.
	lockPoll = time.Second
	// settle delays the first requests of an instance, so that instances that start together know of each other.
	settle = 300 * time.Millisecond
	// lockPatience is how often an instance that has its share leaves a free task to the others.
	lockPatience = 3
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
		if errors.Is(err, errTaken) {
			continue
		}
		log.Warn("the task ends and is tried again", "error", err)
		if time.Since(began) > pauseMost {
			pause.reset()
		}
		pause.wait(ctx)
	}
}

// session waits until the task's lock is free, takes it on a connection, and does the task on the same connection, so that the
// loss of the lock is also the loss of the means to write.
func (h *hub) session(ctx context.Context, t task) error {
	if err := h.standBy(ctx, t); err != nil {
		return err
	}
	defer h.scout.giveUp()
	conn, err := h.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	var taken bool
	if err := queryRow(ctx, conn, "SELECT pg_try_advisory_lock("+lockKey+")", []any{t.name, t.source}, &taken); err != nil {
		return err
	}
	if !taken {
		return errTaken
	}
	return t.run(ctx, conn)
}

// lockKey names a task's advisory lock. $1 task, $2 source.
const lockKey = "hashtextextended('peat-hub ' || $1 || ' ' || $2, 0)"

// errTaken: another instance took the lock first.
var errTaken = errors.New("another hub has taken the task")

// standBy polls until the task's lock is free and this instance may take it. A statement that waited inside the server would hold
// back vacuum.
func (h *hub) standBy(ctx context.Context, t task) error {
	for polls := 0; ; polls++ {
		mine, err := h.scout.reserve(ctx, h, t, polls >= lockPatience)
		if err != nil || mine {
			return err
		}
		if !sleep(ctx, lockPoll/2+rand.N(lockPoll)) {
			return ctx.Err()
		}
	}
}

// scout is the connection by which all tasks that stand by ask for their locks.
type scout struct {
	mu   sync.Mutex
	conn *pgx.Conn
	held int // tasks of this instance, those that are about to take their lock included
}

// askForLock says whether a task's lock is free and how many hubs there are. $1 task, $2 source.
const askForLock = `SELECT CASE WHEN pg_try_advisory_lock(` + lockKey + `) THEN pg_advisory_unlock(` + lockKey + `) ELSE false END,
	(SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND (classid::bigint << 32 | objid::bigint) = hashtextextended('peat-hub instance', 0))`

// reserve says whether this instance is to take a task: its lock is free, and this instance has less than its share or the others
// have left the task alone.
func (s *scout) reserve(ctx context.Context, h *hub, t task, left bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(ctx, h); err != nil {
		return false, err
	}
	var free bool
	var hubs int
	if err := queryRow(ctx, s.conn, askForLock, []any{t.name, t.source}, &free, &hubs); err != nil {
		return false, err
	}
	share := (len(h.all) + max(hubs, 1) - 1) / max(hubs, 1)
	if !free || s.held >= share && !left {
		return false, nil
	}
	s.held++
	return true, nil
}

func (s *scout) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
}

// open connects, and announces this instance to the others by a shared lock.
func (s *scout) open(ctx context.Context, h *hub) error {
	if s.conn != nil && !s.conn.IsClosed() {
		return nil
	}
	conn, err := h.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := execute(ctx, conn, "SELECT pg_advisory_lock_shared(hashtextextended('peat-hub instance', 0))"); err != nil {
		closeConn(conn)
		return err
	}
	s.conn = conn
	if !sleep(ctx, settle) {
		return ctx.Err()
	}
	return nil
}

func (s *scout) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		closeConn(s.conn)
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
