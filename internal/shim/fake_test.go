package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
)

// TestMain makes the test binary three programs: the tests, a shim over a fake runtime, and the fake's parked process.
func TestMain(m *testing.M) {
	switch os.Getenv("DHOW_TEST_ROLE") {
	case "shim":
		os.Unsetenv("DHOW_TEST_ROLE")
		cfg, err := ReadConfig(os.Args[1])
		if err == nil {
			err = Run(cfg, Options{Create: fakeCreate, Ready: os.NewFile(3, "ready")})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "parked":
		park()
	}
	code := m.Run()
	os.Remove(filepath.Join(os.TempDir(), fmt.Sprintf("dhow-shim-test-%d", os.Getpid())))
	os.Exit(code)
}

// park waits at the barrier and then becomes the container's program.
func park() {
	os.Unsetenv("DHOW_TEST_ROLE")
	ctl, report := os.NewFile(3, "ctl"), os.NewFile(4, "report")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	if n, _ := ctl.Read(make([]byte, 1)); n != 1 {
		os.Exit(1)
	}
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		err = syscall.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprint(report, err)
	os.Exit(1)
}

// fake is a container of real processes without any isolation.
type fake struct {
	init   *oci.Process
	ctl    *os.File
	report *os.File

	mu   sync.Mutex
	pids []int
}

func fakeCreate(o oci.CreateOptions) (Container, error) {
	if o.Spec.Hostname == "fail" {
		return nil, errdef.New(errdef.InvalidArgument, "hostname: the fake does not like it")
	}
	ctlR, ctlW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	repR, repW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ctlR.Close()
	defer repW.Close()
	f := &fake{ctl: ctlW, report: repR}
	args := append([]string{"/proc/self/exe"}, o.Spec.Process.Args...)
	f.init, err = f.spawn(args, []string{"DHOW_TEST_ROLE=parked"}, o.Spec.Process.Terminal, o.Stdio, o.Console, ctlR, repW)
	return f, err
}

func (f *fake) spawn(args, env []string, tty bool, stdio [3]*os.File, console func(*os.File) error, more ...*os.File) (*oci.Process, error) {
	files := append(stdio[:], more...)
	sys := &syscall.SysProcAttr{Setsid: true}
	if tty {
		master, slave, err := openPTY()
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		files[0], files[1], files[2] = slave, slave, slave
		sys.Setctty = true
		if err := console(master); err != nil {
			return nil, err
		}
	}
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{Files: files, Env: append(os.Environ(), env...), Sys: sys})
	if err != nil {
		return nil, err
	}
	pid := p.Pid
	p.Release()
	f.mu.Lock()
	f.pids = append(f.pids, pid)
	f.mu.Unlock()
	return &oci.Process{Pid: pid}, nil
}

func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	return master, slave, err
}

func (f *fake) Init() *oci.Process { return f.init }

func (f *fake) Start() error {
	f.ctl.Write([]byte{1})
	f.ctl.Close()
	b, err := io.ReadAll(f.report)
	if err == nil && len(b) > 0 {
		err = errdef.New(errdef.NotFound, "%s", b)
	}
	return err
}

func (f *fake) Exec(o oci.ExecOptions) (*oci.Process, error) {
	path, err := exec.LookPath(o.Process.Args[0])
	if err != nil {
		return nil, errdef.As(errdef.NotFound, err)
	}
	return f.spawn(append([]string{path}, o.Process.Args[1:]...), nil, o.Process.Terminal, o.Stdio, o.Console)
}

func (f *fake) Signal(sig syscall.Signal, all bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !all {
		return syscall.Kill(f.init.Pid, sig)
	}
	for _, pid := range f.pids {
		syscall.Kill(-pid, sig)
	}
	return nil
}

func (f *fake) Pause() error  { return f.Signal(syscall.SIGSTOP, true) }
func (f *fake) Resume() error { return f.Signal(syscall.SIGCONT, true) }

func (f *fake) Update(r *specs.LinuxResources) error {
	return errdef.New(errdef.NotImplemented, "update: the fake has no cgroup")
}

func (f *fake) OOMKilled() bool { return false }

func (f *fake) Delete(force bool) error {
	f.ctl.Close()
	f.Signal(syscall.SIGKILL, true)
	return nil
}

func writeBundle(t testing.TB, dir string, terminal bool, args []string) {
	t.Helper()
	spec := specs.Spec{Version: specs.Version, Process: &specs.Process{Args: args, Terminal: terminal, Cwd: "/"}, Root: &specs.Root{Path: "/"}}
	if len(args) == 1 && args[0] == "fail-create" {
		spec.Hostname = "fail"
	}
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
