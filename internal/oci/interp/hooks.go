package interp

import "syscall"

// hookState writes the state for hooks inside the container into a memory file, and seals it: no hook reads what another wrote.
func (r *Running) hookState(i int, o *op) error {
	if r.env.HookState == nil {
		return &StepError{Index: i, Errno: syscall.ENOSYS}
	}
	text, err := r.env.HookState(r.p.Hooks[o.args[1]].Kind, r.Pid)
	if err != nil {
		return &StepError{Index: i, Err: err}
	}
	const addSeals, sealAll = 1033, 0xf // F_ADD_SEALS: SEAL, SHRINK, GROW, WRITE
	fd := r.m.regs[o.args[0]]
	for at := 0; at < len(text); {
		n, err := syscall.Pwrite(int(fd), text[at:], int64(at))
		if err != nil {
			return &StepError{Index: i, Errno: toErrno(err)}
		}
		at += n
	}
	if _, _, e := syscall.Syscall(syscall.SYS_FCNTL, fd, addSeals, sealAll); e != 0 {
		return &StepError{Index: i, Errno: e}
	}
	return nil
}

// output is the end of what hooks inside the container have printed.
func (r *Running) output() []byte {
	const most = 4096
	fd := r.outputFD()
	if fd < 0 {
		return nil
	}
	end, err := syscall.Seek(fd, 0, 2)
	if err != nil {
		return nil
	}
	b := make([]byte, min(end, most))
	n, err := syscall.Pread(fd, b, end-int64(len(b)))
	if err != nil {
		return nil
	}
	return b[:n]
}

func (r *Running) outputFD() int {
	if r.p.Output == 0 || r.m.regs[r.p.Output] == 0 {
		return -1
	}
	return int(r.m.regs[r.p.Output])
}
