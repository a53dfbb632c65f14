package oci

import (
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// A file holds a mount namespace only where that is younger than the one the file is in (else they could hold each other; the kernel's
// answer is ELOOP). Linux 6.18 tells their age by a number, which it takes from a store of the processor's own: a namespace made on another
// processor than ours may count as older. So where one is to be held, it is made on a processor that gives it a greater number.

// processor is where a mount namespace is to be made; mask is empty where any will do.
type processor struct{ mask, before unix.CPUSet }

// youngest finds a processor on which new mount namespaces are younger than the one we are in; nil where there is nothing to choose.
func youngest() *processor {
	var p processor
	ours, ok := mountNamespaceNumber()
	if !ok || unix.SchedGetaffinity(0, &p.before) != nil {
		return nil // before Linux 6.18 one processor numbers for all
	}
	found := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		for cpu := range len(p.mask) * 64 {
			p.mask.Zero()
			p.mask.Set(cpu)
			if unix.SchedSetaffinity(0, &p.mask) != nil || unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS) != nil {
				continue
			}
			if n, ok := mountNamespaceNumber(); ok && n > ours {
				found <- true
				return
			}
		}
		found <- false
	}()
	if !<-found {
		return nil // the kernel will say so
	}
	return &p
}

// mountNamespaceNumber is the number of this thread's mount namespace, which its file handle begins with (struct nsfs_file_handle).
func mountNamespaceNumber() (uint64, bool) {
	f, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	h, _, err := unix.NameToHandleAt(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil || len(h.Bytes()) < 8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(h.Bytes()), true
}

// list are the processors that the container may use, in the kernel's format of lists; "" where they are what they were.
func (p *processor) list() string {
	if p == nil {
		return ""
	}
	var out []string
	for cpu := range len(p.before) * 64 {
		if p.before.IsSet(cpu) {
			out = append(out, strconv.Itoa(cpu))
		}
	}
	return strings.Join(out, ",")
}

// run runs a program whose child is made there; all else, hooks too, is done where it would be.
func (p *processor) run(program *prog.Program, env interp.Env) (*interp.Running, error) {
	if p == nil {
		return interp.Run(program, env)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &p.mask); err != nil {
		return nil, err
	}
	back := func() { unix.SchedSetaffinity(0, &p.before) }
	defer back()
	meanwhile := env.Meanwhile
	env.Meanwhile = func() { back(); meanwhile() }
	return interp.Run(program, env)
}
