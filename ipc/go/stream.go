package peat

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

// window is how many items of a stream the node may send ahead of the consumer: few to buffer while the consumer pauses,
// enough to keep the connection busy.
const window = 64

// stream is a call with any number of items. One goroutine receives; another one may send.
type stream struct {
	conn  *conn
	call  *call
	taken uint32 // items received since credit was last granted
}

func (c *conn) stream(ctx context.Context, method methodNumber, request proto.Message) (*stream, error) {
	waiting, err := c.begin(ctx, method, request, window)
	if err != nil {
		return nil, err
	}
	return &stream{conn: c, call: waiting}, nil
}

// receive waits for the next item; io.EOF is the end of the stream.
func (s *stream) receive(ctx context.Context, item proto.Message) error {
	s.grant()
	frame, err := s.conn.next(ctx, s.call)
	if err != nil {
		return err
	}
	return s.take(frame, item)
}

// take decodes one frame of the stream.
func (s *stream) take(frame *ipcpb.Frame, item proto.Message) error {
	switch body := frame.Body.(type) {
	case *ipcpb.Frame_Item:
		s.taken++
		if err := proto.Unmarshal(body.Item, item); err != nil {
			s.close()
			return protocolError("an item cannot be read: %v", err)
		}
		return nil
	case *ipcpb.Frame_End:
		return io.EOF
	case *ipcpb.Frame_Error:
		return &Error{Code: codeFrom(body.Error.Code), Message: body.Error.Message}
	}
	return protocolError("a response to a streaming call")
}

// grant returns credit for consumed items half a window at a time, so that one small frame covers many items.
func (s *stream) grant() {
	if s.taken >= window/2 {
		s.conn.out.force(&ipcpb.Frame{Call: s.call.id, Body: &ipcpb.Frame_Credit{Credit: s.taken}})
		s.taken = 0
	}
}

// send uploads one message of a client stream.
func (s *stream) send(ctx context.Context, message proto.Message) error {
	payload, err := proto.Marshal(message)
	if err != nil {
		return invalid("the message cannot be encoded: %v", err)
	}
	if len(payload) > payloadBytes {
		return &Error{Code: ResourceExhausted, Message: sizeMessage(len(payload))}
	}
	_, err = s.conn.out.send(ctx, s.conn.ended, &ipcpb.Frame{Call: s.call.id, Body: &ipcpb.Frame_Upload{Upload: payload}})
	return err
}

// close cancels the call unless it has ended.
func (s *stream) close() { s.conn.cancel(s.call) }

func sizeMessage(bytes int) string {
	return fmt.Sprintf("the request has %d bytes; the limit is %d", bytes, payloadBytes)
}
