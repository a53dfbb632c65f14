package partial

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/du"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "partial"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put leaves a beginning.
func put(t *testing.T, s *Store, name, body string) digest.Digest {
	t.Helper()
	d := digest.FromString(name)
	b := s.Take(d, Least)
	if b == nil {
		t.Fatal("not taken")
	}
	b.Append([]byte(body))
	b.Keep()
	return d
}

func (s *Store) names(t *testing.T) (names []string) {
	t.Helper()
	es, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// TestBlob: what one owner appends the next one reads, and appends to.
func TestBlob(t *testing.T) {
	s := open(t)
	d := put(t, s, "a", "the be")
	b := s.Take(d, Least)
	if got := make([]byte, 6); b.Len() != 6 {
		t.Errorf("%d bytes", b.Len())
	} else if _, err := b.ReadAt(got, 0); err != nil || string(got) != "the be" {
		t.Errorf("%q %v", got, err)
	}
	if s.Take(d, Least) != nil {
		t.Error("it has two owners")
	}
	b.Append([]byte("ginning"))
	if b.Len() != 6 {
		t.Errorf("%d bytes were there", b.Len())
	}
	s.Clear()
	s.Remove(d)
	b.Keep()
	if st, err := os.Stat(s.path(d)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if got, err := os.ReadFile(s.path(d)); string(got) != "the beginning" {
		t.Errorf("%q %v", got, err)
	}
	if b = s.Take(d, Least); b.Len() != 13 {
		t.Errorf("%d bytes", b.Len())
	}
	b.Drop()
	s.Take(d, Least).Keep() // nothing came
	if left := s.names(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestNone: where nothing can be kept nothing is, and nobody minds.
func TestNone(t *testing.T) {
	s := open(t)
	d := digest.FromString("x")
	for name, c := range map[string]struct {
		d    digest.Digest
		size int64
		make func() error
	}{
		"small":          {d, Least - 1, nil},
		"negative":       {d, -1, nil},
		"no room":        {d, 1 << 60, nil},
		"little room":    {d, free(s.dir) / (room - 1), nil},
		"most of all":    {d, 1<<63 - 1, nil},
		"sha512":         {digest.Digest("sha512:" + strings.Repeat("0", 128)), Least, nil},
		"a way out":      {"sha256:../../../../../../../../../../../../../../../../../../../../../x", Least, nil},
		"a folder there": {d, Least, func() error { return os.Mkdir(s.path(d), 0o700) }},
		"a link there":   {d, Least, func() error { return os.Symlink("/etc/passwd", s.path(d)) }},
		"a pipe there":   {d, Least, func() error { return unix.Mkfifo(s.path(d), 0o600) }},
	} {
		if c.make != nil {
			if err := c.make(); err != nil {
				t.Fatal(err)
			}
		}
		b := s.Take(c.d, c.size)
		if b != nil {
			t.Errorf("%s: taken", name)
		}
		if b.Append([]byte("x")); b.Len() != 0 {
			t.Errorf("%s: %d bytes", name, b.Len())
		}
		if _, err := b.ReadAt(make([]byte, 1), 0); err == nil {
			t.Errorf("%s: something was read", name)
		}
		b.Keep()
		b.Drop()
		os.Remove(s.path(d))
	}
	if left := s.names(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestTooLong: a beginning that is longer than the blob is none of it.
func TestTooLong(t *testing.T) {
	s := open(t)
	d := put(t, s, "a", strings.Repeat("x", Least+1))
	b := s.Take(d, Least)
	if b.Len() != 0 {
		t.Errorf("%d bytes of it are taken for the blob's", b.Len())
	}
	b.Append([]byte("new"))
	b.Keep()
	if got, err := os.ReadFile(s.path(d)); string(got) != "new" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	d = put(t, s, "whole", strings.Repeat("x", Least))
	if b := s.Take(d, Least); b.Len() != Least {
		t.Errorf("of a whole one %d bytes", b.Len())
	}
}

// TestFails: a file that cannot be written, or read, goes.
func TestFails(t *testing.T) {
	s := open(t)
	for name, use := range map[string]func(b *Blob){
		"append": func(b *Blob) { b.Append([]byte("x")) },
		"read":   func(b *Blob) { b.ReadAt(make([]byte, 4), 0) },
	} {
		b := s.Take(put(t, s, "a", "some"), Least)
		b.f.Close() // every call fails from now on
		use(b)
		if left := s.names(t); len(left) != 0 {
			t.Errorf("%s: left: %v", name, left)
		}
		b.Append([]byte("x"))
		b.Keep()
		if left := s.names(t); len(left) != 0 || len(s.busy) != 0 {
			t.Errorf("%s: left: %v %v", name, left, s.busy)
		}
	}
}

// TestSweep: what is old goes, and the oldest of what is too much; never what has an owner, nor what is not the store's.
func TestSweep(t *testing.T) {
	s := open(t)
	body := strings.Repeat("x", 8192)
	old, future, a, b, owned := put(t, s, "old", body), put(t, s, "future", body), put(t, s, "a", body), put(t, s, "b", body), put(t, s, "owned", body)
	for d, age := range map[digest.Digest]time.Duration{old: keep, future: -2 * keep, a: 2 * time.Hour, b: time.Hour, owned: 2 * keep} {
		at := time.Now().Add(-age)
		if err := os.Chtimes(s.path(d), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "foreign"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own := s.Take(owned, Least) // sweeps, too
	if own.Len() != 0 {
		t.Error("a beginning older than a day was taken")
	}
	own.Keep()
	put(t, s, "owned", body)
	own = s.Take(owned, Least)
	if left := s.names(t); len(left) != 4 {
		t.Errorf("left: %v", left)
	}
	if n, err := s.Sweep(); n != 0 || err != nil {
		t.Errorf("%d more went: %v", n, err)
	}
	one := du.Of(s.path(a))
	if s.Idle() != 2*one || one < int64(len(body)) {
		t.Errorf("%d bytes of %d are idle", s.Idle(), one)
	}
	if n, freed, err := s.sweep(keep, one); n != 1 || freed != one || err != nil {
		t.Errorf("%d went, %d bytes: %v", n, freed, err)
	}
	if _, err := os.Stat(s.path(b)); err != nil {
		t.Errorf("the younger one went: %v", err)
	}
	if freed, err := s.Clear(); freed != one || err != nil || s.Idle() != 0 {
		t.Errorf("%d bytes: %v; %d are left", freed, err, s.Idle())
	}
	if left := s.names(t); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	own.Append(bytes.Repeat([]byte("y"), 8192))
	own.Keep()
	if s.Idle() != 2*one {
		t.Errorf("what had an owner has %d bytes", s.Idle())
	}
}
