package peat

import (
	"context"
	"io"
	"sync"

	"google.golang.org/protobuf/encoding/protodelim"

	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

// outboxBytes limits the bytes that wait for the writer; a frame waits while there are more.
const outboxBytes = 256 << 10

// outbox queues encoded frames for the connection's writer in order. No caller writes to the socket, so no context ends in
// the middle of a frame.
type outbox struct {
	mu      sync.Mutex
	waiting []byte
	// The total of bytes that were queued, and of those the socket took.
	put, written int64
	wake         chan struct{} // holds one token while bytes wait
	room         chan struct{} // closed when there is room again
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), room: make(chan struct{})}
}

// send queues a frame when there is room and returns its end in the total of bytes.
func (o *outbox) send(ctx context.Context, ended <-chan struct{}, frame *ipcpb.Frame) (int64, error) {
	for {
		o.mu.Lock()
		if len(o.waiting) < outboxBytes {
			defer o.mu.Unlock()
			return o.append(frame)
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ended:
			return 0, errNotSent
		case <-ctx.Done():
			return 0, contextError(ctx)
		}
	}
}

// force queues a small frame that must not wait: a cancellation or credit. A call has few of them.
func (o *outbox) force(frame *ipcpb.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// A frame without payload always encodes.
	_, _ = o.append(frame)
}

func (o *outbox) append(frame *ipcpb.Frame) (int64, error) {
	buffer := byteWriter(o.waiting)
	count, err := protodelim.MarshalTo(&buffer, frame)
	if err != nil {
		return 0, invalid("the request cannot be encoded: %v", err)
	}
	o.waiting = buffer
	o.put += int64(count)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return o.put, nil
}

// take returns all queued bytes, for the caller to write.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	bytes := o.waiting
	o.waiting = nil
	close(o.room)
	o.room = make(chan struct{})
	return bytes
}

func (o *outbox) noteWritten(count int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written += int64(count)
}

// sent reports whether the socket took all bytes up to end.
func (o *outbox) sent(end int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written >= end
}

// byteWriter appends what is written to it.
type byteWriter []byte

var _ io.Writer = (*byteWriter)(nil)

func (w *byteWriter) Write(bytes []byte) (int, error) {
	*w = append(*w, bytes...)
	return len(bytes), nil
}
