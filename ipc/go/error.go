package peat

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrClosed is what calls on a closed Client or Agent fail with.
	ErrClosed = errors.New("closed")
	// ErrConnectionLost is wrapped by the error of a call whose connection failed: whether it was carried out is not known.
	ErrConnectionLost = errors.New("the connection to the node was lost")
	// ErrProtocol is wrapped by the errors of a connection whose other end does not speak peat/1.
	ErrProtocol = errors.New("the node does not speak peat/1")

	// errNotSent: the node cannot have seen the whole request, so it may be sent again.
	errNotSent = errors.New("the request was not sent")
)

// Error is why a call failed: what the node answered, or why there is no answer.
type Error struct {
	// Method as the service definition has it, "PutDocument".
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

// Unwrap is the cause, for errors that did not come from the node.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is work with a Code, and with the errors of package context that mean the same.
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

// CodeOf is the code of an error of this package, 0 for nil and Unknown for any other.
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

// contextError is the end of a call whose context ended.
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

// of names the method in an error of this package.
func of(method Method, err error) error {
	var e *Error
	if err == nil || !errors.As(err, &e) || e.Method != "" {
		return err
	}
	named := *e
	named.Method = method.String()
	return &named
}
