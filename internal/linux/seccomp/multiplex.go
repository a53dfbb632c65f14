package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// i386, PowerPC and MIPS have two ways to make these calls: their own numbers (on i386 since Linux 4.3, 5.1) and a sub-number of socketcall or ipc, whose
// arguments lie in memory where no filter sees them. A rule that names one speaks of both; without this, a profile that denies
// accept would not deny socketcall(5). See socketcall(2), ipc(2), include/uapi/linux/net.h and ipc.h.

// subNumber returns the multiplexer of a call and its number there.
func subNumber(name string) (mux string, sub uint64) {
	switch name {
	case "socket":
		return "socketcall", 1
	case "bind":
		return "socketcall", 2
	case "connect":
		return "socketcall", 3
	case "listen":
		return "socketcall", 4
	case "accept":
		return "socketcall", 5
	case "getsockname":
		return "socketcall", 6
	case "getpeername":
		return "socketcall", 7
	case "socketpair":
		return "socketcall", 8
	case "send":
		return "socketcall", 9
	case "recv":
		return "socketcall", 10
	case "sendto":
		return "socketcall", 11
	case "recvfrom":
		return "socketcall", 12
	case "shutdown":
		return "socketcall", 13
	case "setsockopt":
		return "socketcall", 14
	case "getsockopt":
		return "socketcall", 15
	case "sendmsg":
		return "socketcall", 16
	case "recvmsg":
		return "socketcall", 17
	case "accept4":
		return "socketcall", 18
	case "recvmmsg":
		return "socketcall", 19
	case "sendmmsg":
		return "socketcall", 20
	}
	return ipcNumber(name)
}

func ipcNumber(name string) (mux string, sub uint64) {
	switch name {
	case "semop":
		return "ipc", 1
	case "semget":
		return "ipc", 2
	case "semctl":
		return "ipc", 3
	case "semtimedop":
		return "ipc", 4
	case "msgsnd":
		return "ipc", 11
	case "msgrcv":
		return "ipc", 12
	case "msgget":
		return "ipc", 13
	case "msgctl":
		return "ipc", 14
	case "shmat":
		return "ipc", 21
	case "shmdt":
		return "ipc", 22
	case "shmget":
		return "ipc", 23
	case "shmctl":
		return "ipc", 24
	}
	return "", 0
}

// multiplexed adds rules for a call's sub-number to those of its name, [first, end): the multiplexer's first argument is the sub-number, the
// others are compared as the rule says, though they are not the call's. ipc's upper half is a version, so only its low 16 bits count. An
// entry that refuses the multiplexer itself is kept though the default refuses it too: it has to beat the rules made here.
func (c *compiler) multiplexed(name string, ret uint32, first, end int, always bool) {
	if ret == c.def && always && (name == "socketcall" || name == "ipc") {
		c.rules = append(c.rules, rule{ret: ret})
		c.name(find(name), len(c.rules)-1, len(c.rules))
		return
	}
	mux, sub := subNumber(name)
	if mux == "" {
		return
	}
	arg := specs.LinuxSeccompArg{Op: specs.OpEqualTo, Value: sub}
	if mux == "ipc" {
		arg = specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: 0xffff, ValueTwo: sub}
	}
	row := find(mux)
	if first == end || !c.multiplexes(row) {
		return
	}
	for r := first; r < end; r++ {
		conds := []specs.LinuxSeccompArg{arg}
		for _, a := range c.rules[r].conds {
			if a.Index != 0 {
				conds = append(conds, a)
			}
		}
		c.rules = append(c.rules, rule{ret: ret, conds: conds})
		c.tie(row, len(c.rules)-1)
	}
}

// multiplexes tells whether a filtered architecture has a multiplexer.
func (c *compiler) multiplexes(row *call) bool {
	for column, nr := range row.nr {
		if nr >= 0 && c.on[column] {
			return true
		}
	}
	return false
}
