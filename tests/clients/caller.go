// Package clients calls a node with clients that other people wrote: connect-go and grpc-go, over every transport the node
// serves. Its tests are all there is to it.
package clients

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

const (
	sidecar   = "/peat.sidecar.v1.PeatSidecar/"
	agentLink = "/peat.agent.v1.AgentLink/Connect"
)

// caller is a client library with a transport under it: one of the two.
type caller struct {
	name string
	// connect-go
	http    *http.Client
	url     string
	options []connect.ClientOption
	// grpc-go
	conn *grpc.ClientConn
	// Whether a client may go on sending while it is answered.
	duplex bool
}

type message[T any] interface {
	*T
	proto.Message
}

// call makes a unary call.
func call[Q, S any, PQ message[Q], PS message[S]](ctx context.Context, c caller, method string, request PQ) (PS, error) {
	if c.conn != nil {
		response := PS(new(S))
		return response, c.conn.Invoke(ctx, sidecar+method, request, response)
	}
	client := connect.NewClient[Q, S](c.http, c.url+sidecar+method, c.options...)
	response, err := client.CallUnary(ctx, connect.NewRequest((*Q)(request)))
	if err != nil {
		return nil, err
	}
	return PS(response.Msg), nil
}

// stream is a server stream: next gives its messages, and io.EOF at the end.
type stream[S any] struct {
	next func() (*S, error)
	end  func()
}

// follow begins a server stream.
func follow[Q, S any, PQ message[Q], PS message[S]](c caller, method string, request PQ) (*stream[S], error) {
	ctx, cancel := context.WithCancel(context.Background())
	if c.conn != nil {
		calling, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, sidecar+method)
		if err == nil {
			err = errors.Join(calling.SendMsg(request), calling.CloseSend())
		}
		next := func() (*S, error) {
			response := PS(new(S))
			return (*S)(response), calling.RecvMsg(response)
		}
		return &stream[S]{next, cancel}, err
	}
	client := connect.NewClient[Q, S](c.http, c.url+sidecar+method, c.options...)
	calling, err := client.CallServerStream(ctx, connect.NewRequest((*Q)(request)))
	next := func() (*S, error) {
		if calling.Receive() {
			return proto.Clone(PS(calling.Msg())).(PS), nil
		}
		if err := calling.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	return &stream[S]{next, cancel}, err
}

// link is an agent's stream.
type link[Q, S any] struct {
	send func(*Q) error
	next func() (*S, error)
	end  func()
}

// attach begins an agent's stream.
func attach[Q, S any, PQ message[Q], PS message[S]](c caller) (*link[Q, S], error) {
	ctx, cancel := context.WithCancel(context.Background())
	if c.conn != nil {
		calling, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, agentLink)
		if err != nil {
			cancel()
			return nil, err
		}
		next := func() (*S, error) {
			response := PS(new(S))
			return (*S)(response), calling.RecvMsg(response)
		}
		return &link[Q, S]{func(m *Q) error { return calling.SendMsg(PQ(m)) }, next, cancel}, nil
	}
	client := connect.NewClient[Q, S](c.http, c.url+agentLink, c.options...)
	calling := client.CallBidiStream(ctx)
	return &link[Q, S]{calling.Send, calling.Receive, cancel}, nil
}
