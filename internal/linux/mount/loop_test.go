package mount

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLoop: everybody who asks for a device over a file gets the same one; it is gone with the last, and another file gets another.
func TestLoop(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: loop devices")
	}
	dir := t.TempDir()
	open := func(name, text string) *os.File {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, append([]byte(text), make([]byte, 4096)...), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	loop := func(f *os.File) *os.File {
		d, err := Loop(f)
		if err != nil {
			t.Skip(err)
		}
		return d
	}
	a, b := open("a", "first"), open("b", "second")
	one, two, other := loop(a), loop(a), loop(b)
	if one.Name() != two.Name() || one.Name() == other.Name() {
		t.Errorf("%s and %s over one file, %s over another", one.Name(), two.Name(), other.Name())
	}
	one.Close()
	text := make([]byte, 5)
	if _, err := two.ReadAt(text, 0); err != nil || string(text) != "first" {
		t.Errorf("%q %v", text, err)
	}
	if w, err := os.OpenFile(two.Name(), os.O_RDWR, 0); err == nil {
		if _, err := w.WriteAt([]byte("x"), 0); err == nil && w.Sync() == nil {
			t.Error("a read-only device was written to")
		}
		w.Close()
	}
	name := filepath.Base(two.Name())
	two.Close()
	other.Close()
	for range 250 { // the kernel takes it off a moment later
		if b, err := os.ReadFile("/sys/block/" + name + "/loop/backing_file"); err != nil || string(b) != a.Name()+"\n" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%s is still attached", name)
}
