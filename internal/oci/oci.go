// Package oci is the runtime: it compiles a bundle into a Program, runs it, and afterwards knows, signals, enters and deletes
// the container that came of it.
//
// It promises that a failed step undoes all before it, and that what it leaves on disk under Root suffices for another process
// to go on. It must never execute a program other than the container's own (and hooks), nor import the engine's world.
package oci

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// CreateOptions says what Create shall make.
type CreateOptions struct {
	ID     string         // a path component, [a-zA-Z0-9_+.-]
	Root   string         // folder of runtime state; state lies in Root/ID/state.json
	Bundle string         // absolute folder of the bundle; program.txt is written there
	Spec   *bundle.Spec   // as loaded from the bundle
	Rootfs *bundle.Rootfs // nil: Spec.Root.Path is used as it is
	// Stdio are the container's descriptors 0, 1, 2. With Spec.Process.Terminal they are unused.
	Stdio [3]*os.File
	// Console receives the master side of the terminal when Spec.Process.Terminal is set.
	Console func(master *os.File) error
	// PreserveFDs passes the descriptors 3 .. 3+n-1 of this process on.
	PreserveFDs int
}

// ExecOptions says what Exec shall run inside a running container.
type ExecOptions struct {
	Process     *specs.Process
	Stdio       [3]*os.File
	Console     func(master *os.File) error
	PreserveFDs int
}

// Process is a child of this process: the init or an exec.
type Process struct {
	Pid   int
	Pidfd *os.File // CLOEXEC; readable when the process has ended
}
