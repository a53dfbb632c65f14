package interp

import (
	"slices"
	"strconv"
	"syscall"

	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// host runs host-lane instructions from i on, up to the clone or the next child-lane instruction, and returns its index.
func (r *Running) host(i int) (int, error) {
	for i < len(r.m.ops) && r.m.ops[i].host && r.m.ops[i].kind != prog.Clone {
		r.began(i)
		next, err := r.step(i)
		r.ended(i)
		if err != nil {
			r.stopped = i
			return i, err
		}
		i = next
	}
	return i, nil
}

func (r *Running) step(i int) (int, error) {
	o := &r.m.ops[i]
	var res uintptr
	var errno syscall.Errno
	switch o.kind {
	case prog.Syscall:
		res, errno = r.syscall(o)
	case prog.Store:
		storeReg(r.m, o)
	case prog.Load:
		res = loadReg(r.m, o)
	case prog.Jump:
		return o.next, nil
	case prog.Expect:
		if loadReg(r.m, o)&o.args[3] != o.args[2] {
			if o.errno == 0 {
				return o.next, nil
			}
			errno = syscall.Errno(o.errno)
		}
	case prog.Fail:
		errno = syscall.Errno(o.errno)
	case prog.OpenPid:
		fd, err := syscall.Open("/proc/"+strconv.Itoa(r.Pid), syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		res = uintptr(fd)
		errno = toErrno(err)
	case prog.Hook:
		if err := r.hook(i, o); err != nil {
			return i, err
		}
	case prog.HookState:
		if err := r.hookState(i, o); err != nil {
			return i, err
		}
	case prog.Listen:
		r.listen = i // once the child goes on it loads its filter
	case prog.UserNS:
		res, errno = r.userNS(o)
	case prog.NetDevice:
		if err := r.netDevice(i, o); err != nil {
			return i, err
		}
	case prog.Loop:
		var err error
		if res, err = loop(r, i, o); err != nil {
			return i, err
		}
	case prog.CopyUp:
		if err := r.copyUp(i, o); err != nil {
			return i, err
		}
	case prog.Unit:
		if err := r.unit(i); err != nil {
			return i, err
		}
	case prog.WritePid:
		_, err := syscall.Write(int(r.m.regs[o.args[0]]), []byte(strconv.Itoa(r.Pid)))
		errno = toErrno(err)
	case prog.Terminal:
		if err := r.terminal(i, o); err != nil {
			return i, err
		}
	default:
		errno = syscall.ENOSYS
	}
	if errno != 0 {
		if errno < 128 && o.toler[errno>>6]&(1<<(errno&63)) != 0 {
			return o.next, nil
		}
		return i, &StepError{Index: i, Errno: errno}
	}
	if o.out != 0 {
		r.m.regs[o.out] = res
	}
	return i + 1, nil
}

func (r *Running) syscall(o *op) (uintptr, syscall.Errno) {
	a := o.args
	for k := range a {
		if o.regs&(1<<k) != 0 {
			a[k] = r.m.regs[a[k]]
		}
	}
	for again := o.again; ; {
		res, _, e := syscall.Syscall6(o.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e == syscall.EAGAIN && again > 0 {
			again--
			continue
		}
		if e != syscall.EINTR {
			return res, e
		}
	}
}

func (r *Running) hook(i int, o *op) error {
	if r.env.Hook == nil {
		return &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	if err := r.env.Hook(r.p.Hooks[o.args[0]], r.Pid); err != nil {
		return &StepError{Index: i, Err: err}
	}
	return nil
}

func (r *Running) unit(i int) error {
	if r.env.Unit == nil {
		return &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	if err := r.env.Unit(r.Pid); err != nil {
		return &StepError{Index: i, Err: err}
	}
	return nil
}

// loop leaves the device's path, and a NUL behind it, where the child will read it.
func loop(r *Running, i int, o *op) (uintptr, error) {
	if r.env.Loop == nil {
		return 0, &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	fd, path, err := r.env.Loop(text(r.m.data[o.args[0]]))
	if err != nil {
		return 0, &StepError{Index: i, Err: err}
	}
	if to := r.m.data[o.args[1]]; copy(to, path) == len(to) {
		syscall.Close(fd)
		return 0, &StepError{Index: i, Errno: syscall.ENAMETOOLONG}
	}
	return uintptr(fd), nil
}

// terminal receives the master's descriptor from the child by SCM_RIGHTS (unix(7)).
func (r *Running) terminal(i int, o *op) error {
	if r.env.Terminal == nil {
		return &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	fds, errno := r.receive(o)
	if errno != 0 {
		return &StepError{Index: i, Errno: errno}
	}
	if err := r.env.Terminal(fds[0]); err != nil {
		return &StepError{Index: i, Err: err}
	}
	return nil
}

// copyUp has the caller copy a folder into another.
func (r *Running) copyUp(i int, o *op) error {
	if r.env.CopyUp == nil {
		return &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	fds, errno := r.receive(o)
	if errno == 0 && len(fds) != 2 {
		errno = syscall.EBADMSG
	}
	var err error
	if errno == 0 {
		err = r.env.CopyUp(fds[0], fds[1])
	}
	for _, fd := range fds {
		syscall.Close(fd)
	}
	if err != nil || errno != 0 {
		return &StepError{Index: i, Errno: errno, Err: err}
	}
	return nil
}

// text is a string as the program holds it, without the NUL behind it.
func text(b []byte) string { return string(b[:len(b)-1]) }

func (r *Running) netDevice(i int, o *op) error {
	if r.env.NetDevice == nil {
		return &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	if err := r.env.NetDevice(text(r.m.data[o.args[0]]), text(r.m.data[o.args[1]]), int(r.m.regs[o.args[2]])); err != nil {
		return &StepError{Index: i, Err: err}
	}
	return nil
}

// receive takes descriptors from the socket in register args[0].
func (r *Running) receive(o *op) ([]int, syscall.Errno) {
	const most = 2
	var buf [1]byte
	oob := make([]byte, syscall.CmsgSpace(4*most))
	_, n, _, _, err := syscall.Recvmsg(int(r.m.regs[o.args[0]]), buf[:], oob, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, toErrno(err)
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) == 0 {
		return nil, syscall.EBADMSG
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return nil, syscall.EBADMSG
	}
	return fds, 0
}

// userNS makes a user namespace with the maps in args[0] and args[1] and returns a descriptor of it. A namespace needs a process to be
// mapped by; this one waits at a barrier that nobody lets it pass, and is killed.
func (r *Running) userNS(o *op) (uintptr, syscall.Errno) {
	const newUser = 0x10000000
	m := &machine{ops: []op{{host: true}}, ctl: r.m.ctl, status: ^uintptr(0)}
	pid, errno := clone(newUser|uintptr(syscall.SIGCHLD), 0, m, 0)
	if errno != 0 {
		return 0, errno
	}
	defer func() {
		syscall.Kill(int(pid), syscall.SIGKILL)
		reap(int(pid))
	}()
	dir := "/proc/" + strconv.Itoa(int(pid)) + "/"
	for k, file := range []string{"uid_map", "gid_map"} {
		fd, err := syscall.Open(dir+file, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
		if err == nil {
			_, err = syscall.Write(fd, r.m.data[o.args[k]])
			syscall.Close(fd)
		}
		if err != nil {
			return 0, toErrno(err)
		}
	}
	fd, err := syscall.Open(dir+"ns/user", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	return uintptr(fd), toErrno(err)
}

// closeHostRegs closes the descriptors that host-lane instructions opened and did not close: they were for the child. The
// instructions that may open something are known by their call; one that is both opened and closed must not be closed twice.
func (r *Running) closeHostRegs() {
	var open []uintptr
	for i := range r.p.Ins[:r.stopped] {
		in := &r.p.Ins[i]
		if in.Lane != prog.Host {
			continue
		}
		switch {
		case in.Out != 0 && (in.Op == prog.OpenPid || in.Op == prog.UserNS || in.Op == prog.Loop || in.Op == prog.Load || in.Op == prog.Syscall && opens(in.Sys)):
			if fd := r.m.regs[in.Out]; fd != 0 { // 0: never reached; descriptor 0 itself is taken by our stdin
				open = append(open, fd)
			}
		case in.Sys == prog.SysClose:
			if k := slices.Index(open, r.m.regs[in.Args[0].Val]); k >= 0 {
				open = slices.Delete(open, k, k+1)
			}
		}
	}
	if fd := r.outputFD(); fd >= 0 { // stays until the child is started
		if k := slices.Index(open, uintptr(fd)); k >= 0 {
			open = slices.Delete(open, k, k+1)
		}
	}
	slices.Sort(open)
	for i := 0; i < len(open); { // what stands in a row is closed at once
		last := i
		for last+1 < len(open) && open[last+1] <= open[last]+1 {
			last++
		}
		syscall.Syscall(sysCloseRange, open[i], open[last], 0)
		i = last + 1
	}
}

func opens(s prog.Sys) bool {
	switch s {
	case prog.SysOpenat, prog.SysOpenat2, prog.SysSocket, prog.SysOpenTree, prog.SysFsopen, prog.SysFsmount, prog.SysFcntl, prog.SysBpf, prog.SysMemfdCreate:
		return true
	}
	return false
}

func toErrno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return syscall.EIO
}
