// Package depot owns everything that the engine keeps on disk, opened together: records, documents, layers, images, snapshots.
//
// It promises that one engine at a time has a data root open. It must never know what a container is.
package depot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/depot/rescue"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/engine/upkeep"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/gc"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/dhow-containers/dhow/internal/store/snapshot"
)

// Config says where the data root is and how registries are spoken to.
type Config struct {
	Root, UserAgent             string
	Layers                      string   // one of layer.Forms, "auto", or "" for what it was last time
	Insecure, Mirrors, CertDirs []string // as in registry.Config; no CertDirs are /etc/dhow/certs.d and /etc/docker/certs.d
	Proxy                       func(*http.Request) (*url.URL, error)
}

// Depot is an open data root.
type Depot struct {
	ID        string // of the engine, made once per data root
	DB        *meta.DB
	Images    *image.Store
	Snapshots Snapshots
	Registry  *registry.Client
	Driver    string // the storage driver's name
	Status    [][2]string

	root    string
	records *rescue.Metadata
	docs    *content.Store
	layers  *layer.Store
}

// Open opens the data root.
func Open(c Config) (_ *Depot, err error) {
	for _, m := range c.Mirrors {
		if err := registry.CheckMirror(m); err != nil {
			return nil, err
		}
	}
	if err := makeRoom(c.Root); err != nil {
		return nil, err
	}
	if len(c.CertDirs) == 0 {
		c.CertDirs = []string{"/etc/dhow/certs.d", "/etc/docker/certs.d"}
	}
	d := &Depot{root: c.Root, Registry: registry.New(registry.Config{Insecure: c.Insecure, Mirrors: c.Mirrors, CertDirs: c.CertDirs, Proxy: c.Proxy, UserAgent: c.UserAgent,
		Split: registry.Split{Dir: c.Root}})}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.records, err = rescue.Open(c.Root); err != nil {
		return nil, err
	}
	d.DB = d.records.DB
	if d.ID, err = identity(d.DB); err != nil {
		return nil, fmt.Errorf("read the engine's ID: %w", err)
	}
	if d.docs, err = content.Open(filepath.Join(c.Root, "content")); err != nil {
		return nil, err
	}
	if err = d.openLayers(filepath.Join(c.Root, "layers"), c.Layers); err != nil {
		return nil, err
	}
	if d.Snapshots.Store, err = snapshot.Open(filepath.Join(c.Root, "snapshots"), d.layers); err != nil {
		return nil, err
	}
	if d.Images, err = image.Open(image.Config{DB: d.DB, Content: d.docs, Layers: d.layers, Registry: d.Registry}); err != nil {
		return nil, err
	}
	if d.Degraded() != "" {
		if err = d.adopt(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

const auto = "auto"

// openLayers opens the layers in the form asked for, which the data root remembers; in none, the one that works best here. What is there in
// another form goes on working: layers take the new form when they are wanted, containers keep what they were made with.
func (d *Depot) openLayers(dir, form string) (err error) {
	var before string
	if _, err := d.DB.Get("engine", "layers", &before); err != nil {
		return fmt.Errorf("read the form of layers: %w", err)
	}
	if form == "" {
		form = before
	}
	asked := form != "" && form != auto
	if !asked {
		form = ""
	}
	if d.layers, err = layer.Open(dir, layer.Options{Form: form, Jail: true}); err != nil {
		return err
	}
	if asked {
		if err := d.layers.Usable(); err != nil {
			return fmt.Errorf("%w: start the engine with --layers auto, or another form", err)
		}
	}
	if form != before { // a full disk must not keep the engine from starting
		if err := d.DB.Put("engine", "layers", form); err != nil {
			return fmt.Errorf("note the form of layers: %w", err)
		}
	}
	form = d.layers.Form()
	d.Driver = map[string]string{layer.FormLoop: layer.FormErofs, layer.FormDir: "overlayfs"}[form]
	if d.Driver == "" {
		d.Driver = form
	}
	d.Status = [][2]string{{"Layers", form}}
	return nil
}

// identity is the engine's own ID.
func identity(db *meta.DB) (string, error) {
	var s string
	found, err := db.Get("engine", "id", &s)
	if err != nil || found {
		return s, err
	}
	s = id.New()
	return s, db.Put("engine", "id", s)
}

// Sweep removes what a crash left half made, and what nobody refers to: neither an image nor a snapshot. It must run before the
// first pull and the first container of this process. Degraded it removes nothing: what has no record may have lost it.
func (d *Depot) Sweep() error {
	if d.Degraded() != "" {
		return nil
	}
	if err := d.Snapshots.Sweep(); err != nil {
		return err
	}
	if err := d.layers.Sweep(); err != nil {
		return err
	}
	c := gc.Config{Images: d.Images, Content: d.docs, Layers: d.layers, Start: true}
	ids, err := d.Snapshots.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		chain, err := d.Snapshots.Chain(id)
		if err != nil {
			return fmt.Errorf("keep the layers of container %s: %w", id, err)
		}
		c.Keep, c.Chains = append(c.Keep, chain...), append(c.Chains, layer.ChainID(chain))
	}
	if _, err = gc.Sweep(c); err == nil {
		keepRoom(d.root)
	}
	return err
}

// Size is a number of bytes that a flag takes.
type Size = upkeep.Size

// Upkeep looks after the data root. users names the containers that use an image, limit bounds what images take.
func (d *Depot) Upkeep(users func(image string) []string, limit Size, bus *event.Bus, log *slog.Logger) *upkeep.Service {
	return &upkeep.Service{Users: users, Limit: limit, Bus: bus, Log: log,
		Store: upkeep.Store{Root: d.root, DB: d.DB, Content: d.docs, Layers: d.layers, Images: d.Images, Snapshots: d.Snapshots.Store, Degraded: d.Degraded, Restore: d.records.Restore}}
}

// Degraded says why the engine runs on saved records, "" when it does not.
func (d *Depot) Degraded() string { return d.records.Degraded() }

// Backup copies sound records, for a salvage to fall back on.
func (d *Depot) Backup() error { return d.records.Backup() }

// adopt makes records of the images whose documents and layers are here.
func (d *Depot) adopt() error {
	l := image.LedgerOf(d.Images)
	ids, err := l.Unrecorded()
	if err != nil {
		return err
	}
	for _, id := range ids {
		_ = l.Adopt(id, false) // one that is not whole stays without a record, and is a stray
	}
	return l.CheckIndex(true)
}

// Close lets the data root go.
func (d *Depot) Close() error {
	if d.DB == nil {
		return nil
	}
	if d.Images != nil {
		image.Close(d.Images)
	}
	if d.layers != nil {
		d.layers.Close()
	}
	return errors.Join(d.records.Backup(), d.DB.Close())
}

// Records is one bucket of the records, for those who keep several kinds of their own in it.
func (d *Depot) Records(bucket string) Bucket { return Bucket{d.DB, bucket} }

// Snapshots gives the snapshot store the shape that container.Snapshots has.
type Snapshots struct{ *snapshot.Store }

// Rootfs returns the mounts of a snapshot.
func (s Snapshots) Rootfs(id string) (bundle.Rootfs, error) {
	return s.Store.Rootfs(context.Background(), id)
}

// Open returns them for a start.
func (s Snapshots) Open(id string) (bundle.Rootfs, *os.File, error) {
	return s.Store.Open(context.Background(), id)
}

// Prepare makes a snapshot.
func (s Snapshots) Prepare(ctx context.Context, id string, layers []digest.Digest) (bundle.Rootfs, error) {
	return s.Store.Prepare(ctx, id, layers)
}

// Usage is what the writable layer takes on disk, in bytes.
func (s Snapshots) Usage(id string) (int64, error) {
	bytes, _, err := s.Store.Usage(id)
	return bytes, err
}

// Bucket is one bucket; it has the shape of network.Records.
type Bucket struct {
	db   *meta.DB
	name string
}

// Put stores a record.
func (b Bucket) Put(key string, v any) error { return b.db.Put(b.name, key, v) }

// Get reads one.
func (b Bucket) Get(key string, v any) (bool, error) { return b.db.Get(b.name, key, v) }

// Delete removes one.
func (b Bucket) Delete(key string) error { return b.db.Delete(b.name, key) }

// Each visits all.
func (b Bucket) Each(f func(key string, raw []byte) error) error {
	return b.db.Each(b.name, f)
}
