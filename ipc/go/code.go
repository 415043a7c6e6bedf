package peat

import "fmt"

// Code is one of gRPC's canonical status codes. It is an error, so that errors.Is(err, peat.NotFound) works.
type Code uint32

const (
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

var codeNames = [...]string{
	Canceled: "CANCELLED", Unknown: "UNKNOWN", InvalidArgument: "INVALID_ARGUMENT", DeadlineExceeded: "DEADLINE_EXCEEDED",
	NotFound: "NOT_FOUND", AlreadyExists: "ALREADY_EXISTS", PermissionDenied: "PERMISSION_DENIED",
	ResourceExhausted: "RESOURCE_EXHAUSTED", FailedPrecondition: "FAILED_PRECONDITION", Aborted: "ABORTED",
	OutOfRange: "OUT_OF_RANGE", Unimplemented: "UNIMPLEMENTED", Internal: "INTERNAL", Unavailable: "UNAVAILABLE",
	DataLoss: "DATA_LOSS", Unauthenticated: "UNAUTHENTICATED",
}

// String returns the name in the gRPC specification, INVALID_ARGUMENT.
func (c Code) String() string {
	if c < 1 || int(c) >= len(codeNames) {
		return fmt.Sprintf("CODE_%d", uint32(c))
	}
	return codeNames[c]
}

// Error makes a code a target of errors.Is.
func (c Code) Error() string { return c.String() }

// codeFrom returns the code with this number; a number outside 1 to 16 is Unknown.
func codeFrom(number uint32) Code {
	if number < 1 || number > 16 {
		return Unknown
	}
	return Code(number)
}
