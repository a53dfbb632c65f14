package du

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLikeDu compares with du itself: hard links, holes, links to elsewhere, folders.
func TestLikeDu(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/x"), make([]byte, 12345), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "a/b/hole"))
	if err != nil {
		t.Fatal(err)
	}
	f.Truncate(1 << 30)
	f.WriteAt([]byte("end"), 1<<30-3)
	f.Sync()
	f.Close()
	os.Link(filepath.Join(dir, "a/x"), filepath.Join(dir, "c/x"))
	os.Symlink("/", filepath.Join(dir, "c/root"))
	out, err := exec.Command("du", "-s", "--block-size=1", dir).Output()
	if err != nil {
		t.Skipf("no du: %v", err)
	}
	want, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := Of(dir); got != want {
		t.Errorf("%d bytes, du says %d", got, want)
	}
	if Of(filepath.Join(dir, "none")) != 0 {
		t.Error("something from nothing")
	}
}
