package files

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Changes implements api.Files. As in Docker, a folder shows when its attributes changed or when something in it shows, the root does
// not, and neither do the empty folders and files that every start makes to mount something on.
func (s *Service) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	rec, err := s.Containers.Record(ref)
	if err != nil {
		return nil, err
	}
	l := list{at: map[string]*item{}}
	if err := s.Snapshots.Changes(ctx, rec.ID, l.add); err != nil {
		return nil, err
	}
	return l.shown(), nil
}

type list struct {
	items []*item
	at    map[string]*item // folders that both sides have
}

type item struct {
	path    string
	kind    container.ChangeType
	show    bool
	touched bool  // a folder in which, so far, only the time of modification changed
	mtime   int64 // of such a folder, nanoseconds
	placed  int64 // when the last mount point was made in it
}

// mountPoint tells what the runtime makes in a root file system before it mounts there, besides what the user asked for.
func mountPoint(p string) bool {
	switch p {
	case "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf":
		return true
	}
	return false
}

func (l *list) add(c upper.Change) error {
	if c.Path == "" {
		return nil
	}
	i := &item{path: c.Path, kind: kinds[c.Kind], show: true}
	l.items = append(l.items, i)
	dir := path.Dir(c.Path)
	switch {
	case c.Below != nil && !c.Opaque:
		same, mtime, err := c.Untouched()
		if err != nil {
			return err
		}
		i.show, i.touched, i.mtime = !same, !mtime, c.Stat.Mtim.Nano()
		l.at[c.Path] = i
	case c.Kind == upper.Added && mountPoint(c.Path) && empty(c):
		i.show = false
		if c.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			l.at[c.Path] = i
		}
		if d := l.at[dir]; d != nil {
			d.placed = max(d.placed, c.Stat.Mtim.Nano())
		}
	case c.Kind == upper.Added && c.Stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		// The runtime makes /etc where an image has none.
		i.show = c.Path != "etc"
		i.touched, i.mtime = !i.show, c.Stat.Mtim.Nano()
		l.at[c.Path] = i
	}
	return nil
}

var kinds = map[upper.Kind]container.ChangeType{upper.Modified: container.ChangeModify, upper.Added: container.ChangeAdd, upper.Deleted: container.ChangeDelete}

func empty(c upper.Change) bool {
	k := c.Stat.Mode & unix.S_IFMT
	return k == unix.S_IFDIR || k == unix.S_IFREG && c.Stat.Size == 0
}

// slack is how much later than the mount point in it the clock of files may show that a folder changed.
const slack = 20e6

func (l *list) shown() []container.FilesystemChange {
	out := []container.FilesystemChange{}
	for _, i := range slices.Backward(l.items) { // what is in a folder comes behind it
		if i.touched && (i.placed == 0 || i.mtime > i.placed+slack) {
			i.show = true
		}
		if !i.show {
			continue
		}
		if d := l.at[path.Dir(i.path)]; d != nil {
			d.show = true
		}
		out = append(out, container.FilesystemChange{Kind: i.kind, Path: "/" + i.path})
	}
	slices.SortFunc(out, func(a, b container.FilesystemChange) int {
		return cmp.Compare(strings.ReplaceAll(a.Path, "/", "\x00"), strings.ReplaceAll(b.Path, "/", "\x00"))
	})
	return out
}
