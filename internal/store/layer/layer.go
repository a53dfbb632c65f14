// Package layer owns the layers of images: the tar that each diff ID names, its tree, and the forms in which a kernel mounts it.
//
// It promises that a layer is there whole and verified or not at all, that no path, link or attribute in a tar acts outside of the
// layer, and that every form shows the same tree. It must never attach a mount anywhere (Share and Open's probe make
// detached ones), and never decide whether a layer is still needed.
//
// On disk (docs/formats/layer.md): sha256/HEX/{layer.tar,tree.bin,info.json}, one form with fs/, merged/HEX/{info.json,...}, tmp/.
package layer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
)

// Options configure a Store.
type Options struct {
	// Form is one of Forms, or "" for the first of them that works here.
	Form   string
	Limits tarindex.Limits
	// Jail says that what is unpacked is written by a process that is locked in: this program gives unpack.Trade to jail.Main.
	Jail bool
}

// Store is a folder of layers. Its methods may be called concurrently; one process at a time may have it open.
type Store struct {
	dir    string
	form   form
	kind   string // what the form's files are called on disk
	limits tarindex.Limits
	unpack unpack.Unpacker

	flights flights
	shared  shared
	mu      sync.Mutex
	staged  map[string]struct{} // names under tmp/ in use by this process
	gone    []string            // below tmp/: removed, and Free was not called since
	freed   chan struct{}       // closed when the space of all that Free was called for is given back
}

// Info describes a layer.
type Info struct {
	DiffID   digest.Digest `json:"diffID"`
	Size     int64         `json:"size"`    // bytes of the tar
	Entries  int           `json:"entries"` // tar entries
	Foreign  int           `json:"foreign,omitempty"`
	Implicit bool          `json:"implicit,omitempty"` // some directory's own entry is missing
}

// Names of the files of a layer.
const (
	tarFile   = "layer.tar"
	treeFile  = "tree.bin"
	indexFile = "index.erofs"
	infoFile  = "info.json"
	fsDir     = "fs"
	tmpDir    = "tmp"
	mergedDir = "merged"
	shaDir    = "sha256"
	emptyDir  = "empty"
)

// Open opens the store in dir, which is created if need be.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	for _, d := range []string{"", shaDir, mergedDir, tmpDir, emptyDir} {
		mode := os.FileMode(0o700)
		if d == emptyDir {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Join(dir, d), mode); err != nil {
			return nil, fmt.Errorf("open layer store: %w", err)
		}
	}
	s := &Store{dir: dir, limits: o.Limits, staged: map[string]struct{}{}, freed: make(chan struct{}), unpack: unpack.Unpacker{Dir: dir}}
	close(s.freed)
	if o.Jail {
		s.unpack.Word = unpack.Word
	}
	return s, choose(s, o.Form)
}

// Form is the form in which this store gives layers out.
func (s *Store) Form() string { return s.form.name() }

// Empty is a folder with nothing in it, the lower layer of an image without layers.
func (s *Store) Empty() string { return filepath.Join(s.dir, emptyDir) }

func (s *Store) path(id digest.Digest, name ...string) string {
	return filepath.Join(append([]string{s.dir, shaDir, id.Encoded()}, name...)...)
}

func check(id digest.Digest) error {
	if err := id.Validate(); err != nil {
		return errdef.New(errdef.InvalidArgument, "layer %.100q: %w", string(id), err)
	}
	if id.Algorithm() != digest.SHA256 {
		return errdef.New(errdef.NotImplemented, "layer %s: only sha256 diff IDs are supported", id)
	}
	return nil
}

// Has reports whether the layer is there.
func (s *Store) Has(id digest.Digest) bool {
	if check(id) != nil {
		return false
	}
	_, err := os.Lstat(s.path(id, infoFile))
	return err == nil
}

// Info describes a layer; an absent one is NotFound.
func (s *Store) Info(id digest.Digest) (Info, error) {
	var i Info
	if err := check(id); err != nil {
		return i, err
	}
	err := readJSON(s.path(id, infoFile), &i)
	if errors.Is(err, fs.ErrNotExist) {
		return i, errdef.New(errdef.NotFound, "layer %s: not in the store", id)
	}
	if err == nil && i.DiffID != id {
		err = errdef.New(errdef.DataLoss, "layer %s: its %s is of %s", id, infoFile, i.DiffID)
	}
	return i, err
}

// OpenTar opens the bytes that the diff ID names: the first Info.Size of the file. A tar whose writer left the padding of its last entry out
// is followed by zeros up to a multiple of 512.
func (s *Store) OpenTar(id digest.Digest) (*os.File, error) {
	if err := check(id); err != nil {
		return nil, err
	}
	f, err := atomicfile.Open(s.path(id, tarFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdef.New(errdef.NotFound, "layer %s: not in the store", id)
	}
	return f, err
}

// List returns the diff IDs of all layers, sorted.
func (s *Store) List() ([]digest.Digest, error) { return s.list(shaDir) }

func (s *Store) list(sub string) ([]digest.Digest, error) {
	ents, err := os.ReadDir(filepath.Join(s.dir, sub))
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	var ids []digest.Digest
	for _, e := range ents {
		if id := digest.NewDigestFromEncoded(digest.SHA256, e.Name()); id.Validate() == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Remove removes a layer; an absent one is NotFound. Mounts that use it keep working; merged indexes over it do not (RemoveMerged). Free
// gives back its space.
func (s *Store) Remove(id digest.Digest) error {
	if err := check(id); err != nil {
		return err
	}
	return s.discard(s.path(id), "layer "+id.String())
}

// What is read back of a file whole: more than any that is sound has.
const (
	maxJSON = 1 << 20
	maxTree = 1 << 30
)

func readJSON(path string, v any) error {
	b, err := readFile(path, maxJSON)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errdef.New(errdef.DataLoss, "parse %s: %w", path, err)
	}
	return nil
}

// readFile reads at most limit bytes of a file.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := atomicfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(min(st.Size(), limit)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(f, limit)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b.Bytes(), nil
}
