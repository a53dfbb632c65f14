package snapshot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// TestSparse: sparse files, in each way that GNU tar writes them, hold what they held, and their holes take no room.
func TestSparse(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, size int64, at ...int64) {
		f, err := os.Create(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		for k, off := range at {
			if _, err := f.WriteAt([]byte(strings.Repeat(string(rune('a'+k%26)), 700)), off); err != nil {
				t.Fatal(err)
			}
		}
	}
	var many []int64
	for n := range int64(60) {
		many = append(many, n*65536+8192*(n%3))
	}
	write("hole", 3<<20)
	write("tail", 3<<20+5, 3<<20-695)
	write("middle", 20<<20, 10<<20)
	write("few", 1<<20, 0, 300000, 700000)
	write("many", 8<<20, many...)
	write("dense", 5000, 0, 700, 1400, 2100, 2800, 3500, 4200)
	write("empty", 0)
	for name, flags := range map[string]string{"gnu": "--format=gnu", "0.0": "--format=posix --sparse-version=0.0", "0.1": "--format=posix --sparse-version=0.1", "1.0": "--format=posix --sparse-version=1.0"} {
		file := filepath.Join(dir, name+".tar")
		args := append(strings.Fields(flags), "--sparse", "--mtime=@1700000000", "--owner=0", "--group=0", "-C", src, "-cf", file, "hole", "tail", "middle", "few", "many", "dense", "empty")
		if out, err := exec.Command(gnu, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	r, err := safepath.OpenRoot(src)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := lines(describe(t, r))
	forms(t, func(t *testing.T, w world) {
		for _, name := range []string{"gnu", "0.0", "0.1", "1.0"} {
			b, err := os.ReadFile(filepath.Join(dir, name+".tar"))
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 1<<20 {
				t.Fatalf("tar wrote no holes: %d bytes", len(b))
			}
			got := lines(w.show(t, b))
			for p, l := range want {
				_, l, _ = strings.Cut(l, "reg ")
				_, g, _ := strings.Cut(got[p], "reg ")
				if p != "." && l != g {
					t.Errorf("%s: %s: %s, want %s", name, p, g, l)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %d objects, want %d", name, len(got), len(want))
			}
			if !w.flat {
				continue
			}
			if _, err := w.snaps.Prepare(t.Context(), name, w.ingest(t, b)); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Lstat(w.snaps.path(name, flatDir, "middle"), &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("%s: the copy takes %d bytes, %v", name, st.Blocks*512, err)
			}
		}
	})
}
