package logfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)

func fixed() time.Time { return epoch }

func create(t testing.TB, path string, o WriterOptions) *Writer {
	t.Helper()
	w, err := Create(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// all reads the log to its end.
func all(t testing.TB, path string, o Options) []Entry {
	t.Helper()
	r, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []Entry
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		c := *e
		c.Line = bytes.Clone(e.Line)
		c.Attrs = bytes.Clone(e.Attrs)
		out = append(out, c)
	}
}

func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, WriterOptions{Now: fixed, Attrs: map[string]string{"b": `q"`, "a": "x"}})
	o, e := w.Stream("stdout"), w.Stream("stderr")
	o.Write([]byte("plain\nta\tb \"q\" \\ <&> \r\x00\x7f\n\xff\xe2\x80\xa8é\nhalf"))
	e.Write([]byte("other\n"))
	o.Write([]byte(" line\nno end"))
	o.Close()
	e.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(path)
	tail := func(s string) string {
		return `","stream":"` + s + `","attrs":{"a":"x","b":"q\""},"time":"2026-01-02T03:04:05.6789Z"}` + "\n"
	}
	want := `{"log":"plain\n` + tail("stdout") +
		`{"log":"ta\u0009b \"q\" \\ \u003c\u0026\u003e \r\u0000` + "\x7f" + `\n` + tail("stdout") +
		`{"log":"\ufffd\u2028é\n` + tail("stdout") +
		`{"log":"other\n` + tail("stderr") +
		`{"log":"half line\n` + tail("stdout") +
		`{"log":"no end` + tail("stdout")
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, l := range bytes.Split(bytes.TrimSpace(got), []byte("\n")) {
		if !json.Valid(l) {
			t.Errorf("not JSON: %s", l)
		}
	}
	st, _ := os.Stat(path)
	if st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, WriterOptions{})
	s := w.Stream("stdout")
	a := strings.Repeat("a", MaxLine)
	in := a + "\n" + a[:MaxLine-1] + "\n" + a + a + "b\n" + strings.Repeat("é", MaxLine/2+5) + "x\n" + a[1:] + "é\n"
	for i := 0; i < len(in); i += 777 { // odd pieces
		s.Write([]byte(in[i:min(i+777, len(in))]))
	}
	s.Close()
	w.Close()
	var lens []int
	var text strings.Builder
	for _, e := range all(t, path, Options{Tail: -1}) {
		lens = append(lens, len(e.Line))
		text.Write(e.Line)
	}
	if text.String() != in {
		t.Error("text differs")
	}
	want := fmt.Sprint([]int{MaxLine, 1, MaxLine, MaxLine, MaxLine, 2, MaxLine, 12, MaxLine - 1, 3})
	if fmt.Sprint(lens) != want {
		t.Errorf("lengths %v, want %v", lens, want)
	}
}

// TestRandom writes random bytes in random pieces and wants back what it wrote.
func TestRandom(t *testing.T) {
	for seed := range int64(12) {
		rnd := rand.New(rand.NewSource(seed))
		path := filepath.Join(t.TempDir(), "log")
		w := create(t, path, WriterOptions{MaxSize: 40 << 10, MaxFiles: 1000})
		s := w.Stream("stdout")
		var in []byte
		for len(in) < 200<<10 {
			n := rnd.Intn(1 << rnd.Intn(16))
			p := make([]byte, n)
			for i := range p {
				p[i] = []byte("abcdefg\n\"\\é\x01日本")[rnd.Intn(19)]
			}
			s.Write(p)
			in = append(in, p...)
		}
		s.Close()
		w.Close()
		var got []byte
		for _, e := range all(t, path, Options{Tail: -1}) {
			got = append(got, e.Line...)
		}
		if want := bytes.ToValidUTF8(in, nil); !bytes.Equal(bytes.ReplaceAll(got, []byte("\ufffd"), nil), want) {
			t.Fatalf("seed %d: %d bytes back of %d", seed, len(got), len(want))
		}
	}
}

func TestRotate(t *testing.T) {
	for _, files := range []int{1, 2, 3} {
		dir := t.TempDir()
		path := filepath.Join(dir, "log")
		w := create(t, path, WriterOptions{MaxSize: 1000, MaxFiles: files})
		s := w.Stream("stdout")
		for i := range 200 {
			fmt.Fprintf(writerFunc(s.Write), "line %03d\n", i)
		}
		w.Close()
		names, _ := os.ReadDir(dir)
		if len(names) != files {
			t.Errorf("files %d: %v", files, names)
		}
		for _, n := range names {
			if st, _ := n.Info(); st.Size() > 1100 {
				t.Errorf("%s: %d bytes", n.Name(), st.Size())
			}
		}
		got := all(t, path, Options{Tail: -1})
		for i, e := range got {
			if want := fmt.Sprintf("line %03d\n", 200-len(got)+i); string(e.Line) != want {
				t.Fatalf("entry %d: %q, want %q", i, e.Line, want)
			}
		}
		for _, n := range []int{0, 1, 5, 13, 20, 1000} {
			tail := all(t, path, Options{Tail: n})
			if len(tail) != min(n, len(got)) {
				t.Errorf("files %d: tail %d gave %d of %d", files, n, len(tail), len(got))
			}
			if len(tail) > 0 && string(tail[len(tail)-1].Line) != "line 199\n" {
				t.Errorf("tail %d ends in %q", n, tail[len(tail)-1].Line)
			}
		}
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestTailOfBigFileReadsItsEndOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	// A terabyte of hole before the last lines: whoever reads it all does not come back.
	line := `{"log":"x\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}` + "\n"
	if _, err := f.WriteAt([]byte("\n"+strings.Repeat(line, 2000)), 1<<40); err != nil {
		t.Skip("no sparse files:", err)
	}
	f.Close()
	if got := len(all(t, path, Options{Tail: 1500})); got != 1500 {
		t.Errorf("%d entries", got)
	}
}

func TestSinceUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	now := epoch
	w := create(t, path, WriterOptions{MaxSize: 300, MaxFiles: 100, Now: func() time.Time { return now }})
	s := w.Stream("stdout")
	for i := range 20 {
		now = epoch.Add(time.Duration(i) * time.Second)
		fmt.Fprintf(writerFunc(s.Write), "%d\n", i)
	}
	w.Close()
	got := all(t, path, Options{Tail: -1, Since: epoch.Add(5 * time.Second), Until: epoch.Add(7 * time.Second)})
	if len(got) != 3 || string(got[0].Line) != "5\n" || string(got[2].Line) != "7\n" {
		t.Errorf("%+v", got)
	}
	// Whole files older than Since are not even read: make the oldest unreadable as entries.
	old := nameOf(path, len(glob(t, path))-1)
	os.WriteFile(old, []byte("garbage\n"), 0o600)
	os.Chtimes(old, epoch, epoch)
	r, err := Open(path, Options{Tail: -1, Since: epoch.Add(5 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for err == nil {
		_, err = r.Next(context.Background())
	}
	if r.Corrupt() != 0 {
		t.Errorf("read a file older than Since")
	}
}

func glob(t *testing.T, path string) []string {
	m, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCorrupt puts between entries what can be found there after a crash.
func TestCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	line := `{"log":"x\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}` + "\n"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, line+"\x00\x00\x00\n"+line+`{"log":"half`+"\n"+line)
	for range 40 {
		f.Write(bytes.Repeat([]byte("y"), 1<<20)) // 40 MiB without newline
	}
	io.WriteString(f, "\n"+line+`{"time":"2026-01-02T03:04:05Z", "log":"other order", "stream":"stderr"}`+"\n"+`{"log":"cut`)
	f.Close()
	r, err := Open(path, Options{Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 && (string(e.Line) != "other order" || e.Stream != "stderr") {
			t.Errorf("entry 5: %+v", e)
		}
	}
	if n != 5 || r.Corrupt() != 3 {
		t.Errorf("%d entries, %d corrupt", n, r.Corrupt())
	}
	if len(r.buf) > 4*maxEntry {
		t.Errorf("buffer grew to %d", len(r.buf))
	}
	// The next writer closes the half entry.
	w := create(t, path, WriterOptions{})
	w.Stream("stdout").Write([]byte("after\n"))
	w.Close()
	got := all(t, path, Options{Tail: 1})
	if len(got) != 1 || string(got[0].Line) != "after\n" {
		t.Errorf("after a torn end: %+v", got)
	}
}

// TestFollowFlood rotates under a flood with a follower that must miss nothing, and a container's end.
func TestFollowFlood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, WriterOptions{MaxSize: 1 << 20, MaxFiles: 60})
	done := make(chan struct{})
	r, err := Open(path, Options{Tail: -1, Follow: true, Done: done})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const lines = 500000
	var wg sync.WaitGroup
	wg.Go(func() {
		s := w.Stream("stdout")
		var b []byte
		for i := range lines {
			b = fmt.Appendf(b, "%d some text to fill the line with, as programs do\n", i)
			if len(b) > 30<<10 || i == lines-1 {
				s.Write(b)
				b = b[:0]
			}
		}
		s.Close()
		w.Close()
		close(done)
	})
	n := 0
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Gap {
			t.Fatalf("gap after %d entries", n)
		}
		var got int
		fmt.Sscan(string(e.Line), &got)
		if got != n {
			t.Fatalf("entry %d where %d was due", got, n)
		}
		n++
	}
	wg.Wait()
	if n != lines {
		t.Errorf("%d of %d", n, lines)
	}
	if len(glob(t, path)) < 40 {
		t.Errorf("hardly rotated: %d files", len(glob(t, path)))
	}
}

func TestFollowTellsGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, WriterOptions{MaxSize: 500, MaxFiles: 2})
	s := w.Stream("stdout")
	done := make(chan struct{})
	s.Write([]byte("first\n"))
	r, err := Open(path, Options{Tail: -1, Follow: true, Done: done})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 100 {
		fmt.Fprintf(writerFunc(s.Write), "%d\n", i)
	}
	close(done)
	gaps, last := 0, ""
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Gap {
			gaps++
		} else {
			last = string(e.Line)
		}
	}
	if gaps != 1 || last != "99\n" || r.Corrupt() != 0 {
		t.Errorf("gaps %d, last %q, corrupt %d", gaps, last, r.Corrupt())
	}
}

func TestFollowWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, poll := range []bool{false, true} {
		os.Remove(path)
		r, err := Open(path, Options{Tail: -1, Follow: true}) // the log does not exist yet
		if err != nil {
			t.Fatal(err)
		}
		if poll {
			r.watch.f.Close()
			r.watch.f = nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("poll %v: empty log: %v", poll, err)
		}
		cancel()
		time.AfterFunc(30*time.Millisecond, func() {
			w, err := Create(path, WriterOptions{})
			if err == nil {
				w.Stream("stdout").Write([]byte("hello\n"))
				w.Close()
			}
		})
		e, err := r.Next(context.Background())
		if err != nil || string(e.Line) != "hello\n" {
			t.Errorf("poll %v: %v %v", poll, e, err)
		}
		r.o.Until = time.Now().Add(30 * time.Millisecond)
		if _, err := r.Next(context.Background()); err != io.EOF {
			t.Errorf("poll %v: until: %v", poll, err)
		}
		r.Close()
	}
}

// TestDiskFull fills a real file system: writing must not fail, and the loss must be told once there is room.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("mount tmpfs:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "log")
	filler := filepath.Join(dir, "filler")
	os.WriteFile(filler, make([]byte, 48<<10), 0o600)
	w := create(t, path, WriterOptions{MaxSize: 1 << 20, MaxFiles: 2})
	s := w.Stream("stdout")
	for i := range 1000 {
		fmt.Fprintf(writerFunc(s.Write), "line %03d of a disk that fills up\n", i)
	}
	lost := w.Dropped()
	if lost == 0 {
		t.Fatal("the disk did not fill")
	}
	os.Remove(filler)
	s.Write([]byte("again\n"))
	w.Close()
	got := all(t, path, Options{Tail: -1})
	n := len(got)
	if n != 1000-int(lost)+2 {
		t.Errorf("%d entries, %d lost", n, lost)
	}
	want := fmt.Sprintf("dhow: %d log entries were lost here: no space left on device\n", lost)
	if string(got[n-2].Line) != want || got[n-2].Stream != "stderr" || string(got[n-1].Line) != "again\n" {
		t.Errorf("end of log: %+v, want %q", got[n-2:], want)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"log":"a\u00e9\ud83d\ude00\n","stream":"stdout","attrs":{"a":"}"},"time":"2026-01-02T03:04:05Z"}` + "\n"))
	f.Add([]byte(`{"log":"\ud83d\n","stream":"std` + "\n\n{}\n"))
	f.Add([]byte("{\"log\":\"\x01\xff\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, Options{Tail: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		n := int64(0)
		for {
			e, err := r.Next(context.Background())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Attrs != nil && !json.Valid(e.Attrs) {
				t.Errorf("attrs %q", e.Attrs)
			}
			n++
		}
		if lines := int64(bytes.Count(b, []byte("\n"))); n+r.Corrupt() != lines {
			t.Errorf("%d entries and %d corrupt of %d lines", n, r.Corrupt(), lines)
		}
	})
}

// FuzzDecode compares the fast decoder with encoding/json on what both accept.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("a\xffb\n"), `{"log":"\ud800\u0041\/","stream":"stdout","time":"2026-01-02T03:04:05Z"}`)
	f.Fuzz(func(t *testing.T, text []byte, raw string) {
		var d decoder
		var e, s Entry
		line := appendTail(appendString([]byte(`{"log":"`), text), "stdout", nil, epoch)
		if !d.fast(line[:len(line)-1], &e) {
			t.Fatalf("not decoded: %s", line)
		}
		if !d.slow(line, &s) || !bytes.Equal(e.Line, s.Line) {
			t.Fatalf("%q: fast %q, slow %q", line, e.Line, s.Line)
		}
		if d.fast([]byte(raw), &e) && d.slow([]byte(raw), &s) && !bytes.Equal(e.Line, s.Line) {
			t.Fatalf("%q: fast %q, slow %q", raw, e.Line, s.Line)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for name, line := range map[string]string{
		"short": "GET /index.html 200\n",
		"long":  strings.Repeat("The quick brown fox jumps over the lazy dog. ", 20) + "\n",
		"binary": func() string {
			p := make([]byte, 4096)
			rand.New(rand.NewSource(1)).Read(p)
			return string(p)
		}(),
	} {
		b.Run(name, func(b *testing.B) {
			w := create(b, filepath.Join(b.TempDir(), "log"), WriterOptions{MaxSize: 10 << 20, MaxFiles: 3, NoSync: true})
			defer w.Close()
			s := w.Stream("stdout")
			chunk := []byte(strings.Repeat(line, 64<<10/len(line)))
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				s.Write(chunk)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	w := create(b, path, WriterOptions{NoSync: true})
	s := w.Stream("stdout")
	chunk := []byte(strings.Repeat("GET /index.html 200 some more text\n", 1000))
	for range 100 {
		s.Write(chunk)
	}
	w.Close()
	b.SetBytes(int64(100 * len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if got := len2(b, path); got != 100000 {
			b.Fatal(got)
		}
	}
}

func len2(b *testing.B, path string) (n int) {
	r, err := Open(path, Options{Tail: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for {
		if _, err := r.Next(context.Background()); err != nil {
			return n
		}
		n++
	}
}
