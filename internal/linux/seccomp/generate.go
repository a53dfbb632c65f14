package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// span is a run of call numbers with one treatment; it ends where the next one begins.
type span struct {
	from  uint32
	ret   uint32
	rules []uint64 // if any: tried in order, then ret
	low   bool     // of a 32-bit architecture: arguments have only low halves
}

// spans lays the rules of one architecture on the number line, beginning at base.
func (c *compiler) spans(line []span, column int, base uint32) []span {
	line = append(line, span{from: base, ret: c.def})
	pairs := c.named[column]
	slices.Sort(pairs)
	for len(pairs) > 0 {
		nr, n := uint32(pairs[0]>>32), 1
		for n < len(pairs) && uint32(pairs[n]>>32) == nr {
			n++
		}
		leaf := c.leaf(nr, pairs[:n], narrow(column))
		line = place(line, leaf)
		line = place(line, span{from: nr + 1, ret: c.def})
		pairs = pairs[n:]
	}
	if beyond := c.beyond(column); beyond != c.def {
		line = place(line, span{from: uint32(c.top[column]) + 1, ret: beyond})
	}
	return line
}

// wideSpans lays amd64 and x32 on one number line. Above them it is as uneven as runc and libseccomp make it: a number belongs to x32
// when bit 30 is set, whatever is set above; without x32 such a call is one of an architecture that is not filtered, except for
// the number -1, which is what a tracer makes of a call it skips.
func (c *compiler) wideSpans(line []span) []span {
	if c.on[colAMD64] {
		line = c.spans(line, colAMD64, 0)
	} else {
		line = append(line, span{ret: RetKillProcess})
	}
	other, last := RetKillProcess, c.def
	if c.on[colX32] {
		line = c.spans(line, colX32, x32Bit)
		other = c.beyond(colX32)
		last = other
	} else {
		line = place(line, span{from: x32Bit, ret: other})
	}
	middle := c.def
	switch {
	case c.on[colAMD64] && c.top[colAMD64] >= 0 && refuses(c.def):
		middle = RetErrno | enosys
	case !c.on[colX32]:
		middle = RetKillProcess
	}
	line = place(line, span{from: 2 * x32Bit, ret: middle})
	line = place(line, span{from: 3 * x32Bit, ret: other})
	return place(line, span{from: 0xffffffff, ret: last})
}

// beyond is the answer to numbers above all that the profile names.
func (c *compiler) beyond(column int) uint32 {
	if c.top[column] >= 0 && refuses(c.def) {
		return RetErrno | enosys
	}
	return c.def
}

// refuses reports whether an answer keeps the call from being made: then a call newer than the profile shall look as if the
// kernel were older.
func refuses(ret uint32) bool { return ret != RetAllow && ret != RetLog && ret&0xffff0000 != RetTrace }

// leaf is the treatment of one number: an unconditional rule alone, or the conditional ones.
func (c *compiler) leaf(nr uint32, pairs []uint64, low bool) span {
	for _, p := range pairs {
		if r := &c.rules[uint32(p)]; !r.conditional(low) {
			return span{from: nr, ret: r.ret}
		}
	}
	c.order(pairs)
	return span{from: nr, ret: c.def, rules: pairs, low: low}
}

// narrow tells whether an architecture's arguments have 32 bits.
func narrow(column int) bool {
	return column == colI386 || column == colARM || column == colX32 || column == colMIPSEL
}

// conditional tells whether a rule asks for anything; one whose masks are all zero does not.
func (r *rule) conditional(low bool) bool {
	for i := range r.conds {
		if a := &r.conds[i]; a.Op != specs.OpMaskedEqual || a.Value&0xffffffff != 0 || !low && a.Value != 0 {
			return true
		}
	}
	return false
}

// place appends a span; it replaces one of no length, and melts into one of the same treatment.
func place(line []span, s span) []span {
	if n := len(line); n > 0 && line[n-1].from == s.from {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1].ret == s.ret && line[n-1].rules == nil && s.rules == nil {
		return line
	}
	return append(line, s)
}

// generator writes a program from its end to its beginning, so that every jump's target is known when the jump is written.
// A label is an index into out, which is in reverse order.
type generator struct {
	out   []Insn
	rules []rule
	rets  []ret // the latest place of each answer
	low   bool  // of the leaf being written
}

type ret struct {
	k     uint32
	label int
}

const (
	reach  = 255 // of a conditional jump
	nearby = 200 // an answer further away than this is written once more
)

func (c *compiler) generate() []Insn {
	g := &generator{out: make([]Insn, 0, 1024), rules: c.rules}
	var audit [columns]uint32
	var entry [columns]int
	n := 0
	for _, column := range [...]int{colLOONG64, colRISCV64, colPPC64LE, colMIPSEL64, colMIPSEL, colARM, colARM64, colI386, colAMD64} {
		if column == c.native || !c.on[column] && !(column == colAMD64 && c.on[colX32]) {
			continue
		}
		audit[n], entry[n] = auditOf(column), g.block(c, column)
		n++
	}
	audit[n], entry[n] = auditOf(c.native), g.block(c, c.native)
	n++
	next := g.ret(RetKillProcess)
	for i := range n { // the native one was written last and is asked first
		next = g.jump(opJeq, audit[i], entry[i], next)
	}
	g.emit(Insn{Code: opLoad, K: offArch})
	slices.Reverse(g.out)
	return g.out
}

func auditOf(column int) uint32 {
	switch column {
	case colI386:
		return AuditI386
	case colARM64:
		return AuditARM64
	case colARM:
		return AuditARM
	case colMIPSEL:
		return auditMIPSEL
	case colMIPSEL64:
		return auditMIPSEL64
	case colPPC64LE:
		return auditPPC64LE
	case colRISCV64:
		return auditRISCV64
	case colLOONG64:
		return auditLOONG64
	}
	return AuditAMD64
}

// block writes the part for one AUDIT_ARCH value and returns its label. amd64 and x32 share one.
func (g *generator) block(c *compiler, column int) int {
	line := make([]span, 0, 256)
	if column == colAMD64 {
		line = c.wideSpans(line)
	} else {
		line = c.spans(line, column, 0)
	}
	if root := g.tree(line); root != len(g.out)-1 {
		g.emit(Insn{Code: opJa, K: uint32(len(g.out) - root - 1)})
	}
	return g.emit(Insn{Code: opLoad, K: offNr})
}

// tree writes a binary search over the number line.
func (g *generator) tree(line []span) int {
	if len(line) == 1 {
		return g.leaf(&line[0])
	}
	mid := len(line) / 2
	right := g.tree(line[mid:])
	left := g.tree(line[:mid])
	return g.jump(opJge, line[mid].from, right, left)
}

func (g *generator) leaf(s *span) int {
	if s.rules == nil {
		return g.ret(s.ret)
	}
	g.low = s.low
	next := g.ret(s.ret)
	for _, p := range slices.Backward(s.rules) {
		r := &g.rules[uint32(p)]
		hit := g.ret(r.ret)
		for i := range slices.Backward(r.conds) {
			hit = g.cond(&r.conds[i], hit, next)
		}
		next = hit
	}
	return next
}

// cond writes one comparison of an argument, in two halves, and returns its first instruction.
func (g *generator) cond(a *specs.LinuxSeccompArg, t, f int) int {
	v, mask := a.Value, uint64(0)
	code := uint16(opJeq)
	switch a.Op {
	case specs.OpEqualTo:
	case specs.OpNotEqual:
		t, f = f, t
	case specs.OpGreaterThan:
		code = opJgt
	case specs.OpLessEqual:
		code, t, f = opJgt, f, t
	case specs.OpGreaterEqual:
		code = opJge
	case specs.OpLessThan:
		code, t, f = opJge, f, t
	case specs.OpMaskedEqual:
		v, mask = a.ValueTwo&a.Value, a.Value // libseccomp forgives bits outside the mask
		if g.low {
			return g.half(a, offLow, opJeq, uint32(v), uint32(mask), t, f)
		}
		t = g.half(a, offLow, opJeq, uint32(v), uint32(mask), t, f)
		return g.half(a, offHigh, opJeq, uint32(v>>32), uint32(mask>>32), t, f)
	}
	low := g.half(a, offLow, code, uint32(v), ^uint32(0), t, f)
	if g.low {
		return low
	}
	if code == opJeq {
		return g.half(a, offHigh, opJeq, uint32(v>>32), ^uint32(0), low, f)
	}
	// greater: the high half decides unless it is equal.
	equal := g.jump(opJeq, uint32(v>>32), low, f)
	g.jump(opJgt, uint32(v>>32), t, equal)
	return g.emit(Insn{Code: opLoad, K: offArgs + 8*uint32(a.Index) + offHigh})
}

// Offsets of the halves of a little-endian argument.
const (
	offLow  = 0
	offHigh = 4
)

// half writes a comparison of one half under a mask.
func (g *generator) half(a *specs.LinuxSeccompArg, off uint32, code uint16, v, mask uint32, t, f int) int {
	g.jump(code, v, t, f)
	if mask != ^uint32(0) {
		g.emit(Insn{Code: opAnd, K: mask})
	}
	return g.emit(Insn{Code: opLoad, K: offArgs + 8*uint32(a.Index) + off})
}

func (g *generator) emit(i Insn) int {
	g.out = append(g.out, i)
	return len(g.out) - 1
}

// ret returns a near place that gives an answer.
func (g *generator) ret(k uint32) int {
	for i := range g.rets {
		if r := &g.rets[i]; r.k == k {
			if len(g.out)-r.label > nearby {
				r.label = g.emit(Insn{Code: opRet, K: k})
			}
			return r.label
		}
	}
	g.rets = append(g.rets, ret{k, g.emit(Insn{Code: opRet, K: k})})
	return g.rets[len(g.rets)-1].label
}

// jump writes a conditional jump to two labels.
func (g *generator) jump(code uint16, k uint32, t, f int) int {
	t = g.near(t, reach-1) // f may need a stone of its own
	f = g.near(f, reach)
	n := len(g.out)
	return g.emit(Insn{Code: code, K: k, Jt: uint8(n - t - 1), Jf: uint8(n - f - 1)})
}

// near returns a label within reach that leads to l: l itself, a copy of the answer there, or a stepping stone.
func (g *generator) near(l, reach int) int {
	n := len(g.out)
	if n-l-1 <= reach {
		return l
	}
	if g.out[l].Code == opRet {
		return g.emit(g.out[l])
	}
	return g.emit(Insn{Code: opJa, K: uint32(n - l - 1)})
}
