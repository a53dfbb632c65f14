package jail

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the one that is locked in: it tries what it must not, and what it may.
func TestMain(m *testing.M) {
	dir := os.Getenv("JAIL_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	f, err := os.Open(dir)
	if os.Getenv("JAIL_APART") != "" {
		filterOneThread()
	}
	if err == nil {
		err = Enter(runtime.GOARCH, f)
	}
	if err != nil {
		fmt.Println("enter:", err)
		os.Exit(1)
	}
	done := make(chan bool)
	for range 4 { // on whatever thread
		go func() {
			runtime.LockOSThread()
			if _, err := os.Open("/etc/passwd"); err == nil {
				fmt.Println("out: open")
			}
			done <- true
		}()
		<-done
	}
	out := func(what string, err error) {
		if err == nil {
			fmt.Println("out:", what)
		}
	}
	in := func(what string, err error) {
		if err != nil {
			fmt.Println("in:", what, err)
		}
	}
	out("write", os.WriteFile(filepath.Join(filepath.Dir(dir), "x"), nil, 0o600))
	out("remove", os.Remove(filepath.Join(filepath.Dir(dir), "canary")))
	out("link in", os.Link(filepath.Join(filepath.Dir(dir), "canary"), filepath.Join(dir, "stolen")))
	out("rename", os.Rename(filepath.Join(filepath.Dir(dir), "canary"), filepath.Join(dir, "stolen")))
	out("execute", exec.Command("/bin/true").Run())
	out("mount", unix.Mount("none", dir, "tmpfs", 0, ""))
	out("chroot", unix.Chroot(dir))
	_, err = net.Dial("tcp", "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "denied") && !strings.Contains(err.Error(), "refused") {
		fmt.Println("out: dial", err)
	}
	in("write", os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600))
	in("chown", os.Chown(filepath.Join(dir, "f"), 5, 6))
	in("chmod", os.Chmod(filepath.Join(dir, "f"), 0o4755))
	in("mkdir", os.Mkdir(filepath.Join(dir, "d"), 0o700))
	in("link", os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "d/f")))
	in("node", unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR, int(unix.Mkdev(1, 3))))
	in("remove", os.Remove(filepath.Join(dir, "d/f")))
	fmt.Println("done")
	os.Exit(0)
}

// filterOneThread gives a thread a filter of its own, after which the kernel cannot give all threads the same.
func filterOneThread() {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread()
		allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
		prog := unix.SockFprog{Len: 1, Filter: &allow}
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		fmt.Print(unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0), " ")
		done <- true
		select {}
	}()
	<-done
}

// A thread that cannot be locked in is told, though the kernel's answer has no errno.
func TestThreadApart(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("capabilities are root's")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JAIL_APART=1", "JAIL_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "<nil> enter: jail: seccomp: thread ") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestEnter(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("capabilities are root's")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "canary"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JAIL_DIR="+filepath.Join(dir, "in"))
	out, err := cmd.CombinedOutput()
	if v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); e != 0 || v < refers {
		t.Skipf("no Landlock here: %v", e)
	}
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v: %s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "canary")); string(b) != "alive" {
		t.Errorf("%q %v", b, err)
	}
}
