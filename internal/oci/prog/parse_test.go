package prog

import (
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/uapi"
)

// A listing says the same after it was taken apart, whatever the config had in its strings.
func TestParseWhatIsPrinted(t *testing.T) {
	p := &Program{Regs: 3, Ins: []Ins{
		{Op: Syscall, Sys: SysOpenat, Args: [6]Arg{{Kind: Immediate, Val: uapi.AT_FDCWD}, {Kind: InData, Text: `"/a # b [c] ?ENOENT undo rmdir(\"x\")"`}}, Out: 2,
			Tolerate: []uapi.Errno{uapi.ENOENT, uapi.EPERM}, Goto: 2, Note: "a [note] # of", Why: "mounts[2].options[1]"},
		{Op: Syscall, Sys: SysMkdirat, Args: [6]Arg{{Kind: InReg, Val: 2}}, Undo: "/sys/fs/cgroup/a \"b\"/c", Why: "linux.cgroupsPath"},
		{Op: Fail, Errno: uapi.EINVAL, Note: "only a note\nof two lines"},
		{Lane: Child, Op: Park},
	}}
	got, err := ParseListing(strings.NewReader(p.String()))
	if err != nil {
		t.Fatal(err)
	}
	want := []Line{
		{Number: 0, Lane: "host", Out: 2, Call: `openat(AT_FDCWD, "/a # b [c] ?ENOENT undo rmdir(\"x\")")`, Tolerate: []string{"ENOENT", "EPERM"}, Goto: 2,
			Note: "a [note] # of", Why: "mounts[2].options[1]"},
		{Number: 1, Lane: "host", Call: "mkdirat(r2)", Undo: "/sys/fs/cgroup/a \"b\"/c", Why: "linux.cgroupsPath"},
		{Number: 2, Lane: "host", Call: "fail EINVAL", Note: `only a note\nof two lines`},
		{Number: 3, Lane: "child", Call: "park()"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines of %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if strings.Join(g.Tolerate, "|") != strings.Join(w.Tolerate, "|") {
			t.Errorf("line %d tolerates %v, want %v", i, g.Tolerate, w.Tolerate)
		}
		g.Tolerate, w.Tolerate = nil, nil
		if !sameLine(g, w) {
			t.Errorf("line %d:\n got %+v\nwant %+v", i, g, w)
		}
	}
}

func sameLine(a, b Line) bool {
	return a.Number == b.Number && a.Lane == b.Lane && a.Out == b.Out && a.Call == b.Call && a.Goto == b.Goto && a.Undo == b.Undo && a.Note == b.Note && a.Why == b.Why
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{"", "x host a()", "0", "0 guest a()", "0 host", "0 host r1 = ", "-1 host a()", "1 host a()", "0 host a() ?", "0 host a() ?ENOENT|",
		"0 host a() ?ENOENT->x", `0 host a() undo rmdir(x)`, "0 host a()\n\n"} {
		if _, err := ParseListing(strings.NewReader(bad + "\n")); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzParseListing: a listing that some other program wrote, or half of one, is lines or a classified error.
func FuzzParseListing(f *testing.F) {
	f.Add("   0 host  r1 = openat(AT_FDCWD, \"/x\", O_PATH) ?ENOENT|EPERM->3    # note [root.path]\n")
	f.Add("   0 child execve(\"/bin/true\", [\"/bin/true\"], 0 variables) undo rmdir(\"/a\") # exec: \"/bin/true\" [process.args]\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := ParseListing(strings.NewReader(s))
		if err != nil {
			if !errdef.Is(err, errdef.DataLoss) {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		for i, l := range lines {
			if l.Number != i || l.Call == "" || l.Lane != "host" && l.Lane != "child" {
				t.Fatalf("line %d: %+v", i, l)
			}
		}
	})
}
