package interp

import (
	"syscall"
	"unsafe"

	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// What the child writes for the host to read lies in memory that both share: the PID that a Fork makes, and when each instruction began.
// A program that neither forks nor is traced has none.

// record is what is known of an instruction's time, in nanoseconds of CLOCK_MONOTONIC; 0: it was not executed.
type record struct {
	begin  int64
	end    int64 // host lane only
	arrive int64 // of a host-lane instruction: when the child came to the barrier before it
	_      int64
}

// header stands before the records.
type header struct {
	forked int32
	_      [28]byte
}

// share makes the shared memory, for a program that needs it.
func (m *machine) share(trace bool) error {
	need := trace
	for i := range m.ops {
		need = need || m.ops[i].kind == prog.Fork
	}
	if !need {
		return nil
	}
	size := int(unsafe.Sizeof(header{})) + len(m.ops)*int(unsafe.Sizeof(record{}))
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil {
		return err
	}
	m.shared = mem
	m.head = (*header)(unsafe.Pointer(&mem[0]))
	if trace {
		m.times = unsafe.Slice((*record)(unsafe.Pointer(&mem[unsafe.Sizeof(header{})])), len(m.ops))
	}
	return nil
}

// unshare gives our mapping back; the child has its own.
func (m *machine) unshare() {
	if m.shared != nil {
		syscall.Munmap(m.shared)
	}
	m.shared, m.head, m.times = nil, nil, nil
}

//go:norace
//go:nosplit
func now(m *machine) int64 {
	const monotonic = 1
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&m.clock[0])), 0)
	return m.clock[0]*1e9 + m.clock[1]
}

// fork clones once more. The kernel writes the new process's PID, as the host sees it, into the shared memory before that process runs: it
// reports the PID itself, before anything else that it has to say. The old one ends.
//
//go:norace
//go:nosplit
func fork(m *machine, i int, o *op) {
	const parentSettid = 0x100000
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, o.args[0]|parentSettid, 0, uintptr(unsafe.Pointer(&m.head.forked)), 0, 0, 0)
	if e != 0 {
		die(m, i, uintptr(e))
	}
	if pid != 0 {
		syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	send(m, msgForked, i, uintptr(m.head.forked))
}
