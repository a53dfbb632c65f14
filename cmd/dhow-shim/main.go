// Command dhow-shim supervises one container. The engine starts it as
//
//	dhow-shim RUNDIR
//
// in a session of its own, with RUNDIR/shim.json (wire.Config) in place. Descriptor 3, if it is a pipe, gets one newline when the
// socket listens. It never talks to a terminal; what nobody waits to hear goes to standard error.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/selfexe"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/shim"
)

// readyFD is the descriptor that the engine may pass.
const readyFD = 3

func main() {
	// A shim mostly sleeps: little heap before a collection, but none before it is first idle (each leaves the collector's own
	// tables larger; measured), and one processor's worth of caches.
	selfexe.Name("dhow-shim")
	runtime.MemProfileRate = 0
	debug.SetGCPercent(50)
	runtime.GOMAXPROCS(1)
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dhow-shim RUNDIR (the engine starts it; it is of no use by itself)")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "dhow-shim:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	ready := inherited(readyFD, isPipe)
	if err := os.Chdir(dir); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	cfg, err := shim.ReadConfig(dir)
	if err != nil {
		return err
	}
	host := facts.Begin()
	o := shim.Options{Create: func(o oci.CreateOptions) (shim.Container, error) {
		o.Host = host
		c, err := oci.Create(o)
		if err != nil {
			return nil, err
		}
		return c, nil
	}}
	if ready != nil {
		o.Ready = ready
	}
	return shim.Run(cfg, o)
}

// inherited returns a passed descriptor, closed for programs from now on, or nil if it is not what is expected there.
func inherited(fd int, is func(int) bool) *os.File {
	if !is(fd) {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), fmt.Sprintf("inherited descriptor %d", fd))
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}
