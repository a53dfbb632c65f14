package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer/extract"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// most bounds what a copied tar becomes.
const most = 1 << 40

// Write implements api.Files. The tar is taken whole and looked through before the container is touched: who is slow holds nothing up,
// and what is broken, hostile or cut off changes nothing.
func (s *Service) Write(ctx context.Context, ref, p string, body io.Reader, o api.WriteOptions) error {
	a, err := parse(p)
	if err != nil {
		return err
	}
	err = s.Containers.Look(ctx, ref, func(rec *api.Container, f *os.File) error { return a.writable(safepath.FromFile(f), rec) })
	if err != nil {
		return err // before the body is sent, where the client waits for that
	}
	c, err := s.take(ctx, body)
	if err != nil {
		return err
	}
	defer c.data.Close()
	return s.Containers.Change(ctx, ref, func(rec *api.Container, f *os.File) error {
		// Who hangs up now leaves no half copy.
		if err := s.lay(context.WithoutCancel(ctx), a, rec, f, c, o); err != nil {
			return err
		}
		s.Containers.Event(rec, true, p)
		return nil
	})
}

// folderIn opens the folder that a tar goes into.
func (a asked) folderIn(root *safepath.Root, rec *api.Container) (*os.File, error) {
	a.folder = false
	h, err := root.Handle(a.clean, true)
	if err != nil {
		return nil, a.explain(rec, err)
	}
	st, err := safepath.Stat(h)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = errdef.New(errdef.InvalidArgument, "extraction point is not a directory")
	}
	if err == nil {
		err = ordinary(h, a.clean)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// writable says whether a tar could go there. A container that does not run is looked at through a read-only view: the record decides.
func (a asked) writable(root *safepath.Root, rec *api.Container) error {
	h, err := a.folderIn(root, rec)
	if err != nil {
		return err
	}
	defer h.Close()
	return a.notReadOnly(root, h, rec.HostConfig.ReadonlyRootfs || rec.State.Running)
}

// notReadOnly refuses a folder of a read-only mount, in Docker's words.
func (a asked) notReadOnly(root *safepath.Root, h *os.File, rootCounts bool) error {
	id, readonly, err := mountOf(h)
	if err != nil || !readonly {
		return err
	}
	top, _, err := mountOf(root.File())
	switch {
	case err != nil:
		return err
	case id != top:
		return errdef.New(errdef.Forbidden, "mounted volume is marked read-only")
	case rootCounts:
		return errdef.New(errdef.Forbidden, "container rootfs is marked read-only")
	}
	return nil
}

// lay extracts into a container's folder.
func (s *Service) lay(ctx context.Context, a asked, rec *api.Container, f *os.File, c *copied, o api.WriteOptions) error {
	in := safepath.FromFile(f)
	h, err := a.folderIn(in, rec)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := a.notReadOnly(in, h, true); err != nil {
		return err
	}
	how := extract.Options{KeepKinds: o.KeepKinds}
	if o.ToUser && rec.Config.User != "" {
		if how.Owner, err = userOf(f, rec); err != nil {
			return err
		}
	}
	t := extract.Target{Root: in, Dir: h, Path: follow(in, a.clean)}
	if s.Jail {
		err = jailed(ctx, t, c.data, c.names, how)
	} else {
		err = extract.Into(ctx, t, c.root, c.data, how)
	}
	if err != nil {
		return fmt.Errorf("copy into container %s: %w", rec.Name, err)
	}
	return nil
}

func userOf(f *os.File, rec *api.Container) (*extract.Owner, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("dup: %w", err)
	}
	r := rootfs.New(os.NewFile(uintptr(fd), f.Name()))
	defer r.Close()
	u, err := r.User(rec.Config.User, nil)
	return &extract.Owner{UID: u.UID, GID: u.GID}, err
}

// copied is a tar that was sent.
type copied struct {
	data  *os.File // uncompressed, nameless
	names int64
	root  *tree.Inode // without a jail, which reads it anew
}

// take stores a tar and reads what it says.
func (s *Service) take(ctx context.Context, body io.Reader) (_ *copied, err error) {
	c := &copied{}
	if c.data, err = atomicfile.Nameless(s.Spool, "tar"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.data.Close()
		}
	}()
	in, err := image.Inflate(&until{ctx, body}, most)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return c, tree.Roomy(s.Spool, func(t *tree.Table) error {
		p := tarindex.NewPlain(t, tarindex.Limits{Size: most})
		if _, err := io.CopyBuffer(io.MultiWriter(p, onlyWriter{c.data}), in, make([]byte, 256<<10)); err != nil {
			return bad(err)
		}
		if _, err := p.Finish(); err != nil {
			return bad(err)
		}
		if c.names = int64(t.Inodes()); !s.Jail {
			c.root = t.Tree()
		}
		return nil
	})
}

// onlyWriter keeps io.Copy from asking the file for more.
type onlyWriter struct{ io.Writer }

// bad is the error of a tar that cannot be used; what is damaged is the client's, not ours.
func bad(err error) error {
	if errdef.Is(err, errdef.DataLoss) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errdef.New(errdef.InvalidArgument, "the tar cannot be used: %w", err)
	}
	return err
}

// until is a reader that ends with a context.
type until struct {
	ctx context.Context
	r   io.Reader
}

func (u *until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
