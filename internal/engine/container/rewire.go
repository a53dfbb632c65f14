package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// Rewiring is a change of the networks that a container is on.
type Rewiring struct {
	// Ask changes the record: what later starts connect. An error changes nothing.
	Ask func(rec *api.Container) error
	// Act carries it out in a running container and fills in rec.State; pid is a process of it. On an error the container is as it was.
	Act func(ctx context.Context, rec *api.Container, pid int) (NameFiles, error)
}

// NameFiles are a container's /etc/hosts and /etc/resolv.conf before and after a change.
type NameFiles struct{ Hosts, Resolv [2][]byte }

// Rewirer changes networks of containers that exist.
type Rewirer struct{ *core }

// NewRewirer changes the networks of the containers of s.
func NewRewirer(s *Service) *Rewirer { return &Rewirer{s.core} }

// Change makes w durable, carries it out when the container runs, and returns the container's ID. What was asked is on disk before
// the kernel is touched, so that whatever a crash leaves can be disconnected, and the next start makes it whole.
func (s *Rewirer) Change(ctx context.Context, ref string, w Rewiring) (string, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return "", err
	}
	if err := u.lock(ctx); err != nil {
		return "", err
	}
	defer u.unlock()
	if u.gone() {
		return "", errdef.New(errdef.Conflict, "container %s is marked for removal and cannot be connected or disconnected", u.id)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout) // a client that hangs up leaves no half change
	defer cancel()
	old, rec := u.rec.Load(), u.change()
	if err := w.Ask(rec); err != nil {
		return "", err
	}
	if err := s.save(u, rec); err != nil {
		return "", err
	}
	pid := s.pid(ctx, u)
	if pid == 0 {
		return u.id, nil
	}
	rec = u.change()
	files, err := w.Act(ctx, rec, pid)
	if err != nil {
		s.note(u, old)
		return "", err
	}
	s.note(u, rec)
	if err := s.rewrite(u.id, files); err != nil {
		s.Log.Warn("the container's files do not follow its networks before its next start", "container", u.id, "err", err)
	}
	return u.id, nil
}

// pid is the container's first process, asked of its shim, because a number that is only remembered may be somebody else's by now;
// 0 when there is none.
func (s *Rewirer) pid(ctx context.Context, u *unit) int {
	r, err := u.current()
	if err != nil {
		return 0
	}
	st, err := r.shim.State(ctx)
	if err != nil || st.Status != "running" && st.Status != "paused" {
		return 0 // it ends, and whoever watches it records that
	}
	return st.Pid
}

// rewrite brings hosts and resolv.conf up to date, each unless the container has changed it.
func (s *Rewirer) rewrite(id string, f NameFiles) error {
	dir := s.stateDir(id)
	return errors.Join(replace(filepath.Join(dir, hostsFile), f.Hosts), replace(filepath.Join(dir, "resolv.conf"), f.Resolv))
}

// replace writes content[1] over content[0]. It is the same file before and after, since it is mounted in the container.
func replace(path string, content [2][]byte) error {
	if bytes.Equal(content[0], content[1]) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	have, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return err
	}
	if !bytes.Equal(have, content[0]) {
		return fmt.Errorf("%s was changed and stays as it is", path)
	}
	if _, err := f.WriteAt(content[1], 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content[1])))
}
