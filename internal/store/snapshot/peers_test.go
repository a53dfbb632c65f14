package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
	"github.com/dhow-containers/dhow/internal/testkit/disk"
	"github.com/dhow-containers/dhow/internal/testkit/listing"
	"github.com/dhow-containers/dhow/internal/testkit/odd"
)

// layout is an image of uncompressed layers as an OCI layout, for other people's tools.
type layout struct {
	dir    string
	chain  []digest.Digest
	layers []v1.Descriptor
}

func (l *layout) blob(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", d.Encoded())
}

// blobWriter writes a blob, whose name comes in the end.
type blobWriter struct {
	io.Writer
	f   *os.File
	sum hash.Hash
}

func (l *layout) begin(t *testing.T) *blobWriter {
	t.Helper()
	f, err := os.CreateTemp(l.dir, "blob")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	return &blobWriter{io.MultiWriter(f, sum), f, sum}
}

func (l *layout) end(t *testing.T, b *blobWriter, mediaType string) v1.Descriptor {
	t.Helper()
	d := digest.NewDigest(digest.SHA256, b.sum)
	st, err := b.f.Stat()
	if err == nil {
		err = errors.Join(b.f.Close(), os.Rename(b.f.Name(), l.blob(d)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: st.Size()}
}

// oddImage writes an odd image of so many layers and entries, and the same for umoci.
func oddImage(t *testing.T, m *odd.Maker, layers, entries int) (own, umoci *layout) {
	t.Helper()
	both := []*layout{{dir: t.TempDir()}, {dir: t.TempDir()}}
	for _, l := range both {
		if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range layers {
		a, b := both[0].begin(t), both[1].begin(t)
		if err := m.Layer(a, b, entries/layers); err != nil {
			t.Fatal(err)
		}
		for n, w := range []*blobWriter{a, b} {
			l := both[n]
			l.layers = append(l.layers, l.end(t, w, v1.MediaTypeImageLayer))
			l.chain = append(l.chain, l.layers[len(l.layers)-1].Digest)
		}
	}
	both[1].describe(t)
	return both[0], both[1]
}

// describe writes the documents of an image.
func (l *layout) describe(t *testing.T) {
	t.Helper()
	document := func(mediaType string, v any) v1.Descriptor {
		w := l.begin(t)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Fatal(err)
		}
		return l.end(t, w, mediaType)
	}
	config := v1.Image{Platform: v1.Platform{Architecture: "amd64", OS: "linux"}, RootFS: v1.RootFS{Type: "layers", DiffIDs: l.chain}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: l.layers, Config: document(v1.MediaTypeImageConfig, config)}
	top := document(v1.MediaTypeImageManifest, manifest)
	top.Annotations = map[string]string{v1.AnnotationRefName: "t"}
	for name, v := range map[string]any{"index.json": v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{top}}, "oci-layout": v1.ImageLayout{Version: "1.0.0"}} {
		d := document("", v)
		if err := os.Rename(l.blob(d.Digest), filepath.Join(l.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func (l *layout) ingest(t *testing.T, to *layer.Store) {
	t.Helper()
	for _, d := range l.chain {
		f, err := os.Open(l.blob(d))
		if err == nil {
			_, err = to.Ingest(context.Background(), d, f)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// unpackedByUmoci is what umoci makes of the image. A tmpfs holds every time, owner and attribute that there is.
func (l *layout) unpackedByUmoci(t *testing.T) listing.Tree {
	program, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("no umoci")
	}
	root := filepath.Join(disk.Tmpfs(t), "root")
	if out, err := exec.Command(program, "raw", "unpack", "--image", l.dir+":t", root).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v: %.4000s", err, out)
	}
	return list(t, root)
}

// unpackedByTar is what GNU tar makes of the layers, with the rules of the image specification (layer.md, "Applying Changesets") around it.
func (l *layout) unpackedByTar(t *testing.T) listing.Tree {
	program, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar")
	}
	s := script{t: t, root: filepath.Join(disk.Tmpfs(t), "root"), times: map[string]unix.Timespec{}}
	if err := os.Mkdir(s.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range l.chain {
		folders := s.before(l.blob(d))
		cmd := exec.Command(program, "--extract", "--file", l.blob(d), "--directory", s.root, "--exclude", ".wh.*", "--numeric-owner", "--same-owner", "--same-permissions",
			"--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--warning=no-timestamp")
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		// 2: some entries could not be extracted. Which ones, the comparison finds.
		if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 2 {
			t.Fatalf("tar: %v: %.4000s", err, out)
		} else if err != nil {
			t.Logf("tar: %.1000s", out)
		}
		s.after(folders)
	}
	for dir, at := range s.times {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue // hidden or replaced later
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
	return list(t, s.root)
}

// exported is what GNU tar unpacks of an export.
func exported(t *testing.T, l *layout) listing.Tree {
	_, snaps := l.stores(t, layer.FormErofs)
	from, err := os.Open(prepared(t, snaps, "x", l.chain))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	root := filepath.Join(disk.Tmpfs(t), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--extract", "--directory", root, "--numeric-owner", "--same-owner", "--same-permissions", "--xattrs", "--xattrs-include=*",
		"--delay-directory-restore", "--warning=no-timestamp")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, append(os.Environ(), "LC_ALL=C")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	err = errors.Join(pack.Tree(t.Context(), from, in), in.Close())
	if werr := cmd.Wait(); err != nil || werr != nil {
		t.Fatalf("%v; tar: %v: %.4000s", err, werr, &out)
	}
	return list(t, root)
}

// script does what stands around tar.
type script struct {
	t     *testing.T
	root  string
	times map[string]unix.Timespec // of folders, as tar set them last: whiteouts and later layers change them
}

// before takes away what a layer hides or replaces, and returns the folders that it lists.
func (s *script) before(blob string) (folders []string) {
	f, err := os.Open(blob)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return folders
		}
		if err != nil {
			s.t.Fatal(err)
		}
		p := path.Join(s.root, path.Clean("/"+h.Name))
		hidden, whiteout := strings.CutPrefix(path.Base(p), ".wh.")
		switch {
		case hidden == ".wh..opq":
			list, _ := os.ReadDir(path.Dir(p))
			for _, e := range list {
				s.remove(path.Join(path.Dir(p), e.Name()))
			}
		case whiteout:
			s.remove(path.Join(path.Dir(p), hidden))
		case h.Typeflag == tar.TypeDir:
			folders = append(folders, p)
		default:
			if st, err := os.Lstat(p); err == nil && st.IsDir() {
				s.remove(p)
			}
		}
	}
}

func (s *script) remove(p string) {
	if err := os.RemoveAll(p); err != nil {
		s.t.Fatal(err)
	}
}

// after notes the times of the folders that a layer lists.
func (s *script) after(folders []string) {
	slices.Sort(folders)
	for _, p := range slices.Compact(folders) {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			s.times[p] = st.Mtim
		}
	}
}

func list(t *testing.T, dir string) listing.Tree {
	t.Helper()
	tree, err := listing.Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
