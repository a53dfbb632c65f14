// Package interp executes Programs: the host lane in this process, the child lane in a raw clone of it.
//
// It owns the clone, the socket pair between the lanes and the reading of the child's reports. It promises that a program that
// fails leaves no child behind, and names the instruction and the errno. It must never decide anything, format text, or run
// Go code in the child beyond the loop in child_unsafe.go.
package interp

import (
	"strconv"
	"syscall"

	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// Env is what the host lane needs from its caller. Nil functions make the instruction that needs them fail with ENOSYS.
type Env struct {
	// Hook runs a hook while the child waits.
	Hook func(h prog.HookCall, pid int) error
	// HookState returns what hooks of a kind inside the container read.
	HookState func(kind string, pid int) ([]byte, error)
	// Terminal takes the master side of the container's terminal, and owns the descriptor from then on.
	Terminal func(fd int) error
	// Unit has systemd make the container's scope around a process that waits.
	Unit func(pid int) error
	// Listener hands the child's seccomp listener on through a connected socket; fd and socket are closed when it returns.
	Listener func(socket, fd, pid int) error
	// Meanwhile is run once the child exists, before anybody waits for it.
	Meanwhile func()
	// Wait, where set, returns when there is something to read from the descriptor by which the child reports, or why nobody waits any
	// longer: the child is killed then, and not waited for, as one that is frozen dies only when it is thawed.
	Wait func(line int) error
	// Trace has the time of every instruction taken, which Times then tells.
	Trace bool
	// NetDevice moves a network device of ours into a network namespace, under another name unless as is empty.
	NetDevice func(name, as string, ns int) error
	// Loop attaches a loop device to a file; the descriptor becomes the interpreter's. The device frees itself with its last user.
	Loop func(file string) (fd int, device string, err error)
	// CopyUp copies what one folder holds into another, both given as descriptors that stay the interpreter's.
	CopyUp func(from, to int) error
}

// StepError tells which instruction failed. Err, where set, comes from a hook or the terminal's receiver.
type StepError struct {
	Index int
	Errno syscall.Errno
	Err   error
	// Ended tells, where it is not 0, how the process ended that the instruction was about: its exit code, or 256 and the signal.
	Ended int
	// Output is the end of what hooks inside the container printed.
	Output []byte
}

func (e *StepError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return "instruction " + strconv.Itoa(e.Index) + ": " + e.Errno.Error()
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error {
	if e.Err != nil {
		return e.Err
	}
	return e.Errno
}

// Lost is the errno reported when the child died without a word (killed from outside, or out of memory).
const Lost = syscall.ESRCH

// Running is a child that has been made.
type Running struct {
	Pid    int // in this process's PID namespace
	m      *machine
	p      *prog.Program
	env    Env
	line   int // our end of the socket pair: we read reports and write what lets the child go on
	first  int // the process cloned first, while it is not Pid and not reaped
	listen int // the Listen instruction that was reached and not served, else 0
	parked bool
	// stopped is the host-lane instruction that failed: it and those behind it did nothing.
	stopped int
	// given tells that Env.Wait has given up.
	given bool
}

// Run executes the program up to its Park, or to execve where it has none. After an error everything the program's processes
// were is gone; folders named by Undo are the caller's to remove.
func Run(p *prog.Program, env Env) (*Running, error) {
	r := &Running{m: link(p), p: p, env: env, line: -1, stopped: len(p.Ins)}
	if err := r.m.share(env.Trace); err != nil {
		return nil, err
	}
	defer func() {
		if !env.Trace { // else Times gives it back
			r.m.unshare()
		}
	}()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0) // one call for what takes two pipes
	if err != nil {
		return nil, err
	}
	r.line, r.m.ctl, r.m.status = pair[0], uintptr(pair[1]), uintptr(pair[1])
	i, err := r.host(0)
	if err == nil && i < len(p.Ins) {
		cgroup := uintptr(0)
		if a := p.Ins[i].Args[0]; a.Kind == prog.InReg {
			cgroup = r.m.regs[a.Val]
		}
		r.began(i)
		pid, errno := clone(uintptr(p.Ins[i].Flags), cgroup, r.m, i+1)
		r.ended(i)
		if errno != 0 {
			err = &StepError{Index: i, Errno: errno}
		}
		r.Pid, r.first = int(pid), int(pid)
		r.m.regs[p.Ins[i].Out] = pid
	}
	syscall.Close(pair[1])
	if err == nil {
		if env.Meanwhile != nil {
			env.Meanwhile()
		}
		err = r.follow()
	}
	r.closeHostRegs()
	if err != nil {
		r.abandon()
		return nil, err
	}
	return r, nil
}

// Parked reports whether the child waits for Release.
func (r *Running) Parked() bool { return r.parked }

// Release lets a parked child go on and returns when it has called execve, or with the step that failed.
func (r *Running) Release() error {
	if _, err := syscall.Write(r.line, []byte{1}); err != nil {
		r.abandon()
		return &StepError{Index: len(r.p.Ins) - 1, Errno: Lost}
	}
	if err := r.follow(); err != nil {
		r.abandon()
		return err
	}
	return nil
}

// HandOver leaves a parked child to another process, which will release it. Until then the child ends with this one.
func HandOver(r *Running) error {
	_, err := syscall.Write(r.line, []byte{1})
	r.Forget()
	if err != nil {
		return &StepError{Index: len(r.p.Ins) - 1, Errno: Lost}
	}
	return nil
}

// Forget closes our end of the line.
func (r *Running) Forget() {
	if fd := r.outputFD(); fd >= 0 {
		syscall.Close(fd)
		r.m.regs[r.p.Output] = 0
	}
	closeFD(&r.line)
}

// follow reads the child's reports and serves its barriers until it parks or has called execve (the line's end).
func (r *Running) follow() error {
	for {
		if r.env.Wait != nil {
			if err := r.env.Wait(r.line); err != nil {
				r.given = true
				return &StepError{Index: -1, Err: err}
			}
		}
		kind, index, value, ok := readMessage(r.line)
		if !ok {
			if !r.parked && r.m.parks {
				return &StepError{Index: len(r.p.Ins) - 1, Errno: Lost}
			}
			r.Forget() // execve closed the line; a child killed meanwhile is told by its exit status
			learn(r)
			r.reapFirst()
			return nil
		}
		switch kind {
		case msgBarrier:
			if _, err := r.host(index); err != nil {
				return err
			}
			if _, err := syscall.Write(r.line, []byte{1}); err != nil {
				return &StepError{Index: index, Errno: Lost}
			}
			if r.listen != 0 {
				if err := r.listener(value); err != nil {
					return err
				}
			}
			if r.parked {
				return nil
			}
		case msgForked:
			r.Pid = value
			r.reapFirst()
		case msgParked:
			r.parked = true
			return nil
		case msgFail:
			errno, ended := failure(value)
			return &StepError{Index: index, Errno: errno, Ended: ended, Output: r.output()}
		}
	}
}

// abandon kills and reaps what the program's processes still are.
func (r *Running) abandon() {
	r.Forget()
	if r.first > 0 { // once it is gone it forks no more
		syscall.Kill(r.first, syscall.SIGKILL)
		end(r, r.first)
		learn(r)
	}
	if r.Pid > 0 && r.Pid != r.first {
		syscall.Kill(r.Pid, syscall.SIGKILL)
		end(r, r.Pid)
	}
	r.first = 0
}

// learn takes note of a forked child that was killed before it had told its PID. Unreaped it would keep its PID namespace, and with that the
// container's first process, from ending.
func learn(r *Running) {
	if h := r.m.head; h != nil && h.forked != 0 && r.Pid == r.first {
		r.Pid = int(h.forked)
	}
}

func (r *Running) reapFirst() {
	if r.first > 0 && r.first != r.Pid {
		reap(r.first)
		r.first = 0
	}
}

// end waits for the end of a process that was killed, unless it may be frozen: then it becomes the child of whoever adopts orphans here.
func end(r *Running, pid int) {
	if r.given {
		syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		return
	}
	reap(pid)
}

func reap(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		syscall.Close(*fd)
		*fd = -1
	}
}

func readMessage(fd int) (kind byte, index, value int, ok bool) {
	var b [12]byte
	n := 0
	for n < len(b) {
		k, err := syscall.Read(fd, b[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || k <= 0 {
			return 0, 0, 0, false
		}
		n += k
	}
	kind, index, value = decode(&b)
	return kind, index, value, true
}

func decode(b *[12]byte) (kind byte, index, value int) {
	le := func(x []byte) int {
		return int(int32(uint32(x[0]) | uint32(x[1])<<8 | uint32(x[2])<<16 | uint32(x[3])<<24))
	}
	return b[0], le(b[4:]), le(b[8:])
}

// failure takes the value of a msgFail apart.
func failure(value int) (errno syscall.Errno, ended int) {
	return syscall.Errno(value & 0xfff), value >> 12
}

// Kill ends a child that has been made and reaps it.
func (r *Running) Kill() { r.abandon() }

// ReadReport reads what a parked child that another process released has to say: a failure, or nothing when it called execve.
// status is the non-blocking end of the FIFO that was given to it.
func ReadReport(status Waiter) *StepError {
	var b [12]byte
	n := 0
	for n < len(b) {
		k, err := status.Read(b[n:])
		if err != nil || k <= 0 {
			return nil
		}
		n += k
	}
	kind, index, value := decode(&b)
	if kind != msgFail {
		return nil
	}
	errno, ended := failure(value)
	return &StepError{Index: index, Errno: errno, Ended: ended}
}

// Waiter reads, waiting until there is something to read (an *os.File of a FIFO).
type Waiter interface{ Read(p []byte) (int, error) }
