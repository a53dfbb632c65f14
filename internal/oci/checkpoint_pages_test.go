package oci

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/criu"
)

// criuServes starts one of criu's servers and returns once it listens, with its port.
func criuServes(t *testing.T, port string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := criu.Find()
	check(t, err)
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	cmd := exec.Command(path, append(args, "--address", "127.0.0.1", "--port", port, "--status-fd", "3")...)
	cmd.ExtraFiles = []*os.File{w}
	check(t, cmd.Start())
	w.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("criu %v does not listen: %v", args, err)
	}
	return cmd
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// Memory goes to a page server instead of into files of ours.
func TestCheckpointPageServer(t *testing.T) {
	needCriu(t)
	b := counting(t)
	c := b.start()
	n := b.count(3)
	o := b.images()
	check(t, os.Mkdir(o.Images, 0o700))
	port := freePort(t)
	server := criuServes(t, port, "page-server", "--images-dir", o.Images)
	o.PageServer = "127.0.0.1:" + port
	b.dump(c, o)
	check(t, server.Wait())
	c = b.restore(b.images())
	b.count(n)
	check(t, c.Delete(true))
	wait(t, c.Init())
}

// Memory stays where it was until the restored process asks for it. The restored container has another name, for the old one is there as
// long as its memory is.
func TestCheckpointLazyPages(t *testing.T) {
	needCriu(t)
	if ok, err := criu.Has(criu.FeatLazyPages); err != nil || !ok {
		t.Skipf("criu cannot do lazy pages here: %v", err)
	}
	b := counting(t)
	c := b.start()
	n := b.count(3)
	o := b.images()
	port := freePort(t)
	var pipe [2]int // Checkpoint closes the second
	check(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	r := os.NewFile(uintptr(pipe[0]), "status")
	defer r.Close()
	o.LazyPages, o.PageServer, o.StatusFD = true, "127.0.0.1:"+port, pipe[1]
	saved := make(chan error, 1)
	go func() { saved <- Checkpoint(c, o) }()
	ready := make(chan bool, 1)
	go func() { n, _ := r.Read(make([]byte, 1)); ready <- n == 1 }()
	select {
	case err := <-saved:
		t.Fatalf("checkpoint: %v", err)
	case ok := <-ready:
		if !ok {
			t.Fatal("--status-fd was closed without a word")
		}
	}
	criuServes(t, port, "lazy-pages", "--page-server", "--images-dir", o.Images)
	there := counting(t)
	again := there.images()
	again.Images, again.LazyPages = o.Images, true
	moved := there.restore(again)
	check(t, <-saved)
	there.memory = b.memory
	there.count(n)
	wait(t, c.init)
	check(t, c.Delete(true))
	check(t, moved.Delete(true))
	wait(t, moved.Init())
}

// Locks, an open file that has lost its name and has another, and connections of the network namespace that stays are kept where they are
// asked for, and a clear error where one of them is not.
func TestCheckpointKeeps(t *testing.T) {
	needCriu(t)
	b := newBox(t, "sh", "-c", "nc -l -p 4000 -e cat & sleep 0.5; (while true; do echo ping; sleep 0.05; done) | nc 127.0.0.1 4000 >/mnt/answers & "+
		"exec 5>/mnt/first; ln /mnt/first /mnt/second; rm /mnt/first; while true; do echo more >&5; sleep 0.05; done & exec /usr/bin/flock -x /mnt/lock sleep 1000")
	for _, a := range []string{"ln", "rm", "nc", "wc"} {
		check(t, os.Symlink("busybox", filepath.Join(b.rootfs(), "bin", a)))
	}
	for _, d := range []string{"lib", "lib64"} { // busybox has no flock
		check(t, os.Symlink("usr/"+d, filepath.Join(b.rootfs(), d)))
	}
	b.spec.Mounts = append(b.spec.Mounts, mount("/usr", "/usr", "bind", "ro"))
	b.network(t)
	c := b.start()
	const look, want = "/usr/bin/flock -n -x /mnt/lock true || echo locked; a=$(wc -c </mnt/answers); b=$(wc -c </mnt/second); ls /mnt/first 2>/dev/null; " +
		"for i in 1 2 3 4 5 6 7 8 9; do sleep 0.5; [ $(wc -c </mnt/answers) -gt $a ] && [ $(wc -c </mnt/second) -gt $b ] && break; done; [ $i != 9 ] && echo goes on", "locked\ngoes on"
	for i := 0; b.say(c, look) != want; i++ {
		if i == 20 {
			t.Fatalf("before: %q", b.say(c, look))
		}
	}
	for _, without := range []string{"--file-locks", "link-remap", "--tcp-established"} {
		o := b.images()
		o.FileLocks, o.Unlink, o.TCPEstablished = without != "--file-locks", without != "link-remap", without != "--tcp-established"
		if err := Checkpoint(c, o); err == nil || !strings.Contains(err.Error(), without) {
			t.Fatalf("without %s: %v", without, err)
		}
	}
	if got := b.say(c, look); got != want {
		t.Fatalf("after checkpoints that failed: %q", got)
	}
	o := b.images()
	o.FileLocks, o.Unlink, o.TCPEstablished = true, true, true
	b.dump(c, o)
	b.network(t) // criu's lock stays in the old one
	again := b.images()
	again.FileLocks, again.TCPEstablished = true, true
	c = b.restore(again)
	if got := b.say(c, look); got != want {
		t.Errorf("after: %q", got)
	}
	check(t, c.Delete(true))
	wait(t, c.Init())
}

// network gives b a new network namespace of somebody else's, with lo up.
func (b *box) network(t *testing.T) {
	t.Helper()
	holder := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000")
	up, err := holder.StdoutPipe()
	check(t, err)
	check(t, holder.Start())
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	if n, err := up.Read(make([]byte, 3)); n == 0 {
		t.Fatalf("no network namespace: %v", err)
	}
	for i, n := range b.spec.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			b.spec.Linux.Namespaces[i].Path = "/proc/" + strconv.Itoa(holder.Process.Pid) + "/ns/net"
		}
	}
}
