// Package rescue owns the opening of an engine's metadata, sound or not.
//
// It promises that an engine whose meta.db cannot be read starts all the same, degraded: with the records that can be saved, in a file of
// their own, the damaged one untouched until Restore moves it to quarantine. It must never sweep, and never save what is not there any more.
package rescue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	vol "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/volume"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

// Metadata is the open records of a data root.
type Metadata struct {
	DB *meta.DB

	root   string
	damage atomic.Pointer[string]
}

func (d *Metadata) path(name ...string) string {
	return filepath.Join(append([]string{d.root}, name...)...)
}

// Open opens the metadata of the data root, or what can be saved of it.
func Open(root string) (*Metadata, error) {
	d := &Metadata{root: root}
	return d, d.open()
}

func (d *Metadata) open() error {
	reason := ""
	if st, err := os.Stat(d.path("meta.db")); (errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0) && d.inhabited() {
		reason = "meta.db is missing or empty, and there are images or containers"
	}
	if reason == "" {
		db, err := meta.Open(d.path("meta.db"))
		if err == nil {
			d.DB = db
			return errors.Join(d.retire("meta.salvaged.db"), d.settle()) // saved of a damage that somebody has repaired by hand
		}
		if !errdef.Is(err, errdef.DataLoss) {
			return err
		}
		reason = err.Error()
	}
	saved := d.path("meta.salvaged.db")
	if _, err := os.Stat(saved); errors.Is(err, fs.ErrNotExist) {
		all, err := d.salvage()
		if err == nil {
			err = meta.Create(saved, all)
		}
		if err != nil {
			return fmt.Errorf("%s; save what can be read: %w", reason, err)
		}
	}
	db, err := meta.Open(saved)
	if err != nil {
		return err
	}
	d.DB = db
	d.damage.Store(&reason)
	return nil
}

// Degraded says why the engine runs on saved records, "" when it does not.
func (d *Metadata) Degraded() string {
	if p := d.damage.Load(); p != nil {
		return *p
	}
	return ""
}

// The record that says that the records were restored, until the next start has settled what they lack.
const engineBucket, restored = "engine", "restored"

// Restore puts the saved records in the place of the damaged ones.
func (d *Metadata) Restore() (string, error) {
	if err := d.DB.Put(engineBucket, restored, true); err != nil {
		return "", err
	}
	if err := d.retire("meta.db"); err != nil {
		return "", err
	}
	if err := os.Rename(d.path("meta.salvaged.db"), d.path("meta.db")); err != nil {
		return "", err
	}
	d.damage.Store(nil)
	return "the saved records are meta.db now; the damaged file is in quarantine", d.Backup()
}

// settle keeps what belongs to containers whose records were lost, at the first start after a restore: any start removes writable layers
// and anonymous volumes that no container has. The layers go into quarantine, the volumes are nobody's from now on.
func (d *Metadata) settle() error {
	if was, err := d.DB.Get(engineBucket, restored, new(bool)); err != nil || !was {
		return err
	}
	lost := func(id string) bool {
		known, err := d.DB.Get("containers", id, new(json.RawMessage))
		return err == nil && !known // one that cannot be read still owns its things
	}
	dirs, err := os.ReadDir(d.path("snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range dirs {
		if !strings.HasPrefix(e.Name(), ".") && lost(e.Name()) {
			if err := d.retire("snapshots/" + e.Name()); err != nil {
				return err
			}
		}
	}
	err = d.DB.Each("volumes", func(name string, raw []byte) error {
		var v struct {
			vol.Volume
			Owner string
		}
		if json.Unmarshal(raw, &v) != nil || v.Owner == "" || !lost(v.Owner) {
			return nil
		}
		return d.DB.Put("volumes", name, v.Volume)
	})
	if err != nil {
		return err
	}
	return d.DB.Delete(engineBucket, restored)
}

// retire moves a file or folder into quarantine; that there is none is no error.
func (d *Metadata) retire(name string) error {
	if _, err := os.Lstat(d.path(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(d.path("quarantine"), 0o700); err != nil {
		return err
	}
	return os.Rename(d.path(name), d.path("quarantine", fmt.Sprint(time.Now().Unix(), "-", filepath.Base(name))))
}

// Backup copies sound records to meta.db.bak, for a salvage to fall back on.
func (d *Metadata) Backup() error {
	if d.Degraded() != "" {
		return nil
	}
	return d.DB.Backup(d.path("meta.db.bak"))
}

// inhabited tells a data root with something in it from a new one.
func (d *Metadata) inhabited() bool {
	for _, dir := range []string{"content/blobs/sha256", "layers/sha256", "volumes"} {
		if list, _ := os.ReadDir(d.path(dir)); len(list) > 0 {
			return true
		}
	}
	return false
}

// salvage collects records: of the damaged file, of the last backup, of the disk. What it finds in files that may be old counts only where
// the thing itself is still there.
func (d *Metadata) salvage() (meta.Records, error) {
	all, _, err := meta.Salvage(d.path("meta.db"))
	if err != nil {
		return nil, err
	}
	old, _, err := meta.Salvage(d.path("meta.db.bak"))
	if err != nil {
		return nil, err
	}
	images, names, _ := image.Buckets()
	all.Add(meta.Records{names[0]: d.tagsOnDisk()}) // younger than the backup
	all.Add(old)
	for bucket, at := range map[string]func(key string) string{
		"containers": func(id string) string { return d.path("snapshots", id) },
		"volumes":    func(name string) string { return d.path("volumes", name) },
		images:       func(id string) string { return d.path("content/blobs/sha256", digest.Digest(id).Encoded()) },
	} {
		for key := range all[bucket] {
			if bucket == images && digest.Digest(key).Validate() != nil {
				delete(all[bucket], key)
			} else if _, err := os.Lstat(at(key)); err != nil {
				delete(all[bucket], key)
			}
		}
	}
	all.Add(meta.Records{"volumes": d.volumesOnDisk()})
	return all, nil
}

// volumesOnDisk makes records of the volumes' folders.
func (d *Metadata) volumesOnDisk() map[string][]byte {
	out := map[string][]byte{}
	list, _ := os.ReadDir(d.path("volumes"))
	for _, e := range list {
		v, ok := volume.OfFolder(d.path("volumes"), e.Name())
		if !ok {
			continue
		}
		if raw, err := json.Marshal(v); err == nil {
			out[e.Name()] = raw
		}
	}
	return out
}

// read reads a regular file; nobody is waited for as behind a pipe.
func read(path string, limit int64) ([]byte, error) {
	f, err := atomicfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// maxIndex bounds the layout's index.json that is read: 100,000 names are 30 MiB.
const maxIndex = 64 << 20

// tagsOnDisk reads the names of images out of the layout's index.json.
func (d *Metadata) tagsOnDisk() map[string][]byte {
	out := map[string][]byte{}
	var ix ocispec.Index
	raw, err := read(d.path("content", ocispec.ImageIndexFile), maxIndex)
	if err != nil || json.Unmarshal(raw, &ix) != nil {
		return out
	}
	for _, m := range ix.Manifests {
		name := m.Annotations[ocispec.AnnotationRefName]
		if name == "" || m.Digest.Validate() != nil {
			continue
		}
		raw, err := read(d.path("content/blobs/sha256", m.Digest.Encoded()), manifest.MaxSize)
		if err != nil || digest.FromBytes(raw) != m.Digest {
			continue
		}
		if doc, err := manifest.Decode(raw, ""); err == nil && doc.Manifest != nil {
			out[name], _ = json.Marshal(doc.Manifest.Config.Digest)
		}
	}
	return out
}
