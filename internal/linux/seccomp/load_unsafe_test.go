package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMain: with DHOW_TEST_SECCOMP set this binary loads the default filter into itself and says what calls answer.
func TestMain(m *testing.M) {
	if os.Getenv("DHOW_TEST_SECCOMP") == "" {
		os.Exit(m.Run())
	}
	f, err := Compile(Default(strings.Fields(os.Getenv("DHOW_TEST_CAPS"))), runtime.GOARCH)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := f.Bytes()
	prog := struct {
		n      uint16
		filter unsafe.Pointer
	}{uint16(len(f.Insns)), unsafe.Pointer(&code[0])}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags|flagTsync), uintptr(unsafe.Pointer(&prog))); e != 0 {
		fmt.Println("seccomp:", e)
		os.Exit(1)
	}
	try := func(name string, args ...uintptr) {
		nr, _ := Number(runtime.GOARCH, name)
		var a [3]uintptr
		copy(a[:], args)
		_, _, e := unix.Syscall(uintptr(nr), a[0], a[1], a[2])
		fmt.Printf("%s %d\n", name, int(e))
	}
	try("mount")
	try("clone3")
	try("getpid")
	try("unshare", unix.CLONE_NEWUTS)
	try("setns")
	try("io_uring_setup", 1)
	try("keyctl")
	try("bpf")
	try("userfaultfd")
	try("perf_event_open")
	try("open_tree_attr") // newer than the profile
	try("socket", unix.AF_ALG, unix.SOCK_SEQPACKET)
	try("socket", unix.AF_VSOCK, unix.SOCK_STREAM)
	try("socket", unix.AF_UNIX, unix.SOCK_STREAM)
	try("personality", 0x0040000)
	try("personality", 0xffffffff)
	os.Exit(0)
}

func TestLoaded(t *testing.T) {
	if _, ok := Number(runtime.GOARCH, "getpid"); !ok {
		t.Skipf("no table for %s", runtime.GOARCH)
	}
	for _, tt := range []struct{ caps, want string }{
		{"CAP_CHOWN", `mount 1
clone3 38
getpid 0
unshare 1
setns 1
io_uring_setup 1
keyctl 1
bpf 1
userfaultfd 1
perf_event_open 1
open_tree_attr 38
socket 1
socket 1
socket 0
personality 1
personality 0
`},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "DHOW_TEST_SECCOMP=1", "DHOW_TEST_CAPS="+tt.caps)
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != tt.want {
			t.Errorf("with %s: %v\n%s\nwant\n%s", tt.caps, err, out, tt.want)
		}
	}
}
