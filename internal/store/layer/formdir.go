package layer

import (
	"context"
	"os"
	"path/filepath"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
)

// dirForm unpacks each layer for overlayfs.
type dirForm struct{ s *Store }

func (f dirForm) name() string            { return FormDir }
func (f dirForm) usable(dir string) error { return overlays(dir) }
func (f dirForm) beside() string          { return fsDir }

func (f dirForm) layer(ctx context.Context, dir string, t *tree.Table, tar *os.File, _ Info) error {
	dest := filepath.Join(dir, fsDir)
	if err := os.Mkdir(dest, 0o700); err != nil {
		return err
	}
	return f.s.unpack.Into(ctx, dest, t, unpack.How{Tars: tars{tar}, Whiteouts: true})
}

func (f dirForm) verify(path string, d derived) (string, error) {
	tar, err := f.s.OpenTar(d.info.DiffID)
	if err != nil {
		return "", err
	}
	defer tar.Close()
	return unpack.Verify(path, d.root.Tree(), tars{tar})
}

// chain makes the folders of layers that came in another form, and the mending folder.
func (f dirForm) chain(ctx context.Context, dir string, l *laid) error {
	for _, d := range l.info.Chain {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.s.reshape(ctx, d); err != nil {
			return err
		}
	}
	t, err := openTars(f.s, l.info.Chain)
	if err != nil {
		return err
	}
	defer t.close()
	var m mends
	for _, d := range l.info.Chain {
		root, err := f.s.tree(d)
		if err != nil {
			return err
		}
		m.add(root)
	}
	fix := m.mend(l.table.Tree())
	if l.info.Fix = fix != nil; !l.info.Fix {
		return nil
	}
	dest := filepath.Join(dir, fsDir)
	if err := os.Mkdir(dest, 0o700); err != nil {
		return err
	}
	return f.s.unpack.Into(ctx, dest, tree.Of(fix), unpack.How{Tars: t})
}

func (f dirForm) verifyChain(string, *laid) (file, what string, err error) { return "", "", nil }

func (f dirForm) mounts(dir string, m *Merged, i *mergedInfo) {
	if i.Fix {
		m.Lower = append(m.Lower, bundle.Layer{Type: FormDir, Source: filepath.Join(dir, fsDir)})
	}
	for n := len(i.Chain) - 1; n >= i.From; n-- {
		m.Lower = append(m.Lower, bundle.Layer{Type: FormDir, Source: f.s.path(i.Chain[n], fsDir)})
	}
}
