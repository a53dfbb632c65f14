package check

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
)

// blobs reads every document that an image needs. Manifests come before configs, which are fetched by what those say.
func (u *run) blobs() error {
	done := map[digest.Digest]bool{}
	for _, configs := range []bool{false, true} {
		for _, r := range u.all {
			for _, d := range append([]digest.Digest{r.Manifest.Digest, r.ID}, r.Blobs...) {
				if done[d] || (d == r.ID) != configs {
					continue
				}
				done[d] = true
				if err := u.blob(d, false); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range u.all {
		for _, d := range r.Beside {
			if done[d] {
				continue
			}
			done[d] = true
			if err := u.blob(d, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// blob reads one file; one beside the images, of an attestation, only a push of its index needs.
func (u *run) blob(d digest.Digest, beside bool) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	u.sum.Blobs++
	limit, fetch, what := int64(manifest.MaxSize), u.fetch.Document, "needed by"
	needs := func(r image.Record) bool { return r.ID == d || slices.Contains(r.Blobs, d) || r.Manifest.Digest == d }
	if beside {
		limit, fetch, what = image.MaxBeside, u.fetch.Beside, "it is of an attestation of"
		needs = func(r image.Record) bool { return slices.Contains(r.Beside, d) }
	}
	raw, err := u.Content.Read(d, limit)
	u.sum.Bytes += int64(len(raw))
	if err == nil {
		return nil
	}
	path := filepath.Join(u.Content.Dir(), "blobs", "sha256", d.Encoded())
	f := Finding{Kind: Blob, Object: d.String(), Path: path, Problem: fmt.Sprintf("%v; %s %s", err, what, u.names(needs))}
	mended := u.found(f, u.again(needs), func() (string, error) {
		raw, from, err := fetch(u.ctx, d)
		if err == nil {
			err = u.clear(path)
		}
		if err == nil {
			err = u.Content.Replace(u.ctx, d, int64(len(raw)), bytes.NewReader(raw))
		}
		return "made anew from " + from, err
	})
	u.lost[d] = !mended && !beside
	return nil
}

// again says what a repair would do for something that comes from a registry.
func (u *run) again(needs func(image.Record) bool) string {
	if from := u.from(needs); from != "" {
		return "fetches it again from " + from
	}
	return "makes it anew where it can; no registry is known to have it"
}

// layers reads every layer that an image, an unfinished pull or a snapshot needs.
func (u *run) layers() error {
	if err := u.needs(); err != nil {
		return err
	}
	var ids []digest.Digest
	for _, r := range u.all {
		ids = append(ids, r.Layers...)
	}
	for d := range u.needed {
		ids = append(ids, d)
	}
	here, err := u.Layers.List()
	if err != nil {
		return err
	}
	for _, d := range here { // also what an unfinished pull has brought
		if u.live.Digests[d] {
			ids = append(ids, d)
		}
	}
	slices.Sort(ids)
	for _, d := range slices.Compact(ids) {
		u.sum.Layers++
		bad, err := layer.Verify(u.ctx, u.Layers, d)
		if err != nil {
			return err
		}
		i, err := u.Layers.Info(d)
		if err == nil {
			u.sum.Bytes += i.Size
		}
		gone := err != nil && u.whose(d, func(r image.Record) bool { return slices.Contains(r.Layers, d) }) == "" // removed meanwhile
		if len(bad) > 0 && !gone {
			u.layer(d, bad)
		}
	}
	return nil
}

// layer reports what is wrong with one. A damaged tar is fetched, all else follows from it.
func (u *run) layer(d digest.Digest, bad []layer.Damage) {
	needs := func(r image.Record) bool { return slices.Contains(r.Layers, d) }
	mended, merr := false, error(nil)
	for _, b := range bad {
		if b.Tar && u.whose(d, needs) == "" {
			u.found(Finding{Kind: Layer, Object: d.String(), Path: b.Path, Problem: b.What + "; only an unfinished pull needs it"}, "removes it: the next pull fetches it", func() (string, error) {
				return "removed; the next pull fetches it", image.LedgerOf(u.Images).Spoilt(d, u.hold)
			})
			continue
		}
		if b.Tar {
			f := Finding{Kind: Layer, Object: d.String(), Path: b.Path, Problem: fmt.Sprintf("%s; needed by %s", b.What, u.whose(d, needs))}
			u.lost[d] = !u.found(f, u.again(needs), func() (string, error) {
				from, err := u.fetch.Layer(u.ctx, d)
				return "fetched again from " + from + u.running(d), err
			})
			continue
		}
		u.found(Finding{Kind: Index, Object: d.String(), Path: b.Path, Problem: b.What}, "makes it anew from the layer's tar", func() (string, error) {
			if !mended {
				mended, merr = true, layer.Mend(u.ctx, u.Layers, d)
			}
			return "made anew from the layer's tar", merr
		})
	}
}

// whose names the images and containers that need a layer.
func (u *run) whose(d digest.Digest, needs func(image.Record) bool) string {
	who := u.names(needs)
	for id := range u.needed[d] {
		if who != "" {
			who += ", "
		}
		who += "container " + id[:min(len(id), 12)]
	}
	return who
}

// running warns of what keeps the damaged file open.
func (u *run) running(d digest.Digest) string {
	if len(u.needed[d]) == 0 {
		return ""
	}
	return "; containers that run on it see the new one when they are restarted"
}

// merged compares the indexes of whole chains with their layers.
func (u *run) merged() error {
	ids, err := u.Layers.ListMerged()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		u.sum.Merged++
		bad, err := layer.VerifyMerged(u.Layers, id)
		if len(bad) > 0 { // it may have been removed at this moment
			bad, err = layer.VerifyMerged(u.Layers, id)
		}
		if err != nil { // a layer of it is damaged, which is told already, or no more there
			continue
		}
		for _, b := range bad {
			u.found(Finding{Kind: Index, Object: id.String(), Path: b.Path, Problem: b.What}, "makes it anew from the layers", func() (string, error) {
				return "it is made anew when it is wanted next", u.Layers.RemoveMerged(id)
			})
		}
	}
	return nil
}

// documents compares what the documents of an image say with each other and with its record.
func (u *run) documents() error {
	for _, r := range u.all {
		if err := u.document(r); err != nil {
			u.found(Finding{Kind: Image, Object: r.ID.String(), Problem: err.Error()}, "makes its record anew", func() (string, error) {
				return "its record was made anew from its documents", image.LedgerOf(u.Images).Adopt(r.ID, true)
			})
		}
	}
	return nil
}

func (u *run) document(r image.Record) error {
	raw, err := u.Content.Read(r.ID, manifest.MaxSize)
	if err != nil {
		return nil // told already
	}
	cfg, err := manifest.DecodeConfig(raw)
	if err != nil {
		return err
	}
	if !slices.Equal(cfg.RootFS.DiffIDs, r.Layers) {
		return errors.New("its record names other layers than its config")
	}
	if raw, err = u.Content.Read(r.Manifest.Digest, manifest.MaxSize); err != nil {
		return nil
	}
	doc, err := manifest.Decode(raw, r.Manifest.MediaType)
	switch {
	case err != nil:
		return err
	case doc.Manifest == nil || doc.Manifest.Config.Digest != r.ID || len(doc.Manifest.Layers) != len(r.Layers) || r.Manifest.Size != int64(len(raw)):
		return errors.New("its record names a manifest of another image")
	}
	return nil
}

// giveUp takes images away that nothing can mend and no container uses, so that they can be pulled or loaded anew: as long as a damaged
// layer is there, nobody would fetch it.
func (u *run) giveUp() {
	for _, r := range u.all {
		var bad []digest.Digest
		for _, d := range append(append([]digest.Digest{}, r.Blobs...), r.Layers...) {
			if u.lost[d] {
				bad = append(bad, d)
			}
		}
		if len(bad) == 0 || !u.Repair && len(r.From) > 0 { // a repair would fetch first
			continue
		}
		f := Finding{Kind: Image, Object: r.ID.String(), Problem: fmt.Sprintf("%s lacks %d sound files", u.names(func(o image.Record) bool { return o.ID == r.ID }), len(bad))}
		if users := u.users(r, bad); len(users) > 0 {
			u.found(f, fmt.Sprintf("save what container %s has (dhow cp, dhow export), remove it, and check again: nobody is known to have the image", users[0][:min(12, len(users[0]))]), nil)
			continue
		}
		u.found(f, "takes the image away where nobody has what is missing, so that it can be pulled or loaded anew", func() (string, error) {
			return "the image was taken away; pull or load it anew", u.drop(r, bad)
		})
	}
}

// users are the containers that are made of an image, and those of other images that stand on the same damaged layers.
func (u *run) users(r image.Record, bad []digest.Digest) []string {
	users := slices.Clone(u.Users(r.ID.String()))
	for _, d := range bad {
		users = slices.AppendSeq(users, maps.Keys(u.needed[d]))
	}
	return users
}

func (u *run) drop(r image.Record, bad []digest.Digest) error {
	return image.LedgerOf(u.Images).GiveUp(r.ID, u.hold, bad, func(id digest.Digest) []string { return u.Users(id.String()) }, func(d digest.Digest) error {
		path := filepath.Join(u.Content.Dir(), "blobs", "sha256", d.Encoded())
		if slices.Contains(r.Layers, d) {
			path = layer.Dir(u.Layers, d)
		}
		if _, err := u.quarantine(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}
