package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// TestFailureLog: what the engine failed at is an error in its log; that a client has gone is not.
func TestFailureLog(t *testing.T) {
	left, leave := context.WithCancel(context.Background())
	leave()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		told bool
	}{
		{context.Background(), errors.New("the disk is broken"), true},
		{left, errors.New("copy: the other end is closed"), false},
		{context.Background(), fmt.Errorf("save layer: %w", syscall.EPIPE), false},
	} {
		var log bytes.Buffer
		call := &call{server: &server{log: slog.New(slog.NewTextHandler(&log, nil))}, w: &reply{ResponseWriter: httptest.NewRecorder()},
			r: httptest.NewRequestWithContext(c.ctx, "GET", "/images/get", nil)}
		call.fail(c.err)
		if got := strings.Contains(log.String(), "request failed"); got != c.told {
			t.Errorf("%v: told %v: %s", c.err, got, &log)
		}
	}
}
