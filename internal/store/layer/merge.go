package layer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// MaxLayers bounds a chain: overlayfs takes 500 folders, and no image that people make comes near.
const MaxLayers = 500

// Merged is a chain of layers, ready to be mounted.
type Merged struct {
	ChainID digest.Digest
	Index   string         // erofs form: the one index over all layers
	Devices []string       // erofs form: the tars, in the order of the chain
	Lower   []bundle.Layer // what to mount below an overlay, topmost first
	Folder  string         // where there is no overlay: the whole tree; see Copy
	Root    Root

	store  *Store
	chain  []digest.Digest
	volume bool
	lent   bool
}

// Root holds the attributes of the merged root directory.
type Root struct {
	Mode   uint32            `json:"mode"` // permission bits
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Sec    int64             `json:"sec"`
	Nsec   uint32            `json:"nsec"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

// mergedInfo is merged/HEX/info.json.
type mergedInfo struct {
	Chain []digest.Digest `json:"chain"`
	Root  Root            `json:"root"`
	Form  string          `json:"form"`
	Fix   bool            `json:"fix,omitempty"`  // dir form: fs/ lies above all layers
	From  int             `json:"from,omitempty"` // dir form: lower layers that an opaque root hides
}

// ChainID names a chain of layers (image-spec config.md, "Layer ChainID"). The empty chain has the empty ID.
func ChainID(chain []digest.Digest) digest.Digest {
	var id digest.Digest
	for _, d := range chain {
		if id == "" {
			id = d
		} else {
			id = digest.FromString(id.String() + " " + d.String())
		}
	}
	return id
}

// Merge lays a chain's layers over each other (lowest first) and returns what is to be mounted. The result is kept under
// the chain's ID. A layer that is not in the store is NotFound.
func (s *Store) Merge(ctx context.Context, chain []digest.Digest) (Merged, error) {
	if len(chain) == 0 {
		m := Merged{Root: Root{Mode: 0o755}}
		if m.volume = s.form.name() == FormBtrfs; flat(s) {
			m.Folder = s.Empty()
		} else {
			m.Lower = []bundle.Layer{{Type: FormDir, Source: s.Empty()}}
		}
		return m, nil
	}
	if len(chain) > MaxLayers {
		return Merged{}, errdef.New(errdef.InvalidArgument, "merge layers: %d of them, at most %d", len(chain), MaxLayers)
	}
	for _, id := range chain {
		if !s.Has(id) {
			if m, ok := borrowed(s, chain); ok {
				return m, nil
			}
			_, err := s.Info(id)
			return Merged{}, fmt.Errorf("merge layers: %w: pull the image again", err)
		}
	}
	id := ChainID(chain)
	for {
		m, err := s.merged(id)
		if err == nil || !errdef.Is(err, errdef.NotFound) {
			return m, err
		}
		leave, err := s.flights.enter(ctx, "merge "+id.String())
		if err != nil {
			return Merged{}, fmt.Errorf("merge layers: %w", err)
		}
		if leave == nil {
			continue
		}
		if m, err = s.merged(id); errdef.Is(err, errdef.NotFound) {
			err = tree.Roomy(filepath.Join(s.dir, tmpDir), func(t *tree.Table) error { return s.merge(ctx, t, id, chain) })
			if err == nil {
				m, err = s.merged(id)
			}
		}
		leave()
		if err != nil {
			return Merged{}, fmt.Errorf("merge layers: %w", err)
		}
		return m, nil
	}
}

func (s *Store) mergedPath(id digest.Digest, name ...string) string {
	// A chain's entry depends on the form, since a store may be opened with another one later.
	return filepath.Join(append([]string{s.dir, mergedDir, id.Encoded() + "." + s.kind}, name...)...)
}

func (s *Store) merged(id digest.Digest) (Merged, error) {
	var i mergedInfo
	err := readJSON(s.mergedPath(id, infoFile), &i)
	if os.IsNotExist(err) {
		return Merged{}, errdef.New(errdef.NotFound, "merged layers %s: not in the store", id)
	}
	if err != nil {
		return Merged{}, err
	}
	m := Merged{ChainID: id, Root: i.Root, store: s, chain: i.Chain, volume: s.form.name() == FormBtrfs}
	s.form.mounts(s.mergedPath(id), &m, &i)
	return m, nil
}

func (s *Store) merge(ctx context.Context, t *tree.Table, id digest.Digest, chain []digest.Digest) error {
	l, err := lay(s, t, chain, nil)
	if err != nil {
		return err
	}
	dir, drop, err := s.stage("merge")
	if err != nil {
		return err
	}
	defer drop()
	if err := s.form.chain(ctx, dir, l); err != nil {
		return err
	}
	if err := writeSync(filepath.Join(dir, infoFile), l.info); err != nil {
		return err
	}
	return publish(dir, s.mergedPath(id))
}

// laid is a chain of layers laid over each other.
type laid struct {
	info    mergedInfo
	table   *tree.Table
	devices []erofs.Device
	paths   []string // of the devices
}

// lay lays a chain's layers over each other; those that are lent need not be here.
func lay(s *Store, t *tree.Table, chain []digest.Digest, loans map[digest.Digest]Lent) (*laid, error) {
	l := &laid{info: mergedInfo{Chain: chain, Form: s.kind}, table: t}
	for n, d := range chain {
		below := l.table.Root()
		if err := l.add(s, d, uint16(n), loans); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", n+1, len(chain), err)
		}
		if l.table.Root() != below {
			l.info.From = n
		}
	}
	root := l.table.Inode(l.table.Root())
	l.info.Root = rootOf(&root)
	return l, nil
}

func (l *laid) add(s *Store, d digest.Digest, n uint16, loans map[digest.Digest]Lent) error {
	if loan, ok := loans[d]; ok {
		l.devices = append(l.devices, device(d, loan.Size))
		l.paths = append(l.paths, fmt.Sprintf("/proc/self/fd/%d", loan.Data.Fd()))
		return l.table.Lay(loan.Tree, loan.TreeSize, n, loan.Foreign)
	}
	i, err := s.Info(d)
	if err != nil {
		return err
	}
	l.devices = append(l.devices, device(d, i.Size))
	l.paths = append(l.paths, s.path(d, tarFile))
	return layOver(s, l.table, i, n)
}

// layOver lays a layer over those below it, as number n.
func layOver(s *Store, t *tree.Table, i Info, n uint16) error {
	f, err := atomicfile.Open(s.path(i.DiffID, treeFile))
	if err != nil {
		return fmt.Errorf("layer %s: %w", i.DiffID, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil {
		err = t.Lay(f, st.Size(), n, i.Foreign > 0)
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", i.DiffID, err)
	}
	return nil
}

func rootOf(i *tree.Inode) Root {
	r := Root{Mode: i.Mode & 0o7777, UID: i.UID, GID: i.GID, Sec: i.Sec, Nsec: i.Nsec}
	for _, x := range i.Xattrs {
		if r.Xattrs == nil {
			r.Xattrs = map[string][]byte{}
		}
		r.Xattrs[x.Name] = []byte(x.Value)
	}
	return r
}

// RemoveMerged forgets what Merge made of a chain, in every form; that there is nothing is no error. Mounts that use it keep working. Free
// gives back its space.
func (s *Store) RemoveMerged(id digest.Digest) error {
	if err := check(id); err != nil {
		return err
	}
	s.shared.drop(id)
	for _, form := range Forms() {
		err := s.discard(filepath.Join(s.dir, mergedDir, id.Encoded()+"."+form), "merged layers "+id.String())
		if err != nil && !errdef.Is(err, errdef.NotFound) {
			return err
		}
	}
	return nil
}

// ListMerged returns the chain IDs that Merge has kept.
func (s *Store) ListMerged() ([]digest.Digest, error) {
	ents, err := os.ReadDir(filepath.Join(s.dir, mergedDir))
	if err != nil {
		return nil, fmt.Errorf("list merged layers: %w", err)
	}
	var ids []digest.Digest
	for _, e := range ents {
		id := digest.NewDigestFromEncoded(digest.SHA256, trimExt(e.Name()))
		if id.Validate() == nil && (len(ids) == 0 || ids[len(ids)-1] != id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func trimExt(name string) string { return name[:len(name)-len(filepath.Ext(name))] }
