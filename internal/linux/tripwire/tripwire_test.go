package tripwire

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestArm watches a shell, and kills it at its second call.
func TestArm(t *testing.T) {
	dir := t.TempDir()
	run := func(last int) []string {
		cmd := exec.Command("sh", "-c", "cd "+dir+"; mkdir a; echo x > a/f; mv a/f a/g; rm a/g; rmdir a; mkdir a")
		var seen []string
		var stop func()
		started := make(chan error)
		go func() {
			var err error
			stop, err = Arm(cmd.Start, func(c Call) bool {
				if !strings.HasPrefix(c.Path(), dir) {
					return true
				}
				seen = append(seen, fmt.Sprint(c.Name(), " ", strings.TrimPrefix(c.Path(), dir)))
				if len(seen) == last {
					cmd.Process.Kill()
					return false
				}
				return true
			})
			started <- err
		}()
		if err := <-started; errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			t.Skipf("no seccomp listener here: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		stop()
		if killed := cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled(); last == 0 && killed {
			t.Error("it did not live to its end")
		}
		return seen
	}
	all := run(0)
	text := strings.Join(all, "\n")
	for _, want := range []string{"mkdir", "/a", "openat /a/f", "write /a/f", "/a/g", "rmdir"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	os.RemoveAll(filepath.Join(dir, "a"))
	if got := run(2); len(got) != 2 || got[0] != all[0] {
		t.Errorf("killed at the second call: %v", got)
	}
	if es, err := os.ReadDir(filepath.Join(dir, "a")); err != nil || len(es) != 0 {
		t.Errorf("the second call was made: %v %v", es, err)
	}
}
