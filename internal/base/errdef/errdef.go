// Package errdef owns the kinds of error that cross package borders.
//
// It promises that a kind survives wrapping with %w and that the message stays what its author wrote.
// It must never know about HTTP, gRPC or exit codes: the faces translate kinds into those.
package errdef

import (
	"context"
	"errors"
	"fmt"
)

// Kind says whose fault an error is and what a caller may do about it.
type Kind int

// The kinds. System is the zero value: an error nobody classified.
const (
	System          Kind = iota
	NotFound             // the named object does not exist
	InvalidArgument      // the request is wrong and will stay wrong
	Conflict             // the object's state or another object forbids it
	Unauthorized         // credentials are missing or refused
	Forbidden            // policy forbids it
	NotModified          // it already is as asked
	NotImplemented       // this program does not do that
	Unavailable          // a peer or resource is not there now; later may differ
	Cancelled            // the caller gave up
	DataLoss             // stored or received bytes are not what was promised
)

type kinded struct {
	kind Kind
	err  error
}

func (k *kinded) Error() string { return k.err.Error() }
func (k *kinded) Unwrap() error { return k.err }

// New returns an error of a kind, formatted as fmt.Errorf does (%w included).
func New(k Kind, format string, args ...any) error {
	return &kinded{kind: k, err: fmt.Errorf(format, args...)}
}

// As gives err a kind without changing its text; nil stays nil.
func As(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind: k, err: err}
}

// KindOf returns the outermost kind in err's chain; context errors are Cancelled.
func KindOf(err error) Kind {
	var k *kinded
	if errors.As(err, &k) {
		return k.kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Cancelled
	}
	return System
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
