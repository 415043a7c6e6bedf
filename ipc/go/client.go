package peat

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Client calls a node over one connection, which any number of goroutines may share.
//
// When the connection is lost, unfinished calls fail with [ErrConnectionLost]: the client does not know whether the node
// carried them out and does not repeat them. The next call dials again, once, and fails with Unavailable when no node
// listens. Streams reconnect without further calls, after pauses of 0.5 s to 30 s.
type Client struct {
	target  target
	options clientOptions

	dialing chan struct{} // full during an attempt to dial

	mu     sync.Mutex
	conn   *conn
	closed bool
}

// Connect dials the node at unix:///PATH, tcp://HOST:PORT or http://HOST:PORT and fails when no node listens there. The context
// bounds the dialling only; the connection lasts until Close.
func Connect(ctx context.Context, address string, options ...ClientOption) (*Client, error) {
	var collected clientOptions
	for _, option := range options {
		option.configureClient(&collected)
	}
	client, err := newClient(address, collected)
	if err != nil {
		return nil, err
	}
	if _, err := client.connection(ctx); err != nil {
		return nil, err
	}
	return client, nil
}

func newClient(address string, options clientOptions) (*Client, error) {
	target, err := parseTarget(address)
	if err != nil {
		return nil, err
	}
	return &Client{target: target, options: options, dialing: make(chan struct{}, 1)}, nil
}

// Close closes the connection and ends every call and stream on it.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn != nil {
		c.conn.close(&Error{Code: Canceled, Message: "the client was closed", cause: ErrClosed})
	}
	return nil
}

// connection returns the live connection and dials when there is none. Concurrent callers wait for one attempt.
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

// call makes a unary call. It sends a request once more, on a new connection, when the node cannot have received all of it.
func (c *Client) call(ctx context.Context, method methodNumber, request, response proto.Message) error {
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

// open starts a stream.
func (c *Client) open(ctx context.Context, method methodNumber, request proto.Message) (*stream, error) {
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

// passing reports whether another attempt can mend a stream that ended with err.
func passing(err error) bool {
	switch CodeOf(err) {
	case Unavailable, ResourceExhausted, Internal, DataLoss:
		return !errors.Is(err, ErrClosed)
	}
	return errors.Is(err, errNotSent)
}
