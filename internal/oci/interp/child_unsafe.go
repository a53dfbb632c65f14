package interp

import (
	"syscall"
	"unsafe"

	"github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// The runtime's own hooks around a fork, as syscall.forkExec uses them: they block signals in the parent, and make the child
// forget Go's signal handlers.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// op is an instruction in the form that the child walks: everything resolved, nothing to allocate.
type op struct {
	kind  prog.Op
	host  bool // belongs to the host lane: the child waits at a barrier
	nr    uintptr
	args  [6]uintptr
	regs  uint8 // bit k: args[k] is a register number
	again int   // so often an EAGAIN is tried again
	out   uintptr
	toler [2]uint64 // bit set of tolerated errnos below 128
	next  int       // where to go on a tolerated errno
	errno uintptr
	keep  []uintptr // registers whose descriptors Keep spares, in ascending order once loaded
}

// machine is what the child needs, all of it allocated before the clone.
type machine struct {
	ops  []op
	regs []uintptr
	// ctl is read to pass a barrier, status is written to report: the same descriptor, until a Park names two.
	ctl, status uintptr
	msg         [12]byte // kind, index, value: the message being written
	low         []uintptr
	data        [][]byte
	parks       bool // the program has a Park
	clone       cloneArgs
	mask        uint64 // of signals, before the clone
	clock       [2]int64
	shared      []byte // memory that the child writes for us to read
	head        *header
	times       []record // of a traced program
	walk        *walk    // for Make; nil where there is none
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, signal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// Messages of the child's: kind, index of the instruction, value.
const (
	msgBarrier = 1 // value: with Listen, a register
	msgFail    = 2 // value: errno
	msgForked  = 3 // value: PID of the new process
	msgParked  = 4
)

// clone makes the child and runs the program in it from instruction start; in the parent it returns the child's PID.
// Nothing between the clone and execve may allocate, lock, grow the stack or touch another goroutine's state.
//
// With a cgroup descriptor the child is born there (clone3(2), CLONE_INTO_CGROUP), which no lock of the kernel's delays. With
// CLONE_CLEAR_SIGHAND the kernel makes it forget Go's signal handlers, all at once.
//
//go:norace
//go:noinline
func clone(flags, cgroup uintptr, m *machine, start int) (pid uintptr, err syscall.Errno) {
	args := &m.clone
	args.flags, args.signal = uint64(flags&^0xff), uint64(flags&0xff)
	if cgroup != 0 {
		args.flags |= cloneIntoCgroup
		args.cgroup = uint64(cgroup)
	}
	clear := args.flags&uapi.CLONE_CLEAR_SIGHAND != 0
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, 0, uintptr(unsafe.Pointer(&m.mask)), 8, 0, 0)
	beforeFork() // blocks all signals
	if cgroup != 0 || clear {
		pid, _, err = syscall.RawSyscall(sysClone3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	} else {
		pid, _, err = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	}
	if err != 0 || pid != 0 {
		afterFork()
		return pid, err
	}
	if clear {
		const sigSetmask = 2
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&m.mask)), 0, 8, 0, 0)
	} else {
		afterForkInChild()
	}
	run(m, start)
	return 0, 0 // not reached
}

//go:norace
//go:nosplit
func run(m *machine, i int) {
	for i < len(m.ops) {
		o := &m.ops[i]
		if m.times != nil {
			if o.host {
				m.times[i].arrive = now(m)
			} else {
				m.times[i].begin = now(m)
			}
		}
		if o.host {
			n := uintptr(0)
			if o.kind == prog.Listen { // the one register of the child's that the host lane needs
				n = m.regs[o.args[0]]
			}
			send(m, msgBarrier, i, n)
			wait(m)
			for i < len(m.ops) && m.ops[i].host {
				i++
			}
			continue
		}
		switch o.kind {
		case prog.Syscall:
			r, e := call(m, o)
			if e != 0 {
				if e < 128 && o.toler[e>>6]&(1<<(e&63)) != 0 {
					i = o.next
					continue
				}
				die(m, i, e)
			}
			if o.out != 0 {
				m.regs[o.out] = r
			}
		case prog.Store:
			storeReg(m, o)
		case prog.Load:
			m.regs[o.out] = loadReg(m, o)
		case prog.Expect:
			if loadReg(m, o)&o.args[3] != o.args[2] {
				if o.errno != 0 {
					die(m, i, o.errno)
				}
				i = o.next
				continue
			}
		case prog.Jump:
			i = o.next
			continue
		case prog.Fail:
			die(m, i, o.errno|ended(m, o))
		case prog.Spawn:
			if spawn(m, i, o) {
				i = o.next
				continue
			}
		case prog.Fork:
			fork(m, i, o)
		case prog.Keep:
			keep(m, o)
		case prog.Make:
			m.regs[o.out] = makePath(m, i, o)
		case prog.Park:
			if o.args[2] == 0 {
				send(m, msgParked, i, 0)
			}
			if o.args[0] != 0 { // another process will release us, through pipes of its own, once who made us has written down who we are
				wait(m)
				m.ctl, m.status = m.regs[o.args[0]], m.regs[o.args[1]]
			}
			wait(m)
		}
		i++
	}
	die(m, len(m.ops)-1, uintptr(uapi.EINVAL)) // a program ends in execve
}

//go:norace
//go:nosplit
func call(m *machine, o *op) (uintptr, uintptr) {
	a := o.args
	if o.regs != 0 {
		for k := range a {
			if o.regs&(1<<k) != 0 {
				a[k] = m.regs[a[k]]
			}
		}
	}
	for again := o.again; ; {
		r, _, e := syscall.RawSyscall6(o.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e == syscall.EAGAIN && again > 0 {
			again--
			continue
		}
		if e != syscall.EINTR {
			return r, uintptr(e)
		}
	}
}

// spawn clones a process and tells whether this is the one that was cloned from.
//
//go:norace
//go:nosplit
func spawn(m *machine, i int, o *op) bool {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, clonePidfd|uintptr(syscall.SIGCHLD), 0, o.args[0], 0, 0, 0)
	if e != 0 {
		die(m, i, uintptr(e))
	}
	return pid != 0
}

// ended packs how a process ended, as its siginfo tells, above the bits of an errno: its exit code, or 256 and the signal.
//
//go:norace
//go:nosplit
func ended(m *machine, o *op) uintptr {
	if o.args[1] == 0 {
		return 0
	}
	info := m.data[o.args[0]]
	how := uintptr(info[o.args[2]])
	if info[o.args[1]] != cldExited {
		how |= 256
	}
	return how << 12
}

// keep closes all descriptors from args[0] on, but the program's own and the named registers.
//
//go:norace
//go:nosplit
func keep(m *machine, o *op) {
	n := 0
	m.low[n] = m.ctl
	n++
	m.low[n] = m.status
	n++
	for _, r := range o.keep {
		m.low[n] = m.regs[r]
		n++
	}
	for a := 1; a < n; a++ { // insertion sort: a handful of entries
		for b := a; b > 0 && m.low[b-1] > m.low[b]; b-- {
			m.low[b-1], m.low[b] = m.low[b], m.low[b-1]
		}
	}
	from := o.args[0]
	for a := 0; a < n; a++ {
		if m.low[a] > from {
			syscall.RawSyscall(sysCloseRange, from, m.low[a]-1, 0)
		}
		if m.low[a] >= from {
			from = m.low[a] + 1
		}
	}
	syscall.RawSyscall(sysCloseRange, from, 1<<31-1, 0)
}

//go:norace
//go:nosplit
func send(m *machine, kind byte, i int, value uintptr) {
	m.msg = [12]byte{0: kind}
	*(*uint32)(unsafe.Pointer(&m.msg[4])) = uint32(i)
	*(*uint32)(unsafe.Pointer(&m.msg[8])) = uint32(value)
	for {
		_, _, e := syscall.RawSyscall(syscall.SYS_WRITE, m.status, uintptr(unsafe.Pointer(&m.msg[0])), 12)
		if e != syscall.EINTR {
			return
		}
	}
}

// wait blocks until the host lane lets the child go on; when the host is gone the child ends.
//
//go:norace
//go:nosplit
func wait(m *machine) {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, m.ctl, uintptr(unsafe.Pointer(&m.msg[0])), 1)
		if e == syscall.EINTR {
			continue
		}
		if e != 0 || n != 1 {
			exit()
		}
		return
	}
}

//go:norace
//go:nosplit
func die(m *machine, i int, errno uintptr) {
	send(m, msgFail, i, errno)
	exit()
}

// exit ends the process, also where its seccomp filter does not let it: there is no memory at the address that is written to.
//
//go:norace
//go:nosplit
func exit() {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT, 255, 0, 0)
		*(*byte)(nil) = 0
	}
}

// address returns where data lies; the caller keeps it alive. Heap memory does not move in Go.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// relocate writes the address of target into b at offset at.
func relocate(b []byte, at int, target []byte) {
	*(*uint64)(unsafe.Pointer(&b[at])) = uint64(address(target))
}

const (
	sysCloseRange   = 436
	sysClone3       = 435
	cloneIntoCgroup = 0x200000000
	clonePidfd      = 0x1000
	cldExited       = 1
)

//go:norace
//go:nosplit
func loadReg(m *machine, o *op) uintptr {
	return uintptr(*(*uint32)(unsafe.Pointer(&m.data[o.args[0]][o.args[1]])))
}

//go:norace
//go:nosplit
func storeReg(m *machine, o *op) {
	*(*uint32)(unsafe.Pointer(&m.data[o.args[1]][o.args[2]])) = uint32(m.regs[o.args[0]])
}
