package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/testkit/listing"
	"github.com/dhow-containers/dhow/internal/testkit/odd"
)

// hostLabel is an attribute of some files of odd images.
const hostLabel = `"security.other"="s" `

// TestOddChanges: what a container does at random to an odd image is in the layer that is made of it. Overlayfs tells the number of names of what
// was changed as the layers below have it, and labels of a host are no part of a layer; the rest is equal.
func TestOddChanges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts, device nodes, owners")
	}
	for _, form := range []string{layer.FormErofs, layer.FormDir, layer.FormVFS} {
		t.Run(form, func(t *testing.T) {
			m := odd.New(5)
			l, _ := oddImage(t, m, 3, 2000)
			layers, snaps := l.stores(t, form)
			root := prepared(t, snaps, "x", l.chain)
			change(t, root, rand.New(rand.NewPCG(1, 1)))
			want := list(t, root)
			var b bytes.Buffer
			if n, err := snaps.Layer(t.Context(), "x", &b); err != nil || n < 500 {
				t.Fatal(n, err)
			}
			id := digest.FromBytes(b.Bytes())
			if _, err := layers.Ingest(t.Context(), id, &b); err != nil {
				t.Fatal(err)
			}
			got := list(t, prepared(t, snaps, "y", append(l.chain[:len(l.chain):len(l.chain)], id)))
			for _, d := range listing.Compare(got, want) {
				if d.Field != listing.Links && d.Got != strings.TrimPrefix(d.Want, hostLabel) {
					t.Errorf("%.300s", d)
				}
			}
		})
	}
}

// prepared is where a new snapshot can be reached until the test ends.
func prepared(t *testing.T, s *Store, id string, chain []digest.Digest) string {
	t.Helper()
	if _, err := s.Prepare(t.Context(), id, chain); err != nil {
		t.Fatal(err)
	}
	root, err := s.Mount(id, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", root.Fd())
}

// change does something to most objects below root.
func change(t *testing.T, root string, r *rand.Rand) {
	t.Helper()
	for n, p := range list(t, root).Paths() {
		at := root + "/" + p
		var st unix.Stat_t
		if p == "." || unix.Lstat(at, &st) != nil {
			continue // gone with its folder
		}
		beside := filepath.Join(filepath.Dir(at), fmt.Sprint("new", n))
		file, dir := st.Mode&unix.S_IFMT == unix.S_IFREG, st.Mode&unix.S_IFMT == unix.S_IFDIR
		var err error
		switch k := r.IntN(12); {
		case k == 0:
			err = unix.Lchown(at, int(st.Uid), int(st.Gid)+1)
		case k == 1:
			err = os.RemoveAll(at)
		case k == 2:
			err = errors.Join(os.RemoveAll(at), os.Mkdir(at, 0o750), os.WriteFile(at+"/in", []byte("in"), 0o600))
		case k == 3 && !dir:
			err = os.Link(at, beside)
		case k == 4:
			err = unix.Lsetxattr(at, "trusted.new", []byte("v\x00"), 0)
		case k == 5 && file:
			err = os.Truncate(at, st.Size+5)
		case k == 6 && !dir:
			err = os.Rename(at, beside)
		case k == 7 && file:
			err = os.Truncate(at, st.Size/2)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
