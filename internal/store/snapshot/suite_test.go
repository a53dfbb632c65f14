package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
	"github.com/dhow-containers/dhow/internal/testkit/disk"
)

// entry is one tar entry of a test: name, type and what matters for it.
type entry struct {
	name   string
	typ    byte // default: regular, or directory when the name ends in a slash
	mode   int64
	uid    int
	gid    int
	mtime  time.Time
	data   string
	link   string
	major  int64
	minor  int64
	xattrs map[string]string
}

var then = time.Unix(1700000000, 123456789)

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Mode: e.mode, Uid: e.uid, Gid: e.gid, ModTime: e.mtime, Size: int64(len(e.data)),
			Linkname: e.link, Devmajor: e.major, Devminor: e.minor, Format: tar.FormatPAX}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if h.ModTime.IsZero() {
			h.ModTime = then
		}
		if e.xattrs != nil {
			h.PAXRecords = map[string]string{}
			for k, v := range e.xattrs {
				h.PAXRecords["SCHILY.xattr."+k] = v
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMain lets the test binary be the process that unpacks.
func TestMain(m *testing.M) {
	jail.Main(os.Args, unpack.Trade())
	os.Exit(m.Run())
}

// world is a layer store and a snapshot store of one form.
type world struct {
	layers *layer.Store
	snaps  *Store
	dir    string
	flat   bool // containers have copies, not overlays
}

// forms runs f over every form, each in stores of its own. This is the shared suite's frame.
func forms(t *testing.T, f func(t *testing.T, w world)) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts, device nodes, owners")
	}
	for _, name := range layer.Forms() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name == layer.FormBtrfs {
				dir = disk.Mounted(t, "btrfs", 1024)
			}
			l, err := layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: name, Jail: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Usable(); err != nil {
				t.Skip(err)
			}
			s, err := Open(filepath.Join(dir, "snapshots"), l)
			if err != nil {
				t.Fatal(err)
			}
			f(t, world{l, s, dir, name == layer.FormBtrfs || name == layer.FormVFS})
		})
	}
}

func (w world) ingest(t testing.TB, tars ...[]byte) []digest.Digest {
	t.Helper()
	var chain []digest.Digest
	for _, b := range tars {
		id := digest.FromBytes(b)
		if _, err := w.layers.Ingest(context.Background(), id, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		chain = append(chain, id)
	}
	return chain
}

// show mounts the chain as a container would see it and describes every object.
func (w world) show(t testing.TB, tars ...[]byte) string {
	t.Helper()
	chain := w.ingest(t, tars...)
	if _, err := w.snaps.Prepare(context.Background(), "x", chain); err != nil {
		t.Fatal(err)
	}
	defer w.snaps.Remove(context.Background(), "x")
	m, err := w.snaps.Mount("x", false)
	if err != nil {
		t.Fatal(err)
	}
	r := safepath.FromFile(m)
	defer r.Close()
	return describe(t, r)
}

// describe lists a tree, one object a line: path type perm uid:gid time, then contents, link text or device, links, attributes.
func describe(t testing.TB, r *safepath.Root) string {
	t.Helper()
	var lines []string
	var walk func(p string)
	walk = func(p string) {
		lines = append(lines, describeOne(t, r, p))
		f, err := r.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return // no directory
		}
		names, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		sort.Strings(names)
		for _, n := range names {
			walk(p + "/" + n)
		}
	}
	walk(".")
	return strings.Join(lines, "\n")
}

func describeOne(t testing.TB, r *safepath.Root, p string) string {
	t.Helper()
	h, err := r.Handle(p, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil {
		t.Fatal(err)
	}
	what := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := r.ReadFile(p, 256<<20)
		if err != nil {
			t.Fatal(err)
		}
		if what = fmt.Sprintf("reg %d sha256:%x", st.Size, sha256.Sum256(b)); len(b) <= 40 {
			what = fmt.Sprintf("reg %d %q", st.Size, b)
		}
		if int64(len(b)) != st.Size {
			t.Errorf("%s: read %d bytes of %d", p, len(b), st.Size)
		}
	case unix.S_IFDIR:
		what = "dir"
	case unix.S_IFLNK:
		s, err := r.Readlink(p)
		if err != nil {
			t.Fatal(err)
		}
		what = "link " + s
	case unix.S_IFCHR:
		what = fmt.Sprintf("chr %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFBLK:
		what = fmt.Sprintf("blk %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		what = "fifo"
	}
	s := fmt.Sprintf("%s %04o %d:%d %d.%09d %s", p, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, what)
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" x%d", st.Nlink)
	}
	names, err := safepath.Listxattr(h)
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	for _, n := range names {
		v, err := safepath.Getxattr(h, n)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		s += fmt.Sprintf(" %s=%q", n, v)
	}
	return s
}

// same compares line by line; a dot as the time of an expected line stands for `then`.
func same(t *testing.T, got, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimSpace(want), " T ", fmt.Sprintf(" %d.%09d ", then.Unix(), then.Nanosecond()))
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	in := func(l string, ls []string) bool {
		for _, x := range ls {
			if x == l {
				return true
			}
		}
		return false
	}
	for _, l := range g {
		if !in(l, w) {
			t.Errorf("unexpected: %s", l)
		}
	}
	for _, l := range w {
		if !in(l, g) {
			t.Errorf("missing:    %s", l)
		}
	}
}
