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

// backoff is the pause before each attempt to reach the node again. It doubles and is random between half and the whole, so
// that clients which lost their node together do not return together.
type backoff struct {
	next time.Duration
}

func (b *backoff) pause() time.Duration {
	pause := max(b.next, backoffFirst)
	b.next = min(2*pause, backoffMost)
	return pause/2 + rand.N(pause/2+1)
}

func (b *backoff) reset() { b.next = 0 }

// wait pauses and reports whether ctx is still live.
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
