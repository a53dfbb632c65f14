package oci

import (
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// processor is where a mount namespace is to be made that a file can hold, and those that the container may use.
type processor struct{ mask, before unix.CPUSet }

// youngest is nil where any will do.
func youngest() *processor {
	on, before, found := facts.Youngest()
	if !found {
		return nil
	}
	return &processor{on, before}
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
