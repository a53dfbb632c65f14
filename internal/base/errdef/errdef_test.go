package errdef

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestKindSurvivesWrapping(t *testing.T) {
	base := errors.New("boom")
	err := fmt.Errorf("outer: %w", New(NotFound, "no such thing %q: %w", "x", base))
	if KindOf(err) != NotFound || !Is(err, NotFound) {
		t.Fatalf("kind = %v", KindOf(err))
	}
	if !errors.Is(err, base) {
		t.Fatal("cause lost")
	}
	if got := err.Error(); got != `outer: no such thing "x": boom` {
		t.Fatalf("text = %q", got)
	}
}

func TestKindOfPlain(t *testing.T) {
	if KindOf(errors.New("x")) != System || KindOf(nil) != System || Is(nil, System) {
		t.Fatal("plain errors are System, nil is nothing")
	}
	if KindOf(fmt.Errorf("a: %w", context.Canceled)) != Cancelled {
		t.Fatal("context.Canceled is Cancelled")
	}
	if As(Conflict, nil) != nil {
		t.Fatal("As(nil) must be nil")
	}
}
