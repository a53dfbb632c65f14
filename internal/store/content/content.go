// Package content owns the small blobs of images (manifests, indexes, configs) as an OCI image layout on disk.
//
// It promises that a file under blobs/sha256 holds exactly the bytes its name says and was durable before it got that name,
// that what it reads back is verified again, and that skopeo and its like can read the folder. Layers are not kept here.
// It must never give a name to bytes that were not verified.
package content

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/ctxio"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/partial"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ingestDir holds bytes that have no name yet; whatever is in it when the engine starts is a leftover.
const ingestDir = "ingest"

// partialDir holds the beginnings of layer blobs.
const partialDir = "partial"

// Store is an open blob store. It is safe for concurrent use.
type Store struct {
	dir     string
	partial *partial.Store
}

// Open creates the layout where it is missing. Folders are 0700, files 0600.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	for _, d := range []string{s.blobs(), filepath.Join(dir, ingestDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	if err := s.writeOnce(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return nil, err
	}
	var err error
	if s.partial, err = partial.Open(filepath.Join(dir, partialDir)); err != nil {
		return nil, err
	}
	return s, s.writeOnce(ocispec.ImageIndexFile, indexOf(nil))
}

func (s *Store) writeOnce(name string, v any) error {
	p := filepath.Join(s.dir, name)
	if _, err := os.Lstat(p); err == nil {
		return nil
	}
	return writeJSON(p, v)
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return atomicfile.Write(path, raw, 0o600)
}

// Dir is the folder of the layout.
func (s *Store) Dir() string { return s.dir }

// Partial is what there is of layer blobs that are not fetched to their ends.
func (s *Store) Partial() *partial.Store { return s.partial }

func (s *Store) blobs() string { return filepath.Join(s.dir, ocispec.ImageBlobsDir, "sha256") }

// path refuses a digest that could leave the folder.
func (s *Store) path(d digest.Digest) (string, error) {
	if _, err := ref.ParseDigest(d.String()); err != nil {
		return "", err
	}
	return filepath.Join(s.blobs(), d.Encoded()), nil
}

// Has tells whether the blob is here; it does not read it.
func (s *Store) Has(d digest.Digest) bool {
	p, err := s.path(d)
	if err != nil {
		return false
	}
	st, err := os.Lstat(p)
	return err == nil && st.Mode().IsRegular()
}

// Read returns the whole blob, at most limit bytes of it, verified again. errdef.NotFound when absent, errdef.DataLoss when
// the bytes on disk are no longer what they were.
func (s *Store) Read(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	if int64(len(raw)) > limit {
		return nil, errdef.New(errdef.DataLoss, "read blob %s: longer than %d bytes", d, limit)
	}
	if got := digest.FromBytes(raw); got != d {
		return nil, errdef.New(errdef.DataLoss, "read blob %s: the file on disk now has digest %s", d, got)
	}
	return raw, nil
}

// Open opens a blob for one pass. Its bytes are not verified: who gets them compares them with the digest. errdef.NotFound when absent.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	p, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := atomicfile.Open(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errdef.New(errdef.NotFound, "blob %s is not in the store", d)
	case errors.Is(err, atomicfile.ErrIrregular):
		return nil, errdef.New(errdef.DataLoss, "read blob %s: %w", d, atomicfile.ErrIrregular)
	case err != nil:
		return nil, fmt.Errorf("read blob: %w", err)
	}
	return f, nil
}

// Put streams r into the store. The blob gets its name only when size (unless negative) and digest are right and the bytes
// are on disk; otherwise nothing is left. A blob that is already here is not read from r at all.
func (s *Store) Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	if s.Has(d) {
		return nil
	}
	return s.Replace(ctx, d, size, r)
}

// Replace is Put for a blob whose file is damaged: it stays until the new one takes its name.
func (s *Store) Replace(ctx context.Context, d digest.Digest, size int64, r io.Reader) (err error) {
	p, err := s.path(d)
	if err != nil {
		return err
	}
	f, err := s.Temp()
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	h := digest.SHA256.Digester()
	from := ctxio.Reader(ctx, r)
	if size >= 0 {
		from = io.LimitReader(from, size+1)
	}
	n, err := io.Copy(io.MultiWriter(f, h.Hash()), from)
	if err != nil {
		return fmt.Errorf("write blob %s: %w", d, err)
	}
	if size >= 0 && n != size {
		return errdef.New(errdef.DataLoss, "write blob %s: wrong size: got %s%d bytes, promised %d", d, more(n, size), n, size)
	}
	if got := h.Digest(); got != d {
		return errdef.New(errdef.DataLoss, "write blob: wrong digest: got %s, promised %s", got, d)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write blob %s: %w", d, err)
	}
	if err := os.Rename(f.Name(), p); err != nil {
		return fmt.Errorf("write blob %s: %w", d, err)
	}
	return atomicfile.SyncDir(s.blobs())
}

func more(n, size int64) string {
	if n > size {
		return "at least "
	}
	return ""
}

// Temp opens an unnamed-to-be file in the store's ingest folder. The caller removes it; Sweep does after a crash.
func (s *Store) Temp() (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, ingestDir), "*")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	return f, nil
}

// Remove deletes a blob; one that is absent is no error.
func (s *Store) Remove(d digest.Digest) error {
	p, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	return nil
}

// Blob is a stored blob and its size on disk.
type Blob struct {
	Digest digest.Digest
	Size   int64
}

// List returns what is stored. Files whose names are no digests are not listed (Sweep removes them).
func (s *Store) List() ([]Blob, error) {
	es, err := os.ReadDir(s.blobs())
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	var all []Blob
	for _, e := range es {
		d, err := ref.ParseDigest("sha256:" + e.Name())
		if err != nil {
			continue
		}
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() {
			all = append(all, Blob{d, st.Size()})
		}
	}
	return all, nil
}

// SetIndex replaces index.json: what a reader of the layout sees as its images. Unless durable, the older one may be back after a power loss,
// or a damaged one.
func (s *Store) SetIndex(manifests []ocispec.Descriptor, durable bool) error {
	path := filepath.Join(s.dir, ocispec.ImageIndexFile)
	if durable {
		return writeJSON(path, indexOf(manifests))
	}
	raw, err := json.Marshal(indexOf(manifests))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return atomicfile.WriteVolatile(path, raw, 0o600, false)
}

// CheckIndex says whether index.json is as SetIndex would write it; errdef.DataLoss when not.
func (s *Store) CheckIndex(manifests []ocispec.Descriptor) error {
	want, err := json.Marshal(indexOf(manifests))
	if err != nil {
		return err
	}
	f, err := atomicfile.Open(filepath.Join(s.dir, ocispec.ImageIndexFile))
	if err != nil {
		return errdef.As(errdef.DataLoss, err)
	}
	defer f.Close()
	have, err := io.ReadAll(io.LimitReader(f, int64(len(want))+2))
	if err == nil && !bytes.Equal(bytes.TrimSpace(have), want) {
		err = errors.New("it does not list the images that there are")
	}
	return errdef.As(errdef.DataLoss, err)
}

func indexOf(manifests []ocispec.Descriptor) ocispec.Index {
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
	ix.SchemaVersion = 2
	if ix.Manifests == nil {
		ix.Manifests = []ocispec.Descriptor{}
	}
	return ix
}

// Sweep removes what a crash left: everything in the ingest folder, files that atomic writes did not finish, and partial blobs that nobody
// continued in time. Call it before the store is used.
func (s *Store) Sweep() (removed int, err error) {
	for dir, all := range map[string]bool{filepath.Join(s.dir, ingestDir): true, s.blobs(): false, s.dir: false} {
		es, err := os.ReadDir(dir)
		if err != nil {
			return removed, fmt.Errorf("sweep content: %w", err)
		}
		for _, e := range es {
			if !all && !strings.HasPrefix(e.Name(), ".tmp-") {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return removed, fmt.Errorf("sweep content: %w", err)
			}
			removed++
		}
	}
	n, err := s.partial.Sweep()
	return removed + n, err
}
