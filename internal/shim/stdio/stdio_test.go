package stdio

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// memLog is a Log in memory.
type memLog struct {
	mu     sync.Mutex
	b      bytes.Buffer
	closed int
}

func (l *memLog) Write(p []byte) { l.mu.Lock(); l.b.Write(p); l.mu.Unlock() }
func (l *memLog) Close()         { l.mu.Lock(); l.closed++; l.mu.Unlock() }

func (l *memLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// client returns the two ends of a connection.
func client(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// collect reads frames to the end of the stream: output, and the last frame.
func collect(r io.Reader) (out, last string, err error) {
	var b strings.Builder
	fr := wire.NewFrames(r)
	for {
		typ, p, err := fr.Next()
		if err != nil {
			return b.String(), last, err
		}
		if typ == wire.FrameReply {
			last = string(p)
			continue
		}
		b.Write(p)
	}
}

func lastFrame(s string) []byte {
	b := make([]byte, wire.HeaderLen)
	wire.PutHeader(b, wire.FrameReply, len(s))
	return append(b, s...)
}

func outPipe(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	ours, theirs, err := OutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func TestPipeFlags(t *testing.T) {
	for _, f := range []func() (*os.File, *os.File, error){OutPipe, InPipe} {
		ours, theirs, err := f()
		if err != nil {
			t.Fatal(err)
		}
		rc, _ := theirs.SyscallConn()
		rc.Control(func(fd uintptr) {
			if fl, _ := unix.FcntlInt(fd, unix.F_GETFL, 0); fl&unix.O_NONBLOCK != 0 {
				t.Error("the container's end is non-blocking")
			}
			if fl, _ := unix.FcntlInt(fd, unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
				t.Error("the container's end is inherited by others")
			}
		})
		ours.Close()
		theirs.Close()
	}
}

// TestFanOut attaches clients before, during and after output: each misses nothing from its beginning on.
func TestFanOut(t *testing.T) {
	out := NewOutput(0)
	ours, theirs := outPipe(t)
	log := &memLog{}
	p := NewPump(ours, wire.FrameStdout, out, log)
	type result struct{ out, last string }
	results := make(chan result, 3)
	attach := func() {
		a, b := client(t)
		c := out.Attach(a, true, true, nil)
		go func() { <-c.Gone(); a.Close() }()
		go func() {
			o, l, _ := collect(b)
			results <- result{o, l}
			b.Close()
		}()
	}
	attach()
	io.WriteString(theirs, "one")
	for log.String() != "one" {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	attach()
	io.WriteString(theirs, "two")
	theirs.Close()
	<-p.Done()
	out.Finish(lastFrame("bye"))
	attach()
	got := map[string]int{}
	for range 3 {
		select {
		case r := <-results:
			got[r.out+"/"+r.last]++
		case <-time.After(5 * time.Second):
			t.Fatal("a client's stream does not end")
		}
	}
	if fmt.Sprint(got) != "map[/bye:1 onetwo/bye:1 two/bye:1]" {
		t.Errorf("%v", got)
	}
}

// TestDeafClient is dropped after the patience, and everything goes on without it.
func TestDeafClient(t *testing.T) {
	out := NewOutput(50 * time.Millisecond)
	ours, theirs := outPipe(t)
	log := &memLog{}
	p := NewPump(ours, wire.FrameStdout, out, log)
	a, _ := client(t)
	deaf := out.Attach(a, true, true, nil)
	b, good := client(t)
	out.Attach(b, true, true, nil)
	var got string
	var wg sync.WaitGroup
	wg.Go(func() { got, _, _ = collect(good) })
	text := strings.Repeat("x", 3<<20)
	io.WriteString(theirs, text)
	theirs.Close()
	<-p.Done()
	select {
	case <-deaf.Gone():
	default:
		t.Error("still attached")
	}
	out.Finish(lastFrame("bye"))
	b.Close()
	wg.Wait()
	if got != text || log.String() != text {
		t.Errorf("good client %d, log %d of %d bytes", len(got), log.b.Len(), len(text))
	}
}

// TestSlowButAlive takes a little now and then, each time within the patience, and gets all.
func TestSlowButAlive(t *testing.T) {
	out := NewOutput(100 * time.Millisecond)
	ours, theirs := outPipe(t)
	p := NewPump(ours, wire.FrameStdout, out, nil)
	a, b := client(t)
	out.Attach(a, true, true, nil)
	unix.SetsockoptInt(int(a.Fd()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	unix.SetNonblock(int(a.Fd()), true)
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 8192)
		for {
			m, err := b.Read(buf)
			if n += m; err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	io.WriteString(theirs, strings.Repeat("x", 300<<10)) // 64 KiB take longer than the patience
	theirs.Close()
	<-p.Done()
	a.Close()
	<-done
	if n < 300<<10 {
		t.Errorf("%d bytes", n)
	}
}

// TestCut ends reading while a client is stuck: the log has everything at once, the client gets it later.
func TestCut(t *testing.T) {
	out := NewOutput(10 * time.Second)
	ours, theirs := outPipe(t)
	defer theirs.Close() // a descendant that holds the pipe
	log := &memLog{}
	p := NewPump(ours, wire.FrameStdout, out, log)
	a, b := client(t)
	out.Attach(a, true, true, nil)
	text := strings.Repeat("0123456789abcdef", 64<<10)
	unix.SetNonblock(int(theirs.Fd()), true)
	n := 0
	for begin := time.Now(); time.Since(begin) < 300*time.Millisecond; { // until all buffers are full
		m, _ := unix.Write(int(theirs.Fd()), []byte(text[n:]))
		n += max(0, m)
		time.Sleep(time.Millisecond)
	}
	if n == len(text) {
		t.Skip("the socket took all")
	}
	p.Cut()
	select {
	case <-p.Logged():
	case <-time.After(time.Second):
		t.Fatal("the log waits for the client")
	}
	if log.String() != text[:n] || log.closed != 1 {
		t.Errorf("log has %d of %d bytes, closed %d times", log.b.Len(), n, log.closed)
	}
	time.AfterFunc(50*time.Millisecond, func() { <-p.Done(); out.Finish(lastFrame("bye")); a.Close() })
	got, last, _ := collect(b)
	if got != text[:n] || last != "bye" {
		t.Errorf("client got %d of %d bytes, %q", len(got), n, last)
	}

	// While nothing is written, too.
	ours2, theirs2 := outPipe(t)
	defer theirs2.Close()
	q := NewPump(ours2, wire.FrameStderr, NewOutput(0), nil)
	q.Cut()
	select {
	case <-q.Done():
	case <-time.After(time.Second):
		t.Error("Cut did not end an idle pump")
	}
}

func TestDetachWakes(t *testing.T) {
	out := NewOutput(10 * time.Second)
	ours, theirs := outPipe(t)
	p := NewPump(ours, wire.FrameStdout, out, nil)
	a, _ := client(t)
	c := out.Attach(a, true, true, nil)
	time.AfterFunc(50*time.Millisecond, func() { out.Detach(c) })
	io.WriteString(theirs, strings.Repeat("x", 2<<20)) // stuck until it is detached
	theirs.Close()
	select {
	case <-p.Done():
	case <-time.After(2 * time.Second):
		t.Error("the pump still waits for a client that has been detached")
	}
}

func BenchmarkPump(b *testing.B) {
	ours, theirs := outPipe(b)
	p := NewPump(ours, wire.FrameStdout, NewOutput(0), nil)
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		theirs.Write(chunk)
	}
	theirs.Close()
	<-p.Done()
}
