package hub

import (
	"context"
	"slices"
	"sync"

	peat "peat.internal/peat-node.git/ipc/go"
)

const (
	// intakeChanges and intakeBytes bound what is read from the node ahead of the database.
	intakeChanges = 4096
	intakeBytes   = 16 << 20
	// batchChanges bounds one transaction of live changes.
	batchChanges = 1024
)

// intake holds changes that were read and are not written yet. One goroutine puts, one takes.
type intake struct {
	mu      sync.Mutex
	changes []*peat.Change
	bytes   int
	err     error

	filled, emptied chan struct{}
}

func newIntake() *intake {
	return &intake{filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

// fill reads a subscription until it ends; its error is given by take after the changes before it.
func (i *intake) fill(ctx context.Context, client *peat.Client, options ...peat.SubscribeOption) {
	for change, err := range client.Subscribe(ctx, options...) {
		if err != nil {
			i.end(err)
			return
		}
		if !i.put(ctx, change) {
			i.end(ctx.Err())
			return
		}
	}
}

func (i *intake) put(ctx context.Context, change *peat.Change) bool {
	for {
		i.mu.Lock()
		room := len(i.changes) == 0 || len(i.changes) < intakeChanges && i.bytes+len(change.JSON) <= intakeBytes
		if room {
			i.changes = append(i.changes, change)
			i.bytes += len(change.JSON)
		}
		i.mu.Unlock()
		if room {
			signal(i.filled)
			return true
		}
		select {
		case <-i.emptied:
		case <-ctx.Done():
			return false
		}
	}
}

func (i *intake) end(err error) {
	i.mu.Lock()
	i.err = err
	i.mu.Unlock()
	signal(i.filled)
}

// takeUntil waits for the next changes and gives all that are there, up to most. A change of one of the types in ends is the
// last of a batch when it is first in the queue, and stays in the queue otherwise.
func (i *intake) takeUntil(ctx context.Context, most int, ends ...peat.ChangeType) ([]*peat.Change, error) {
	for {
		i.mu.Lock()
		batch, err := i.next(most, ends), i.err
		i.mu.Unlock()
		if len(batch) > 0 {
			signal(i.emptied)
			return batch, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-i.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (i *intake) next(most int, ends []peat.ChangeType) []*peat.Change {
	count := 0
	for count < min(most, len(i.changes)) {
		if slices.Contains(ends, i.changes[count].Type) {
			count = max(count, 1)
			break
		}
		count++
	}
	batch := slices.Clone(i.changes[:count])
	clear(i.changes[:count])
	i.changes = i.changes[count:]
	for _, change := range batch {
		i.bytes -= len(change.JSON)
	}
	return batch
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}
