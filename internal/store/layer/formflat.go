package layer

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/linux/btrfs"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
)

// flatForm keeps each chain as one folder that is whole, for where there is no overlayfs; on btrfs as a read-only subvolume, which
// shares what it has in common with the chain that is most like it.
type flatForm struct {
	tarOnly
	s       *Store
	volumes bool
}

func (f flatForm) name() string {
	if f.volumes {
		return FormBtrfs
	}
	return FormVFS
}

func (f flatForm) usable(dir string) error {
	if f.volumes && !btrfs.On(dir) {
		return fmt.Errorf("%s: not on btrfs", f.s.dir)
	}
	return nil
}

func (f flatForm) chain(ctx context.Context, dir string, l *laid) error {
	for _, d := range l.info.Chain { // what is unpacked is verified once more
		if _, err := sound(ctx, f.s, d); err != nil {
			return err
		}
	}
	t, err := openTars(f.s, l.info.Chain)
	if err != nil {
		return err
	}
	defer t.close()
	dest := filepath.Join(dir, fsDir)
	how := unpack.How{Tars: t}
	if f.volumes {
		how.Old, how.Common = f.relative(dest, l.info.Chain)
	}
	if how.Old == nil {
		if err := makeFolder(dest, f.volumes); err != nil {
			return err
		}
	}
	if err := f.s.unpack.Into(ctx, dest, l.table, how); err != nil {
		return err
	}
	if f.volumes {
		return btrfs.Seal(dest)
	}
	return nil
}

// relative makes dest a snapshot of the chain that has the most layers in common from the lowest on, and returns what is in it. There may be none.
func (f flatForm) relative(dest string, chain []digest.Digest) (old *tree.Table, common int) {
	ids, err := f.s.ListMerged()
	if err != nil {
		return nil, 0
	}
	var best mergedInfo
	var from string
	for _, id := range ids {
		var i mergedInfo
		if readJSON(f.s.mergedPath(id, infoFile), &i) != nil {
			continue
		}
		n := 0
		for n < len(chain) && n < len(i.Chain) && chain[n] == i.Chain[n] {
			n++
		}
		if n > common {
			best, common, from = i, n, f.s.mergedPath(id, fsDir)
		}
	}
	if common == 0 {
		return nil, 0
	}
	l, err := lay(f.s, tree.NewTable(), best.Chain, nil)
	if err != nil || btrfs.Snapshot(from, dest) != nil { // it may be on its way out
		return nil, 0
	}
	return l.table, common
}

func (f flatForm) verifyChain(dir string, l *laid) (file, what string, err error) {
	t, err := openTars(f.s, l.info.Chain)
	if err != nil {
		return "", "", err
	}
	defer t.close()
	file = filepath.Join(dir, fsDir)
	what, err = unpack.Verify(file, l.table.Tree(), t)
	return file, what, err
}

func (f flatForm) mounts(dir string, m *Merged, _ *mergedInfo) { m.Folder = filepath.Join(dir, fsDir) }

// Copy makes dest, which must not exist, a folder that holds what Merged.Folder does and that nobody else has.
func (m Merged) Copy(ctx context.Context, dest string) error {
	if m.volume && m.ChainID != "" {
		return btrfs.Snapshot(m.Folder, dest)
	}
	if err := makeFolder(dest, m.volume); err != nil || m.ChainID == "" {
		return err
	}
	l, err := lay(m.store, tree.NewTable(), m.chain, nil)
	if err != nil {
		return err
	}
	return m.store.unpack.Into(ctx, dest, l.table, unpack.How{Folder: m.Folder})
}
