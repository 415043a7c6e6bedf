package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	peat "peat.internal/peat-node.git/ipc/go"
)

// Source is one fleet.
type Source struct {
	// Name is the value of the column "source", 1 to 255 bytes.
	Name string
	// Addresses of nodes of the fleet: unix:///PATH or tcp://HOST:PORT. The first one is followed; when it cannot be
	// reached, the next one is.
	Addresses []string
	// Token is the bearer token of the nodes' TCP listeners.
	Token string
	// Collections to follow; empty: all.
	Collections []string
}

// NATS says where history is published.
type NATS struct {
	URL string
	// Stream is created if it does not exist, with subjects Subject.>.
	Stream string
	// Subject is the first token of each subject: SUBJECT.SOURCE.COLLECTION.ID.
	Subject string
}

// Config of a hub.
type Config struct {
	// Database is a connection string of PostgreSQL 14 or newer.
	Database string
	Sources  []Source
	// NATS is nil without a publisher.
	NATS *NATS
	// KeepHistory removes older rows of history and ended rows of the outbox; 0 keeps them.
	KeepHistory time.Duration
	// Instance names this hub in peat.sources; empty: host name and process id.
	Instance string
	Log      *slog.Logger
}

// Limits of the configuration.
const (
	sourceBytes = 255
	sourceCount = 1024
)

func (c *Config) check() error {
	if c.Database == "" {
		return errors.New("no database is named")
	}
	if len(c.Sources) == 0 {
		return errors.New("no source is named")
	}
	if len(c.Sources) > sourceCount {
		return fmt.Errorf("%d sources are named; the limit is %d", len(c.Sources), sourceCount)
	}
	seen := map[string]bool{}
	for _, source := range c.Sources {
		switch {
		case source.Name == "" || len(source.Name) > sourceBytes:
			return fmt.Errorf("source %q has %d bytes; the limits are 1 and %d", source.Name, len(source.Name), sourceBytes)
		case len(source.Addresses) == 0:
			return fmt.Errorf("source %q has no address", source.Name)
		case seen[source.Name]:
			return fmt.Errorf("source %q is named twice", source.Name)
		}
		if err := source.checkAddresses(); err != nil {
			return err
		}
		seen[source.Name] = true
	}
	if c.NATS != nil {
		return c.NATS.check()
	}
	return nil
}

// checkAddresses refuses what is no address. Nothing is dialled: the context has ended.
func (s *Source) checkAddresses() error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, address := range s.Addresses {
		client, err := peat.Connect(ended, address)
		if errors.Is(err, peat.InvalidArgument) {
			return fmt.Errorf("source %q: %w", s.Name, err)
		}
		if err == nil {
			// Cannot be: the context has ended.
			_ = client.Close()
		}
	}
	return nil
}

// hub is a running hub.
type hub struct {
	Config
	all   []task
	scout scout
}

// Run migrates the database and works until ctx ends. It returns an error for a configuration or a database that cannot be
// used; what may pass (a node or database that is away) is logged and tried again.
func Run(ctx context.Context, config Config) error {
	if err := config.check(); err != nil {
		return err
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("host name: %w", err)
		}
		config.Instance = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	h := &hub{Config: config}
	if err := h.migrate(ctx); err != nil {
		return err
	}
	var group sync.WaitGroup
	h.all = h.tasks()
	for _, task := range h.all {
		group.Add(1)
		go func() {
			defer group.Done()
			h.keep(ctx, task)
		}()
	}
	group.Wait()
	h.scout.close()
	return nil
}

// migrate waits for a database that is away.
func (h *hub) migrate(ctx context.Context) error {
	var pause backoff
	for {
		err := h.tryMigrate(ctx)
		if err == nil || ctx.Err() != nil || !passing(err) {
			return err
		}
		h.Log.Warn("the database cannot be used yet", "error", err)
		if !pause.wait(ctx) {
			return ctx.Err()
		}
	}
}

func (h *hub) tryMigrate(ctx context.Context) error {
	conn, err := h.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return Migrate(ctx, conn)
}

// task is a duty that one instance at a time has.
type task struct {
	name, source string
	run          func(context.Context, *pgx.Conn) error
}

func (h *hub) tasks() []task {
	var tasks []task
	for _, source := range h.Sources {
		follower := &follower{hub: h, source: source, log: h.Log.With("source", source.Name)}
		watcher := &watcher{hub: h, source: source}
		sender := &sender{hub: h, source: source, log: h.Log.With("source", source.Name)}
		tasks = append(tasks, task{"follow", source.Name, follower.run}, task{"liveness", source.Name, watcher.run},
			task{"outbox", source.Name, sender.run})
		if h.NATS != nil {
			publisher := &publisher{hub: h, source: source.Name, log: h.Log.With("source", source.Name)}
			tasks = append(tasks, task{"publish", source.Name, publisher.run})
		}
	}
	if h.KeepHistory > 0 {
		tasks = append(tasks, task{"retention", "", h.retain})
	}
	return tasks
}
