package jail

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// trying collects what a process that is locked in could do and should not, and the other way round.
type trying struct{ found []string }

func (t *trying) out(what string, err error) {
	if err == nil {
		t.found = append(t.found, "it could "+what)
	}
}

func (t *trying) in(what string, err error) {
	if err != nil {
		t.found = append(t.found, fmt.Sprintf("it could not %s: %v", what, err))
	}
}

// try is the process that is locked in, gone mad: it tries what it must not, on two threads, and what it may.
func try(w Work) error {
	var k quest
	decodeTask(w, &k)
	t := &trying{}
	done := make(chan bool)
	t.hostPaths(w, k)
	go func() { // on whatever thread
		runtime.LockOSThread()
		t.hostPaths(w, k)
		t.calls()
		done <- true
	}()
	<-done
	t.attributes(w, k)
	t.devices(w)
	t.processes(k)
	t.descriptors(w)
	t.calls()
	t.files(w)
	if t.found != nil {
		return errors.New(strings.Join(t.found, "\n"))
	}
	return nil
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// open opens relative to a descriptor, as the kernel does without any care.
func open(dir int, path string, flags int) error {
	fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func (t *trying) hostPaths(w Work, k quest) {
	dir, kept := int(w.Folders[0].Fd()), w.Files[0]
	paths := []string{k.Host + "/canary", "/etc/passwd", "/", "/proc", "/proc/self", "/proc/self/root/etc/passwd", "/proc/1/root/etc/passwd", "/proc/self/exe", "/proc/self/mem",
		"/proc/self/maps", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/kcore", "/proc/kallsyms", "/proc/mounts", "/sys/kernel", "/dev/null",
		fmt.Sprintf("/proc/%d/root/etc/passwd", k.Parent), fmt.Sprintf("/proc/%d/mem", k.Parent), "../canary", "../../etc/passwd",
		fdPath(w.Folders[0]) + "/../canary"}
	for _, p := range paths {
		if own := p == "/" || p == "/proc" || strings.HasPrefix(p, "/proc/self") && !strings.HasSuffix(p, "passwd"); k.Landlock || !own {
			t.out("open "+p, open(dir, p, unix.O_RDONLY))
		}
		t.out("write "+p, open(dir, p, unix.O_WRONLY))
	}
	t.out("write what it may read", open(dir, fdPath(kept), unix.O_RDWR))
	open(dir, "../new", unix.O_WRONLY|unix.O_CREAT) // above its folder is the folder: see who started this
	t.out("make a file in its root", open(dir, "/new", unix.O_WRONLY|unix.O_CREAT))
	unix.Mkdirat(dir, "../newdir", 0o700)
	t.out("remove outside", unix.Unlinkat(dir, "../canary", 0))
	t.out("link from outside", unix.Linkat(dir, "../canary", dir, "stolen", 0))
	t.out("link what it may read", unix.Linkat(int(kept.Fd()), "", dir, "stolen", unix.AT_EMPTY_PATH))
	t.out("rename from outside", unix.Renameat(dir, "../canary", dir, "stolen"))
	link := fmt.Sprint("link-", time.Now().UnixNano())
	t.in("make a link", unix.Symlinkat(k.Host, dir, link))
	t.out("open through a link", open(dir, link+"/canary", unix.O_RDONLY))
	t.out("write through a link", open(dir, link+"/new", unix.O_WRONLY|unix.O_CREAT))
}

// attributes are what Landlock does not look at.
func (t *trying) attributes(w Work, k quest) {
	kept := w.Files[0]
	for _, p := range []string{k.Host + "/canary", "/etc/passwd", "/proc/self/exe", fdPath(kept), "/proc", "/", "/proc/self/root", "/proc/sys/kernel/hostname", fdPath(w.Folders[0]) + "/../canary"} {
		t.out("chmod "+p, unix.Fchmodat(unix.AT_FDCWD, p, 0o4777, 0))
		t.out("chown "+p, unix.Fchownat(unix.AT_FDCWD, p, 1000, 1000, 0))
		t.out("set an attribute of "+p, unix.Setxattr(p, "user.x", []byte("x"), 0))
		t.out("set a capability of "+p, unix.Setxattr(p, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		t.out("set the time of "+p, unix.UtimesNanoAt(unix.AT_FDCWD, p, make([]unix.Timespec, 2), 0))
	}
	t.out("fchmod", unix.Fchmod(int(kept.Fd()), 0o777))
	t.out("fchown", unix.Fchown(int(kept.Fd()), 1, 1))
	t.out("ftruncate", unix.Ftruncate(int(kept.Fd()), 0))
	t.out("lock", unix.FcntlFlock(kept.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}))
	_, err := unix.FcntlInt(kept.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	t.out("lease", err)
}

// devices may be made, and not be opened.
func (t *trying) devices(w Work) {
	dir := int(w.Folders[0].Fd())
	for name, dev := range map[string]uint64{"zero": unix.Mkdev(1, 5), "mem": unix.Mkdev(1, 1), "disk": unix.Mkdev(8, 0), "loop": unix.Mkdev(7, 0)} {
		kind := uint32(unix.S_IFCHR)
		if name == "disk" || name == "loop" {
			kind = unix.S_IFBLK
		}
		t.in("make "+name, unix.Mknodat(dir, name, kind|0o666, int(dev)))
		t.out("open "+name, open(dir, name, unix.O_RDONLY))
		t.out("write to "+name, open(dir, name, unix.O_RDWR|unix.O_NONBLOCK))
	}
	t.out("make a socket", unix.Mknodat(dir, "socket", unix.S_IFSOCK|0o666, 0))
	t.out("open its root as a tree", func() error { _, err := unix.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH); return err }())
	t.out("make its folder an ordinary mount", unix.MountSetattr(dir, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV}))
}

func (t *trying) processes(k quest) {
	t.out("execute", exec.Command("/proc/self/exe").Run())
	for _, family := range []int{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_ALG, unix.AF_VSOCK} {
		_, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		t.out(fmt.Sprint("have a socket of family ", family), err)
	}
	_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	t.out("have a pair of sockets", err)
	for _, pid := range []int{k.Parent, 1, 2} {
		t.out(fmt.Sprint("signal ", pid), unix.Kill(pid, 0))
		t.out(fmt.Sprint("trace ", pid), unix.PtraceAttach(pid))
		_, err := unix.PidfdOpen(pid, 0)
		t.out(fmt.Sprint("open process ", pid), err)
	}
	t.out("signal its parent's thread", unix.Tgkill(k.Parent, k.Parent, 0))
	t.out("unshare", unix.Unshare(unix.CLONE_NEWUSER))
	_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	t.out("have memory that is code", err)
	_, _, e := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	t.out("make a process", errno(e))
}

func errno(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// descriptors are those that it was given and those of Go's runtime.
func (t *trying) descriptors(w Work) {
	given := len(w.Folders) + len(w.Files)
	buf := make([]byte, 256)
	for fd := range 1024 {
		n, err := unix.Readlinkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), buf)
		if err != nil {
			continue
		}
		what := string(buf[:n])
		if fd < firstFD && strings.HasPrefix(what, "pipe:") || fd >= firstFD && fd < firstFD+given {
			continue
		}
		if !strings.HasPrefix(what, "anon_inode:[event") {
			t.found = append(t.found, fmt.Sprintf("it has %s as descriptor %d", what, fd))
		}
	}
}

// calls makes every system call that is not in the list, with nonsense.
func (t *trying) calls() {
	known := append([]string{"clone", "ioctl", "fcntl", "mknodat", "mmap", "mprotect"}, calls[:]...)
	known = append(known, "uprobe", "uretprobe") // no filter sees them; they answer with SIGILL
	const nonsense = ^uintptr(0)
	for nr := range 600 {
		if name := seccomp.Name(runtime.GOARCH, nr); !slices.Contains(known, name) {
			if _, _, e := unix.RawSyscall6(uintptr(nr), nonsense, nonsense, nonsense, nonsense, nonsense, nonsense); e != unix.EPERM && e != unix.ENOSYS {
				t.found = append(t.found, fmt.Sprintf("system call %d (%s) answers %v", nr, name, e))
			}
		}
	}
	for _, cmd := range []uintptr{unix.TIOCSTI, unix.FS_IOC_SETFLAGS, unix.FICLONERANGE, unix.TIOCGWINSZ} {
		if _, _, e := unix.RawSyscall(unix.SYS_IOCTL, 0, cmd, 0); e != unix.EPERM {
			t.found = append(t.found, fmt.Sprintf("ioctl %#x answers %v", cmd, e))
		}
	}
}

// files are what it is for.
func (t *trying) files(w Work) {
	dir := fdPath(w.Folders[0])
	at := func(name string) string { return filepath.Join(dir, name) }
	b := make([]byte, 5)
	_, err := w.Files[0].ReadAt(b, 0)
	t.in("read", err)
	t.in("write", os.WriteFile(at("f"), b, 0o600))
	t.in("chown", os.Chown(at("f"), 5, 6))
	t.in("chmod", unix.Fchmodat(unix.AT_FDCWD, at("f"), 0o4755, 0))
	t.in("set an attribute", unix.Setxattr(at("f"), "user.x", []byte("x"), 0))
	t.in("set a capability", unix.Setxattr(at("f"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	t.out("set a trusted attribute", unix.Setxattr(at("f"), "trusted.overlay.opaque", []byte("y"), 0))
	t.out("execute what it made", exec.Command(at("f")).Run())
	t.in("make a folder", unix.Mkdirat(int(w.Folders[0].Fd()), "d", 0o700))
	f, err := os.Open(at("f"))
	t.in("open", err)
	t.in("link", unix.Linkat(int(f.Fd()), "", int(w.Folders[0].Fd()), "d/f", unix.AT_EMPTY_PATH))
	t.in("make a pipe with a name", unix.Mknodat(int(w.Folders[0].Fd()), "fifo", unix.S_IFIFO|0o600, 0))
	t.in("set the time", unix.UtimesNanoAt(unix.AT_FDCWD, at("f"), make([]unix.Timespec, 2), 0))
	t.in("remove", unix.Unlinkat(int(w.Folders[0].Fd()), "d/f", 0))
}
