package peat

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"

	pb "peat.dev/peat/gen/sidecarpb"
)

// ChangeType says what a Change or AgentChange is.
type ChangeType int

const (
	// Upsert: this is how it is now.
	Upsert ChangeType = iota + 1
	// Delete: it is gone.
	Delete
	// SnapshotEnd: all that existed when the stream began has been given; what follows is live. Carries nothing else.
	SnapshotEnd
	// Reset: the node could not continue where the stream broke off. Forget what you hold: a snapshot follows.
	Reset
	// Oversized: it is longer than one change may be; Problem says so. Only of documents that merges made longer than 64 MiB.
	Oversized
)

// Token is where a subscription can be resumed, by another process too.
type Token struct {
	Run      []byte `json:"run"`
	Sequence uint64 `json:"sequence"`
}

// Change is one document's newest version, or its end.
type Change struct {
	Type           ChangeType
	Collection, ID string
	JSON           json.RawMessage // of an Upsert
	Problem        string          // of an Oversized
	Origin         string          // endpoint id of the node that wrote this version
	Token          Token           // resume here: everything up to this change was given
}

type subscription struct {
	collections []string
	token       Token
	// A snapshot was begun and its end has not come: it cannot be resumed in its middle.
	snapshot bool
	known    bool // token says where to resume
}

// SubscribeOption says what a subscription is to give.
type SubscribeOption func(*subscription)

// Collections narrows a subscription to these; without it all are given.
func Collections(names ...string) SubscribeOption {
	return func(s *subscription) { s.collections = append(s.collections, names...) }
}

// Snapshot begins with all that exists, closed by SnapshotEnd.
func Snapshot() SubscribeOption { return func(s *subscription) { s.snapshot = true } }

// ResumeAfter continues after a Change's Token. If that point is no longer known, a Reset and a snapshot come.
func ResumeAfter(token Token) SubscribeOption {
	return func(s *subscription) { s.token, s.known = token, true }
}

// Subscribe gives changes until ctx ends, which is its last error, or the node refuses. A lost connection is made again by
// itself, and the subscription resumed where it was; where that cannot be done a Reset and a snapshot come. A consumer that
// is slow gets the newest version of each document, not every one in between.
func (c *Client) Subscribe(ctx context.Context, options ...SubscribeOption) iter.Seq2[*Change, error] {
	s := &subscription{}
	for _, option := range options {
		option(s)
	}
	return func(yield func(*Change, error) bool) {
		run := *s
		c.resubscribe(ctx, &run, yield)
	}
}

// resubscribe follows one subscription over as many connections as it takes.
func (c *Client) resubscribe(ctx context.Context, s *subscription, yield func(*Change, error) bool) {
	var pause backoff
	for {
		err := c.follow(ctx, s, &pause, yield)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			yield(nil, of(methodSubscribe, contextError(ctx)))
			return
		case errors.Is(err, OutOfRange):
			s.known = false
		case errors.Is(err, io.EOF) || passing(err):
			if !pause.wait(ctx) {
				yield(nil, of(methodSubscribe, contextError(ctx)))
				return
			}
		default:
			yield(nil, err)
			return
		}
		if !s.known {
			s.snapshot = true
			if !yield(&Change{Type: Reset}, nil) {
				return
			}
		}
	}
}

// follow gives the changes of one connection. No error: the consumer has had enough.
func (c *Client) follow(ctx context.Context, s *subscription, pause *backoff, yield func(*Change, error) bool) error {
	request := &pb.SubscribeRequest{Collections: s.collections, Snapshot: s.snapshot}
	if s.known && !s.snapshot {
		request.ResumeAfter, request.ResumeRun = s.token.Sequence, s.token.Run
	}
	stream, err := c.open(ctx, methodSubscribe, request)
	if err != nil {
		return err
	}
	defer stream.close()
	for {
		item := new(pb.DocumentChange)
		if err := stream.receive(ctx, item); err != nil {
			return of(methodSubscribe, err)
		}
		pause.reset()
		if change := s.note(item); change != nil && !yield(change, nil) {
			return nil
		}
	}
}

// note moves the subscription past an item. An item of a type this version does not know is passed over.
func (s *subscription) note(item *pb.DocumentChange) *Change {
	change := &Change{Collection: item.Collection, ID: item.DocId, Origin: item.Origin,
		Token: Token{Run: item.Run, Sequence: item.Sequence}}
	switch item.ChangeType {
	case pb.ChangeType_CHANGE_TYPE_UPSERT:
		change.Type, change.JSON = Upsert, json.RawMessage(item.GetJsonData())
	case pb.ChangeType_CHANGE_TYPE_DELETE:
		change.Type = Delete
	case pb.ChangeType_CHANGE_TYPE_OVERSIZED:
		change.Type, change.Problem = Oversized, item.Error
	case pb.ChangeType_CHANGE_TYPE_SNAPSHOT_END:
		change.Type, s.snapshot = SnapshotEnd, false
	default:
		return nil
	}
	if !s.snapshot {
		s.token, s.known = change.Token, true
	}
	return change
}
