package meta

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSalvage: of a sound file all is read; of one that was cut or hit, whatever does not lie where it was hit. What is read is what was
// written, never anything else.
func TestSalvage(t *testing.T) {
	p := filepath.Join(t.TempDir(), "m.db")
	d := open(t, p)
	want := Records{}
	for i := range 400 {
		b, k, v := fmt.Sprint("b", i%3), fmt.Sprint("k", i), strings.Repeat(fmt.Sprint(i, " "), 60)
		if i == 7 {
			v = strings.Repeat("long", 5000) // has pages of its own
		}
		if err := d.Put(b, k, v); err != nil {
			t.Fatal(err)
		}
		want.put(b, k, fmt.Appendf(nil, "%q", v))
	}
	if err := d.Put("small", "one", 1); err != nil { // within the root's page
		t.Fatal(err)
	}
	want.put("small", "one", []byte("1"))
	if err := d.Backup(p + ".bak"); err != nil {
		t.Fatal(err)
	}
	d.Close()
	for _, f := range []string{p, p + ".bak"} {
		got, damage, err := Salvage(f)
		if err != nil || damage != 0 || !same(got, want) {
			t.Fatalf("%s: %d damaged, %v", f, damage, err)
		}
	}
	if err := Create(p+".again", want); err != nil {
		t.Fatal(err)
	}
	if got, damage, err := Salvage(p + ".again"); err != nil || damage != 0 || !same(got, want) {
		t.Fatal(damage, err)
	}
	if got, damage, err := Salvage(p + ".none"); err != nil || damage != 0 || len(got) != 0 {
		t.Fatal(got, damage, err)
	}
	good, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewSource(1))
	most := 0
	for range 200 {
		raw := bytes.Clone(good)
		if rng.Intn(3) == 0 {
			raw = raw[:rng.Intn(len(raw))]
		} else {
			at := rng.Intn(len(raw) - 64)
			for i := range 64 {
				raw[at+i] ^= 0x5a
			}
		}
		if err := os.WriteFile(p, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := Salvage(p)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for b, keys := range got {
			for k, v := range keys {
				n++
				if len(raw) < len(good) && !bytes.Equal(v, want[b][k]) {
					t.Fatalf("cut at %d: %s/%s: %q", len(raw), b, k, v)
				}
			}
		}
		most = max(most, n)
	}
	if most < 390 {
		t.Errorf("at best %d of 401 were saved", most)
	}
}

func same(a, b Records) bool {
	return maps.EqualFunc(a, b, func(x, y map[string][]byte) bool { return maps.EqualFunc(x, y, bytes.Equal) })
}

func FuzzSalvage(f *testing.F) {
	p := filepath.Join(f.TempDir(), "m.db")
	d, err := Open(p)
	if err != nil {
		f.Fatal(err)
	}
	d.Put("b", "k", "v")
	d.Close()
	raw, err := os.ReadFile(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[:4*4096])
	f.Fuzz(func(t *testing.T, raw []byte) { salvaged(raw) })
}
