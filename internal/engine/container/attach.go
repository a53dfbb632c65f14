package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/moby/moby/api/types/events"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/keeper"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// session implements api.Session for a container's own stdio.
type session struct {
	c    *core
	u    *unit
	o    api.AttachOptions
	keys []byte
	// ready receives the stream, or nil when the container ended or went away before there was one; it is buffered.
	ready chan *wire.Stream
}

// Attach implements api.Containers.
func (s *Service) Attach(ctx context.Context, ref string, o api.AttachOptions) (api.Session, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	keys, err := detachKeys(o.DetachKeys)
	if err != nil {
		return nil, err
	}
	rec := u.rec.Load()
	switch {
	case rec.State.Paused:
		return nil, errdef.New(errdef.Conflict, "container %s is paused, unpause the container before attach", ref)
	case rec.State.Restarting:
		return nil, errdef.New(errdef.Conflict, "container %s is restarting, wait until the container is running", ref)
	}
	a := &session{c: s.core, u: u, o: o, keys: keys, ready: make(chan *wire.Stream, 1)}
	if o.Stream {
		if err := a.join(ctx); err != nil {
			return nil, err
		}
	}
	s.event(rec, events.ActionAttach, nil)
	return a, nil
}

// join attaches to the current run, or waits in line for the next.
func (a *session) join(ctx context.Context) error {
	a.u.mu.Lock()
	r := a.u.run
	if r == nil {
		if a.u.removing {
			a.u.mu.Unlock()
			return errdef.New(errdef.Conflict, "container %s is being removed", a.u.id)
		}
		a.u.pending = append(a.u.pending, a)
	}
	a.u.mu.Unlock()
	if r != nil {
		return a.open(r.shim)
	}
	context.AfterFunc(ctx, func() {
		a.u.mu.Lock()
		defer a.u.mu.Unlock()
		if i := slices.Index(a.u.pending, a); i >= 0 {
			a.u.pending = slices.Delete(a.u.pending, i, i+1)
			a.end(nil)
		}
	})
	return nil
}

func (a *session) open(shim *keeper.Shim) error {
	st, err := shim.Attach(context.WithoutCancel(a.c.ctx), a.o.Stdin && a.u.rec.Load().Config.OpenStdin, a.o.Stdout, a.o.Stderr)
	if err != nil {
		return err
	}
	a.ready <- st
	return nil
}

func (a *session) end(st *wire.Stream) {
	select {
	case a.ready <- st:
	default:
	}
}

// openPending attaches everybody who waits for this start, before the command can write its first byte.
func (c *core) openPending(_ context.Context, u *unit, shim *keeper.Shim) []*session {
	u.mu.Lock()
	waiting := u.pending
	u.pending = nil
	u.mu.Unlock()
	for _, a := range waiting {
		if err := a.open(shim); err != nil {
			c.Log.Warn("session not attached", "container", u.id, "err", err)
			a.end(nil)
		}
	}
	return waiting
}

// endPending sends home everybody who waits for a start that will not come.
func (c *core) endPending(u *unit, st *wire.Stream) {
	u.mu.Lock()
	waiting := u.pending
	u.pending = nil
	u.mu.Unlock()
	for _, a := range waiting {
		a.end(st)
	}
}

// TTY implements api.Session.
func (a *session) TTY() bool { return a.u.rec.Load().Config.Tty }

// Run implements api.Session.
func (a *session) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if a.o.Logs {
		l, err := a.c.logs(a.u, api.LogOptions{Stdout: a.o.Stdout, Stderr: a.o.Stderr, Tail: -1})
		if err != nil {
			return err
		}
		if err := l.Copy(ctx, stdout, stderr); err != nil {
			return err
		}
	}
	if !a.o.Stream {
		return nil
	}
	var st *wire.Stream
	select {
	case st = <-a.ready:
	case <-ctx.Done():
		select { // it may have been opened at the same moment
		case st = <-a.ready:
			if st != nil {
				st.Close()
			}
		default:
		}
		return ctx.Err()
	}
	if st == nil {
		return nil
	}
	rec := a.u.rec.Load()
	p := pump{st: st, tty: rec.Config.Tty, closeStdin: rec.Config.StdinOnce && !rec.Config.Tty, keys: a.keys}
	if !a.o.Stdin || !rec.Config.OpenStdin {
		stdin = nil
	}
	last, err := p.run(ctx, stdin, stdout, stderr)
	if errors.Is(err, errDetached) {
		a.c.event(rec, events.ActionDetach, nil)
		return nil
	}
	if last != nil {
		return nil // how the container ended, or why it did not start, is told to those who wait for it and who started it
	}
	return err
}

// pump copies between a client and a stream.
type pump struct {
	st         *wire.Stream
	tty        bool
	closeStdin bool // the end of the client's input is the end of the process's
	keys       []byte
}

var errDetached = errors.New("detached")

// run copies until the process ends its output, the client detaches, or ctx ends, and returns the shim's last word.
func (p *pump) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (*wire.Reply, error) {
	defer p.st.Close()
	defer context.AfterFunc(ctx, func() { p.st.Close() })()
	detached := make(chan struct{})
	if stdin != nil {
		go p.input(stdin, detached) // ends with the client's input or, after Close, at the next write
	}
	if p.tty || stderr == nil {
		stderr = stdout
	}
	last, err := p.st.Copy(stdout, stderr)
	select {
	case <-detached:
		return nil, errDetached
	default:
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if last == nil && errdef.Is(err, errdef.Unavailable) {
		return nil, nil // the shim ended after its container: the output is complete
	}
	return last, err
}

// input passes stdin on and looks for the detach keys, on a terminal only.
func (p *pump) input(stdin io.Reader, detached chan struct{}) {
	d := detector{keys: p.keys}
	buf := make([]byte, 32<<10)
	for {
		n, err := stdin.Read(buf)
		if n > 0 {
			data, hit := buf[:n], false
			if p.tty {
				data, hit = d.filter(data)
			}
			if len(data) > 0 {
				if _, werr := p.st.WriteStdin(data); werr != nil {
					return
				}
			}
			if hit {
				close(detached)
				p.st.Close()
				return
			}
		}
		if err != nil {
			if p.closeStdin {
				p.st.CloseStdin()
			}
			return
		}
	}
}

// detector finds the key sequence in a stream; a sequence begun and not ended is passed on late.
type detector struct {
	keys []byte
	seen int
}

func (d *detector) filter(in []byte) (out []byte, hit bool) {
	if len(d.keys) == 0 {
		return in, false
	}
	if d.seen == 0 && !bytes.Contains(in, d.keys[:1]) {
		return in, false
	}
	for _, b := range in {
		if b == d.keys[d.seen] {
			if d.seen++; d.seen == len(d.keys) {
				return out, true
			}
			continue
		}
		out = append(out, d.keys[:d.seen]...)
		d.seen = 0
		if b == d.keys[0] {
			d.seen = 1
			if len(d.keys) == 1 {
				return out, true
			}
			continue
		}
		out = append(out, b)
	}
	return out, false
}

// detachKeys reads Docker's notation: letters, or ctrl-X, separated by commas; empty is ctrl-p,ctrl-q.
func detachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte{16, 17}, nil
	}
	var out []byte
	for _, k := range bytes.Split([]byte(s), []byte(",")) {
		switch {
		case len(k) == 1:
			out = append(out, k[0])
		case len(k) == 6 && bytes.HasPrefix(k, []byte("ctrl-")):
			c := k[5]
			i := bytes.IndexByte([]byte("@abcdefghijklmnopqrstuvwxyz[\\]^_"), c)
			if i < 0 {
				return nil, errdef.New(errdef.InvalidArgument, "detach keys %q: unknown key %q", s, k)
			}
			out = append(out, byte(i))
		default:
			return nil, errdef.New(errdef.InvalidArgument, "detach keys %q: unknown key %q", s, k)
		}
	}
	return out, nil
}
