package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// small is a world on a disk that is soon full, with a container that runs, and images that there is no room for.
func small(t *testing.T, size int64, options ...string) (*world, *disk) {
	d := newDisk(t, size, options...)
	w := start(t, "--data-root", d.dir+"/data")
	w.command("run -d --name before -v kept:/v " + bb + " sleep 1000").OK()
	return w, d
}

// alive checks that the container from before goes on.
func (w *world) alive(t *testing.T) {
	t.Helper()
	if out := w.Dhow("exec", "before", "echo", "alive"); out.Out != "alive\n" {
		t.Errorf("who was there before: %q %s", out.Out, out.Err)
	}
}

func (d *disk) free(t *testing.T) (bytes, inodes int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize, int64(st.Ffree)
}

// TestTooLarge is torture case 20: what does not fit fails with the reason, gives its space back, and disturbs nobody.
func TestTooLarge(t *testing.T) {
	if !alone(t) {
		return
	}
	w, d := small(t, 64<<20)
	big := registry.Tar(t, registry.Text("big", noise(100<<20)))
	first := registry.Tar(t, registry.Text("small", noise(1<<20)))
	img := registry.Build(t, registry.Spec{Compress: "none", Tars: [][]byte{first, big}})
	w.reg.Serve("big:1", img)
	w.reg.Serve("swells:1", registry.Build(t, registry.Spec{Tars: [][]byte{registry.Tar(t, registry.Text("f", noise(4<<20)+strings.Repeat("swell", 20<<20)))}}))
	dir := t.TempDir()
	archive, plain := filepath.Join(dir, "archive"), filepath.Join(dir, "plain")
	for p, b := range map[string][]byte{archive: registry.Tar(t, registry.Archive(t, img, "big:1")...), plain: big} {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.Dhow("run", "--name", "grown", bb, "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=32").OK() // its commit does not fit
	before, _ := d.free(t)
	for _, c := range [][]string{
		{"pull", "127.0.0.1:5000/big:1"}, {"pull", "127.0.0.1:5000/swells:1"}, {"load", "-i", archive}, {"import", plain, "big:1"}, {"commit", "grown", "big:1"},
		{"run", "--rm", bb, "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=200"}, {"cp", plain, "before:/big"}, {"run", "--rm", "127.0.0.1:5000/big:1", "x"},
	} {
		t.Run(c[0], func(t *testing.T) {
			r := w.Dhow(c...)
			if r.Code == 0 || !strings.Contains(strings.ToLower(r.Err+r.Out), "no space left on device") || strings.Contains(r.Err, "panic") {
				t.Errorf("exit code %d: %s", r.Code, r.Err)
			}
			t.Log(strings.TrimSpace(r.Err[strings.LastIndex(strings.TrimSpace(r.Err), "\n")+1:]))
			w.alive(t)
			if c[0] == "cp" { // what came before the end is in the container
				w.Dhow("exec", "before", "rm", "-f", "/big").OK()
			}
			for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
				after, _ := d.free(t)
				if after > before-1<<19 { // the metadata file may have grown
					break
				}
				if time.Since(start) > 5*time.Second {
					t.Errorf("%d bytes were free, %d are now: %v", before, after, w.stored(t))
					break
				}
			}
		})
	}
	w.Dhow("rm", "-f", "before", "grown").OK()
}

// noRoom fills the disk, by bytes or by files.
func (d *disk) noRoom(t *testing.T, files bool) (empty func()) {
	t.Helper()
	dir := filepath.Join(d.dir, "ballast")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil && files; n++ {
		err = os.WriteFile(fmt.Sprint(dir, "/", n), nil, 0o600)
	}
	if !files {
		f, cerr := os.Create(dir + "/one")
		if cerr != nil {
			t.Fatal(cerr)
		}
		defer f.Close()
		for size := 1 << 20; size > 0; {
			if _, err = f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(fmt.Sprint(err), "no space left") {
		t.Fatalf("the disk does not get full: %v", err)
	}
	return func() { os.RemoveAll(dir) }
}

// TestNoRoom is torture cases 21 and 22: with no byte, or no inode, free, whatever gives space back succeeds, the engine starts anew,
// and what needs space is an error with its reason.
func TestNoRoom(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, what := range []string{"bytes", "inodes"} {
		t.Run(what, func(t *testing.T) {
			options := []string{"-m", "0"}
			if what == "inodes" {
				options = append(options, "-N", "700")
			}
			w, d := small(t, 64<<20, options...)
			w.command("pull -q " + sampleRef).OK()
			w.command("tag " + sampleRef + " other:1").OK()
			w.command("import PLAIN dangling:1").OK()
			w.command("run --name ended " + bb + " true").OK()
			w.command("volume create lonely").OK()
			empty := d.noRoom(t, what == "inodes")
			for _, c := range [][]string{{"pull", "-q", "127.0.0.1:5000/missing:1"}, {"run", "--rm", bb, "true"}, {"import", w.plain, "new:1"}} {
				if c[0] == "pull" {
					w.reg.Serve("missing:1", registry.Build(t, registry.Spec{Tars: [][]byte{registry.Tar(t, registry.Text("f", noise(1<<20)))}}))
				}
				if r := w.Dhow(c...); r.Code == 0 || !strings.Contains(strings.ToLower(r.Err), "no space left on device") {
					t.Errorf("%v: exit code %d: %s", c, r.Code, r.Err)
				}
			}
			w.alive(t)
			w.Kill()
			w.Run() // starts without room
			w.alive(t)
			for _, c := range []string{"rmi other:1", "rmi " + sampleRef, "rm ended", "image prune -af", "volume rm lonely", "stop -t 0 before", "rm -v before", "volume prune -af", "ps -a"} {
				if r := w.command(c); r.Code != 0 {
					t.Errorf("%s: exit code %d: %s", c, r.Code, r.Err)
				}
				harness.Settle(w.Engine)
				d.noMore(t, what == "inodes")
			}
			empty()
			w.Signal(syscall.SIGTERM)
			w.Run()
			w.command("run --rm " + bb + " true")
			w.verify(t)
			w.command("pull -q " + sampleRef).OK()
		})
	}
}

// noMore takes what an operation gave back.
func (d *disk) noMore(t *testing.T, files bool) {
	t.Helper()
	for n := 0; n < 10000; n++ {
		p := fmt.Sprintf("%s/ballast/more-%d-%d", d.dir, time.Now().UnixNano(), n)
		b := make([]byte, 4096)
		if files {
			b = nil
		}
		if os.WriteFile(p, b, 0o600) != nil {
			return
		}
	}
	t.Fatal("the disk does not get full again")
}

// TestReadOnly is torture case 24: the data root becomes read-only, as ext4 does after an error of its own.
func TestReadOnly(t *testing.T) {
	if !alone(t) {
		return
	}
	w, d := small(t, 64<<20)
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", d.image).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(strings.TrimSpace(string(out)))+"/trigger_fs_error", []byte("1"), 0); err != nil {
		t.Skipf("this kernel makes no errors: %v", err)
	}
	for _, c := range []string{"pull -q " + sampleRef, "run --rm " + bb + " true", "import PLAIN new:1", "tag " + bb + " new:1", "volume create vol", "rmi -f " + bb} {
		if r := w.command(c); r.Code == 0 || !strings.Contains(strings.ToLower(r.Err), "read-only file system") && !strings.Contains(strings.ToLower(r.Err), "input/output error") {
			t.Errorf("%s: exit code %d: %s", c, r.Code, r.Err)
		} else {
			t.Logf("%s: %s", c, strings.TrimSpace(r.Err))
		}
	}
	w.alive(t)
	if out := w.command("ps --format {{.Names}}").OK(); out != "before" {
		t.Errorf("ps: %q", out)
	}
	w.Kill()
	if pids := w.processes(); len(pids) < 2 {
		t.Errorf("a container and its shim: %v", pids)
	}
	for start := time.Now(); len(w.processes()) > 0 && time.Since(start) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		for _, p := range w.processes() {
			syscall.Kill(p, syscall.SIGKILL)
		}
	}
	d.unmount(t)
	if out, err := exec.Command("e2fsck", "-fy", d.image).CombinedOutput(); err != nil && !strings.Contains(string(out), "FILE SYSTEM WAS MODIFIED") {
		t.Fatalf("e2fsck: %v: %s", err, out)
	}
	d.mount(t)
	os.RemoveAll(w.RunRoot)
	w.Run()
	if state := w.command("inspect -f {{.State.Running}} before").OK(); state != "false" {
		t.Errorf("it is said to run: %s", state)
	}
	w.command("pull -q " + sampleRef).OK()
	w.verify(t)
	w.command("start before").OK()
	w.alive(t)
	w.Dhow("rm", "-f", "before").OK()
	w.command("volume prune -af").OK()
}

// TestFewDescriptors is torture case 23: an engine that may have 64 descriptors says so to those it cannot serve, and recovers.
func TestFewDescriptors(t *testing.T) {
	w := start(t)
	w.Dhow("run", "-d", "--name", "before", bb, "sleep", "1000").OK()
	var before unix.Rlimit
	if err := unix.Prlimit(w.PID(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(w.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var said []string
	for i := range 40 {
		wg.Go(func() {
			args := [][]string{{"pull", "-q", sampleRef}, {"run", "--rm", bb, "true"}, {"ps", "-a"}, {"exec", "before", "true"}}[i%4]
			if r := w.Dhow(args...); r.Code != 0 {
				mu.Lock()
				defer mu.Unlock()
				said = append(said, strings.TrimSpace(r.Err))
			}
		})
	}
	wg.Wait()
	slices.Sort(said)
	for _, s := range slices.Compact(said) {
		if s == "" || strings.Contains(s, "panic") {
			t.Errorf("a client heard %q", s)
		}
		t.Logf("heard: %s", s)
	}
	w.alive(t)
	if err := unix.Prlimit(w.PID(), unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"run --rm " + bb + " true", "pull -q " + sampleRef, "rmi " + sampleRef} {
		w.command(c).OK()
	}
	w.Dhow("rm", "-f", "before").OK()
	if strings.Contains(w.Log(), "panic") {
		t.Error("the engine's log has a panic")
	}
	w.Kill()
	w.Run() // sweeps what could not be cleaned up then: that takes descriptors, too
	w.verify(t)
}
