package upper

import (
	"cmp"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Shown picks among the changes of a container's writable layer those that somebody made on purpose: a folder counts when its attributes
// changed or when something in it counts; the empty folders and files that every start makes to mount something on do not. It takes what Walk tells, in that order.
type Shown struct {
	items []*item
	at    map[string]*item // folders that both sides have
}

type item struct {
	path    string
	kind    Kind
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

// Add takes one change.
func (l *Shown) Add(c Change) error {
	if l.at == nil {
		l.at = map[string]*item{}
	}
	i := &item{path: c.Path, kind: c.Kind, show: true}
	l.items = append(l.items, i)
	dir := path.Dir(c.Path)
	switch {
	case c.Below != nil && !c.Opaque:
		same, mtime, err := c.Untouched()
		if err != nil {
			return err
		}
		i.show, i.touched, i.mtime = !same, !mtime, c.Stat.Mtim.Nano()
		l.at[cmp.Or(c.Path, ".")] = i // as path.Dir calls the root
	case c.Kind == Added && mountPoint(c.Path) && empty(c):
		i.show = false
		if c.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			l.at[c.Path] = i
		}
		if d := l.at[dir]; d != nil {
			d.placed = max(d.placed, c.Stat.Mtim.Nano())
		}
	case c.Kind == Added && c.Stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		// The runtime makes /etc where an image has none.
		i.show = c.Path != "etc"
		i.touched, i.mtime = !i.show, c.Stat.Mtim.Nano()
		l.at[c.Path] = i
	}
	return nil
}

func empty(c Change) bool {
	k := c.Stat.Mode & unix.S_IFMT
	return k == unix.S_IFDIR || k == unix.S_IFREG && c.Stat.Size == 0
}

// slack is how much later than the mount point in it the clock of files may show that a folder changed.
const slack = 20e6

// Each calls f with every change, folders behind what is in them, and tells whether it counts.
func (l *Shown) Each(f func(path string, kind Kind, counts bool)) {
	for _, i := range slices.Backward(l.items) { // what is in a folder comes behind it
		if i.touched && (i.placed == 0 || i.mtime > i.placed+slack) {
			i.show = true
		}
		if d := l.at[path.Dir(i.path)]; d != nil && i.show && i.path != "" {
			d.show = true
		}
		f(i.path, i.kind, i.show)
	}
}
