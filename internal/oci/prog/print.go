package prog

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/uapi"
)

// WriteTo prints the program, one line an instruction: number, lane, what is called, tolerated errnos and where they lead,
// then after # the note and, in brackets, the field that asked for it.
func (p *Program) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(p.Bytes())
	return int64(n), err
}

// Bytes returns the listing that WriteTo prints.
func (p *Program) Bytes() []byte {
	var b bytes.Buffer
	b.Grow(112 * len(p.Ins))
	for i := range p.Ins {
		p.line(&b, i)
	}
	return b.Bytes()
}

// String returns the listing that WriteTo prints.
func (p *Program) String() string { return string(p.Bytes()) }

// Line returns the listing of one instruction, without a newline.
func (p *Program) Line(i int) string {
	var b bytes.Buffer
	p.line(&b, i)
	return strings.TrimSuffix(b.String(), "\n")
}

func (p *Program) line(b *bytes.Buffer, i int) {
	in := &p.Ins[i]
	start := b.Len()
	lane := "host "
	if in.Lane == Child {
		lane = "child"
	}
	number := strconv.Itoa(i)
	b.WriteString("    "[:max(0, 4-len(number))] + number + " " + lane + " ")
	if in.Out != 0 {
		b.WriteString("r" + strconv.Itoa(int(in.Out)) + " = ")
	}
	p.body(b, in)
	if len(in.Tolerate) > 0 {
		b.WriteString(" ?")
		for k, e := range in.Tolerate {
			if k > 0 {
				b.WriteByte('|')
			}
			b.WriteString(errnoText(e))
		}
		if in.Goto != 0 {
			b.WriteString("->" + strconv.Itoa(in.Goto))
		}
	}
	if in.Undo != "" {
		b.WriteString(" undo rmdir(" + strconv.Quote(in.Undo) + ")")
	}
	if pad := start + 92 - b.Len(); pad > 0 && (in.Note != "" || in.Why != "") {
		b.WriteString(strings.Repeat(" ", pad))
	}
	if in.Note != "" || in.Why != "" {
		b.WriteString(" # " + printable(in.Note))
		if in.Why != "" {
			b.WriteString(" [" + printable(in.Why) + "]")
		}
	}
	b.WriteByte('\n')
}

func (p *Program) body(b *bytes.Buffer, in *Ins) {
	switch in.Op {
	case Syscall:
		b.WriteString(in.Sys.Name())
		p.args(b, in)
	case Clone:
		b.WriteString("clone(" + NamespaceFlags(in.Flags))
		if in.Args[0].Kind == InReg {
			b.WriteString(", into cgroup r" + strconv.FormatInt(in.Args[0].Val, 10))
		}
		b.WriteByte(')')
	case Fork:
		b.WriteString("fork(" + NamespaceFlags(in.Flags) + ")")
	case Jump:
		b.WriteString("jump " + strconv.Itoa(in.Goto))
	case Fail:
		b.WriteString("fail " + errnoText(in.Errno))
	case Keep:
		b.WriteString("keep")
		p.args(b, in)
		for _, r := range in.Keep {
			b.WriteString(" r" + strconv.Itoa(int(r)))
		}
	case Hook:
		h := p.Hooks[in.Args[0].Val]
		b.WriteString("hook " + h.Kind + " " + strconv.Quote(h.Path))
	default:
		b.WriteString(opName(in.Op))
		p.args(b, in)
		if (in.Op == Expect || in.Op == Spawn) && in.Goto != 0 {
			b.WriteString(" else " + strconv.Itoa(in.Goto))
		}
	}
}

func opName(o Op) string {
	switch o {
	case Store:
		return "store"
	case Load:
		return "load"
	case Expect:
		return "expect"
	case OpenPid:
		return "open_pid"
	case Unit:
		return "unit"
	case WritePid:
		return "write_pid"
	case Terminal:
		return "terminal"
	case Park:
		return "park"
	case HookState:
		return "hook_state"
	case Spawn:
		return "spawn"
	case Listen:
		return "listen"
	case NetDevice:
		return "net_device"
	case Loop:
		return "loop"
	case UserNS:
		return "user_ns"
	case Make:
		return "make"
	case CopyUp:
		return "copy_up"
	}
	return "op" + strconv.Itoa(int(o))
}

func (p *Program) args(b *bytes.Buffer, in *Ins) {
	last := -1
	for k, a := range in.Args {
		if a.Kind != None {
			last = k
		}
	}
	b.WriteByte('(')
	for k := 0; k <= last; k++ {
		if k > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.arg(in.Args[k]))
	}
	b.WriteByte(')')
}

func (p *Program) arg(a Arg) string {
	switch {
	case a.Text != "":
		return a.Text
	case a.Kind == InReg:
		return "r" + strconv.FormatInt(a.Val, 10)
	case a.Kind == InData:
		return "data" + strconv.FormatInt(a.Val, 10)
	case a.Val == uapi.AT_FDCWD:
		return "AT_FDCWD"
	}
	return strconv.FormatInt(a.Val, 10)
}

func errnoText(e uapi.Errno) string {
	if n := e.Name(); n != "" {
		return n
	}
	return strconv.Itoa(int(e))
}

// NamespaceFlags prints clone(2) flags.
func NamespaceFlags(f uint64) string {
	return Flags(f&^0x7f, []FlagName{ // below are the signal's bits
		{uapi.CLONE_NEWUSER, "NEWUSER"}, {uapi.CLONE_NEWNS, "NEWNS"}, {uapi.CLONE_NEWPID, "NEWPID"}, {uapi.CLONE_NEWNET, "NEWNET"},
		{uapi.CLONE_NEWIPC, "NEWIPC"}, {uapi.CLONE_NEWUTS, "NEWUTS"}, {uapi.CLONE_NEWCGROUP, "NEWCGROUP"}, {uapi.CLONE_NEWTIME, "NEWTIME"},
		{uapi.CLONE_PARENT, "PARENT"}, {uapi.CLONE_CLEAR_SIGHAND, "CLEAR_SIGHAND"},
	})
}

// FlagName is one bit and its symbol.
type FlagName struct {
	Bit  uint64
	Name string
}

// Flags prints a set of bits by their symbols, the rest in hexadecimal, nothing as 0.
func Flags(v uint64, names []FlagName) string {
	var out []string
	for _, n := range names {
		if v&n.Bit == n.Bit && n.Bit != 0 {
			out = append(out, n.Name)
			v &^= n.Bit
		}
	}
	if v != 0 {
		out = append(out, "0x"+strconv.FormatUint(v, 16))
	}
	if len(out) == 0 {
		return "0"
	}
	return strings.Join(out, "|")
}

// printable keeps a listing to one line an instruction whatever the config contained.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if !strconv.IsPrint(r) {
			clean = false
		}
	}
	if clean {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
