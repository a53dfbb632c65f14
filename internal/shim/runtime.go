package shim

import (
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/oci"
)

// Container is what the shim asks of a container; *oci.Container is one. Signal, Pause, Resume and Update may be called while
// another call is in progress.
type Container interface {
	Init() *oci.Process
	Start() error
	Exec(o oci.ExecOptions) (*oci.Process, error)
	Signal(sig syscall.Signal, all bool) error
	Pause() error
	Resume() error
	Update(r *specs.LinuxResources) error
	Delete(force bool) error
	OOMKilled() bool
}

// CreateFunc makes a container: oci.Create, or a fake.
type CreateFunc func(o oci.CreateOptions) (Container, error)
