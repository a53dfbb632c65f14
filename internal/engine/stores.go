package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/engine/group"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/dhow-containers/dhow/internal/store/snapshot"
)

// stores is all that the engine keeps on disk besides records.
type stores struct {
	content   *content.Store
	layers    *layer.Store
	images    *image.Store
	snapshots *snapshot.Store
	registry  *registry.Client
	driver    string
	status    [][2]string
}

func openStores(c Config, db *meta.DB) (*stores, error) {
	s := &stores{registry: registry.New(registry.Config{Insecure: c.Insecure, UserAgent: "dhow/" + c.Version})}
	var err error
	if s.content, err = content.Open(filepath.Join(c.DataRoot, "content")); err != nil {
		return nil, err
	}
	if s.layers, err = layer.Open(filepath.Join(c.DataRoot, "layers"), layer.Options{}); err != nil {
		return nil, err
	}
	if s.snapshots, err = snapshot.Open(filepath.Join(c.DataRoot, "snapshots"), s.layers); err != nil {
		return nil, err
	}
	if s.images, err = image.Open(image.Config{DB: db, Content: s.content, Layers: s.layers, Registry: s.registry}); err != nil {
		return nil, err
	}
	form, loop := s.layers.Form()
	s.driver = "overlayfs"
	s.status = [][2]string{{"Layers", form}, {"Loop devices", strconv.FormatBool(loop)}}
	return s, nil
}

// sweep removes what a crash left half made.
func (s *stores) sweep() error {
	if err := s.snapshots.Sweep(); err != nil {
		return err
	}
	return s.layers.Sweep()
}

// snapshots gives the snapshot store the shape that container.Snapshots has.
type snapshots struct{ *snapshot.Store }

func (s snapshots) Rootfs(id string) (bundle.Rootfs, error) {
	return s.Store.Rootfs(context.Background(), id)
}

func (s snapshots) Prepare(ctx context.Context, id string, layers []digest.Digest) (bundle.Rootfs, error) {
	return s.Store.Prepare(ctx, id, layers)
}

func (s snapshots) Usage(id string) (int64, error) {
	bytes, _, err := s.Store.Usage(id)
	return bytes, err
}

// bucket gives one bucket of the metadata store the shape that network.Records has.
type bucket struct {
	db   *meta.DB
	name string
}

func (b bucket) Put(key string, v any) error         { return b.db.Put(b.name, key, v) }
func (b bucket) Get(key string, v any) (bool, error) { return b.db.Get(b.name, key, v) }
func (b bucket) Delete(key string) error             { return b.db.Delete(b.name, key) }
func (b bucket) Each(f func(key string, raw []byte) error) error {
	return b.db.Each(b.name, f)
}

// hostFacts reads what spec.Build has to know of the machine and of this process.
func hostFacts(tree group.Tree) (spec.Host, error) {
	h := spec.Host{NCPU: runtime.NumCPU(), CgroupV2: tree.V2(), SwapLimit: tree.Swap(), Seccomp: seccomp.Default, Rlimits: map[string]uint64{}}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return h, fmt.Errorf("read own capabilities: %w", err)
	}
	for _, l := range strings.Split(string(status), "\n") {
		if v, ok := strings.CutPrefix(l, "CapPrm:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return h, fmt.Errorf("read own capabilities: %w", err)
			}
			h.Caps = spec.CapNames(mask)
		}
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return h, err
	}
	if h.OOMScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(score))); err != nil {
		return h, fmt.Errorf("read own OOM score: %w", err)
	}
	// The numbers of getrlimit(2), the same on amd64 and arm64.
	for i, name := range []string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"} {
		var r syscall.Rlimit
		if err := syscall.Getrlimit(i, &r); err == nil {
			h.Rlimits["RLIMIT_"+name] = r.Max
		}
	}
	return h, nil
}
