package probe

import (
	"os"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	before := openFiles(t)
	names := map[string]bool{}
	for _, f := range All() {
		if f.String() == "" || names[f.String()] {
			t.Errorf("feature %d: name %q is empty or twice there", int(f), f)
		}
		names[f.String()] = true
		why := WhyNot(f)
		if Has(f) != (why == "") || why != "" && !strings.HasPrefix(why, f.String()+": ") {
			t.Errorf("%v: Has %v, WhyNot %q", f, Has(f), why)
		}
		t.Logf("%-28v %s", f, map[bool]string{true: "yes", false: why}[why == ""])
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	if WhyNot(numFeatures) == "" || WhyNot(-1) == "" {
		t.Error("an unknown feature must not be there")
	}
}

func openFiles(t *testing.T) int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestRelease(t *testing.T) {
	for _, tt := range []struct {
		s            string
		major, minor int
	}{{"6.18.44-fc-v657", 6, 18}, {"5.10.0", 5, 10}, {"7.0-rc1", 7, 0}, {"", 0, 0}, {"x.y", 0, 0}, {"6", 0, 0}} {
		if a, b := parseRelease(tt.s); a != tt.major || b != tt.minor {
			t.Errorf("parseRelease(%q) = %d.%d", tt.s, a, b)
		}
	}
	a, b := Kernel()
	if a < 4 {
		t.Fatalf("this kernel is %d.%d?", a, b)
	}
	if why := since(a, b)(); why != "" {
		t.Error(why)
	}
	if since(a, b+1)() == "" || since(a+1, 0)() == "" || since(a-1, b+7)() != "" {
		t.Error("versions compared wrongly")
	}
}
