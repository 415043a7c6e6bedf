package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	peat "peat.internal/peat-node.git/ipc/go"
)

const (
	// probeInterval is how often a node is asked for a sign of life when there is another one to go to.
	probeInterval = 2 * time.Second
	// probePatience is how long it may fail to give one.
	probePatience = 10 * time.Second
)

// errReplaced: another follower of the same source has started since, so this one writes nothing more.
var errReplaced = errors.New("another hub follows this source now")

// errAway ends a subscription to a node that gives no sign of life.
var errAway = errors.New("the node gives no sign of life")

// follower keeps the tables of one source equal to a node's documents. While it runs, its connection holds the source's lock.
type follower struct {
	*hub
	source Source
	log    *slog.Logger

	conn       *pgx.Conn
	generation int64
	token      *peat.Token // nil: begin with a snapshot
}

// run follows the source's nodes, one at a time, until the database fails.
func (f *follower) run(ctx context.Context, conn *pgx.Conn) error {
	f.conn = conn
	if err := f.begin(ctx); err != nil {
		return err
	}
	var pause backoff
	for n := 0; ; n++ {
		address := f.source.Addresses[n%len(f.source.Addresses)]
		began := time.Now()
		err := f.follow(ctx, address)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if conn.IsClosed() || errors.Is(err, errReplaced) {
			return err
		}
		f.log.Warn("the node is left", "address", address, "error", err)
		if time.Since(began) > pauseMost {
			pause.reset()
		}
		pause.wait(ctx)
	}
}

// begin fences earlier followers off and reads where they came to.
func (f *follower) begin(ctx context.Context) error {
	// Live statements are prepared once and touch few rows by key: their plans do not depend on the tables' sizes.
	if _, err := execute(ctx, f.conn, `SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off;
		SET enable_mergejoin = off; SET jit = off`); err != nil {
		return err
	}
	var run []byte
	var sequence *int64
	var collections []string
	err := queryRow(ctx, f.conn, `INSERT INTO peat.sources AS s (source, generation, followed_by) VALUES ($1, 1, $2)
		ON CONFLICT (source) DO UPDATE SET generation = s.generation + 1, followed_by = $2
		RETURNING generation, run, sequence, collections`, []any{f.source.Name, f.Instance},
		&f.generation, &run, &sequence, &collections)
	f.token = nil
	if run != nil && sequence != nil && slices.Equal(collections, f.collections()) {
		f.token = &peat.Token{Run: run, Sequence: uint64(*sequence)}
	}
	return err
}

// collections are those that are followed, as they are stored.
func (f *follower) collections() []string {
	sorted := append([]string{}, f.source.Collections...)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// follow writes what one node delivers, until that fails.
func (f *follower) follow(ctx context.Context, address string) error {
	// Ends the calls to this node, and no statement of the database.
	node, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := dial(node, address, f.source.Token)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := execute(ctx, f.conn, "UPDATE peat.sources SET address = $2 WHERE source = $1", f.source.Name, address); err != nil {
		return err
	}
	if len(f.source.Addresses) > 1 {
		go probe(node, client, cancel)
	}
	from := peat.WithSnapshot()
	if f.token != nil {
		from = peat.WithResumeAfter(*f.token)
	}
	changes := newIntake()
	go changes.fill(node, client, from, peat.WithCollections(f.source.Collections...))
	f.log.Info("the node is followed", "address", address, "snapshot", f.token == nil)
	err = f.consume(ctx, &mirrored{node, client, changes})
	if cause := context.Cause(node); errors.Is(cause, errAway) {
		return errors.Join(cause, err)
	}
	return err
}

// mirrored is a node that is followed. Its context ends when the node is given up.
type mirrored struct {
	ctx     context.Context
	client  *peat.Client
	changes *intake
}

// consume writes snapshots and live changes in turn.
func (f *follower) consume(ctx context.Context, node *mirrored) error {
	for {
		if f.token == nil {
			if err := f.snapshot(ctx, node); err != nil {
				return err
			}
		}
		if err := f.live(ctx, node.changes); err != nil {
			return err
		}
	}
}

// live writes changes until a reset comes, which leaves no token.
func (f *follower) live(ctx context.Context, changes *intake) error {
	for {
		batch, err := changes.takeUntil(ctx, batchChanges, peat.ChangeReset)
		if err != nil {
			return err
		}
		if batch[0].Type == peat.ChangeReset {
			f.log.Warn("the node does not know the resume token; a snapshot follows")
			f.token = nil
			return nil
		}
		if err := f.write(ctx, batch); err != nil {
			return err
		}
	}
}

// write commits a batch of live changes with the token after it.
func (f *follower) write(ctx context.Context, batch []*peat.Change) error {
	token := batch[len(batch)-1].Token
	documents := slices.DeleteFunc(batch, func(change *peat.Change) bool {
		return change.Type != peat.ChangeUpsert && change.Type != peat.ChangeDelete
	})
	var into []string
	for _, change := range documents {
		if table := tableOf(change.Collection); change.Type == peat.ChangeUpsert && !slices.Contains(into, table) {
			into = append(into, table)
		}
	}
	slices.Sort(into)
	c := columnsOf(documents)
	rows, err := execute(ctx, f.conn, liveStatement(into), f.source.Name, f.generation, token.Run, int64(token.Sequence),
		c.collection, c.id, c.kind, c.document, c.original, c.origin, c.sequence, c.certain)
	return f.written(rows, err, token)
}

// written notes the token that was committed.
func (f *follower) written(rows int64, err error, token peat.Token) error {
	switch {
	case err != nil:
		return fmt.Errorf("writing changes of source %s: %w", f.source.Name, err)
	case rows == 0:
		return errReplaced
	}
	f.token = &token
	return nil
}

// dial connects to a node within bounded time.
func dial(ctx context.Context, address, token string) (*peat.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	var options []peat.ClientOption
	if token != "" {
		options = append(options, peat.WithToken(token))
	}
	return peat.Connect(ctx, address, options...)
}

// probe cancels when the node has given no sign of life for too long.
func probe(ctx context.Context, client *peat.Client, cancel context.CancelCauseFunc) {
	seen := time.Now()
	for sleep(ctx, probeInterval) {
		ask, done := context.WithTimeout(ctx, probePatience/2)
		_, err := client.Status(ask)
		done()
		if err == nil {
			seen = time.Now()
		} else if time.Since(seen) > probePatience {
			cancel(errAway)
		}
	}
}
