package layer

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Lent stands in for a layer that is not here yet.
type Lent struct {
	Tree     io.ReaderAt // as tree.Table encodes it
	TreeSize int64
	Data     *os.File // whose path below /proc opens the bytes that the tree's files point into
	Size     int64    // of those
	Foreign  bool     // as Info.Foreign
}

// lent is a mount over layers of which some are lent.
type lent struct {
	root *os.File
	info mergedInfo
}

// Lendable says why layers cannot be lent: they can in the form erofs, where overlayfs takes detached mounts.
func Lendable(s *Store) error {
	if s.form.name() == FormErofs && probe.Has(probe.OverlayDetached) {
		return nil
	}
	return errdef.New(errdef.NotImplemented, "layers can be used before they are here in the form %q on Linux 6.15 and later", FormErofs)
}

// Lend mounts a chain of which some layers are not here, and lets Merge return that mount until back is called or all layers are here.
// Mounts made of it keep working. Nothing of it is on the disk. NotImplemented: this store or kernel cannot.
func Lend(ctx context.Context, s *Store, chain []digest.Digest, loans map[digest.Digest]Lent) (back func(), err error) {
	if err := Lendable(s); err != nil {
		return nil, err
	}
	dir, drop, err := s.stage("lend")
	if err != nil {
		return nil, err
	}
	defer drop()
	var made lent
	err = tree.Roomy(filepath.Join(s.dir, tmpDir), func(t *tree.Table) error {
		l, err := lay(s, t, chain, loans)
		if err != nil {
			return err
		}
		if err := s.form.chain(ctx, dir, l); err != nil {
			return err
		}
		made.info = l.info
		made.root, err = MountErofs(filepath.Join(dir, indexFile), l.paths, false)
		return errdef.As(errdef.NotImplemented, err)
	})
	if err != nil {
		return nil, fmt.Errorf("lend layers: %w", err)
	}
	id, h := ChainID(chain), &s.shared
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lent == nil {
		h.lent = map[digest.Digest][]*lent{}
	}
	h.lent[id] = append(h.lent[id], &made)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.lent[id] = slices.DeleteFunc(h.lent[id], func(l *lent) bool { return l == &made }); len(h.lent[id]) == 0 {
			delete(h.lent, id)
		}
		made.root.Close()
	}, nil
}

// borrowed returns the chain that Lend has made.
func borrowed(s *Store, chain []digest.Digest) (Merged, bool) {
	id := ChainID(chain)
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	l := s.shared.lent[id]
	if len(l) == 0 {
		return Merged{}, false
	}
	return Merged{ChainID: id, Root: l[0].info.Root, Lower: []bundle.Layer{{Type: FormErofs, Source: "arriving:" + id.String()}}, store: s, chain: chain, lent: true}, true
}

// shareLent is Share of a chain that is lent; where it has arrived meanwhile, m becomes the ordinary one.
func shareLent(m *Merged) (*os.File, error) {
	h := &m.store.shared
	h.mu.Lock()
	if l := h.lent[m.ChainID]; len(l) > 0 {
		defer h.mu.Unlock()
		return m.give(l[0].root)
	}
	h.mu.Unlock()
	whole, err := m.store.Merge(context.Background(), m.chain)
	if err != nil {
		return nil, err
	}
	*m = whole
	return m.Share()
}

// Lay lays a layer over a tree, as the lowest.
func Lay(s *Store, t *tree.Table, i Info) error { return layOver(s, t, i, 0) }

// Spool is a folder for nameless files.
func Spool(s *Store) string { return filepath.Join(s.dir, tmpDir) }
