package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadIsBounded(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	for _, n := range []int{0, 1, 1023, 1024, 1025, 5000} {
		text := strings.Repeat("x", n)
		if err := Replace(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := Read(p, 5000); err != nil || string(b) != text {
			t.Fatalf("%d bytes: read %d, %v", n, len(b), err)
		}
	}
	if _, err := Read(p, 4999); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("beyond the limit: %v", err)
	}
	if _, err := Read(p+"x", 1); !os.IsNotExist(err) {
		t.Fatalf("absent: %v", err)
	}
	if b, err := Read("/proc/self/stat", 10000); err != nil || len(b) == 0 { // a file that has no size
		t.Fatalf("/proc: %d bytes, %v", len(b), err)
	}
}

func TestCreateAndReplace(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	if err := Create(p, []byte("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Create(p, []byte("two"), 0o640); !os.IsExist(err) {
		t.Fatalf("created twice: %v", err)
	}
	if err := Replace(p, []byte("three"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(p); string(b) != "three" {
		t.Fatalf("content %q", b)
	}
	if err := os.Symlink("elsewhere", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := Create(filepath.Join(dir, "l"), []byte("x"), 0o600); !os.IsExist(err) {
		t.Fatalf("through a symbolic link: %v", err)
	}
	if err := Replace(filepath.Join(dir, "no", "f"), []byte("x"), 0o600); !os.IsNotExist(err) {
		t.Fatalf("without a folder: %v", err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 2 {
		t.Fatalf("left behind: %v", es)
	}
}
