package cli

import (
	"context"
	"net/url"
	"os"
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"
)

// proxySignals sends the signals this process gets to the container, until ctx ends.
func (a *app) proxySignals(ctx context.Context, id string) {
	ch := make(chan os.Signal, 64)
	signal.Notify(ch)
	go func() { // ends with ctx
		defer signal.Stop(ch)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-ch:
				sig, ok := s.(unix.Signal)
				if !ok || !proxied(sig) {
					continue
				}
				name := unix.SignalName(sig)
				if name == "" {
					name = strconv.Itoa(int(sig))
				}
				a.api.Post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {name}}, nil, nil)
			}
		}
	}()
}

// proxied tells which signals mean the container: not those the kernel sends about this process's own life.
func proxied(s unix.Signal) bool {
	switch s {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTTIN, unix.SIGTTOU:
		return false
	}
	return true
}
