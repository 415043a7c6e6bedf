package peat

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Client calls a node. Any number of goroutines may use it: their calls share one connection.
//
// When the connection is lost, unfinished calls fail with [ErrConnectionLost] (whether the node carried them out is not
// known, so they are not repeated), and the next call dials again, once, and fails with Unavailable when nobody listens.
// Streams reconnect by themselves, with pauses of 0.5 s to 30 s.
type Client struct {
	target  target
	options clientOptions

	dialing chan struct{} // held while dialling

	mu     sync.Mutex
	conn   *conn
	closed bool
}

type clientOptions struct {
	token string
}

// ClientOption changes how a Client connects.
type ClientOption func(*clientOptions)

// WithToken sends a bearer token with every call; TCP listeners may ask for one.
func WithToken(token string) ClientOption {
	return func(options *clientOptions) { options.token = token }
}

// Connect dials a node at unix:///path or tcp://HOST:PORT. It fails when nobody listens there; ctx bounds the dialling only.
func Connect(ctx context.Context, address string, options ...ClientOption) (*Client, error) {
	client, err := newClient(address, options)
	if err != nil {
		return nil, err
	}
	if _, err := client.connection(ctx); err != nil {
		return nil, err
	}
	return client, nil
}

func newClient(address string, options []ClientOption) (*Client, error) {
	target, err := parseTarget(address)
	if err != nil {
		return nil, err
	}
	client := &Client{target: target, dialing: make(chan struct{}, 1)}
	for _, option := range options {
		option(&client.options)
	}
	return client, nil
}

// Close ends the connection and every call and stream on it.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn != nil {
		c.conn.close(&Error{Code: Canceled, Message: "the client was closed", cause: ErrClosed})
	}
	return nil
}

// connection is the live connection, dialled if need be. Several callers wait for the same attempt.
func (c *Client) connection(ctx context.Context) (*conn, error) {
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	if conn, err := c.current(); conn != nil || err != nil {
		return conn, err
	}
	conn, err := dial(ctx, c.target, c.options.token)
	if err != nil {
		return nil, err
	}
	return conn, c.adopt(conn)
}

func (c *Client) current() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, &Error{Code: Canceled, Message: "the client was closed", cause: ErrClosed}
	}
	if c.conn != nil && c.conn.alive() {
		return c.conn, nil
	}
	return nil, nil
}

func (c *Client) adopt(conn *conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		err := &Error{Code: Canceled, Message: "the client was closed", cause: ErrClosed}
		conn.close(err)
		return err
	}
	c.conn = conn
	return nil
}

// call makes a unary call. A request that cannot have reached the node whole is sent once more, on a new connection.
func (c *Client) call(ctx context.Context, method Method, request, response proto.Message) error {
	for attempt := 1; ; attempt++ {
		conn, err := c.connection(ctx)
		if err == nil {
			err = conn.unary(ctx, method, request, response)
		}
		if errors.Is(err, errNotSent) {
			if attempt == 1 {
				continue
			}
			err = lost(err)
		}
		return of(method, err)
	}
}

// open begins a stream.
func (c *Client) open(ctx context.Context, method Method, request proto.Message) (*stream, error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return nil, of(method, err)
	}
	stream, err := conn.stream(ctx, method, request)
	if errors.Is(err, errNotSent) {
		err = lost(err)
	}
	return stream, of(method, err)
}

// passing says whether a stream that ended with err is worth another attempt.
func passing(err error) bool {
	switch CodeOf(err) {
	case Unavailable, ResourceExhausted, Internal, DataLoss:
		return !errors.Is(err, ErrClosed)
	}
	return errors.Is(err, errNotSent)
}
