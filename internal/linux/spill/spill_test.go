package spill

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/testkit/disk"
)

type pair struct{ a, b uint32 }

// fill makes arrays of 256 KiB and writes to all of them.
func fill(s *Space, n int) (all [][]pair) {
	for i := range n {
		c := Make[pair](s, 32<<10)
		for k := range c {
			if c[k] != (pair{}) {
				panic("not zeroed")
			}
			c[k] = pair{uint32(i), uint32(k)}
		}
		all = append(all, c)
	}
	return all
}

func whole(t *testing.T, all [][]pair) {
	t.Helper()
	for i, c := range all {
		for k := range c {
			if c[k] != (pair{uint32(i), uint32(k)}) {
				t.Fatalf("array %d holds %v at %d", i, c[k], k)
			}
		}
	}
}

// mapped is how much of the space is in this process's memory, in KiB (proc_pid_smaps(5)).
func mapped(t *testing.T, dir string) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), dir)
	if !ok {
		t.Fatal("it is not mapped")
	}
	_, after, _ = strings.Cut(after, "\nRss:")
	fmt.Sscan(after, &kib)
	return kib
}

func TestSpace(t *testing.T) {
	dir := t.TempDir()
	s := New(dir)
	all := fill(s, 200) // 50 MiB
	if s.used < 40<<20 {
		t.Errorf("%d bytes are on the disk", s.used)
	}
	whole(t, all)
	before := mapped(t, dir)
	s.Relax()
	if after := mapped(t, dir); before < 30<<10 || after > 1<<10 {
		t.Errorf("%d KiB are in memory, %d when they are let go", before, after)
	}
	whole(t, all)
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("there are names: %v", left)
	}
	s.Close()
	s.Close()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil || strings.Contains(string(maps), dir) {
		t.Errorf("it is still mapped: %v", err)
	}
	whole(t, fill(nil, 3))
	if small := New(dir); len(fill(small, 10)) != 10 || small.file != nil {
		t.Error("a small one used the disk")
	}
}

// TestFullDisk: what the disk has no room for is in memory.
func TestFullDisk(t *testing.T) {
	dir := disk.Mounted(t, "ext4", 24)
	s := New(dir)
	defer s.Close()
	all := fill(s, 200)
	if !s.failed || s.used == 0 {
		t.Fatalf("%d bytes went to a disk of 24 MiB", s.used)
	}
	whole(t, all)
}

// TestGuard: a page that cannot be read back is an error.
func TestGuard(t *testing.T) {
	s := New(t.TempDir())
	defer s.Close()
	all := fill(s, 200)
	s.Relax()
	if err := unix.Ftruncate(s.fd, 0); err != nil { // as an unreadable sector: SIGBUS
		t.Fatal(err)
	}
	if err := Guard(func() error { whole(t, all); return nil }); err == nil || !strings.Contains(err.Error(), "cannot be read back") {
		t.Error(err)
	}
	defer func() {
		if recover() != "other" {
			t.Error("another panic was swallowed")
		}
	}()
	_ = Guard(func() error { panic("other") })
}
