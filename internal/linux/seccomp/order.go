package seccomp

import (
	"cmp"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// order sorts the conditional rules of one call where they contradict each other. The spec says nothing of that case; profiles are written
// for libseccomp, which asks first what looks at later arguments, then equality before "less" before "greater", and of one kind the narrower.
func (c *compiler) order(pairs []uint64) {
	first := c.rules[uint32(pairs[0])].ret
	if !slices.ContainsFunc(pairs, func(p uint64) bool { return c.rules[uint32(p)].ret != first }) {
		return
	}
	slices.SortStableFunc(pairs, func(a, b uint64) int {
		return compareRules(c.rules[uint32(a)].conds, c.rules[uint32(b)].conds)
	})
}

func compareRules(a, b []specs.LinuxSeccompArg) int {
	byIndex := func(x, y specs.LinuxSeccompArg) int { return cmp.Compare(x.Index, y.Index) }
	a, b = slices.SortedFunc(slices.Values(a), byIndex), slices.SortedFunc(slices.Values(b), byIndex)
	for i := range min(len(a), len(b)) {
		if d := compareConds(&a[i], &b[i]); d != 0 {
			return d
		}
	}
	return cmp.Compare(len(a), len(b))
}

func compareConds(a, b *specs.LinuxSeccompArg) int {
	if a.Index != b.Index {
		return cmp.Compare(b.Index, a.Index)
	}
	ka, kb := kindOf(a.Op), kindOf(b.Op)
	if ka != kb {
		return cmp.Compare(ka, kb)
	}
	if ka == less {
		return cmp.Compare(a.Value, b.Value)
	}
	return cmp.Compare(datum(b), datum(a))
}

const (
	equal = iota
	less
	greater
)

func kindOf(op specs.LinuxSeccompOperator) int {
	switch op {
	case specs.OpLessThan, specs.OpLessEqual:
		return less
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		return greater
	}
	return equal
}

func datum(a *specs.LinuxSeccompArg) uint64 {
	if a.Op == specs.OpMaskedEqual {
		return a.Value & a.ValueTwo
	}
	return a.Value
}
