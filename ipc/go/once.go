package peat

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// reuseFor is how long the result of interrupted work is used again.
const reuseFor = time.Hour

// onceWork is work under a content key. The agent's mutex guards it until done is closed.
type onceWork struct {
	done    chan struct{}
	result  json.RawMessage
	err     error
	cancel  context.CancelFunc
	waiting int
}

// Once runs work under a key that names its effect, so that a command sent again under a new id does not repeat it: while the
// work of another command runs under the key, this command waits for it and shares its result. When the agent lost its node,
// or restarted, before it delivered the other command's result, that result is used again for an hour. After a delivered
// result, the same key starts new work.
//
// ctx bounds the wait. The work's context ends when no command waits for it any more. A failure is not shared with later
// commands.
func (c *Command) Once(ctx context.Context, contentKey string, work func(context.Context) (json.RawMessage, error)) (json.RawMessage, error) {
	a := c.agent
	a.mu.Lock()
	if result, known := a.finishedWork(contentKey, time.Now()); known {
		c.job.keys = append(c.job.keys, contentKey)
		a.mu.Unlock()
		return result, nil
	}
	shared := a.once[contentKey]
	if shared == nil {
		life, cancel := context.WithCancel(context.WithoutCancel(a.life))
		shared = &onceWork{done: make(chan struct{}), cancel: cancel}
		a.once[contentKey] = shared
		go a.work(life, contentKey, shared, work)
	}
	shared.waiting++
	c.job.keys = append(c.job.keys, contentKey)
	a.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.Context(), func() { cancel(context.Cause(c.Context())) })()
	return a.join(ctx, shared)
}

// join waits for shared work. The last command to give up ends the work and waits for its end.
func (a *Agent) join(ctx context.Context, shared *onceWork) (json.RawMessage, error) {
	select {
	case <-shared.done:
		return shared.result, shared.err
	case <-ctx.Done():
	}
	a.mu.Lock()
	shared.waiting--
	last := shared.waiting == 0
	a.mu.Unlock()
	if last {
		shared.cancel()
		<-shared.done
		return shared.result, shared.err
	}
	return nil, context.Cause(ctx)
}

func (a *Agent) work(ctx context.Context, key string, shared *onceWork, work func(context.Context) (json.RawMessage, error)) {
	defer shared.cancel()
	defer close(shared.done)
	result, err := contained(ctx, work)
	if err == nil && (len(result) > resultBytes || len(result) > 0 && !json.Valid(result)) {
		err = invalid("the result of %q is not JSON of at most %d bytes", key, resultBytes)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		line := &ledgerLine{Kind: ledgerWork, ID: key, Result: string(result), Seconds: time.Now().Unix()}
		err = a.ledger.append(line)
	}
	shared.result, shared.err = result, err
	delete(a.once, key)
}

func contained(ctx context.Context, work func(context.Context) (json.RawMessage, error)) (result json.RawMessage, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = errors.New("the work panicked")
		}
	}()
	return work(ctx)
}

// finishedWork returns the undelivered result of a key; a.mu is held. A clock that was set back extends its life and never
// shortens it.
func (a *Agent) finishedWork(key string, now time.Time) (json.RawMessage, bool) {
	line := a.ledger.work[key]
	if line == nil || now.Sub(time.Unix(line.Seconds, 0)) > reuseFor {
		return nil, false
	}
	return json.RawMessage(line.Result), true
}

// forgetWork reports whether no other command needs the result of a key; a.mu is held.
func (a *Agent) forgetWork(key string, job *job) bool {
	if a.ledger.work[key] == nil {
		return false
	}
	for _, other := range a.jobs {
		if other != job && slices.Contains(other.keys, key) {
			return false
		}
	}
	return true
}
