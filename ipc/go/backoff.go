package peat

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	backoffFirst = 500 * time.Millisecond
	backoffMost  = 30 * time.Second
)

// backoff is the pause before each attempt to reach the node again: doubling, between half and the whole of it by chance,
// so that what lost its node together does not come back together.
type backoff struct {
	next time.Duration
}

func (b *backoff) pause() time.Duration {
	pause := max(b.next, backoffFirst)
	b.next = min(2*pause, backoffMost)
	return pause/2 + rand.N(pause/2+1)
}

func (b *backoff) reset() { b.next = 0 }

// wait pauses, and says whether ctx is still going.
func (b *backoff) wait(ctx context.Context) bool {
	timer := time.NewTimer(b.pause())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
