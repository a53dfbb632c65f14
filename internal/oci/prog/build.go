package prog

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/uapi"
)

// Builder puts a Program together. Its zero value is ready; instructions go to the lane and carry the why that were set last.
type Builder struct {
	p      Program
	lane   Lane
	why    string
	labels []int  // instruction index of each label; -1 while unbound
	arena  []byte // strings are cut from it, to allocate once for many
}

// The sizes that a program of a default container needs.
const (
	usualIns   = 640
	usualData  = 640
	usualBytes = 16 << 10
)

// Label is a place to jump to that may lie ahead.
type Label int

// At is an instruction just emitted, to which conditions may be added.
type At struct {
	b *Builder
	i int
}

// Lane sets the lane of the instructions that follow.
func (b *Builder) Lane(l Lane) { b.lane = l }

// Why sets the config field that the instructions that follow are there for.
func (b *Builder) Why(why string) { b.why = why }

// WhyNow returns the field that Why set last.
func (b *Builder) WhyNow() string { return b.why }

// Imm is an immediate argument; text, where given, is how it prints.
func Imm(v int64, text ...string) Arg {
	a := Arg{Kind: Immediate, Val: v}
	if len(text) > 0 {
		a.Text = text[0]
	}
	return a
}

// R is a register as an argument.
func R(r Reg) Arg { return Arg{Kind: InReg, Val: int64(r)} }

// Str lays a NUL-terminated string out. The caller has refused strings that contain NUL.
func (b *Builder) Str(s string) Arg {
	n := len(s) + 1
	if n > cap(b.arena)-len(b.arena) {
		b.arena = make([]byte, 0, max(usualBytes, n))
	}
	at := len(b.arena)
	b.arena = append(append(b.arena, s...), 0)
	return b.Bytes(b.arena[at:at+n:at+n], quote(s))
}

// Bytes lays memory out; text is how it prints.
func (b *Builder) Bytes(data []byte, text string) Arg {
	if b.p.Data == nil {
		b.p.Data = make([]Blob, 0, usualData)
	}
	b.p.Data = append(b.p.Data, Blob{Bytes: data})
	return Arg{Kind: InData, Val: int64(len(b.p.Data) - 1), Text: text}
}

// Pointers lays out memory that holds addresses of other data; at[i] is the offset at which to[i]'s address stands.
func (b *Builder) Pointers(data []byte, at []int, to []Arg, text string) Arg {
	a := b.Bytes(data, text)
	blob := &b.p.Data[a.Val]
	for i := range at {
		blob.Relocs = append(blob.Relocs, Reloc{At: at[i], Target: int(to[i].Val)})
	}
	return a
}

// Strings lays out a NULL-terminated array of strings, as execve(2) takes it.
func (b *Builder) Strings(list []string, text string) Arg {
	var at []int
	var to []Arg
	for i, s := range list {
		at = append(at, 8*i)
		to = append(to, b.Str(s))
	}
	return b.Pointers(make([]byte, 8*(len(list)+1)), at, to, text)
}

// Emit adds an instruction as it is, but for lane and why.
func (b *Builder) Emit(in Ins) At {
	in.Lane = b.lane
	if in.Why == "" {
		in.Why = b.why
	}
	if b.p.Ins == nil {
		b.p.Ins = make([]Ins, 0, usualIns)
	}
	b.p.Ins = append(b.p.Ins, in)
	return At{b, len(b.p.Ins) - 1}
}

// Call adds a system call whose result nobody needs.
func (b *Builder) Call(note string, s Sys, args ...Arg) At {
	in := Ins{Op: Syscall, Sys: s, Note: note}
	copy(in.Args[:], args)
	return b.Emit(in)
}

// CallR adds a system call and returns the register that receives its result.
func (b *Builder) CallR(note string, s Sys, args ...Arg) (Reg, At) {
	at := b.Call(note, s, args...)
	r := b.Reg()
	b.p.Ins[at.i].Out = r
	return r, at
}

// Reg returns a fresh register.
func (b *Builder) Reg() Reg {
	if b.p.Regs == 0 {
		b.p.Regs = 1 // register 0 is none
	}
	b.p.Regs++
	return Reg(b.p.Regs - 1)
}

// Hook adds a hook call.
func (b *Builder) Hook(h HookCall) {
	b.p.Hooks = append(b.p.Hooks, h)
	b.Emit(Ins{Op: Hook, Args: [6]Arg{Imm(int64(len(b.p.Hooks) - 1))}, Note: "run " + h.Kind + " hook " + h.Path})
}

// Warn adds a warning, once.
func (b *Builder) Warn(text string) {
	if !slices.Contains(b.p.Warnings, text) {
		b.p.Warnings = append(b.p.Warnings, text)
	}
}

// HookState has the host lane write the state that a kind of hook reads into a file.
func (b *Builder) HookState(kind string, fd Reg) {
	b.p.Hooks = append(b.p.Hooks, HookCall{Kind: kind})
	b.Emit(Ins{Op: HookState, Args: [6]Arg{R(fd), Imm(int64(len(b.p.Hooks)-1), kind)}, Note: "the state that the hooks read"})
}

// Spawn adds a clone of a process that goes on at the next instruction, while the one that clones goes to waits.
func (b *Builder) Spawn(note string, pidfd Arg, waits Label) {
	b.Emit(Ins{Op: Spawn, Args: [6]Arg{pidfd}, Goto: -int(waits), Note: note})
}

// Output tells where hooks inside the container print to.
func (b *Builder) Output(fd Reg) { b.p.Output = fd }

// Label returns a new label, to be bound later.
func (b *Builder) Label() Label {
	b.labels = append(b.labels, -1)
	return Label(len(b.labels))
}

// Bind puts a label before the next instruction.
func (b *Builder) Bind(l Label) { b.labels[l-1] = len(b.p.Ins) }

// Jump adds a jump.
func (b *Builder) Jump(l Label) { b.Emit(Ins{Op: Jump, Goto: -int(l)}) }

// Tolerate lets errnos pass: execution goes on at the next instruction.
func (a At) Tolerate(e ...uapi.Errno) At {
	in := &a.b.p.Ins[a.i]
	in.Tolerate = append(in.Tolerate, e...)
	return a
}

// Else goes to a label on the given errnos.
func (a At) Else(l Label, e ...uapi.Errno) At {
	a.b.p.Ins[a.i].Goto = -int(l)
	return a.Tolerate(e...)
}

// Otherwise sends a failed Expect to a label.
func (a At) Otherwise(l Label) At {
	a.b.p.Ins[a.i].Goto, a.b.p.Ins[a.i].Errno = -int(l), 0
	return a
}

// To stores the result in a register made earlier, so that two ways can lead to one value.
func (a At) To(r Reg) At {
	a.b.p.Ins[a.i].Out = r
	return a
}

// Undo names the folder to remove when the program is taken back.
func (a At) Undo(dir string) At {
	a.b.p.Ins[a.i].Undo = dir
	return a
}

// Program resolves the labels and returns what was built.
func (b *Builder) Program() *Program {
	for i := range b.p.Ins {
		if g := b.p.Ins[i].Goto; g < 0 {
			b.p.Ins[i].Goto = b.labels[-g-1]
		}
	}
	return &b.p
}

// U64 packs 64-bit words in the byte order of amd64 and arm64 (little endian).
func U64(words ...uint64) []byte {
	var out []byte
	for _, w := range words {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return out
}

// U32 packs 32-bit words.
func U32(words ...uint32) []byte {
	var out []byte
	for _, w := range words {
		out = binary.LittleEndian.AppendUint32(out, w)
	}
	return out
}

func quote(s string) string {
	const most = 160
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}

// List prints a short list of strings.
func List(s []string) string {
	q := make([]string, len(s))
	for i := range s {
		q[i] = quote(s[i])
	}
	return "[" + strings.Join(q, ", ") + "]"
}
