package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
)

// Stat implements api.Files.
func (s *Service) Stat(ctx context.Context, ref, p string) (out container.PathStat, err error) {
	a, err := parse(p)
	if err != nil {
		return out, err
	}
	err = s.Containers.Look(ctx, ref, func(rec *api.Container, f *os.File) error {
		root := safepath.FromFile(f)
		h, st, err := a.open(root, rec)
		if err != nil {
			return err
		}
		defer h.Close()
		out = a.stat(root, st)
		return nil
	})
	return out, err
}

// Read implements api.Files.
func (s *Service) Read(ctx context.Context, ref, p string, begin func(container.PathStat) io.Writer) error {
	a, err := parse(p)
	if err != nil {
		return err
	}
	return s.Containers.Look(ctx, ref, func(rec *api.Container, f *os.File) error {
		root := safepath.FromFile(f)
		h, st, err := a.open(root, rec)
		if err != nil {
			return err
		}
		defer h.Close()
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return errdef.New(errdef.InvalidArgument, "%s in container %s is a socket, which a tar cannot hold", a.clean, rec.Name)
		}
		r := reader{w: pack.New(ctx, begin(a.stat(root, st))), path: a.clean, name: strings.TrimSuffix(a.name, "/")}
		if err := r.all(h, st, a.name); err != nil {
			return fmt.Errorf("copy %s out of container %s: %w", a.clean, rec.Name, err)
		}
		if err := r.w.Close(); err != nil {
			return err
		}
		s.Containers.Event(rec, false, p)
		return nil
	})
}

type reader struct {
	w          *pack.Writer
	path, name string // what is copied, in the container and in the tar
}

// all writes an object under a name and what is in it below that. The names of what is in the root begin with a slash, as Docker's do.
func (r reader) all(h *os.File, st unix.Stat_t, name string) error {
	if err := r.w.Add(name, h, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	if name == "/" {
		name = ""
	}
	return r.folder(h, uint64(st.Dev), name, 0)
}

func (r reader) folder(dir *os.File, dev uint64, name string, depth int) error {
	if depth > pack.MaxDepth {
		return errdef.New(errdef.InvalidArgument, "%.100q...: folders nested deeper than %d", name, pack.MaxDepth)
	}
	list, err := pack.Names(dir)
	if err != nil {
		return fmt.Errorf("read folder %s: %w", name, err)
	}
	for _, n := range list {
		if err := r.entry(dir, dev, name+"/"+n, n, depth); err != nil {
			return err
		}
	}
	return nil
}

func (r reader) entry(dir *os.File, dev uint64, name, base string, depth int) error {
	h, st, err := pack.Open(dir, base)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer h.Close()
	if uint64(st.Dev) != dev { // what the kernel mounted is not entered, nor are its single files read, nor is the /dev that we mounted
		kind, err := kernelFS(h)
		if err != nil {
			return err
		}
		if path.Join(r.path, name[len(r.name):]) == "/dev" {
			kind = "dev"
		}
		if kind != "" && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		if kind != "" {
			return r.w.Add(name, h, st)
		}
	}
	if err := r.w.Add(name, h, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return r.folder(h, uint64(st.Dev), name, depth+1)
}
