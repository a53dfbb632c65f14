// Package prog owns the Program: what will be done to make a container or to enter one, as data.
//
// It promises that a Program is complete (nothing is decided while it runs), that it prints, and that equal inputs of the
// compiler give equal Programs. It must never make a system call.
package prog

import "github.com/dhow-containers/dhow/internal/linux/uapi"

// Lane says who executes an instruction. A change of lane after the clone is a barrier.
type Lane uint8

// The lanes: the process that runs the program, and the child it clones.
const (
	Host Lane = iota
	Child
)

// Op is what an instruction does.
type Op uint8

// The operations.
const (
	Syscall   Op = iota
	Clone        // host: make the child with Flags, in the cgroup v2 folder whose descriptor Args[0] is, where set; Out receives its PID
	Store        // write register Args[0] into Args[1]'s data at offset Args[2] as 32 bits
	Load         // Out = the 32 bits at Args[0]'s data, offset Args[1]
	Expect       // unless the 32 bits at Args[0]'s data, offset Args[1], masked by Args[3], equal Args[2]: go to Goto, or with none fail with Errno
	Jump         // go to Goto
	Fail         // fail with Errno; with Args[0] a siginfo, tell how the process it is about ended (its code at offset Args[1], its status at Args[2])
	OpenPid      // host: Out = descriptor of /proc/PID of the child
	Fork         // child: clone again with Flags; the parent reports the new PID and exits, the new process goes on
	Keep         // child: close every descriptor from Args[0] on but the program's own and the registers in Keep
	Hook         // host: run Hooks[Args[0]]
	Unit         // host: have systemd make a scope around the child
	WritePid     // host: write the child's PID in decimal to register Args[0]
	Terminal     // host: take the terminal's master from the socket pair in register Args[0]
	Park         // child: report "created", then wait to be released; Args 0 and 1, where set, are registers of another pair of pipes; Args[2] not 0: without a report
	UserNS       // host: Out = descriptor of a user namespace whose maps are the texts Args[0] (users) and Args[1] (groups)
	CopyUp       // host: take two folders from the socket pair in register Args[0] and copy what the first holds into the second
	NetDevice    // host: move the network device Args[0] into the network namespace in register Args[2], with Args[1], where not empty, as its name
	HookState    // host: write the state that Hooks[Args[1]] reads into register Args[0]
	Spawn        // child: clone; the new process goes on, the old one to Goto with a pidfd of it in Args[0]'s data
	Make         // child: Out = the path Args[1] below the folder in register Args[0], which is made where it is missing, as a folder unless Args[2] is 1
	Loop         // host: Out = descriptor of a read-only loop device over the file Args[0]; its path is put into Args[1]'s data
	Listen       // host: take the seccomp listener from the child once it has it, as the descriptor in the child's register Args[0]; hand it on through socket Args[1]
)

// Reg names a register; 0 is none. Registers written before the clone are visible in the child, later ones are not shared.
type Reg uint32

// ArgKind tells how an Arg gets its value.
type ArgKind uint8

// The kinds of argument.
const (
	None      ArgKind = iota
	Immediate         // Val itself
	InReg             // the value of register Val
	InData            // the address of Data[Val]
)

// Arg is one argument of an instruction. Text, where set, is how it prints.
type Arg struct {
	Kind ArgKind
	Val  int64
	Text string
}

// Ins is one instruction.
type Ins struct {
	Lane  Lane
	Op    Op
	Sys   Sys
	Args  [6]Arg
	Out   Reg
	Flags uint64
	Errno uapi.Errno
	Keep  []Reg
	// Tolerate lists errnos that are no failure: execution goes on at Goto (0: at the next instruction).
	Tolerate []uapi.Errno
	Goto     int
	// Undo, on a host-lane instruction, names the folder to remove when the program is taken back.
	Undo string
	// Note says in words what is done, Why which field of the config asked for it.
	Note string
	Why  string
}

// Reloc tells that the eight bytes at offset At of a Blob are the address of Data[Target].
type Reloc struct {
	At     int
	Target int
}

// Blob is a piece of memory that system calls read or write.
type Blob struct {
	Bytes  []byte
	Relocs []Reloc
}

// MapIDs is the kind of a HookCall that maps IDs of a user namespace (newuidmap(1)): the child's PID comes before Args.
const MapIDs = "map IDs"

// HookCall is a hook to be run from the host lane (runtime-spec, config.md, POSIX-platform Hooks).
type HookCall struct {
	Kind    string
	Path    string
	Args    []string
	Env     []string
	Timeout int // seconds; 0: none
}

// Program is a list of instructions with the memory and the registers they use.
type Program struct {
	Ins   []Ins
	Data  []Blob
	Regs  int // number of registers, register 0 included
	Hooks []HookCall
	// Output is a register of the host lane: a file that hooks inside the container print to; 0: there are none.
	Output Reg
	// Warnings tell what the config asks for and cannot have, where the spec wants the container to be made all the same.
	Warnings []string
}
