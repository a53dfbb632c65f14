// Package check owns the comparison of everything the store has on disk with what it should be, and its repair.
//
// It promises that a check changes nothing, that a repair touches only what it found damaged, that nothing an image or a container needs
// is removed while anything else can be done, and that what it takes away for good lies in the quarantine folder. Both run beside pulls
// and containers. It must never repair by guessing: bytes come from the tar they follow from, or from a registry, by their digest.
package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/snapshot"
)

// Config says what is checked. All but Degraded, Restore, Keys and Report are required.
type Config struct {
	Root      string // the data root: for the quarantine, and shortened in findings
	DB        *meta.DB
	Content   *content.Store
	Layers    *layer.Store
	Images    *image.Store
	Snapshots *snapshot.Store
	// Users names the containers that an image is used by.
	Users func(image string) []string
	// Degraded says why the metadata is a saved copy, "" when it is not; Restore puts the copy in the place of what is damaged.
	Degraded func() string
	Restore  func() (did string, err error)
	// Keys are the credentials for fetching anew.
	Keys image.Keys
	// Repair mends what is found.
	Repair bool
	// Report is told every finding as it comes.
	Report func(Finding)
}

// Kinds of what a finding is about.
const (
	Blob      = "blob"
	Layer     = "layer"
	Index     = "index" // what is kept beside a tar, or of a chain of layers
	Image     = "image"
	Name      = "name" // a tag or digest
	Container = "container"
	Record    = "record" // of the metadata
	Metadata  = "metadata"
	Stray     = "stray"
	Mode      = "mode" // or the owner
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind, Object string
	Path         string `json:",omitempty"` // below the data root
	Problem      string
	Advice       string // what to do; after a repair what was done, or why not
	Repaired     bool
}

// Summary counts what was looked at.
type Summary struct {
	Records, Images, Blobs, Layers, Merged, Snapshots int
	Bytes                                             int64 // read and hashed
	Found, Repaired                                   int
}

// young is how old a snapshot without a container must be: one that is being made has no record yet.
const young = 3 * time.Minute

// run is a check under way.
type run struct {
	Config
	ctx   context.Context
	sum   Summary
	fetch *image.Refetcher
	hold  *image.Batch // keeps what was on record

	all    []image.Record
	live   image.Live
	lost   map[digest.Digest]bool            // blobs and layers that are damaged still
	needed map[digest.Digest]map[string]bool // layers that snapshots need, and whose they are
}

// Run checks everything, and with Repair mends. The error is about the check itself; what is wrong with the store is in the findings.
func Run(ctx context.Context, c Config) (Summary, error) {
	if c.Report == nil {
		c.Report = func(Finding) {}
	}
	defer func() { <-c.Layers.Free() }()
	u := &run{Config: c, ctx: ctx, lost: map[digest.Digest]bool{}, needed: map[digest.Digest]map[string]bool{}}
	for _, step := range []func() error{metadata{u}.records, modes{u}.all, u.images} {
		if err := step(); err != nil {
			return u.sum, fmt.Errorf("check: %w", err)
		}
	}
	return u.sum, nil
}

// images checks all that images and snapshots need. What is on record stays meanwhile.
func (u *run) images() error {
	var strays []stray
	var err error
	u.hold, err = image.LedgerOf(u.Images).Audit(func(all []image.Record, live image.Live, bad []error) (err error) {
		u.all, u.live = all, live
		if len(bad) == 0 { // what an unreadable record needs would look like a stray
			strays, err = u.strays()
		}
		return err
	})
	if err != nil {
		return err
	}
	defer u.hold.Close()
	if u.fetch, err = image.LedgerOf(u.Images).Refetcher(u.Keys); err != nil {
		return err
	}
	defer u.fetch.Rest()
	u.sum.Images = len(u.all)
	for _, step := range []func() error{u.blobs, u.layers, u.merged, u.documents, u.snapshots} {
		if err := step(); err != nil {
			return err
		}
	}
	u.remove(strays)
	u.giveUp()
	return u.index()
}

// found reports; with Repair it mends first. can says in the check what a repair would do, or what else there is to do.
func (u *run) found(f Finding, can string, repair func() (did string, err error)) (repaired bool) {
	f.Path = u.short(f.Path)
	f.Advice = can
	if repair != nil && !u.Repair {
		f.Advice = "dhow system check --repair " + can
	}
	if repair != nil && u.Repair {
		did, err := repair()
		if f.Repaired = err == nil; f.Repaired {
			f.Advice = did
		} else {
			f.Advice = "not repaired: " + err.Error()
		}
	}
	u.sum.Found++
	if f.Repaired {
		u.sum.Repaired++
	}
	u.Report(f)
	return f.Repaired
}

func (u *run) short(path string) string {
	if rel, err := filepath.Rel(u.Root, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}

// quarantine moves a file or folder out of the store's way.
func (u *run) quarantine(path string) (to string, err error) {
	dir := filepath.Join(u.Root, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	to = filepath.Join(dir, strconv.FormatInt(time.Now().UnixNano(), 36)+"-"+filepath.Base(path))
	return u.short(to), os.Rename(path, to)
}

// clear takes a folder out of the place of a file, which no file would replace.
func (u *run) clear(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.IsDir() {
		_, err = u.quarantine(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// names tells users which images need something.
func (u *run) names(match func(image.Record) bool) string {
	var out []string
	for _, r := range u.all {
		if !match(r) {
			continue
		}
		name := short(r.ID)
		if len(r.Tags) > 0 {
			name = familiar(r.Tags[0])
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// from names the registry that something can be had from, "" for none.
func (u *run) from(match func(image.Record) bool) string {
	for _, r := range u.all {
		if match(r) && len(r.From) > 0 {
			if at, err := ref.Parse(r.From[0]); err == nil {
				return at.FamiliarName()
			}
		}
	}
	return ""
}

func familiar(name string) string {
	if r, err := ref.Parse(name); err == nil {
		return r.Familiar()
	}
	return name
}

func short(d digest.Digest) string { return d.Encoded()[:12] }
