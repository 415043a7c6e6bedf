package peat

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrClosed is wrapped by the errors of calls on a closed Client or Agent.
	ErrClosed = errors.New("closed")
	// ErrConnectionLost is wrapped by the error of a call on a connection that failed. The client does not know whether the
	// node carried the call out.
	ErrConnectionLost = errors.New("the connection to the node was lost")
	// ErrProtocol is wrapped by the errors of a connection to a server that does not speak peat/1.
	ErrProtocol = errors.New("the node does not speak peat/1")

	// errNotSent: the node cannot have received the whole request, so the client may send it again.
	errNotSent = errors.New("the request was not sent")
)

// Error is a failed call: the node's answer, or the reason for the lack of one.
type Error struct {
	// Method is the name in the service definition, "PutDocument".
	Method  string
	Code    Code
	Message string

	cause error
}

func (e *Error) Error() string {
	if e.Method == "" {
		return fmt.Sprintf("%v: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: %v: %s", e.Method, e.Code, e.Message)
}

// Unwrap returns the cause of an error that is not the node's answer.
func (e *Error) Unwrap() error { return e.cause }

// Is matches a Code, and the errors of package context with the same meaning.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Canceled
	}
	code, ok := target.(Code)
	return ok && code == e.Code
}

// CodeOf returns the code of an error of this package, 0 for nil and Unknown for any other error.
func CodeOf(err error) Code {
	var e *Error
	var code Code
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &code):
		return code
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

// contextError returns the error of a call after the end of its context.
func contextError(ctx context.Context) error {
	cause := context.Cause(ctx)
	code := Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = DeadlineExceeded
	}
	return &Error{Code: code, Message: cause.Error(), cause: errors.Join(ctx.Err(), cause)}
}

func lost(cause error) error {
	return &Error{Code: Unavailable, Message: fmt.Sprintf("%v: %v", ErrConnectionLost, cause),
		cause: errors.Join(ErrConnectionLost, cause)}
}

func protocolError(format string, arguments ...any) error {
	message := fmt.Sprintf(format, arguments...)
	return &Error{Code: Internal, Message: fmt.Sprintf("%v: %s", ErrProtocol, message), cause: ErrProtocol}
}

func invalid(format string, arguments ...any) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf(format, arguments...)}
}

// of adds the method to an error of this package.
func of(method methodNumber, err error) error {
	var e *Error
	if err == nil || !errors.As(err, &e) || e.Method != "" {
		return err
	}
	named := *e
	named.Method = method.String()
	return &named
}
