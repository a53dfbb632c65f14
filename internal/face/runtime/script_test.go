package runtime

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
)

var update = flag.Bool("update", false, "rewrite what the scripts print")

// stage is where one script plays: a bundle with busybox, a folder for state, an ID.
type stage struct {
	t   *testing.T
	dir string
	id  string
}

// prelude are the words that scripts have: t runs a command and shows what it said and, unless 0, its exit code.
const prelude = `
t() { echo "$ $*" | sed "s#^\$ rt #$ #"; "$@" >"$DIR/out" 2>&1; code=$?; cat "$DIR/out"; test $code = 0 || echo "=> $code"; }
code() { "$@" >"$DIR/out" 2>&1; echo "$* => $?" | sed "s#^rt ##"; }
rt() { "$RT" --root "$DIR/state" "$@"; }
status() { rt state "$ID" | grep '"status"'; }
until_stopped() { for i in $(seq 100); do rt state "$ID" | grep -q stopped && return; sleep 0.05; done; echo "still running"; }
`

func needRoot(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making containers without a user namespace needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox (Debian package busybox-static) is not installed")
	}
	return busybox
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program builds dhow-runtime.
func program(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "dhow-runtime")
	if err := programs.Build(out, "github.com/dhow-containers/dhow/cmd/dhow-runtime"); err != nil {
		t.Fatal(err)
	}
	return out
}

func newStage(t *testing.T, a *txtar.Archive) *stage {
	t.Helper()
	busybox := needRoot(t)
	s := &stage{t: t, dir: t.TempDir(), id: "dhow-test-" + id.New()[:12]}
	check(t, os.MkdirAll(filepath.Join(s.dir, "bundle/rootfs/bin"), 0o755))
	data, err := os.ReadFile(busybox)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(s.dir, "bundle/rootfs/bin/busybox"), data, 0o755))
	for _, name := range []string{"sh", "true", "cat", "id", "ls", "sleep", "env", "grep", "readlink", "pwd", "kill", "stat", "mount"} {
		check(t, os.Symlink("busybox", filepath.Join(s.dir, "bundle/rootfs/bin", name)))
	}
	spec := Example(false)
	spec.Process.Terminal, spec.Root.Readonly = false, false
	for _, f := range a.Files {
		if f.Name == "config.json" {
			check(t, json.Unmarshal(bytes.ReplaceAll(f.Data, []byte("$DIR"), []byte(s.dir)), spec))
		}
	}
	config, err := json.Marshal(spec)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(s.dir, "bundle/config.json"), config, 0o644))
	for _, f := range a.Files { // the rest are files: programs, where they say so
		if !strings.HasPrefix(f.Name, "bundle/") && !strings.HasPrefix(f.Name, "file/") {
			continue
		}
		path, mode := filepath.Join(s.dir, f.Name), os.FileMode(0o644)
		if bytes.HasPrefix(f.Data, []byte("#!")) {
			mode = 0o755
		}
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, bytes.ReplaceAll(f.Data, []byte("$DIR"), []byte(s.dir)), mode))
	}
	t.Cleanup(s.leaks)
	return s
}

// play runs a script with a runtime and returns what it printed, less what differs from one time to the next.
func (s *stage) play(runtime, script string) string {
	s.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", prelude+script)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "RT=" + runtime, "LC_ALL=C", "DIR=" + s.dir, "ID=" + s.id}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	check(s.t, cmd.Start())
	late := time.AfterFunc(patience.Of(time.Minute), func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		s.t.Fatalf("the script ended with %v:\n%s", err, out.String())
	}
	return s.plain(strings.ReplaceAll(out.String(), runtime, "$RT"))
}

func (s *stage) plain(text string) string {
	text = strings.NewReplacer(s.dir, "$DIR", s.id, "$ID").Replace(text)
	for _, r := range [][2]string{
		{`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`, "TIME"}, {`"pid": ?[1-9]\d+`, `"pid": PID`}, {`(mnt|pid):\[\d+\]`, "$1:[N]"},
		{`(?m)^\[\d{2,}(,\d+)*\]$`, "[PIDS]"}, {`\.tmp-[^ :]+`, ".tmp"}, {`"ociVersion": ?"[^"]*"`, `"ociVersion": VERSION`},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}

// leaks fails the test when something of the container is still there.
func (s *stage) leaks() {
	s.t.Helper()
	l, err := cgroup.Detect()
	check(s.t, err)
	dirs, err := plan.Dirs(l, "/"+s.id)
	check(s.t, err)
	for _, d := range dirs {
		if _, err := os.Stat(d.Path); err == nil {
			s.t.Errorf("left behind: cgroup %s", d.Path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(s.t, err)
	if strings.Contains(string(mounts), s.dir) {
		s.t.Error("left behind: a mount on the host")
	}
	if es, err := os.ReadDir(filepath.Join(s.dir, "state")); err == nil && len(es) > 0 {
		s.t.Errorf("left behind: state of %s", es[0].Name())
	}
}

func archives(t *testing.T, pattern string, play func(t *testing.T, path string, a *txtar.Archive)) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			check(t, err)
			play(t, file, a)
		})
	}
}

func find(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// Each file of testdata/script holds a script and what it prints, and optionally config.json (merged over the config of "spec", without a
// terminal) and files of the bundle.
func TestScripts(t *testing.T) {
	needRoot(t)
	rt := program(t)
	archives(t, "testdata/script/*.txtar", func(t *testing.T, path string, a *txtar.Archive) {
		got := newStage(t, a).play(rt, find(a, "script"))
		if *update {
			kept := a.Files[:0]
			for _, f := range a.Files {
				if f.Name != "output" {
					kept = append(kept, f)
				}
			}
			a.Files = append(kept, txtar.File{Name: "output", Data: []byte(got)})
			check(t, os.WriteFile(path, txtar.Format(a), 0o644))
			return
		}
		if want := find(a, "output"); got != want {
			t.Errorf("it printed (-update rewrites):\n%s\nwant:\n%s", got, want)
		}
	})
}

// Each file of testdata/same holds a script that prints the same with runc; long says why it is left out of short runs.
func TestSameAsRunc(t *testing.T) {
	needRoot(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc (Debian package of that name) is not installed")
	}
	rt := program(t)
	archives(t, "testdata/same/*.txtar", func(t *testing.T, path string, a *txtar.Archive) {
		if testing.Short() && find(a, "long") != "" {
			t.Skip(strings.TrimSpace(find(a, "long")))
		}
		ours := newStage(t, a).play(rt, find(a, "script"))
		theirs := newStage(t, a).play(runc, find(a, "script"))
		if ours != theirs {
			t.Errorf("dhow-runtime printed:\n%s\nrunc:\n%s", ours, theirs)
		}
	})
}
