package container

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Insight is what may be asked about containers without changing any.
type Insight struct{ *core }

// NewInsight looks into s.
func NewInsight(s *Service) *Insight { return &Insight{s.core} }

// Records returns the current records, oldest first.
func (s *Insight) Records() []*api.Container { return s.table.records() }

// Record returns the record of a container by name, ID or prefix.
func (s *Insight) Record(ref string) (*api.Container, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	return u.rec.Load(), nil
}

// Rootfs tells how a container's root file system is put together.
func (s *Insight) Rootfs(id string) (bundle.Rootfs, error) { return s.Snapshots.Rootfs(id) }

// Usage is how many bytes a container has written into its own layer.
func (s *Insight) Usage(id string) (int64, error) { return s.Snapshots.Usage(id) }

// Promise is the specification that the record asks for, as the next start would build it; nothing is connected or made. Paths of
// namespaces to join, and of files that a start writes, stand for themselves and need not exist.
func (s *Insight) Promise(rec *api.Container) (spec.Output, error) {
	in := spec.Input{Container: rec, Hostname: rec.Config.Hostname, Namespaces: map[specs.LinuxNamespaceType]string{}}
	var err error
	if in.Host, err = s.host(rec); err != nil {
		return spec.Output{}, err
	}
	if rec.HostConfig.UTSMode.IsHost() || in.Hostname == "" {
		in.Hostname, _ = os.Hostname()
	}
	if in.User, err = (&launch{c: s.core, rec: rec}).user(); err != nil {
		return spec.Output{}, err
	}
	dir := s.stateDir(rec.ID)
	in.HostsFile, in.ResolvConf, in.HostnameFile = dir+"/hosts", dir+"/resolv.conf", dir+"/hostname"
	return spec.Build(in)
}
