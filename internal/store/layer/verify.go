package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/ctxio"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Damage is one file of the store that is not what it should be.
type Damage struct {
	Path, What string
	Tar        bool // the tar itself: only the same bytes from elsewhere help (Replace); all else follows from it (Mend)
}

// Dir is the folder of a layer.
func Dir(s *Store, id digest.Digest) string { return s.path(id) }

// MergedDir is the folder of what Merge keeps of a chain.
func MergedDir(s *Store, id digest.Digest) string { return s.mergedPath(id) }

// Tree is what a layer's tar says.
func Tree(s *Store, id digest.Digest) (*tree.Inode, error) {
	if err := check(id); err != nil {
		return nil, err
	}
	return s.tree(id)
}

// derived is what a tar says, read anew.
type derived struct {
	info Info
	root *tree.Table
	tree []byte
}

// Verify reads a layer through: the tar against its name, what is kept beside it against what the tar says. An absent layer has one
// damage, its tar.
func Verify(ctx context.Context, s *Store, id digest.Digest) ([]Damage, error) {
	if err := check(id); err != nil {
		return nil, err
	}
	d, bad, err := derive(ctx, s, id)
	if err != nil || bad != nil {
		return bad, err
	}
	add := func(name, what string) { bad = append(bad, Damage{Path: s.path(id, name), What: what}) }
	if have, err := s.Info(id); err != nil {
		add(infoFile, err.Error())
	} else if have != d.info {
		add(infoFile, "it does not describe the tar")
	}
	if have, err := readFile(s.path(id, treeFile), int64(len(d.tree))+1); err != nil {
		add(treeFile, err.Error())
	} else if !bytes.Equal(have, d.tree) {
		add(treeFile, "it is not what the tar says")
	}
	switch what, err := s.form.verify(s.path(id, s.form.beside()), d); { // a form that is not there yet is made when it is wanted
	case err != nil:
		return bad, err
	case what != "":
		add(s.form.beside(), what)
	}
	return bad, nil
}

// derive reads the tar. bad is set when it is not the one that id names.
func derive(ctx context.Context, s *Store, id digest.Digest) (d derived, bad []Damage, err error) {
	path := s.path(id, tarFile)
	spoilt := func(format string, args ...any) (derived, []Damage, error) {
		return d, []Damage{{Path: path, What: fmt.Sprintf(format, args...), Tar: true}}, nil
	}
	f, err := atomicfile.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return spoilt("it is missing")
	case errors.Is(err, atomicfile.ErrIrregular):
		return spoilt("%v", atomicfile.ErrIrregular)
	case errors.Is(err, unix.ENOTDIR):
		return spoilt("a file is in the place of its folder")
	case err != nil:
		return d, nil, err
	}
	defer f.Close()
	defer unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // others' files are in the page cache for a reason
	st, err := f.Stat()
	if err != nil {
		return d, nil, err
	}
	size := st.Size()
	if have, err := s.Info(id); err == nil && size-have.Size >= 0 && size-have.Size < 512 {
		size = have.Size // the rest pads the last block
	}
	p, h := tarindex.New(s.limits), sha256.New()
	n, err := io.Copy(io.MultiWriter(h, &parsing{p: p}), ctxio.Reader(ctx, io.LimitReader(f, size)))
	if ctx.Err() != nil {
		return d, nil, ctx.Err()
	}
	switch got := digest.NewDigest(digest.SHA256, h); {
	case err != nil: // an unreadable sector among them
		return spoilt("%v", err)
	case got != id:
		return spoilt("its %d bytes have the digest %s", n, got)
	}
	if d.root, err = p.Finish(); err != nil {
		return spoilt("%v", err)
	}
	d.info = Info{DiffID: id, Size: size, Entries: p.Entries(), Foreign: p.Foreign(), Implicit: d.root.Implicit()}
	var b bytes.Buffer
	if err := d.root.Encode(&b); err != nil {
		return d, nil, err
	}
	d.tree = b.Bytes()
	return d, nil, nil
}

// sound is derive for those who need the tar to be right; DataLoss otherwise.
func sound(ctx context.Context, s *Store, id digest.Digest) (derived, error) {
	d, bad, err := derive(ctx, s, id)
	if err == nil && len(bad) > 0 {
		err = errdef.New(errdef.DataLoss, "layer %s: %s: %s; dhow system check --repair fetches it again", id, tarFile, bad[0].What)
	}
	return d, err
}

// parsing feeds a parser, whose first error is its own to keep: the digest is to be known all the same.
type parsing struct{ p *tarindex.Parser }

func (w *parsing) Write(b []byte) (int, error) {
	w.p.Write(b)
	return len(b), nil
}

// sameImage writes an index over the one on disk, as it were, and says where they part.
func sameImage(path string, t *tree.Table, devices []erofs.Device) (what string, err error) {
	f, err := atomicfile.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it is missing", nil
	case errors.Is(err, atomicfile.ErrIrregular):
		return atomicfile.ErrIrregular.Error(), nil
	case err != nil:
		return "", err
	}
	defer f.Close()
	c := &comparing{f: f}
	if _, err := erofs.WriteTable(c, t, devices); err != nil && !errors.Is(err, errDiffers) {
		return "", err
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 && !c.differs {
		return "it goes on behind its end", nil
	}
	if c.differs {
		return fmt.Sprintf("it is not what the tar says, from byte %d on", c.off), nil
	}
	return "", nil
}

var errDiffers = errors.New("differs")

// comparing is a writer for bytes that a file should hold already.
type comparing struct {
	f       *os.File
	buf     []byte
	off     int64
	differs bool
}

func (c *comparing) Write(b []byte) (int, error) {
	c.buf = append(c.buf[:0], b...)
	n, _ := io.ReadFull(c.f, c.buf)
	for i := range n {
		if c.buf[i] != b[i] {
			n = i
			break
		}
	}
	c.off += int64(n)
	if n < len(b) {
		c.differs = true
		return n, errDiffers
	}
	return n, nil
}

// Mend makes everything of a layer but its tar anew. A mount of what it replaces keeps the damaged file until it goes. A folder is taken
// away and made when it is wanted next, so nothing may be mounted over it.
func Mend(ctx context.Context, s *Store, id digest.Digest) error {
	d, bad, err := derive(ctx, s, id)
	if err != nil {
		return fmt.Errorf("mend layer %s: %w", id, err)
	}
	if bad != nil {
		return fmt.Errorf("mend layer %s: %s: %s", id, tarFile, bad[0].What)
	}
	dir, drop, err := s.stage("mend")
	if err != nil {
		return err
	}
	defer drop()
	tar, err := s.OpenTar(id)
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := beside(ctx, s, dir, d.root, tar, d.info); err != nil {
		return fmt.Errorf("mend layer %s: %w", id, err)
	}
	for _, n := range []string{treeFile, s.form.beside(), infoFile} {
		if n == "" {
			continue
		}
		flags := uint(0)
		if _, err := os.Lstat(s.path(id, n)); err == nil {
			flags = unix.RENAME_EXCHANGE // also of folders; what was there goes with the stage
		}
		if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, n), unix.AT_FDCWD, s.path(id, n), flags); err != nil {
			return fmt.Errorf("mend layer %s: rename %s: %w", id, n, err)
		}
	}
	return atomicfile.SyncDir(s.path(id))
}

// Replace takes a layer anew from r, as Ingest does, and puts it in the place of what has its name. That vanishes only when the new one
// is whole; mounts of it keep it until they go.
func Replace(ctx context.Context, s *Store, id digest.Digest, r io.Reader) error {
	if err := check(id); err != nil {
		return err
	}
	dir, drop, err := s.stage("replace")
	if err != nil {
		return err
	}
	defer drop()
	fresh, err := Open(dir, Options{Form: s.form.name(), Limits: s.limits, Jail: s.unpack.Word != ""})
	if err != nil {
		return err
	}
	if _, err := fresh.Ingest(ctx, id, r); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, fresh.path(id), unix.AT_FDCWD, s.path(id), unix.RENAME_EXCHANGE)
	if err == unix.ENOENT {
		err = unix.Renameat2(unix.AT_FDCWD, fresh.path(id), unix.AT_FDCWD, s.path(id), unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return fmt.Errorf("replace layer %s: %w", id, err)
	}
	return atomicfile.SyncDir(filepath.Dir(s.path(id)))
}

// VerifyMerged compares what Merge has kept of a chain with its layers, which must be sound. What is absent is made when it is wanted.
func VerifyMerged(s *Store, id digest.Digest) ([]Damage, error) {
	var i mergedInfo
	err := readJSON(s.mergedPath(id, infoFile), &i)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(s.mergedPath(id)); err == nil {
			return []Damage{{Path: s.mergedPath(id, infoFile), What: "it is missing"}}, nil
		}
		return nil, nil
	}
	if err == nil && (ChainID(i.Chain) != id || i.Form != s.kind) {
		err = errors.New("it is of another chain")
	}
	if err != nil {
		return []Damage{{Path: s.mergedPath(id, infoFile), What: err.Error()}}, nil
	}
	l, err := lay(s, tree.NewTable(), i.Chain, nil)
	if err != nil {
		return nil, err
	}
	l.info.Fix = i.Fix
	if !reflect.DeepEqual(l.info, i) {
		return []Damage{{Path: s.mergedPath(id, infoFile), What: "it does not fit the layers"}}, nil
	}
	file, what, err := s.form.verifyChain(s.mergedPath(id), l)
	if err != nil || what == "" {
		return nil, err
	}
	return []Damage{{Path: file, What: what}}, nil
}
