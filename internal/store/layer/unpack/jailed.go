package unpack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Trade is what a program whose Unpacker has its Word gives to jail.Main.
func Trade() jail.Trade { return jail.Trade{Word: Word, Do: inside} }

// Word is the Word of Trade.
const Word = "unpack-in-jail"

// task is what the process is told besides. Its folders are what it unpacks into and, perhaps, what it copies from; its files the tree,
// perhaps the one that is there already, and the tars.
type task struct {
	Whiteouts, Old bool
	Common         int
}

// Memory is what a process may have to unpack trees that take so many bytes encoded; store/layer.TestMemoryOfUnpacking measures what it needs.
func Memory(encoded int64) int64 { return 128<<20 + 32*encoded }

// apart has a tree unpacked by a process that is locked in. It reads tars and folders through mounts that nothing can be changed by.
func (u Unpacker) apart(ctx context.Context, dest string, t *tree.Table, how How) error {
	j := jail.Job{Word: u.Word}
	defer func() {
		for _, f := range append(j.Folders, j.Files...) {
			f.Close()
		}
	}()
	folder := func(dir string, readonly bool) error {
		f, err := jail.Inert(dir, readonly)
		if err == nil {
			j.Folders = append(j.Folders, f)
		}
		return err
	}
	size := int64(0)
	encode := func(t *tree.Table) error {
		f, err := atomicfile.Nameless(filepath.Dir(dest), "tree")
		if err != nil {
			return err
		}
		j.Files = append(j.Files, f)
		if err := tree.EncodeChain(f, t); err != nil {
			return err
		}
		n, err := f.Seek(0, io.SeekCurrent)
		size += n
		return err
	}
	if err := folder(dest, false); err != nil {
		return err
	}
	if how.Folder != "" {
		if err := folder(how.Folder, true); err != nil {
			return err
		}
	}
	if err := encode(t); err != nil {
		return err
	}
	if how.Old != nil {
		if err := encode(how.Old); err != nil {
			return err
		}
	}
	if err := readOnly(u.Dir, how.Tars, &j.Files); err != nil {
		return err
	}
	j.Task, j.Memory = task{Whiteouts: how.Whiteouts, Old: how.Old != nil, Common: how.Common}, Memory(size)
	return j.Run(ctx)
}

// readOnly opens the tars once more, through a mount by which neither they nor their attributes can be changed.
func readOnly(dir string, t []*os.File, to *[]*os.File) error {
	if len(t) == 0 {
		return nil
	}
	m, err := jail.Inert(dir, true)
	if err != nil {
		return err
	}
	r := safepath.FromFile(m)
	defer r.Close()
	for _, f := range t {
		in, ok := strings.CutPrefix(f.Name(), dir+"/")
		if !ok {
			return fmt.Errorf("%s: not in %s", f.Name(), dir)
		}
		c, err := r.Open(in, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		*to = append(*to, c)
	}
	return nil
}

// inside is what the process does.
func inside(w jail.Work) error {
	var k task
	if err := json.Unmarshal(w.Task, &k); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	files := w.Files
	next := func() (*tree.Inode, error) {
		f := files[0]
		files = files[1:]
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		b := make([]byte, st.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			return nil, err
		}
		return tree.DecodeChain(b)
	}
	root, err := next()
	if err != nil {
		return err
	}
	u := &unpacker{root: safepath.FromFile(w.Folders[0]), whiteouts: k.Whiteouts, common: k.Common}
	if k.Old {
		if u.old, err = next(); err != nil {
			return err
		}
	}
	u.from = tars(files)
	if len(w.Folders) > 1 {
		u.from = folder{safepath.FromFile(w.Folders[1])}
	}
	return u.all(root)
}
