package seccomp

import (
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestContradictions: rules of one call that answer one set of arguments differently. The spec leaves that open, libseccomp calls it unwise;
// compareRules takes its order. With equality alone that is exact; with inequalities and masks libseccomp's tree has ways of its own,
// which few profiles meet; with those of several arguments libseccomp 2.5.4 may not even come to an end, so they are not asked for here.
func TestContradictions(t *testing.T) {
	r := newReference(t)
	for _, tt := range []struct {
		name string
		ops  []specs.LinuxSeccompOperator
		args int // at most so many conditions in a rule
		most int // of 200 profiles may differ
	}{
		{"equality", []specs.LinuxSeccompOperator{specs.OpEqualTo}, 3, 0},
		{"one condition each", someOps, 1, 4},
	} {
		rnd := rand.New(rand.NewPCG(7, 8))
		differ, not := 0, 0
		for range 200 {
			switch d := r.agree(contradicting(rnd, tt.ops, tt.args), rnd); {
			case d < 0:
				not++
			case d > 0:
				differ++
			}
		}
		t.Logf("%s: %d of %d profiles differ, %d more that libseccomp does not take", tt.name, differ, 200-not, not)
		if differ > tt.most || not > 50 {
			t.Errorf("%s: %d profiles differ, %d not taken", tt.name, differ, not)
		}
	}
}

func contradicting(rnd *rand.Rand, ops []specs.LinuxSeccompOperator, args int) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for range 2 + rnd.IntN(2) {
		s := specs.LinuxSyscall{Names: []string{"openat2"}, Action: someActions[rnd.IntN(len(someActions))]}
		index := rnd.Perm(3)
		for k := range 1 + rnd.IntN(args) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(index[k]), Value: uint64(rnd.IntN(4)), ValueTwo: uint64(rnd.IntN(4)), Op: ops[rnd.IntN(len(ops))]})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}
