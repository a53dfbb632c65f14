package layer

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Ingest takes a layer's uncompressed tar from r and keeps it when its digest is want (DataLoss otherwise). It is there whole once
// Ingest returns nil, and nothing of it is left after an error. A layer that is there already, or comes in by another goroutine
// meanwhile, is not read again: r may be left unread. Cancelling ctx takes effect between reads of r.
func (s *Store) Ingest(ctx context.Context, want digest.Digest, r io.Reader) (Info, error) {
	for {
		info, err := s.Info(want)
		if err == nil || !errdef.Is(err, errdef.NotFound) {
			return info, err
		}
		leave, err := s.flights.enter(ctx, want.String())
		if err != nil {
			return Info{}, fmt.Errorf("ingest layer %s: %w", want, err)
		}
		if leave == nil {
			continue
		}
		if info, err = s.Info(want); errdef.Is(err, errdef.NotFound) { // it may have come just before we entered
			info, err = s.ingest(ctx, r, func(got digest.Digest) error {
				if got != want {
					return errdef.New(errdef.DataLoss, "content has the digest %s", got)
				}
				return nil
			})
		}
		leave()
		if err != nil {
			return Info{}, fmt.Errorf("ingest layer %s: %w", want, err)
		}
		return info, nil
	}
}

// Take is Ingest for a layer whose digest nobody knows yet. claim is told it before the layer gets its name, so that whoever sweeps can
// be kept from taking it for a leftover.
func Take(ctx context.Context, s *Store, r io.Reader, claim func(digest.Digest)) (Info, error) {
	info, err := s.ingest(ctx, r, func(got digest.Digest) error { claim(got); return nil })
	if err != nil {
		return Info{}, fmt.Errorf("take layer: %w", err)
	}
	return info, nil
}

// ingest makes a layer of r when accept agrees with its digest.
func (s *Store) ingest(ctx context.Context, r io.Reader, accept func(digest.Digest) error) (info Info, err error) {
	err = tree.Roomy(filepath.Join(s.dir, tmpDir), func(t *tree.Table) error {
		info, err = ingest(ctx, s, t, r, accept)
		return err
	})
	return info, err
}

func ingest(ctx context.Context, s *Store, t *tree.Table, r io.Reader, accept func(digest.Digest) error) (Info, error) {
	dir, drop, err := s.stage("layer")
	if err != nil {
		return Info{}, err
	}
	defer drop()
	f, err := os.OpenFile(filepath.Join(dir, tarFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	p := tarindex.Into(t, s.limits)
	size, sum, err := pump(ctx, r, p, &sink{f: f})
	if err != nil {
		return Info{}, err
	}
	id := digest.NewDigestFromBytes(digest.SHA256, sum)
	if err := accept(id); err != nil {
		return Info{}, err
	}
	if _, err := p.Finish(); err != nil {
		return Info{}, err
	}
	if s.Has(id) {
		return s.Info(id)
	}
	if gap := -size & 511; gap > 0 { // the kernel reads whole blocks
		if err := f.Truncate(size + gap); err != nil {
			return Info{}, fmt.Errorf("pad %s: %w", tarFile, err)
		}
	}
	info := Info{DiffID: id, Size: size, Entries: p.Entries(), Foreign: p.Foreign(), Implicit: t.Implicit()}
	if err := beside(ctx, s, dir, t, f, info); err != nil {
		return Info{}, err
	}
	if err := f.Sync(); err != nil {
		return Info{}, err
	}
	return info, publish(dir, s.path(id))
}

// beside writes what follows from a layer's tar into dir, synced.
func beside(ctx context.Context, s *Store, dir string, t *tree.Table, tar *os.File, info Info) error {
	if err := writeFile(filepath.Join(dir, treeFile), func(f *os.File) error { return t.Encode(f) }); err != nil {
		return err
	}
	if err := s.form.layer(ctx, dir, t, tar, info); err != nil {
		return err
	}
	return writeSync(filepath.Join(dir, infoFile), info)
}
