package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// TestMain lets the test binary be what is locked in, and the engine that starts it.
func TestMain(m *testing.M) {
	Main(os.Args, Trade{"try", try}, Trade{"fail", fail}, Trade{"wait", wait}, Trade{"eat", eat}, Trade{"flood", flood}, Trade{"crash", crash}, Trade{"threads", threads}, Trade{"share", share})
	switch {
	case os.Getenv("JAIL_APART") != "":
		fmt.Println(apart())
	case os.Getenv("JAIL_ENGINE") != "":
		fmt.Println(engine(os.Getenv("JAIL_ENGINE") == "outlives"))
	default:
		os.Exit(m.Run())
	}
}

func fail(Work) error { return errdef.New(errdef.Conflict, "cannot \x1b: %w", unix.ENOSPC) }

// wait ends when its second file does. Its first tells by its end that the process is gone.
func wait(w Work) error {
	_, err := io.Copy(io.Discard, w.Files[1])
	return err
}

func eat(Work) error {
	var all [][]byte
	for range 1 << 10 {
		b := make([]byte, 1<<20)
		for n := 0; n < len(b); n += 4096 {
			b[n] = 1
		}
		all = append(all, b)
	}
	return fmt.Errorf("ate %d MiB", len(all))
}

func flood(Work) error {
	for {
		if _, err := os.Stdout.Write(make([]byte, 4096)); err != nil {
			return err
		}
	}
}

// threads has more of them than it may.
func threads(Work) error {
	for range 2 * mostThreads {
		ready := make(chan bool)
		go func() {
			runtime.LockOSThread()
			ready <- true
			unix.Nanosleep(&unix.Timespec{Sec: 3600}, nil)
		}()
		<-ready
	}
	return nil
}

// share says what it can have of what has no limit of its own: memory that is shared, descriptors.
func share(Work) error {
	_, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_SHARED)
	n := 0
	for ; err != nil && n < 10*mostFiles; n++ {
		if _, err := unix.Eventfd(0, 0); err != nil {
			return fmt.Errorf("enough at %d: %w", n, err)
		}
	}
	return fmt.Errorf("shared memory: %v, %d descriptors", err, n)
}

func crash(Work) error { panic("boo\nhoo") }

const enough = 256 << 20

func root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces")
	}
}

// inner is an inert mount of a new folder in dir.
func inner(t testing.TB, dir string, readonly bool) *os.File {
	t.Helper()
	f, err := Inert(dir, readonly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What the process says is heard as it was meant; what becomes of it otherwise is told in one line.
func TestErrors(t *testing.T) {
	root(t)
	err := Job{Word: "fail", Memory: enough}.Run(t.Context())
	if !errdef.Is(err, errdef.Conflict) || !errors.Is(err, unix.ENOSPC) || err.Error() != "cannot \x1b: no space left on device" {
		t.Errorf("%q", err)
	}
	// Go's runtime dies of a lack of memory by its own word, or where it does not look by a fault.
	for word, want := range map[string]string{"eat": "out of memory|SIGSEGV", "flood": "signal: killed", "crash": "panic: boo", "threads": "failed to create new OS thread", "share": "too many open files"} {
		err := Job{Word: word, Memory: enough}.Run(t.Context())
		if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", word, err)
		}
	}
}

// A folder through which devices could be opened is no folder for this.
func TestFoldersAreInert(t *testing.T) {
	root(t)
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (Job{Word: "fail", Folders: []*os.File{f}, Memory: enough}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "lies in a mount on which devices") {
		t.Error(err)
	}
}

// pipes are what wait gets: held ends with the process, which ends with end.
func pipes(t testing.TB) (files []*os.File, held, end *os.File) {
	t.Helper()
	held, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{held, w, r, end} {
			f.Close()
		}
	})
	return []*os.File{w, r}, held, end
}

// gone waits until nobody has the other end of a pipe.
func gone(f *os.File, d time.Duration) error {
	f.SetReadDeadline(time.Now().Add(d))
	_, err := f.Read(make([]byte, 1))
	if err == io.EOF {
		return nil
	}
	return fmt.Errorf("it is still there: %v", err)
}

// When the context is done the process is gone before Run returns.
func TestCancel(t *testing.T) {
	root(t)
	files, held, _ := pipes(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience.Of(300*time.Millisecond))
	defer cancel()
	if err := (Job{Word: "wait", Files: files, Memory: enough}).Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	files[0].Close()
	p := []unix.PollFd{{Fd: int32(held.Fd())}}
	if n, err := unix.Poll(p, 0); n != 1 || p[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("it is still there: %v", err)
	}
}

// engine has a process wait, with the pipes of its test.
func engine(outlives bool) error {
	return Job{Word: "wait", Files: []*os.File{os.NewFile(3, "held"), os.NewFile(4, "end")}, Memory: enough, Outlives: outlives}.Run(context.Background())
}

// Who starts it takes it along when it is killed, or not, as is asked.
func TestEngineIsKilled(t *testing.T) {
	root(t)
	for _, kind := range []string{"dies", "outlives"} {
		files, held, end := pipes(t)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.ExtraFiles = append(os.Environ(), "JAIL_ENGINE="+kind), files
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		files[0].Close()
		files[1].Close()
		for len(children(t, cmd.Process.Pid)) == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(patience.Of(50 * time.Millisecond))
		cmd.Process.Kill()
		cmd.Wait()
		err := gone(held, patience.Of(2*time.Second))
		if kind == "dies" && err != nil || kind == "outlives" && err == nil {
			t.Errorf("%s: %v", kind, err)
		}
		end.Close()
		if err := gone(held, patience.Of(5*time.Second)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func children(t *testing.T, pid int) []string {
	t.Helper()
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []string
	for _, p := range list {
		b, _ := os.ReadFile(p)
		out = append(out, strings.Fields(string(b))...)
	}
	return out
}

// apart loads the filter beside a thread that has one of its own.
func apart() error {
	filterOneThread()
	f, err := seccomp.Compile(profile(), runtime.GOARCH)
	if err != nil {
		return err
	}
	return load(f)
}

// A thread that cannot be locked in is told, though the kernel's answer has no errno.
func TestThreadApart(t *testing.T) {
	root(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "JAIL_APART=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "<nil> seccomp: thread ") {
		t.Errorf("%v: %s", err, out)
	}
}

// BenchmarkRun is what it costs that work is done by such a process.
func BenchmarkRun(b *testing.B) {
	root(b)
	dir := b.TempDir()
	f := inner(b, dir, false)
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	w.Close()
	defer r.Close()
	for b.Loop() {
		if err := (Job{Word: "wait", Folders: []*os.File{f}, Files: []*os.File{r, r}, Memory: enough}).Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestReachesNothing: see try.
func TestReachesNothing(t *testing.T) {
	root(t)
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"canary": 0o600, "kept": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("alive"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.Open(fmt.Sprintf("/proc/self/fd/%d/kept", inner(t, dir, true).Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	j := Job{Word: "try", Folders: []*os.File{inner(t, filepath.Join(dir, "in"), false)}, Files: []*os.File{kept}, Memory: enough, Task: quest{Host: dir, Parent: os.Getpid(), Landlock: hasLandlock()}}
	if err := j.Run(t.Context()); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"canary", "kept"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		st, serr := os.Stat(filepath.Join(dir, name))
		if err != nil || serr != nil || string(b) != "alive" || st.Mode() != 0o600 {
			t.Errorf("%s: %q %v %v", name, b, st, errors.Join(err, serr))
		}
	}
	if now, err := os.Stat("/proc/self/exe"); err != nil || now.Mode() != exe.Mode() || now.Size() != exe.Size() {
		t.Errorf("the program is %v now, was %v: %v", now, exe, err)
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 3 {
		t.Errorf("%v %v", es, err)
	}
}

// quest is what try is told.
type quest struct {
	Host   string // a folder of the host's
	Parent int    // the process that started it
	// Landlock says that the kernel has it: without, the process may look at its own empty root and procfs.
	Landlock bool
}

func hasLandlock() bool {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return e == 0 && v >= refers
}

// decodeTask reads a task of tests.
func decodeTask(w Work, v any) {
	if err := json.Unmarshal(w.Task, v); err != nil {
		panic(err)
	}
}
