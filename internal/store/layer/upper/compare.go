package upper

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
)

// Compare is Walk for a root file system that is a copy of low and not a layer over it. What was touched after since is told as Modified,
// and so is what differs otherwise (a clock may have been set back); a folder also when something in it is told.
func Compare(ctx context.Context, up, low *os.File, since unix.Timespec, f func(Change) error) error {
	c := &comparison{ctx: ctx, f: f, since: since}
	st, err := safepath.Stat(up)
	if err != nil {
		return err
	}
	return c.folder(Change{Kind: Modified, File: up, Stat: st, Below: low}, 0)
}

type comparison struct {
	ctx     context.Context
	f       func(Change) error
	since   unix.Timespec
	pending []Change // folders on the way down that are not told yet
}

func (c *comparison) tell(ch Change) error {
	for _, p := range c.pending {
		if err := c.f(p); err != nil {
			return err
		}
	}
	c.pending = c.pending[:0]
	return c.f(ch)
}

// folder compares a folder that both have.
func (c *comparison) folder(ch Change, depth int) error {
	if depth > pack.MaxDepth {
		return errdef.New(errdef.InvalidArgument, "%.100q...: folders nested deeper than %d", ch.Path, pack.MaxDepth)
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	same, err := sameFolder(ch.File, ch.Below, ch.Stat)
	if err != nil {
		return err
	}
	if same {
		c.pending = append(c.pending, ch)
	} else if err := c.tell(ch); err != nil {
		return err
	}
	have, err := pack.Names(ch.File)
	if err != nil {
		return fmt.Errorf("read folder /%s: %w", ch.Path, err)
	}
	had, err := pack.Names(ch.Below)
	if err != nil {
		return fmt.Errorf("read folder /%s of the layers: %w", ch.Path, err)
	}
	for len(have)+len(had) > 0 { // both in byte order
		switch {
		case len(had) == 0 || len(have) > 0 && have[0] <= had[0]:
			below := ch.Below
			if len(had) > 0 && have[0] == had[0] {
				had = had[1:]
			} else {
				below = nil
			}
			if err := c.entry(ch.File, below, ch.Path, have[0], depth); err != nil {
				return err
			}
			have = have[1:]
		default:
			if err := c.tell(Change{Kind: Deleted, Path: pack.Join(ch.Path, had[0])}); err != nil {
				return err
			}
			had = had[1:]
		}
	}
	if n := len(c.pending); same && n > 0 {
		c.pending = c.pending[:n-1]
	}
	return nil
}

// entry compares an object with what low has under its name; nil: nothing.
func (c *comparison) entry(up, low *os.File, dir, name string, depth int) error {
	ch := Change{Kind: Added, Path: pack.Join(dir, name)}
	var err error
	if ch.File, ch.Stat, err = pack.Open(up, name); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return fmt.Errorf("open /%s: %w", ch.Path, err)
	}
	defer ch.File.Close()
	if low == nil {
		return c.fresh(ch, depth)
	}
	ch.Kind = Modified
	old, ost, err := pack.Open(low, name)
	if err != nil {
		return fmt.Errorf("open /%s of the layers: %w", ch.Path, err)
	}
	defer old.Close()
	isDir := ch.Stat.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir && ost.Mode&unix.S_IFMT == unix.S_IFDIR:
		ch.Below = old
		return c.folder(ch, depth+1)
	case isDir:
		return c.fresh(ch, depth)
	}
	if !after(ch.Stat.Ctim, c.since) && ch.Stat.Mtim == ost.Mtim && ch.Stat.Size == ost.Size && ch.Stat.Rdev == ost.Rdev {
		if same, err := sameButTime(ch.File, old, ch.Stat, ost); err != nil || same {
			return err
		}
	}
	return c.tell(ch)
}

// fresh tells of an object that low does not have, and of what is in it.
func (c *comparison) fresh(ch Change, depth int) error {
	if err := c.tell(ch); err != nil || ch.Stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	w := &walk{ctx: c.ctx, f: c.f, attr: make([]byte, safepath.MaxXattr)}
	return w.dir(ch.File, nil, ch.Path, false, depth+1)
}

func after(a, b unix.Timespec) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }
