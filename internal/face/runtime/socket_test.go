package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci"
)

// receive takes one descriptor from whoever connects to a socket.
func receive(t *testing.T, path string) <-chan *os.File {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	l.SetDeadline(time.Now().Add(30 * time.Second))
	got := make(chan *os.File, 1)
	go func() { // ends with the message, or the deadline
		defer close(got)
		defer l.Close()
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		oob := make([]byte, 64)
		_, n, _, _, err := c.ReadMsgUnix(make([]byte, 4096), oob)
		if err != nil {
			return
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:n])
		for i := range msgs {
			if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil && len(fds) == 1 {
				got <- os.NewFile(uintptr(fds[0]), "received")
			}
		}
	}()
	return got
}

// TestSockets: create hands over the terminal and a pidfd.
func TestSockets(t *testing.T) {
	s := newStage(t, &txtar.Archive{Files: []txtar.File{{Name: "config.json", Data: []byte(`{"process":{"terminal":true,"args":["sh","-c","test -t 0 && echo on a terminal"]}}`)}}})
	rt := program(t)
	console, pidfd := filepath.Join(s.dir, "console"), filepath.Join(s.dir, "pidfd")
	terminals, processes := receive(t, console), receive(t, pidfd)
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(rt, append([]string{"--root", filepath.Join(s.dir, "state")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("create", "--bundle", filepath.Join(s.dir, "bundle"), "--console-socket", console, "--pidfd-socket", pidfd, s.id)
	master, process := <-terminals, <-processes
	if master == nil || process == nil {
		t.Fatalf("terminal %v, pidfd %v: nothing was handed over", master, process)
	}
	defer master.Close()
	defer process.Close()
	var st struct{ Pid int }
	check(t, json.Unmarshal([]byte(run("state", s.id)), &st))
	info, err := os.ReadFile("/proc/self/fdinfo/" + itoa(int(process.Fd())))
	check(t, err)
	if !strings.Contains(string(info), "Pid:\t"+itoa(st.Pid)+"\n") {
		t.Errorf("the pidfd is not of process %d: %s", st.Pid, info)
	}
	run("start", s.id)
	var said bytes.Buffer
	io.Copy(&said, master) // until EIO: the last holder of the slave is gone
	if !strings.Contains(said.String(), "on a terminal") {
		t.Errorf("the terminal said %q", said.String())
	}
	s.play(rt, "until_stopped; rt delete $ID")
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// TestNotify: what a container says on its NOTIFY_SOCKET goes to the host's, with its PID, and only once it is ready.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	hostPath := filepath.Join(dir, "host.sock")
	host, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: hostPath, Net: "unixgram"})
	check(t, err)
	defer host.Close()
	var c oci.Container
	if n, err := listenNotify(&c, hostPath); n != nil || err != nil {
		t.Fatalf("a container that was made without: %v, %v", n, err)
	}
	c.State.Notify = dir
	n, err := listenNotify(&c, hostPath)
	check(t, err)
	client, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: filepath.Join(dir, "notify.sock"), Net: "unixgram"})
	check(t, err)
	defer client.Close()
	done := make(chan error, 1)
	go func() { done <- n.forward(os.Getpid()) }() // ends with READY
	for _, text := range []string{"STATUS=not yet", "STATUS=now\nREADY=1"} {
		_, err := client.Write([]byte(text))
		check(t, err)
	}
	host.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf, oob := make([]byte, 4096), make([]byte, 64)
	for _, want := range []string{"READY=1\n", "MAINPID=" + itoa(os.Getpid()) + "\n", "BARRIER=1"} {
		k, ok, _, _, err := host.ReadMsgUnix(buf, oob)
		check(t, err)
		if got := string(buf[:k]); got != want {
			t.Errorf("the host got %q, want %q", got, want)
		}
		if want == "BARRIER=1" {
			msgs, _ := unix.ParseSocketControlMessage(oob[:ok])
			fds, err := unix.ParseUnixRights(&msgs[0])
			check(t, err)
			unix.Close(fds[0]) // handled
		}
	}
	check(t, <-done)
	n.close()
	if _, err := os.Stat(filepath.Join(dir, "notify.sock")); err == nil {
		t.Error("the socket is still there")
	}
}

// What a config has in it does not reach the terminal as control characters.
func TestErrorsAreOneLine(t *testing.T) {
	var out bytes.Buffer
	l := logger{stderr: &out}
	l.fail(errors.New("a \x1b]0;owned\x07 b\r\nc\x00 \u202e ä \xff"))
	l.warn("x\n%s", "\x9b31m")
	if got, want := out.String(), "dhow-runtime: a \\x1b]0;owned\\a b\\r; c\\x00 \\u202e ä �\ndhow-runtime: warning: x; �31m\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "-1": -1, "512": 512, "1k": 1024, "1K": 1024, "64m": 64 << 20, "1.5g": 3 << 29, "2 GiB": 2 << 30, "2gb": 2 << 30, "7b": 7} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "1x", "-2", "1kk", "1e3", ".", "9999999p", "k", "1 2", "--1", "nan", "inf", "NaNb"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}
