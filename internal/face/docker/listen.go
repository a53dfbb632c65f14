package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Limits of the HTTP server.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 256 << 10 // X-Registry-Config carries every credential of a client
	stopTime   = 5 * time.Second
)

// stopKey carries the context that ends when the engine stops.
type stopKey struct{}

// Listen opens addr. unix:///path becomes a socket of mode 0660, owned by the first group of docker and dhow that exists; a
// dead socket file is replaced, a live one is an error. tcp:// is refused: without mutual TLS it would give root to
// everybody who can reach it, and TLS is not implemented yet.
func Listen(addr string) (net.Listener, error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	switch {
	case ok && scheme == "unix" && filepath.IsAbs(rest):
		return listenUnix(filepath.Clean(rest))
	case ok && scheme == "unix":
		return nil, errdef.New(errdef.InvalidArgument, "listen on %s: the path must be absolute, as in unix:///run/dhow/dhow.sock", addr)
	case ok && scheme == "tcp":
		return nil, errdef.New(errdef.Forbidden, "listen on %s: TCP without mutual TLS would hand root to everybody who can connect, and TLS is not implemented by this version of dhow; use a unix socket, or ssh to it", addr)
	}
	return nil, errdef.New(errdef.InvalidArgument, "listen on %s: want unix:///path", addr)
}

func listenUnix(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, errdef.New(errdef.Conflict, "listen on %s: a file that is no socket is in the way; remove it or choose another path", path)
		}
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			c.Close()
			return nil, errdef.New(errdef.Conflict, "listen on %s: another engine answers there; stop it first", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	// The socket is made private under another name, then given its mode and its name: nobody connects in between.
	tmp := path + ".new"
	os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(tmp, 0o600)
	if gid, ok := socketGroup(); ok && err == nil {
		err = os.Lchown(tmp, -1, gid)
	}
	if err == nil {
		err = os.Chmod(tmp, 0o660)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &socket{UnixListener: l, path: path}, nil
}

// socketGroup returns the group whose members may use the API. os/user reads /etc/group here: CGO is off.
func socketGroup() (int, bool) {
	for _, name := range []string{"docker", "dhow"} {
		if g, err := user.LookupGroup(name); err == nil {
			if gid, err := strconv.Atoi(g.Gid); err == nil {
				return gid, true
			}
		}
	}
	return 0, false
}

// socket removes its file when closed, as long as the file is still its own.
type socket struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (s *socket) Close() error {
	s.once.Do(func() { os.Remove(s.path) })
	return s.UnixListener.Close()
}

// Serve answers on the listeners until ctx ends; then streams are cut, other requests get a moment to finish, and the
// listeners are closed. It returns the first error of a listener, or nil after ctx ended.
func Serve(ctx context.Context, h http.Handler, log *slog.Logger, listeners ...net.Listener) error {
	if log == nil {
		log = slog.Default()
	}
	base := context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { errs <- srv.Serve(l) }() // ends with Shutdown or Close below
	}
	var err error
	left := len(listeners)
	select {
	case <-ctx.Done():
	case err = <-errs:
		left--
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if srv.Shutdown(end) != nil {
		srv.Close()
	}
	for range left {
		<-errs
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
