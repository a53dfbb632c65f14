package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

// A pending file replaces what has its name on Commit, and leaves nothing without, in a folder that moves meanwhile, too.
func TestPending(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put := func(text string, commit bool) {
		t.Helper()
		p, err := Begin(d, "name")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if commit {
			if err := p.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	look := func(want ...string) {
		t.Helper()
		es, err := os.ReadDir(dir)
		if err != nil || len(es) != len(want) {
			t.Fatalf("%v %v", es, err)
		}
		if len(want) > 0 {
			if raw, err := os.ReadFile(filepath.Join(dir, "name")); err != nil || string(raw) != want[0] {
				t.Fatalf("%q %v", raw, err)
			}
		}
	}
	put("never", false)
	look()
	put("one", true)
	look("one")
	put("two", false)
	look("one")
	put("two", true)
	look("two")
	if err := os.Rename(dir, filepath.Join(top, "moved")); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(top, "moved")
	put("three", true)
	look("three")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if p, err := Begin(d, "name"); err == nil {
		p.Close()
		t.Error("a file in a folder that is gone")
	}
}
