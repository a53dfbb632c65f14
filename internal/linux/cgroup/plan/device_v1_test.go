package plan

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// kernelDevices is v1's devices controller as Documentation/admin-guide/cgroup-v1/devices.rst has it: exceptions match exactly or not at all.
type kernelDevices struct {
	all        bool
	exceptions map[string]string // "c 1:3" -> "rw"
}

func (k *kernelDevices) write(file, value string) {
	allow := file == "devices.allow"
	if value == "a" {
		*k = kernelDevices{all: allow, exceptions: map[string]string{}}
		return
	}
	i := strings.LastIndexByte(value, ' ')
	dev, access := value[:i], value[i+1:]
	have := k.exceptions[dev]
	for _, a := range access {
		have = strings.ReplaceAll(have, string(a), "")
	}
	if allow != k.all {
		have += access
	}
	k.exceptions[dev] = have
	if have == "" {
		delete(k.exceptions, dev)
	}
}

func (k *kernelDevices) list() string {
	if k.all {
		return "a *:* rwm\n"
	}
	var b strings.Builder
	for dev, access := range k.exceptions {
		b.WriteString(dev + " " + access + "\n")
	}
	return b.String()
}

func (k *kernelDevices) allowed(kind, major, minor, access string) bool {
	hit := func(a string) bool {
		for dev, has := range k.exceptions {
			m, n, _ := strings.Cut(dev[2:], ":")
			if dev[:1] == kind && (m == "*" || m == major) && (n == "*" || n == minor) && strings.Contains(has, a) {
				return true
			}
		}
		return false
	}
	for _, a := range access {
		if hit(string(a)) == k.all {
			return false
		}
	}
	return true
}

// TestListDevicesMeansTheRules: what the kernel would do after a list's writes is what the rules say, also when the list came by changes
// from another one, and what both lists allow is allowed all the time.
func TestListDevicesMeansTheRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	numbers := []int64{1, 3}
	pick := func() *int64 {
		if rnd.IntN(2) == 0 {
			return nil
		}
		return &numbers[rnd.IntN(2)]
	}
	random := func() []specs.LinuxDeviceCgroup {
		rules := make([]specs.LinuxDeviceCgroup, rnd.IntN(6))
		for i := range rules {
			rules[i] = specs.LinuxDeviceCgroup{Allow: rnd.IntN(3) > 0, Type: []string{"a", "b", "c"}[rnd.IntN(3)], Major: pick(), Minor: pick(),
				Access: []string{"r", "w", "m", "rw", "rwm"}[rnd.IntN(5)]}
		}
		return rules
	}
	said := map[bool]int64{}
	each := func(f func(kind string, major, minor int64, access string)) {
		for _, kind := range []string{"b", "c"} {
			for _, major := range numbers {
				for _, minor := range numbers {
					for _, access := range []string{"r", "w", "m"} {
						f(kind, major, minor, access)
					}
				}
			}
		}
	}
	name := map[int64]string{1: "1", 3: "3"}
	lists, refused := 0, 0
	k := &kernelDevices{exceptions: map[string]string{}}
	var before []specs.LinuxDeviceCgroup
	for range 5000 {
		rules := random()
		l, err := ListDevices(rules)
		if err != nil {
			if !errdef.Is(err, errdef.InvalidArgument) {
				t.Fatal(err)
			}
			refused++
			continue
		}
		lists++
		was := k.all
		for _, c := range l.Changes(k.list()) {
			k.write(c.File, c.Value)
			if was || l.AllowAll {
				continue
			}
			each(func(kind string, major, minor int64, access string) {
				if allowed(before, kind, major, minor, access) && allowed(rules, kind, major, minor, access) &&
					!k.allowed(kind, name[major], name[minor], access) {
					t.Fatalf("%s %d:%d %s is denied for a moment, from %+v to %+v", kind, major, minor, access, before, rules)
				}
			})
		}
		each(func(kind string, major, minor int64, access string) {
			want := allowed(rules, kind, major, minor, access)
			said[want]++
			if got := k.allowed(kind, name[major], name[minor], access); got != want {
				t.Fatalf("%s %d:%d %s: %v, want %v, by %+v", kind, major, minor, access, got, want, rules)
			}
		})
		if again := l.Changes(k.list()); len(again) > 0 && !l.AllowAll {
			t.Fatalf("nothing to change, but %v", again)
		}
		before = slices.Clone(rules)
	}
	if lists < 1000 || refused < 100 || said[true] < 1000 || said[false] < 1000 {
		t.Fatalf("too little was tried: %d lists, %d refused, answers %v", lists, refused, said)
	}
}
