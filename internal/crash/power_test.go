package crash

import (
	"bytes"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is an ext4 on a loop device over a file, mounted in a mount namespace of the test's own.
type disk struct{ image, dir string }

// alone runs this test again in a mount namespace of its own, and is true in there.
func alone(t *testing.T) bool {
	t.Helper()
	const key = "DHOW_CRASH_ALONE"
	if os.Getenv(key) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.short=" + strconv.FormatBool(testing.Short())}
	if d, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(d).String())
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), key+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose end the death signal tells of
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", bytes.TrimSpace(out))
	if err != nil {
		t.Error(err)
	}
	return false
}

func newDisk(t *testing.T, size int64, options ...string) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", append(append([]string{"-q", "-F"}, options...), d.image)...).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	d.mount(t)
	t.Cleanup(func() { d.unmount(t) })
	return d
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", d.image, d.dir).CombinedOutput(); err != nil {
		t.Skipf("no loop device here: %v: %s", err, out)
	}
}

// unmount waits until the kernel has let the file system go: mounted again before that, it would be the same one.
func (d *disk) unmount(t *testing.T) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(d.dir, 0) // EBUSY: processes are about to end; EINVAL: it is done
		out, _ := exec.Command("losetup", "-j", d.image).Output()
		if err == unix.EINVAL && len(out) == 0 {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("somebody still uses the file system: %v %s", err, out)
		}
	}
}

// fail takes the power away: what is not on the disk will never be, and the journal's last part neither (FS_IOC_SHUTDOWN).
func (d *disk) fail() error {
	const shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush)
}

// sync makes everything durable.
func (d *disk) sync(t *testing.T) {
	t.Helper()
	f, err := os.Open(d.dir)
	if err == nil {
		err = unix.Syncfs(int(f.Fd()))
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reboot is what follows: no process lives, /run is empty, the file system is mounted again.
func (w *world) reboot(t *testing.T, d *disk) {
	t.Helper()
	w.Kill()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		pids := w.processes()
		if len(pids) == 0 {
			break
		}
		for _, p := range pids {
			syscall.Kill(p, syscall.SIGKILL)
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("processes do not end: %v", pids)
		}
	}
	if err := os.RemoveAll(w.RunRoot); err != nil {
		t.Fatal(err)
	}
	d.unmount(t)
	d.mount(t)
	w.Run()
}

// processes are the containers' and the shims'.
func (w *world) processes() (pids []int) {
	for _, pattern := range []string{"/sys/fs/cgroup" + w.Cgroup + "/*/cgroup.procs", "/sys/fs/cgroup/*" + w.Cgroup + "/*/cgroup.procs"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for _, p := range strings.Fields(string(b)) {
				n, _ := strconv.Atoi(p)
				pids = append(pids, n)
			}
		}
	}
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		if b, _ := os.ReadFile(p); strings.HasPrefix(string(b), "dhow-shim") && strings.Contains(string(b), w.RunRoot) {
			n, _ := strconv.Atoi(strings.Split(p, "/")[2])
			pids = append(pids, n)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

const sleeper = "run -d --name sleeper -v named:/v -v /anon " + bb + " sleep 1000"

// lives are operations besides those on images.
var lives = []operation{
	{name: "run", do: sleeper},
	{name: "create", do: "create --name sleeper -v named:/v " + bb + " true"},
	{name: "rm", before: []string{sleeper}, do: "rm -fv sleeper"},
	{name: "volume", do: "volume create named"},
}

// TestPowerLoss takes the power away in place of calls chosen at random among those by which images and containers change the data root
// (rule R3, torture case 17). The next engine finds nothing half: whatever has a name is what the name says, images run, containers can
// be removed, and what was interrupted succeeds. DHOW_CRASH_SEED has the same points again.
func TestPowerLoss(t *testing.T) {
	if !alone(t) {
		return
	}
	d := newDisk(t, 512<<20)
	w := start(t, "--data-root", d.dir+"/data")
	w.Dhow("create", "--name", "changed", bb, "sh", "-c", change).OK() // an image that stays in use
	w.Dhow("start", "-a", "changed").OK()
	w.bound(t)
	d.sync(t) // what a container has written is its own to sync
	clean := w.stored(t)
	all := append(slices.Clone(operations), lives...)
	totals := map[string]int{}
	for _, o := range all {
		w.setUp(t, o)
		w.arm(0, nil)
		w.command(o.do).OK()
		_, totals[o.name] = w.disarm(t, o)
		w.tidy(t, clean)
	}
	seed := time.Now().UnixNano()
	if n, err := strconv.ParseInt(os.Getenv("DHOW_CRASH_SEED"), 10, 64); err == nil {
		seed = n
	}
	r := rand.New(rand.NewSource(seed))
	t.Logf("seed %d, calls of each operation: %v", seed, totals)
	count := 25
	if s := os.Getenv("DHOW_CRASH_POINTS"); s == "all" {
		count = 200
	} else if n, err := strconv.Atoi(s); err == nil {
		count = n
	}
	hits := 0
	for i := range count {
		o := all[r.Intn(len(all))]
		n := 1 + r.Intn(totals[o.name])
		w.setUp(t, o)
		w.arm(n, func() {
			if err := d.fail(); err != nil {
				t.Errorf("shutdown ioctl: %v", err)
			}
			syscall.Kill(w.PID(), syscall.SIGKILL)
		})
		w.command(o.do)
		hit, _ := w.disarm(t, o)
		if hit == "" { // shims and engines take turns at some calls
			if err := d.fail(); err != nil {
				t.Errorf("shutdown ioctl: %v", err)
			}
			hit = "the end"
		} else {
			hits++
		}
		t.Logf("%d: %s, call %d of %d: %s", i, o.name, n, totals[o.name], hit)
		w.reboot(t, d)
		w.after(t, o, clean)
		w.tidy(t, clean)
		if t.Failed() {
			return
		}
	}
	if hits < count/2 {
		t.Errorf("%d of %d points were reached", hits, count)
	}
}

// after looks at what an engine finds after a power failure, and does again what was interrupted.
func (w *world) after(t *testing.T, o operation, clean []string) {
	t.Helper()
	for _, id := range strings.Fields(w.Dhow("ps", "-aq", "--no-trunc").OK()) {
		w.Dhow("inspect", id).OK()
		if w.Dhow("inspect", "-f", "{{.State.Running}}", id).OK() == "true" {
			t.Errorf("container %s is said to run", id)
		}
	}
	if slices.ContainsFunc(lives, func(l operation) bool { return l.name == o.name }) {
		w.verify(t)
		w.Dhow("rm", "-fv", "sleeper")
		w.command("volume rm -f named").OK()
		w.setUp(t, o)
		w.command(o.do).OK()
		return
	}
	w.repeated(t, o, clean)
	if o.there == sampleRef {
		out := w.Dhow("run", "--rm", "--entrypoint", "/bin/x", sampleRef)
		if !strings.Contains(out.Err, "no such file") && !strings.Contains(out.Err, "not found") {
			t.Errorf("the image cannot be mounted: %s", out.Err)
		}
	}
}

// tidy removes everything but the first image and the container that uses it; nothing of the rest is left.
func (w *world) tidy(t *testing.T, clean []string) {
	t.Helper()
	w.Dhow("rm", "-fv", "sleeper")
	w.command("volume prune -af").OK()
	w.reset(t, clean)
	for dir, want := range map[string]int{"containers": 1, "snapshots": 1, "volumes": 0} {
		es, err := os.ReadDir(filepath.Join(w.DataRoot, dir))
		if err != nil {
			t.Fatal(err)
		}
		es = slices.DeleteFunc(es, func(e os.DirEntry) bool { return e.Name() == ".scratch" })
		if len(es) != want {
			t.Errorf("%s holds %v", dir, es)
		}
	}
}
