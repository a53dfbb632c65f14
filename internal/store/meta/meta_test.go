package meta

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"go.etcd.io/bbolt"
)

type rec struct{ N int }

func open(t *testing.T, path string) *DB {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestRecords(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "m.db"))
	var r rec
	if ok, err := d.Get("b", "k", &r); ok || err != nil {
		t.Fatal("a record from nowhere")
	}
	if err := d.Each("b", func(string, []byte) error { return errors.New("called") }); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := d.Put("b", fmt.Sprint("k", i), rec{i}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := d.Get("b", "k2", &r); !ok || err != nil || r.N != 2 {
		t.Fatal(ok, err, r)
	}
	var keys []string
	err := d.Each("b", func(k string, raw []byte) error {
		keys = append(keys, k)
		return d.Delete("b", k) // writing while iterating must not deadlock
	})
	if err != nil || strings.Join(keys, " ") != "k0 k1 k2" {
		t.Fatal(keys, err)
	}
	if ok, _ := d.Get("b", "k2", &r); ok {
		t.Fatal("deleted record is still there")
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "m.db"))
	boom := errors.New("boom")
	err := d.Update(func(tx *Tx) error {
		if err := tx.Put("b", "a", rec{1}); err != nil {
			t.Fatal(err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if ok, _ := d.Get("b", "a", &rec{}); ok {
		t.Fatal("half an update")
	}
}

func TestSecondEngine(t *testing.T) {
	p := filepath.Join(t.TempDir(), "m.db")
	open(t, p)
	start := time.Now()
	_, err := Open(p)
	if !errdef.Is(err, errdef.Conflict) || !strings.Contains(err.Error(), p) {
		t.Fatal(err)
	}
	if time.Since(start) > 5*time.Second {
		t.Fatal("waited too long")
	}
}

func TestDamaged(t *testing.T) {
	p := filepath.Join(t.TempDir(), "m.db")
	if err := os.WriteFile(p, []byte(strings.Repeat("not a database ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(p); !errdef.Is(err, errdef.DataLoss) {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "folder")); err == nil || errdef.Is(err, errdef.DataLoss) {
		t.Fatal("a missing folder is no damage:", err)
	}
	d := open(t, filepath.Join(t.TempDir(), "n.db"))
	if err := d.Put("b", "k", "text"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get("b", "k", &rec{}); !errdef.Is(err, errdef.DataLoss) || !strings.Contains(err.Error(), "b/k") {
		t.Fatal(err)
	}
}

// TestCutAndFlipped is torture case 27: a file that was cut or has flipped bytes is refused, or opens and reads without a crash.
func TestCutAndFlipped(t *testing.T) {
	p := filepath.Join(t.TempDir(), "m.db")
	d := open(t, p)
	if err := d.Update(func(tx *Tx) error { // one transaction leaves no free pages between those in use
		for i := range 300 {
			if err := tx.Put(fmt.Sprint("b", i%3), fmt.Sprint("k", i), strings.Repeat("v", 1000)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var used int64
	d.b.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil })
	d.Close()
	good, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, raw []byte) (refused bool) {
		p := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(p, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(p)
		if err != nil {
			if !errdef.Is(err, errdef.DataLoss) {
				t.Errorf("%s: %v", what, err)
			}
			return true
		}
		for b := range 3 {
			d.Each(fmt.Sprint("b", b), func(string, []byte) error { return nil })
		}
		d.Close()
		return false
	}
	for n := 4096; n < int(used); n += 8192 {
		if !try(fmt.Sprint("cut at ", n), good[:n]) {
			t.Errorf("cut at %d of %d bytes in use: not refused", n, used)
		}
	}
	flips := 0
	for n := 8; n < int(used); n += 4096 {
		raw := append([]byte(nil), good...)
		for i := n; i < min(n+64, len(raw)); i++ {
			raw[i] ^= 0x5a
		}
		if try(fmt.Sprint("flipped at ", n), raw) {
			flips++
		}
	}
	if flips == 0 {
		t.Error("no flipped byte was noticed")
	}
}

// TestKilledWriter kills a process that writes pairs; afterwards every pair is whole and every acknowledged one is there.
func TestKilledWriter(t *testing.T) {
	if p := os.Getenv("META_KILL"); p != "" {
		writePairs(p)
	}
	p := filepath.Join(t.TempDir(), "m.db")
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "META_KILL="+p)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(60+37*round) * time.Millisecond)
		cmd.Process.Kill()
		acked := 0
		for n := 0; ; acked = n {
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break
			}
		}
		cmd.Wait()
		d, err := Open(p)
		if err != nil {
			t.Fatal(err)
		}
		var a, b rec
		d.Get("b", "left", &a)
		d.Get("b", "right", &b)
		d.Close()
		if a != b || a.N < acked {
			t.Fatalf("left %d right %d, acknowledged %d", a.N, b.N, acked)
		}
	}
}

func writePairs(p string) {
	d, err := Open(p)
	if err != nil {
		os.Exit(3)
	}
	var r rec
	d.Get("b", "left", &r)
	for {
		r.N++
		d.Update(func(tx *Tx) error {
			tx.Put("b", "left", r)
			return tx.Put("b", "right", r)
		})
		fmt.Println(r.N)
	}
}
