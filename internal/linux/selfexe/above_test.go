package selfexe

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAbove: a program whose descriptor has the next number after the child's files is executed all the same, although os.StartProcess
// moves its own pipe to that number when it got a lower one.
func TestAbove(t *testing.T) {
	open := func(name string, least int) *os.File {
		t.Helper()
		f, err := os.Open(name)
		if err != nil {
			t.Skip(err)
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, least)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), name)
	}
	null := open(os.DevNull, 200)
	defer null.Close()
	files := []*os.File{null, null, null}
	start := func(program *os.File) error {
		p, err := os.StartProcess(Path(program), []string{"true"}, &os.ProcAttr{Files: files})
		if err == nil {
			var st *os.ProcessState
			if st, err = p.Wait(); err == nil && !st.Success() {
				t.Errorf("%v", st)
			}
		}
		return err
	}
	program := open("/bin/true", int(null.Fd())+1)
	if err := start(program); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Logf("os.StartProcess has changed: %v", err)
	}
	program, err := Above(program, files...)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := start(program); err != nil {
		t.Error(err)
	}
}
