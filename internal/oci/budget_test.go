package oci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// The budget of a run of true with the config that `dhow-runtime spec` writes and the default seccomp profile: system calls and tasks, the
// container's own included, as strace counts them. What Go's scheduler does depends on how long strace makes it wait and is left out. A
// number here is a promise to be lowered, never raised.
const (
	mostCalls = 680
	mostTasks = 8
)

// waits are the calls by which Go's scheduler waits and is woken.
func waits() []string {
	return []string{"nanosleep", "futex", "epoll_pwait", "sched_yield", "tgkill", "rt_sigreturn", "getpid"}
}

// defaultConfig makes b's config what `dhow-runtime spec` writes, without a terminal, with the default filter.
func (b *box) defaultConfig(bin string, args ...string) {
	b.t.Helper()
	cmd := exec.Command(bin, "spec", "--bundle", b.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("spec: %v: %s", err, out)
	}
	s, _, err := bundle.Load(b.dir)
	check(b.t, err)
	s.Process.Terminal, s.Process.Args = false, args
	s.Linux.CgroupsPath, s.Linux.Seccomp = b.spec.Linux.CgroupsPath, seccomp.Default(s.Process.Capabilities.Bounding)
	b.spec = s
	raw, err := json.Marshal(s)
	check(b.t, err)
	check(b.t, os.WriteFile(filepath.Join(b.dir, "config.json"), raw, 0o600))
}

func TestBudgetOfCalls(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	b := newBox(t)
	bin := buildRuntime(t)
	b.defaultConfig(bin, "true")
	log := filepath.Join(b.dir, "strace")
	if out, err := exec.Command("strace", "-f", "-o", log, bin, "--root", b.root, "run", "--bundle", b.dir, b.id).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "PTRACE") {
			t.Skipf("strace may not trace here: %s", out)
		}
		t.Fatalf("run: %v: %s", err, out)
	}
	raw, err := os.ReadFile(log)
	check(t, err)
	calls, by, tasks := 0, map[string]int{}, map[string]bool{}
	call := regexp.MustCompile(`^(\d+) +(\w+)\(`) // not the second half of one that was interrupted, nor signals and exits
	for line := range strings.Lines(string(raw)) {
		if m := call.FindStringSubmatch(line); m != nil {
			if !slices.Contains(waits(), m[2]) {
				calls++
			}
			by[m[2]]++
			tasks[m[1]] = true
		}
	}
	t.Logf("%d system calls in %d tasks: %v", calls, len(tasks), by)
	if calls > mostCalls || len(tasks) > mostTasks {
		t.Errorf("%d system calls in %d tasks; the budget is %d in %d", calls, len(tasks), mostCalls, mostTasks)
	}
}

func TestTrace(t *testing.T) {
	b := newBox(t)
	bin := buildRuntime(t)
	b.defaultConfig(bin, "sleep", "1000")
	log := filepath.Join(b.dir, "trace")
	runtime := func(args ...string) string {
		t.Helper()
		out, err := os.Create(filepath.Join(b.dir, "out"))
		check(t, err)
		defer out.Close()
		cmd := exec.Command(bin, append([]string{"--root", b.root}, args...)...)
		cmd.Stdout, cmd.Stderr = out, out
		check(t, cmd.Run())
		text, err := os.ReadFile(log)
		check(t, err)
		os.Remove(log)
		return string(text)
	}
	timed := func(text, lane, what string) {
		t.Helper()
		if !regexp.MustCompile(`(?m)^ *\d+\.\d +\d+\.\d +\d+ ` + lane + ` +.*` + what).MatchString(text) {
			t.Errorf("no timed %s in the %s lane of\n%s", what, lane, text)
		}
	}
	text := runtime("run", "--detach", "--trace="+log, "--bundle", b.dir, b.id)
	timed(text, "host", `clone\(`)
	timed(text, "child", `pivot_root\(`)
	timed(text, "child", `park\(`)
	timed(text, "child", `execve\(`)
	text = runtime("--trace="+log, "exec", b.id, "true")
	timed(text, "child", `fork\(`)
	timed(text, "child", `execve\(`)
	if out, err := exec.Command(bin, "--root", b.root, "exec", "--trace", b.id, "true").CombinedOutput(); err != nil || !strings.Contains(string(out), "execve(") {
		t.Errorf("--trace to standard error: %v: %s", err, out)
	}
	if out, err := exec.Command(bin, "--root", b.root, "--trace", "kill", b.id).CombinedOutput(); err == nil || !strings.Contains(string(out), "executes no program") {
		t.Errorf("--trace where there is nothing to trace: %v: %s", err, out)
	}
	if out, err := exec.Command(bin, "--root", b.root, "delete", "--force", b.id).CombinedOutput(); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
}
