package interp

import (
	"runtime"

	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// link resolves a program into the form that runs: addresses for data, numbers for calls, bit sets for errnos.
func link(p *prog.Program) *machine {
	m := &machine{
		ops:  make([]op, len(p.Ins)),
		regs: make([]uintptr, max(p.Regs, 1)),
		data: make([][]byte, len(p.Data)),
	}
	total := 0
	for i := range p.Data {
		total += room(len(p.Data[i].Bytes))
	}
	arena := make([]byte, total)
	for i := range p.Data { // a copy: the program stays as it was compiled
		n := len(p.Data[i].Bytes)
		m.data[i] = arena[:max(n, 1)]
		copy(m.data[i], p.Data[i].Bytes)
		arena = arena[room(n):]
	}
	for i := range p.Data {
		for _, r := range p.Data[i].Relocs {
			relocate(m.data[i], r.At, m.data[r.Target])
		}
	}
	widest := 0
	for i := range p.Ins {
		m.ops[i] = linkOne(&p.Ins[i], m, i)
		m.parks = m.parks || p.Ins[i].Op == prog.Park
		widest = max(widest, len(p.Ins[i].Keep))
		if p.Ins[i].Op == prog.Make && m.walk == nil {
			m.walk = new(walk)
		}
	}
	m.low = make([]uintptr, widest+2)
	return m
}

// room is what n bytes take: aligned for whatever structure they hold.
func room(n int) int { return (max(n, 1) + 15) &^ 15 }

func linkOne(in *prog.Ins, m *machine, i int) op {
	o := op{kind: in.Op, host: in.Lane == prog.Host, out: uintptr(in.Out), errno: uintptr(in.Errno), next: in.Goto}
	if o.next == 0 {
		o.next = i + 1
	}
	if in.Op == prog.Syscall {
		o.nr, o.again = in.Sys.Number(runtime.GOARCH), again(in.Sys)
	}
	for k, a := range in.Args {
		o.args[k] = uintptr(a.Val)
		switch {
		case in.Op != prog.Syscall: // Store, Expect, Park take indexes
		case a.Kind == prog.InReg:
			o.regs |= 1 << k
		case a.Kind == prog.InData:
			o.args[k] = address(m.data[a.Val])
		}
	}
	if in.Op == prog.Spawn {
		o.args[0] = address(m.data[in.Args[0].Val])
	}
	if in.Op == prog.Fork {
		o.args[0] = uintptr(in.Flags)
	}
	for _, e := range in.Tolerate {
		if e < 128 {
			o.toler[e>>6] |= 1 << (e & 63)
		}
	}
	for _, r := range in.Keep {
		o.keep = append(o.keep, uintptr(r))
	}
	return o
}

// again is how often a call is made again that was ended by EAGAIN: bpf(2)'s verifier by a signal, openat2(2) below a folder by any mount or
// renaming on the machine, when a link on its way has "..". Who renames all the time cannot hold us up for ever.
func again(s prog.Sys) int {
	if s == prog.SysBpf || s == prog.SysOpenat2 {
		return 10000
	}
	return 0
}
