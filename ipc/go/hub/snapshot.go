package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	peat "peat.internal/peat-node.git/ipc/go"
)

const (
	// missingPage is how many documents that a snapshot lacks are looked up at a time.
	missingPage = 4096
	// lookups is how many of them are asked for at once.
	lookups = 64
)

// snapshot stages what the node holds and then makes the tables equal to it in one transaction, so readers of the tables see
// the state before it or the state after it.
func (f *follower) snapshot(ctx context.Context, node *mirrored) error {
	began := time.Now()
	end, err := f.stage(ctx, node.changes)
	if err != nil {
		return err
	}
	staged := time.Now()
	if err := f.confirmMissing(ctx, node); err != nil {
		return err
	}
	var rows int64
	err = pgx.BeginFunc(ctx, f.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;
			SET LOCAL plan_cache_mode = force_custom_plan; ANALYZE staged; ANALYZE missing`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, mergeStatement(), f.source.Name, f.generation, end.Run, int64(end.Sequence), f.collections())
		rows = tag.RowsAffected()
		return err
	})
	if err := f.written(rows, err, end); err != nil {
		return err
	}
	f.log.Info("the snapshot is written", "sequence", end.Sequence, "staging", staged.Sub(began), "writing", time.Since(staged))
	_, err = execute(ctx, f.conn, "TRUNCATE staged, missing")
	return err
}

// stage copies a whole snapshot into the staging table and returns the token of its end. A reset begins it again.
func (f *follower) stage(ctx context.Context, changes *intake) (peat.Token, error) {
	for {
		if _, err := execute(ctx, f.conn, stagingTables); err != nil {
			return peat.Token{}, err
		}
		rows := &stagedRows{ctx: ctx, changes: changes}
		_, err := f.conn.CopyFrom(ctx, pgx.Identifier{"staged"},
			[]string{"collection", "id", "document", "original", "origin", "sequence"}, rows)
		if err != nil || rows.end.Type == peat.ChangeSnapshotEnd {
			return rows.token(), err
		}
	}
}

// stagedRows are the rows of a snapshot, in the form of COPY, up to its end or a reset.
type stagedRows struct {
	ctx     context.Context
	changes *intake
	batch   []*peat.Change
	row     *peat.Change
	end     *peat.Change
	err     error
}

func (s *stagedRows) token() peat.Token {
	if s.end == nil {
		return peat.Token{}
	}
	return s.end.Token
}

// Next moves to the next document. A deletion inside a snapshot is found again as a document that the snapshot lacks.
func (s *stagedRows) Next() bool {
	for {
		if len(s.batch) == 0 {
			if s.batch, s.err = s.changes.takeUntil(s.ctx, batchChanges, peat.ChangeReset, peat.ChangeSnapshotEnd); s.err != nil {
				return false
			}
		}
		s.row, s.batch = s.batch[0], s.batch[1:]
		switch s.row.Type {
		case peat.ChangeUpsert:
			return true
		case peat.ChangeSnapshotEnd, peat.ChangeReset:
			s.end = s.row
			return false
		}
	}
}

func (s *stagedRows) Values() ([]any, error) {
	document, original := forJSONB(s.row.JSON)
	return []any{s.row.Collection, s.row.ID, []byte(document), original, s.row.Origin, int64(s.row.Token.Sequence)}, nil
}

func (s *stagedRows) Err() error { return s.err }

// confirmMissing lists the documents that are held and that the snapshot lacks, and asks the node for each: one that changed
// while the snapshot was sent is not part of it, but comes as a live change after it.
func (f *follower) confirmMissing(ctx context.Context, node *mirrored) error {
	if _, err := execute(ctx, f.conn, `ANALYZE staged; SET enable_seqscan = on; SET enable_hashjoin = on`); err != nil {
		return err
	}
	// Without a time limit: it reads all documents of the source.
	tag, err := f.conn.Exec(ctx, findMissing, f.source.Name, f.collections())
	if err != nil {
		return err
	}
	if _, err := execute(ctx, f.conn, `SET enable_seqscan = off; SET enable_hashjoin = off`); err != nil {
		return err
	}
	for from := int64(0); from < tag.RowsAffected(); from += missingPage {
		if err := f.confirmPage(ctx, node, from); err != nil {
			return err
		}
	}
	return nil
}

type missingDocument struct {
	N              int64
	Collection, ID string
}

// confirmPage strikes the documents after number from off the list that the node still holds.
func (f *follower) confirmPage(ctx context.Context, node *mirrored, from int64) error {
	found, err := f.conn.Query(ctx, "SELECT n, collection, id FROM missing WHERE n > $1 AND n <= $1 + $2", from, missingPage)
	if err != nil {
		return err
	}
	page, err := pgx.CollectRows(found, pgx.RowToStructByPos[missingDocument])
	if err != nil {
		return err
	}
	held, err := stillHeld(node.ctx, node.client, page)
	if err != nil || len(held) == 0 {
		return err
	}
	_, err = execute(ctx, f.conn, "DELETE FROM missing WHERE n = ANY ($1)", held)
	return err
}

// stillHeld are the numbers of those documents that the node holds.
func stillHeld(ctx context.Context, client *peat.Client, page []missingDocument) ([]int64, error) {
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		held   []int64
		failed error
	)
	work := make(chan missingDocument)
	for range min(lookups, len(page)) {
		group.Add(1)
		go func() {
			defer group.Done()
			for document := range work {
				_, err := client.Get(ctx, document.Collection, document.ID)
				mu.Lock()
				switch {
				case err == nil:
					held = append(held, document.N)
				case !errors.Is(err, peat.NotFound):
					failed = err
				}
				mu.Unlock()
			}
		}()
	}
	for _, document := range page {
		work <- document
	}
	close(work)
	group.Wait()
	return held, failed
}
