package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
)

// metadata is the part of a check that reads records.
type metadata struct{ *run }

// records reads every record of the metadata: its pages, its JSON, and what images and their names say.
func (u metadata) records() error {
	if u.Degraded != nil && u.Degraded() != "" {
		u.found(Finding{Kind: Metadata, Object: "meta.db", Path: filepath.Join(u.Root, "meta.db"), Problem: u.Degraded()},
			"puts the records that could be saved in its place; look first whether all containers, networks and volumes are listed", u.Restore)
	}
	if err := u.DB.Check(); err != nil {
		u.found(Finding{Kind: Metadata, Object: "meta.db", Path: filepath.Join(u.Root, "meta.db"), Problem: err.Error()},
			"restart the engine: it saves what can be read when it cannot open the file", nil)
	}
	images, names, pulls := image.Buckets()
	return u.DB.Buckets(func(bucket string) error {
		return u.DB.Each(bucket, func(key string, raw []byte) error {
			u.sum.Records++
			switch {
			case bucket == images:
				u.imageRecord(bucket, key, raw)
			case bucket == pulls:
				if err := image.CheckRecord(bucket, key, raw); err != nil {
					u.found(Finding{Kind: Record, Object: bucket + "/" + key, Problem: err.Error()}, "forgets the unfinished pull", func() (string, error) {
						return "forgotten; pull the image again", image.LedgerOf(u.Images).Forget(bucket, key)
					})
				}
			case slices.Contains(names, bucket):
				u.nameRecord(bucket, key, raw)
			case bucket == "containers":
				u.containerRecord(bucket, key, raw)
			case !json.Valid(raw):
				u.found(Finding{Kind: Record, Object: bucket + "/" + key, Problem: "the record is damaged"}, "restore meta.db from a backup, or remove the object it is about and make it anew", nil)
			}
			return u.ctx.Err()
		})
	})
}

func (u metadata) imageRecord(bucket, key string, raw []byte) {
	err := image.CheckRecord(bucket, key, raw)
	if err == nil || image.LedgerOf(u.Images).Sound(bucket, key) {
		return
	}
	id := digest.Digest(key)
	u.found(Finding{Kind: Record, Object: bucket + "/" + key, Problem: err.Error()}, "makes it anew from the image's documents", func() (string, error) {
		err := errdef.New(errdef.DataLoss, "%q is no image ID", key)
		if _, perr := ref.ParseDigest(key); perr == nil {
			if err = image.LedgerOf(u.Images).Adopt(id, false); err == nil {
				return "made anew from the image's documents", nil
			}
		}
		if ferr := image.LedgerOf(u.Images).Forget(bucket, key); ferr != nil {
			return "", ferr
		}
		return fmt.Sprintf("removed, since it cannot be made anew (%v); pull or load the image again", err), nil
	})
}

func (u metadata) nameRecord(bucket, key string, raw []byte) {
	if image.LedgerOf(u.Images).Sound(bucket, key) {
		return
	}
	id, err := image.CheckName(bucket, key, raw)
	problem := fmt.Sprintf("it names image %s, which is not here", id)
	if err != nil {
		problem = err.Error()
	}
	u.found(Finding{Kind: Name, Object: familiar(key), Problem: problem}, "removes the name", func() (string, error) {
		return "the name was removed; pull or tag the image again", image.LedgerOf(u.Images).Forget(bucket, key)
	})
}

// containerRecord checks what a container stands on. The record is the engine's; only what the store needs is read.
func (u metadata) containerRecord(bucket, key string, raw []byte) {
	var rec struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		Image string `json:"image_id"`
	}
	if err := json.Unmarshal(raw, &rec); err != nil || rec.ID != key {
		u.found(Finding{Kind: Record, Object: bucket + "/" + key, Problem: "the record of a container is damaged; its files are left alone"},
			"copy what you need from the data root's folder snapshots/"+key+"/upper", nil)
		return
	}
	gone := func() bool { // removed meanwhile
		found, err := u.DB.Get(bucket, key, new(json.RawMessage))
		return err == nil && !found
	}
	images, _, _ := image.Buckets()
	if found, err := u.DB.Get(images, rec.Image, new(json.RawMessage)); err == nil && !found && rec.Image != "" && !gone() && u.Images.Stands(digest.Digest(rec.Image)) != nil {
		u.found(Finding{Kind: Container, Object: rec.Name, Problem: fmt.Sprintf("its image %s is not here", rec.Image)}, "it runs as long as its layers are here: pull the image again", nil)
	}
	if _, err := u.Snapshots.Chain(key); err != nil && !gone() {
		u.found(Finding{Kind: Container, Object: rec.Name, Path: u.Snapshots.Dir(key), Problem: err.Error()}, "remove the container (dhow rm) and make it anew", nil)
	}
}

// needs collects the layers of all writable layers.
func (u *run) needs() error {
	ids, err := u.Snapshots.List()
	if err != nil {
		return err
	}
	later := map[digest.Digest]bool{}
	for _, img := range image.Arriving(u.Images) {
		for _, d := range img.DiffIDs {
			later[d] = !u.Layers.Has(d)
		}
	}
	for _, id := range ids {
		u.sum.Snapshots++
		chain, err := u.Snapshots.Chain(id)
		if err != nil {
			continue // told with the container, or as a stray
		}
		for _, d := range chain {
			if later[d] {
				continue
			}
			if u.needed[d] == nil {
				u.needed[d] = map[string]bool{}
			}
			u.needed[d][id] = true
		}
	}
	return nil
}

// snapshots finds writable layers without a container.
func (u *run) snapshots() error {
	ids, err := u.Snapshots.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		st, err := os.Lstat(u.Snapshots.Dir(id))
		if err != nil || time.Since(st.ModTime()) < young {
			continue
		}
		if known, err := u.DB.Get("containers", id, new(json.RawMessage)); err != nil || known {
			continue
		}
		path := u.Snapshots.Dir(id)
		u.found(Finding{Kind: Stray, Object: id, Path: path, Problem: "a writable layer without a container"}, "moves it to the quarantine folder", func() (string, error) {
			to, err := u.quarantine(path)
			return "moved to " + to, err
		})
	}
	return nil
}

// stray is a file that nothing refers to.
type stray struct {
	kind, object, path string
	remove             func() error // nil: it is not the store's, and goes into quarantine
}

// strays lists what nobody refers to; nothing is recorded or pulled meanwhile.
func (u *run) strays() ([]stray, error) {
	var out []stray
	blobs, err := u.Content.List()
	if err != nil {
		return nil, err
	}
	layers, err := u.Layers.List()
	if err != nil {
		return nil, err
	}
	for _, b := range blobs {
		if !u.live.Digests[b.Digest] {
			out = append(out, stray{Blob, b.Digest.String(), filepath.Join(u.Content.Dir(), "blobs", "sha256", b.Digest.Encoded()), func() error { return u.Content.Remove(b.Digest) }})
		}
	}
	for _, d := range layers {
		if !u.live.Digests[d] {
			out = append(out, stray{Layer, d.String(), layer.Dir(u.Layers, d), func() error { return u.Layers.Remove(d) }})
		}
	}
	for n, dir := range []string{filepath.Join(u.Content.Dir(), "blobs", "sha256"), filepath.Dir(layer.Dir(u.Layers, digest.FromString(""))), u.Content.Partial().Dir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			d, err := ref.ParseDigest("sha256:" + e.Name())
			if odd := err != nil || n != 1 && !e.Type().IsRegular() && !u.live.Digests[d]; odd && !strings.HasPrefix(e.Name(), ".tmp-") {
				out = append(out, stray{"file", e.Name(), filepath.Join(dir, e.Name()), nil})
			}
		}
	}
	return out, nil
}

// remove takes strays away, but for layers that a writable layer needs.
func (u *run) remove(all []stray) {
	for _, s := range all {
		if s.kind == Layer && u.needed[digest.Digest(s.object)] != nil {
			continue
		}
		f := Finding{Kind: Stray, Object: s.object, Path: s.path, Problem: "no image needs this " + s.kind}
		if s.remove == nil {
			f.Problem = "it is none of the store's files"
			u.found(f, "moves it to the quarantine folder", func() (string, error) {
				to, err := u.quarantine(s.path)
				return "moved to " + to, err
			})
			continue
		}
		u.found(f, "removes it", func() (string, error) {
			err := u.Images.Freeze(func(live image.Live) error { // somebody may want it by now
				if live.Digests[digest.Digest(s.object)] {
					return nil
				}
				if err := s.remove(); err != nil && !errdef.Is(err, errdef.NotFound) {
					return err
				}
				return nil
			})
			return "removed", err
		})
	}
}

// index compares the layout's index.json with the records.
func (u *run) index() error {
	err := image.LedgerOf(u.Images).CheckIndex(false)
	if err == nil {
		return nil
	}
	if !errdef.Is(err, errdef.DataLoss) {
		return err
	}
	path := filepath.Join(u.Content.Dir(), "index.json")
	u.found(Finding{Kind: Blob, Object: "index.json", Path: path, Problem: err.Error()}, "writes it anew", func() (string, error) {
		if err := u.clear(path); err != nil {
			return "", err
		}
		return "written anew from the records", image.LedgerOf(u.Images).CheckIndex(true)
	})
	return nil
}
