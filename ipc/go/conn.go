package peat

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

const (
	preface = "\x00peat/1\n"
	// frameBytes is the largest frame without its length. The message in it has at most payloadBytes.
	frameBytes   = 4 << 20
	payloadBytes = frameBytes - 4096
	// messageBytes is the largest response or item in parts.
	messageBytes = 64 << 20
	// connectionCalls is the node's limit of unfinished calls on one connection.
	connectionCalls = 256
	// writeStall ends a connection to a node that takes no bytes for this long.
	writeStall = 30 * time.Second
)

// conn is one connection: one goroutine writes frames, another reads them. Its first error ends it for good.
type conn struct {
	socket net.Conn
	token  string
	out    *outbox
	slots  chan struct{}

	mu    sync.Mutex
	last  uint64
	calls map[uint64]*call

	ended   chan struct{} // closed once err is set
	err     error
	written chan struct{} // closed when the writer has ended
}

// call is an unfinished call of a connection.
type call struct {
	id uint64
	// The frames that arrive. It has room for everything that the node may send, so that the reader never waits: one
	// response, or as many items as were granted, and the end.
	arrived chan *ipcpb.Frame
	end     int64 // of the request in the bytes written
}

func dial(ctx context.Context, to target, token string) (*conn, error) {
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, to.network, to.address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, contextError(ctx)
		}
		return nil, &Error{Code: Unavailable, Message: err.Error(), cause: err}
	}
	return newConn(socket, token), nil
}

func newConn(socket net.Conn, token string) *conn {
	c := &conn{socket: socket, token: token, out: newOutbox(), slots: make(chan struct{}, connectionCalls),
		calls: make(map[uint64]*call), ended: make(chan struct{}), written: make(chan struct{})}
	go c.write()
	go c.read()
	return c
}

// close ends the connection with err, unless it has ended.
func (c *conn) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.ended)
		c.socket.Close()
	}
}

func (c *conn) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

func (c *conn) write() {
	defer close(c.written)
	bytes := []byte(preface)
	for {
		if len(bytes) > 0 {
			// A socket that rejects a deadline rejects the write as well.
			_ = c.socket.SetWriteDeadline(time.Now().Add(writeStall))
			count, err := c.socket.Write(bytes)
			c.out.noteWritten(count)
			if err != nil {
				c.giveWay()
				c.close(lost(err))
				return
			}
		}
		select {
		case <-c.out.wake:
			bytes = c.out.take()
		case <-c.ended:
			return
		}
	}
}

// giveWay lets the reader take the reason that the node sent before it closed the connection.
func (c *conn) giveWay() {
	select {
	case <-c.ended:
	case <-time.After(time.Second):
	}
}

func (c *conn) read() {
	reader := bufio.NewReaderSize(c.socket, 64<<10)
	options := protodelim.UnmarshalOptions{MaxSize: frameBytes}
	begun := parts{}
	for {
		frame := new(ipcpb.Frame)
		if err := options.UnmarshalFrom(reader, frame); err != nil {
			c.close(readError(err))
			return
		}
		whole, err := begun.join(frame)
		if err != nil {
			c.close(err)
			return
		}
		if !whole {
			continue
		}
		if err := c.deliver(frame); err != nil {
			c.close(err)
			return
		}
	}
}

// parts holds the parts of incomplete messages by call.
type parts map[uint64][]byte

// join completes a message with its parts and reports whether the frame is complete.
func (p parts) join(frame *ipcpb.Frame) (bool, error) {
	switch body := frame.Body.(type) {
	case *ipcpb.Frame_Part:
		held := len(body.Part)
		for _, begun := range p {
			held += len(begun)
		}
		if held > messageBytes {
			return false, protocolError("a message in parts over %d bytes", messageBytes)
		}
		p[frame.Call] = append(p[frame.Call], body.Part...)
		return false, nil
	case *ipcpb.Frame_Response:
		body.Response = append(p[frame.Call], body.Response...)
	case *ipcpb.Frame_Item:
		body.Item = append(p[frame.Call], body.Item...)
	}
	delete(p, frame.Call)
	return true, nil
}

func readError(err error) error {
	var tooLarge *protodelim.SizeTooLargeError
	var network net.Error
	if errors.As(err, &tooLarge) || errors.Is(err, proto.Error) && !errors.As(err, &network) {
		return protocolError("%v", err)
	}
	return lost(err)
}

// deliver hands a frame to its call. It drops frames of cancelled calls, which may still be in flight.
func (c *conn) deliver(frame *ipcpb.Frame) error {
	if frame.Call == 0 {
		if said := frame.GetError(); said != nil {
			cause := &Error{Code: codeFrom(said.Code), Message: said.Message}
			return &Error{Code: Unavailable, Message: "the node closed the connection: " + cause.Error(),
				cause: errors.Join(ErrConnectionLost, cause)}
		}
		return protocolError("a frame without a call")
	}
	var ends bool
	switch frame.Body.(type) {
	case *ipcpb.Frame_Response, *ipcpb.Frame_End, *ipcpb.Frame_Error:
		ends = true
	case *ipcpb.Frame_Item:
	default:
		return protocolError("a frame with no body that a node sends")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := c.calls[frame.Call]
	if waiting == nil {
		return nil
	}
	select {
	case waiting.arrived <- frame:
	default:
		return protocolError("more items than were granted")
	}
	if ends {
		c.forget(waiting)
	}
	return nil
}

// forget removes a call; c.mu is held.
func (c *conn) forget(waiting *call) {
	if c.calls[waiting.id] == waiting {
		delete(c.calls, waiting.id)
		<-c.slots
	}
}

// begin sends a request. The answer arrives in the call's channel, or the connection ends.
func (c *conn) begin(ctx context.Context, method methodNumber, request proto.Message, credit uint32) (*call, error) {
	payload, err := proto.Marshal(request)
	if err != nil {
		return nil, invalid("the request cannot be encoded: %v", err)
	}
	if len(payload) > payloadBytes {
		return nil, &Error{Code: ResourceExhausted,
			Message: sizeMessage(len(payload))}
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.ended:
		return nil, errNotSent
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	waiting := c.register(credit)
	frame := &ipcpb.Frame{Call: waiting.id, Body: &ipcpb.Frame_Request{Request: &ipcpb.Request{
		Method: uint32(method), Payload: payload, DeadlineMs: deadlineFor(ctx, credit), Credit: credit, Token: c.token, TakesParts: true}}}
	waiting.end, err = c.out.send(ctx, c.ended, frame)
	if err != nil {
		c.drop(waiting)
		return nil, err
	}
	return waiting, nil
}

func (c *conn) register(credit uint32) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	waiting := &call{id: c.last, arrived: make(chan *ipcpb.Frame, credit+1)}
	c.calls[waiting.id] = waiting
	return waiting
}

func (c *conn) drop(waiting *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(waiting)
}

// cancel cancels a call; later frames for it are dropped.
func (c *conn) cancel(waiting *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[waiting.id] == waiting {
		c.forget(waiting)
		c.out.force(&ipcpb.Frame{Call: waiting.id, Body: &ipcpb.Frame_Cancel{Cancel: &ipcpb.Cancel{}}})
	}
}

// next waits for the next frame of a call. Frames that arrived before the end of the connection count.
func (c *conn) next(ctx context.Context, waiting *call) (*ipcpb.Frame, error) {
	select {
	case frame := <-waiting.arrived:
		return frame, nil
	default:
	}
	select {
	case frame := <-waiting.arrived:
		return frame, nil
	case <-ctx.Done():
		c.cancel(waiting)
		return nil, contextError(ctx)
	case <-c.ended:
		return c.afterEnd(waiting)
	}
}

func (c *conn) afterEnd(waiting *call) (*ipcpb.Frame, error) {
	select {
	case frame := <-waiting.arrived:
		return frame, nil
	default:
	}
	// An answer can arrive before the writer has counted the request's bytes.
	<-c.written
	if !c.out.sent(waiting.end) {
		return nil, errNotSent
	}
	return nil, c.err
}

// unary makes a call with one answer.
func (c *conn) unary(ctx context.Context, method methodNumber, request, response proto.Message) error {
	waiting, err := c.begin(ctx, method, request, 0)
	if err != nil {
		return err
	}
	frame, err := c.next(ctx, waiting)
	if err != nil {
		return err
	}
	switch body := frame.Body.(type) {
	case *ipcpb.Frame_Response:
		if err := proto.Unmarshal(body.Response, response); err != nil {
			return protocolError("the response cannot be read: %v", err)
		}
		return nil
	case *ipcpb.Frame_Error:
		return &Error{Code: codeFrom(body.Error.Code), Message: body.Error.Message}
	}
	c.cancel(waiting)
	return protocolError("a stream item for a unary call")
}

// deadlineFor returns the deadline of a request, which is slightly before the context's own: the node's answer about the work
// arrives before the caller gives up. A stream has no deadline.
func deadlineFor(ctx context.Context, credit uint32) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok || credit > 0 {
		return 0
	}
	remaining := time.Until(deadline)
	remaining -= min(remaining/10, 100*time.Millisecond)
	return uint32(min(max(remaining.Milliseconds(), 1), 1<<32-1))
}
