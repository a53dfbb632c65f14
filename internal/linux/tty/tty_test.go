package tty

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, s, err := OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); s.Close() })
	return m, s
}

func TestRawModeAndRestore(t *testing.T) {
	m, s := pair(t)
	fd := int(s.Fd())
	before, _ := unix.IoctlGetTermios(fd, unix.TCGETS)
	restore, err := RawMode(fd)
	if err != nil {
		t.Fatal(err)
	}
	// Raw: a single byte without newline arrives at the slave, and nothing is echoed.
	if _, err := m.Write([]byte{3}); err != nil { // ctrl-c must be data, not SIGINT
		t.Fatal(err)
	}
	var b [8]byte
	if n, err := s.Read(b[:]); err != nil || n != 1 || b[0] != 3 {
		t.Fatalf("read %d %v %v", n, b, err)
	}
	if _, err := s.Write([]byte("a\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Read(b[:]); err != nil || string(b[:n]) != "a\n" {
		t.Fatalf("output processed: %q %v", b[:n], err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	after, _ := unix.IoctlGetTermios(fd, unix.TCGETS)
	if *before != *after {
		t.Fatalf("not restored:\n%+v\n%+v", before, after)
	}
}

func TestSize(t *testing.T) {
	m, s := pair(t)
	if err := SetSize(int(m.Fd()), 33, 77); err != nil {
		t.Fatal(err)
	}
	r, c, err := Size(int(s.Fd()))
	if err != nil || r != 33 || c != 77 {
		t.Fatalf("%d %d %v", r, c, err)
	}
}

func TestNotATerminal(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if IsTerminal(fd) {
		t.Fatal("/dev/null is no terminal")
	}
	if _, err := RawMode(fd); err == nil {
		t.Fatal("raw mode on /dev/null")
	}
	if _, _, err := Size(fd); err == nil {
		t.Fatal("size of /dev/null")
	}
}

func TestCloseWakesReader(t *testing.T) {
	m, _ := pair(t)
	done := make(chan error, 1)
	go func() { _, err := m.Read(make([]byte, 1)); done <- err }()
	time.Sleep(20 * time.Millisecond)
	m.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("read succeeded")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("reader still blocked after Close")
	}
}

func TestPairIsCloseOnExec(t *testing.T) {
	m, s := pair(t)
	rc, _ := m.SyscallConn()
	rc.Control(func(fd uintptr) {
		if fl, _ := unix.FcntlInt(fd, unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
			t.Error("master inherits")
		}
	})
	if fl, _ := unix.FcntlInt(s.Fd(), unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
		t.Error("slave inherits")
	}
}
