package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/testkit/disk"
	"github.com/dhow-containers/dhow/internal/testkit/listing"
	"github.com/dhow-containers/dhow/internal/testkit/odd"
)

// exception is where a peer is known to see something else than a container does, and why the container is right. Sentences in quotes are of
// the image specification, layer.md.
type exception struct {
	peer, why string
	fields    []int
	reason    string
}

var exceptions = []exception{
	{"tar", odd.Unlisted, []int{listing.Time, listing.Mode, listing.Owner}, "it makes folders that no layer lists of the day, and of the group that the one above hands down; ours are root's, and of 1970"},
	{"tar", odd.ListedLate, []int{listing.Mode, listing.Time}, "it keeps some of the permissions that it gave such a folder before"},
	{"tar", odd.Replaced, []int{listing.Kind, listing.Mode, listing.Owner, listing.Time, listing.Attrs},
		"\"removing the file path\"; it takes no folder away that has something in it, and what takes the place of another gets that one's attributes in the end"},
	{"tar", odd.FewerXattrs, []int{listing.Attrs}, "\"the existing path's attributes MUST be replaced\"; it leaves those that the entry does not have"},
	{"tar", odd.Through, []int{listing.Kind, listing.Time}, "it looks at all layers at once; for engines, and overlayfs, a path is one of the layer's own"},
	{"tar", odd.LinksOut, []int{listing.Time}, "it makes such links in the end, and forgets then what time some folders have"},
	{"tar", odd.Overlay, []int{listing.Attrs}, "attributes of overlayfs steer a mount, they do not describe a file"},
	{"export", odd.HostLabel, []int{listing.Attrs}, "labels that security modules give are a host's own"},
	{"umoci", odd.Unlisted, []int{listing.Time, listing.Mode, listing.Owner}, "it makes folders that no layer lists of the day, and of the group that the one above hands down; ours are root's, and of 1970"},
	{"umoci", odd.Through, []int{listing.Kind, listing.Time}, "it looks at all layers at once; for engines, and overlayfs, a path is one of the layer's own"},
	{"umoci", odd.LateIn, []int{listing.Time}, "it takes the time back of the folder that an entry is in, not of those above that"},
	{"umoci", odd.Overlay, []int{listing.Attrs}, "attributes of overlayfs steer a mount, they do not describe a file"},
	{"umoci", odd.HidesIn, []int{listing.Time}, "the layer says nothing of the folder; it keeps its time when something is put there, not when something is hidden"},
	{"umoci", odd.EmptyXattr, []int{listing.Attrs}, "GNU tar writes, and reads, attributes without a value; archive/tar drops them"},
	{"umoci", odd.Far, []int{listing.Time}, "it counts nanoseconds in 64 bits, which end in 2262"},
}

// TestAgainstPeers: a container sees, object by object and attribute by attribute, what umoci unpacks of an image, and what GNU tar does, of its
// layers and of its export; the exceptions have names. 8,000 entries in four layers in every form, 149,000 in ten in the default form. With DHOW_DIFFER=all those too are
// looked at in every form, and ten other images of 8,000.
func TestAgainstPeers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts, device nodes, owners")
	}
	all := os.Getenv("DHOW_DIFFER") == "all"
	t.Run("8000", func(t *testing.T) { against(t, 1, 4, 8000, layer.Forms()) })
	t.Run("149000", func(t *testing.T) {
		forms := layer.Forms()
		if !all {
			forms = []string{layer.FormErofs}
		}
		against(t, 1, 10, 149000, forms)
	})
	for seed := uint64(2); all && seed < 12; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { against(t, seed, 4, 8000, layer.Forms()) })
	}
}

// against compares what the forms show of an image with what the peers unpack.
func against(t *testing.T, seed uint64, layers, entries int, forms []string) {
	m := odd.New(seed)
	l, u := oddImage(t, m, layers, entries)
	looks := map[string]func(*testing.T) listing.Tree{"umoci": u.unpackedByUmoci, "tar": l.unpackedByTar}
	for _, form := range forms {
		looks[form] = func(t *testing.T) listing.Tree {
			_, snaps := l.stores(t, form)
			return list(t, prepared(t, snaps, "x", l.chain))
		}
	}
	if entries < 100_000 {
		looks["export"] = func(t *testing.T) listing.Tree { return exported(t, l) }
	}
	trees := look(t, looks)
	for _, form := range forms {
		got, ok := trees[form]
		if !ok {
			continue // skipped
		}
		if want := m.Paths(); !slices.Equal(got.Paths(), want) || m.Entries < entries {
			t.Errorf("%s: %d objects are seen of %d, in %d entries", form, len(got), len(want), m.Entries)
		}
		for _, peer := range []string{"umoci", "tar", "export"} {
			if want, ok := trees[peer]; ok {
				agree(t, form, got, peer, want, m.Notes)
			}
		}
	}
}

// look runs several looks at an image at the same time.
func look(t *testing.T, looks map[string]func(*testing.T) listing.Tree) map[string]listing.Tree {
	trees := map[string]listing.Tree{}
	var mu sync.Mutex
	t.Run("look", func(t *testing.T) {
		for name, look := range looks {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tree := look(t)
				mu.Lock()
				defer mu.Unlock()
				trees[name] = tree
			})
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return trees
}

// stores are a layer store that has the image's layers, and a snapshot store over it.
func (l *layout) stores(t *testing.T, form string) (*layer.Store, *Store) {
	t.Helper()
	dir := t.TempDir()
	switch form {
	case layer.FormErofs:
	case layer.FormBtrfs:
		dir = disk.Mounted(t, "btrfs", 4096)
	default:
		dir = disk.Tmpfs(t) // holds times that ext4 cannot
	}
	layers, err := layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: form})
	if err != nil {
		t.Fatal(err)
	}
	if err := layers.Usable(); err != nil {
		t.Skip(err)
	}
	snaps, err := Open(filepath.Join(dir, "snapshots"), layers)
	if err != nil {
		t.Fatal(err)
	}
	l.ingest(t, layers)
	return layers, snaps
}

// agree fails the test where a container sees something else than a peer, but for the exceptions, and where of a large image an exception is none
// any more.
func agree(t *testing.T, form string, got listing.Tree, peer string, want listing.Tree, notes map[string][]string) {
	t.Helper()
	used, bad := map[string]int{}, 0
next:
	for _, d := range listing.Compare(got, want) {
		for _, e := range exceptions {
			for _, why := range notes[d.Path] {
				if e.peer == peer && e.why == why && slices.Contains(e.fields, d.Field) {
					used[why]++
					continue next
				}
			}
		}
		if bad++; bad <= 30 {
			t.Errorf("%s, %s: a container sees %s %s", form, peer, d, strings.Join(notes[d.Path], "; "))
		}
	}
	if bad > 0 {
		t.Errorf("%s, %s: %d differences in %d objects", form, peer, bad, len(want))
	}
	for _, e := range exceptions {
		if e.peer == peer && used[e.why] == 0 && bad == 0 && len(want) > 100_000 {
			t.Errorf("%s: %s: there is no difference any more", peer, e.why)
		}
	}
}
