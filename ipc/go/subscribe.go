package peat

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"

	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// ChangeType is the kind of a Change or AgentChange.
type ChangeType int

const (
	// ChangeUpsert: the document or agent is like this now.
	ChangeUpsert ChangeType = iota + 1
	// ChangeDelete: the document or agent no longer exists.
	ChangeDelete
	// ChangeSnapshotEnd: everything that existed when the stream began has been delivered; live changes follow. It has no
	// other fields.
	ChangeSnapshotEnd
	// ChangeReset: the node cannot continue where the stream ended. Discard what the stream delivered: a snapshot follows.
	ChangeReset
	// ChangeOversized: the document exists, but is longer than a change of this subscription may be; Error has the length
	// and the remedy.
	ChangeOversized
)

// Token is a position of a subscription at which it resumes, also in another process.
type Token struct {
	Run      []byte `json:"run"`
	Sequence uint64 `json:"sequence"`
}

// Change is the newest version of one document, or its end.
type Change struct {
	Type           ChangeType
	Collection, ID string
	JSON           json.RawMessage // of a ChangeUpsert
	Error          string          // of a ChangeOversized
	Origin         string          // endpoint id of the node that wrote this version
	Token          Token           // resuming here repeats nothing up to this change
}

type subscription struct {
	collections, exclude []string
	maxChangeBytes       uint32
	token                Token
	// True from the beginning of a snapshot to its end. A snapshot cannot resume in its middle.
	snapshot bool
	known    bool // token is valid
}

// Subscribe delivers changes until ctx ends, which is the last error, or the node rejects the subscription. After a lost
// connection the subscription resumes; where it cannot, it delivers a ChangeReset and a snapshot. A slow consumer gets the
// newest version of each document, not every version in between.
func (c *Client) Subscribe(ctx context.Context, options ...SubscribeOption) iter.Seq2[*Change, error] {
	s := &subscription{}
	for _, option := range options {
		option.configureSubscription(s)
	}
	return func(yield func(*Change, error) bool) {
		run := *s
		c.resubscribe(ctx, &run, yield)
	}
}

// resubscribe runs one subscription over any number of connections.
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
			if !yield(&Change{Type: ChangeReset}, nil) {
				return
			}
		}
	}
}

// follow delivers the changes of one connection. Nil: the consumer has stopped.
func (c *Client) follow(ctx context.Context, s *subscription, pause *backoff, yield func(*Change, error) bool) error {
	request := &pb.SubscribeRequest{Collections: s.collections, Exclude: s.exclude, Snapshot: s.snapshot,
		MaxChangeBytes: s.maxChangeBytes}
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

// note moves the subscription past an item. It returns nil for an item of an unknown type.
func (s *subscription) note(item *pb.DocumentChange) *Change {
	change := &Change{Collection: item.Collection, ID: item.DocId, Origin: item.Origin,
		Token: Token{Run: item.Run, Sequence: item.Sequence}}
	switch item.ChangeType {
	case pb.ChangeType_CHANGE_TYPE_UPSERT:
		change.Type, change.JSON = ChangeUpsert, json.RawMessage(item.GetJsonData())
	case pb.ChangeType_CHANGE_TYPE_DELETE:
		change.Type = ChangeDelete
	case pb.ChangeType_CHANGE_TYPE_OVERSIZED:
		change.Type, change.Error = ChangeOversized, item.Error
	case pb.ChangeType_CHANGE_TYPE_SNAPSHOT_END:
		change.Type, s.snapshot = ChangeSnapshotEnd, false
	default:
		return nil
	}
	if !s.snapshot {
		s.token, s.known = change.Token, true
	}
	return change
}
