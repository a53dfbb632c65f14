package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// listen serves h on a socket whose path is too long for sun_path.
func listen(t testing.TB, h Handler) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 150))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { Serve(l, h); close(done) }()
	t.Cleanup(func() {
		l.Close()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("Serve did not end")
		}
		if _, err := os.Lstat(SocketPath(dir)); !os.IsNotExist(err) {
			t.Error("the socket is still there")
		}
	})
	return SocketPath(dir)
}

func TestCall(t *testing.T) {
	sock := listen(t, func(c *Conn, r *Request) {
		switch r.Op {
		case OpState:
			c.Reply(Reply{Pid: r.Signal})
		case OpUpdate:
			c.Fail(errdef.New(errdef.Forbidden, "not %s", "you"))
		case OpWait: // closes without a word
		case OpPause:
			c.Write([]byte("garbage\n"))
		case OpResume:
			c.Write([]byte(`{"pid":1`)) // half a reply
		case OpCreate:
			io.Copy(io.Discard, c) // never answers
		case OpStart:
			b := bytes.Repeat([]byte("x"), 1<<20)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
	})
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	ctx := context.Background()
	if r, err := Call(ctx, sock, Request{Op: OpState, Signal: 42}); err != nil || r.Pid != 42 {
		t.Errorf("%+v %v", r, err)
	}
	for op, kind := range map[Op]errdef.Kind{
		OpUpdate: errdef.Forbidden, OpWait: errdef.Unavailable, OpPause: errdef.InvalidArgument, OpResume: errdef.Unavailable,
		OpStart: errdef.InvalidArgument, // a line without end
	} {
		if _, err := Call(ctx, sock, Request{Op: op}); !errdef.Is(err, kind) {
			t.Errorf("%s: kind %d: %v", op, errdef.KindOf(err), err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := Call(short, sock, Request{Op: OpCreate}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := Call(ctx, sock+"x", Request{Op: OpState}); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := Call(ctx, "/nonexistent/x", Request{Op: OpState}); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("no folder: %v", err)
	}
	if !Alive(ctx, sock) || Alive(ctx, sock+"x") {
		t.Error("Alive is wrong")
	}
}

func TestBadRequests(t *testing.T) {
	called := false
	sock := listen(t, func(*Conn, *Request) { called = true })
	for _, line := range []string{"hello\n", "[]\n", `{"op":"state"`, strings.Repeat("x", MaxLine+8192)} {
		c, err := dial(context.Background(), sock)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(line))
		if !strings.HasSuffix(line, "\n") && len(line) < 100 {
			c.Close() // half a request is not obeyed
			continue
		}
		var r Reply
		if err := c.readLine(&r); err == nil && !errdef.Is(r.Err(), errdef.InvalidArgument) {
			t.Errorf("%.20q: %+v", line, r)
		}
		c.Close()
	}
	if called {
		t.Error("a bad request was obeyed")
	}
}

func TestStream(t *testing.T) {
	frame := func(typ byte, p string) []byte {
		b := make([]byte, HeaderLen)
		PutHeader(b, typ, len(p))
		return append(b, p...)
	}
	sock := listen(t, func(c *Conn, r *Request) {
		c.Write([]byte("{\"pid\":7}\n")) // and frames in the same packet
		c.Write(append(frame(FrameStdout, "out"), frame(FrameStderr, "err")...))
		fr := NewFrames(c)
		for {
			typ, p, err := fr.Next()
			if err != nil || typ != FrameStdin || len(p) == 0 {
				break
			}
			c.Write(frame(FrameStdout, string(p)))
		}
		if r.Signal == 0 {
			c.Write(frame(FrameReply, `{"exit":{"code":3,"at":"2026-01-02T03:04:05Z"}}`))
		}
	})
	ctx := context.Background()
	s, err := OpenStream(ctx, sock, Request{Op: OpExec})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in := strings.Repeat("0123456789", 20000)
	go func() { s.WriteStdin([]byte(in)); s.CloseStdin() }()
	var out, er bytes.Buffer
	last, err := s.Copy(&out, &er)
	if err != nil || s.First.Pid != 7 || last.Exit.Code != 3 || out.String() != "out"+in || er.String() != "err" {
		t.Errorf("%d bytes, %q, %+v, %v", out.Len(), er.String(), last, err)
	}
	s, err = OpenStream(ctx, sock, Request{Op: OpExec, Signal: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.CloseStdin()
	if _, err := s.Copy(nil, nil); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("cut off: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s, err = OpenStream(ctx, sock, Request{Op: OpExec})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := s.Copy(nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 2, 'h', 'i', 3, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{2, 0, 0, 0, 0, 0x0f, 0xff, 0xff, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := NewFrames(bytes.NewReader(b))
		used := 0
		for {
			typ, p, err := fr.Next()
			if err == io.EOF {
				if used != len(b) {
					t.Errorf("%d of %d bytes", used, len(b))
				}
				break
			}
			if err != nil {
				break
			}
			if typ != b[used] || !bytes.Equal(p, b[used+HeaderLen:used+HeaderLen+len(p)]) {
				t.Errorf("frame at %d differs", used)
			}
			used += HeaderLen + len(p)
		}
		if len(fr.buf) > len(b)+128<<10 {
			t.Errorf("%d bytes of buffer for %d of input", len(fr.buf), len(b))
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"op":"exec","process":{"args":["a"],"cwd":"/"}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, w, err := os.Pipe()
		if err != nil || len(b) > 60<<10 {
			t.Skip("longer than a request may be, or no pipe to be had")
		}
		w.Write(b)
		w.Close()
		defer r.Close()
		c := newConn(int(dup(t, r)))
		defer c.Close()
		var req Request
		if err := c.readLine(&req); err == nil && bytes.IndexByte(b, '\n') < 0 {
			t.Errorf("obeyed half a line: %q", b)
		}
	})
}

// A shim that is stopped, with all the places taken where callers wait for it, is not taken for a dead one, and nobody waits for ever.
func TestListenBesideStoppedShim(t *testing.T) {
	path := SocketPath(t.TempDir())
	l, err := Listen(path) // and never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	for n := 0; ; n++ {
		c, err := dial(ctx, path)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil || n > 1000 {
			t.Fatalf("connection %d: %v", n, err)
		}
		defer c.Close()
	}
	if _, err := Listen(path); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("its socket is gone: %v", err)
	}
}

// A shim that has no place for us ends the connection at once; waiting for its end then is no race against it.
func TestGoneIsPatient(t *testing.T) {
	var calls atomic.Int32
	sock := listen(t, func(*Conn, *Request) { calls.Add(1) })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := Gone(ctx, sock); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if n := calls.Load(); n > 30 {
		t.Errorf("it was asked %d times in 300 ms", n)
	}
}
