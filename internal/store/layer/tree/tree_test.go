package tree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand"
	"path"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// The merge is checked against a model that knows nothing of trees: a map from path to what is there.

type model map[string]string

func (m model) remove(p string) {
	for q := range m {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(m, q)
		}
	}
}

func (m model) below(p string) {
	for q := range m {
		if p == "" || strings.HasPrefix(q, p+"/") {
			delete(m, q)
		}
	}
}

// op is one statement of a layer.
type op struct {
	kind byte // f file, d directory, w whiteout, o opaque
	path string
	uid  uint32
}

// layerOf builds a layer; parents are implicit. It returns nil when a path leads through a file of the same layer.
func layerOf(ops []op) *Table {
	t := NewTable()
	for _, o := range ops {
		dir, base, err := t.Parent(o.path, func() error { return nil })
		if err != nil {
			return nil
		}
		switch o.kind {
		case 'f':
			t.Put(dir, base, &Inode{Mode: unix.S_IFREG | 0o644, UID: o.uid})
		case 'd':
			d := NewDir()
			d.UID, d.Dir.Implicit = o.uid, false
			t.Put(dir, base, d)
		case 'w':
			t.Hide(dir, base)
		case 'o':
			t.Opaque(dir)
		}
	}
	t.Settle()
	return t
}

// stack lays layers over each other, the lowest first.
func stack(layers ...*Table) (*Inode, error) {
	t := NewTable()
	for n, l := range layers {
		var b bytes.Buffer
		if err := l.Encode(&b); err != nil {
			return nil, err
		}
		if err := t.Lay(bytes.NewReader(b.Bytes()), int64(b.Len()), uint16(n), true); err != nil {
			return nil, err
		}
	}
	return t.Tree(), nil
}

// apply does the same to the model: first all that hides, then all that is there.
func (m model) apply(l *Inode) {
	if l.Dir.Opaque {
		m.below("")
	}
	for _, h := range l.Dir.Hidden() {
		m.remove(h)
	}
	_ = Walk(l, func(p string, _, i *Inode) error {
		if !i.IsDir() {
			m.remove(p)
			m[p] = fmt.Sprint("f", i.UID)
			return nil
		}
		if old := m[p]; old == "" || old[0] != 'd' || !i.Dir.Implicit {
			if old != "" && old[0] != 'd' {
				m.remove(p)
			}
			m[p] = fmt.Sprint("d", i.UID)
		}
		if i.Dir.Opaque {
			m.below(p)
		}
		for _, h := range i.Dir.Hidden() {
			m.remove(path.Join(p, h))
		}
		return nil
	})
}

func (m model) String() string {
	var s []string
	for p, v := range m {
		s = append(s, p+" "+v)
	}
	sort.Strings(s)
	return strings.Join(s, "\n")
}

func modelOf(root *Inode) model {
	m := model{}
	_ = Walk(root, func(p string, _, i *Inode) error {
		k := "f"
		if i.IsDir() {
			k = "d"
			if i.Dir.Opaque || len(i.Dir.Whiteouts) > 0 {
				k = "whiteouts left"
			}
		}
		m[p] = fmt.Sprint(k, i.UID)
		return nil
	})
	return m
}

// opsFrom turns bytes into layers of statements over few names, so that they meet often.
func opsFrom(b []byte) (layers [][]op) {
	names := []string{"a", "b", "c"}
	layers = [][]op{nil}
	for n := 0; n+3 < len(b) && len(layers) < 8; n += 4 {
		if b[n]%16 == 0 {
			layers = append(layers, nil)
		}
		p := names[b[n+1]%3]
		for d := b[n+1] / 3 % 4; d > 0; d-- {
			p += "/" + names[(b[n+2]>>d)%3]
		}
		o := op{kind: "fdwo"[b[n+3]%4], path: p, uid: uint32(n)}
		if o.kind == 'o' {
			o.path += "/.wh..wh..opq"
		}
		layers[len(layers)-1] = append(layers[len(layers)-1], o)
	}
	return layers
}

func checkMerge(t *testing.T, b []byte) {
	t.Helper()
	want := model{}
	var trees []*Table
	for _, ops := range opsFrom(b) {
		l := layerOf(ops)
		if l == nil {
			continue
		}
		var enc, same bytes.Buffer
		if err := l.Encode(&enc); err != nil {
			t.Fatal(err)
		}
		back, err := Decode(enc.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if err := Of(back).Encode(&same); err != nil || !bytes.Equal(same.Bytes(), enc.Bytes()) {
			t.Fatalf("encoded again it is another: %v", err)
		}
		same.Reset()
		if err := Encode(&same, l.Tree()); err != nil || !bytes.Equal(same.Bytes(), enc.Bytes()) {
			t.Fatalf("table and inodes are encoded differently: %v", err)
		}
		want.apply(back)
		trees = append(trees, l)
	}
	root, err := stack(trees...)
	if err != nil {
		t.Fatal(err)
	}
	if got := modelOf(root).String(); got != want.String() {
		t.Fatalf("merged:\n%s\nthe model says:\n%s", got, want)
	}
}

func TestMergeRandom(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 3000 {
		b := make([]byte, r.Intn(200))
		r.Read(b)
		checkMerge(t, b)
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Fuzz(checkMerge)
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	layerOf(opsFrom([]byte("1f3d5g7h9j0k1l2z3x4c5v6b7n8m"))[0]).Encode(&b)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if b = bytes.Clone(b); len(b) > 4 { // or nothing but the checksum would ever be looked at
			binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
		}
		if root, err := Decode(b); err == nil {
			var again bytes.Buffer
			if err := Encode(&again, root); err != nil {
				t.Fatal(err)
			}
		} else if !errdef.Is(err, errdef.DataLoss) {
			t.Fatal(err)
		}
		if err := NewTable().Lay(bytes.NewReader(b), int64(len(b)), 0, true); err != nil && !errdef.Is(err, errdef.DataLoss) && !errdef.Is(err, errdef.InvalidArgument) {
			t.Fatal(err)
		}
	})
}

func TestForeignLinks(t *testing.T) {
	lower := layerOf([]op{{'f', "dir/f", 5}, {'d', "d", 6}})
	link := func(to string) *Inode {
		root := NewDir()
		root.Dir.Kids["h"] = &Inode{Link: to}
		root.Dir.Hide("dir")
		return root
	}
	root, err := stack(lower, Of(link("dir/f")))
	if err != nil {
		t.Fatal(err)
	}
	if h := root.Dir.Kids["h"]; h.UID != 5 || h.Dev != 0 || root.Dir.Kids["dir"] != nil {
		t.Errorf("%+v", h)
	}
	for _, to := range []string{"etc/shadow", "d", ""} {
		if _, err := stack(layerOf([]op{{'d', "d", 6}}), Of(link(to))); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("link to %q: %v", to, err)
		}
	}
	two := link("x")
	two.Dir.Kids["x"] = &Inode{Link: "h"}
	if _, err := stack(Of(two)); err == nil {
		t.Error("links to each other are accepted")
	}
}

func TestDamage(t *testing.T) {
	var b bytes.Buffer
	if err := layerOf([]op{{'f', "a/b", 1}, {'w', "a/c", 0}}).Encode(&b); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		d := bytes.Clone(b.Bytes())
		d[n] ^= 1
		if _, err := Decode(d); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("bit flipped in byte %d: %v", n, err)
		}
		if err := NewTable().Lay(bytes.NewReader(d), int64(len(d)), 0, false); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("bit flipped in byte %d, laid: %v", n, err)
		}
		if err := NewTable().Lay(bytes.NewReader(b.Bytes()[:n]), int64(n), 0, true); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("cut at %d, laid: %v", n, err)
		}
		if _, err := Decode(b.Bytes()[:n]); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestDeviceNumbers(t *testing.T) {
	for _, d := range [][2]int64{{0, 0}, {1, 3}, {259, 70000}, {4095, 1<<20 - 1}} {
		e, ok := MakeDev(d[0], d[1])
		if ma, mi := SplitDev(e); !ok || int64(ma) != d[0] || int64(mi) != d[1] {
			t.Errorf("%v: %d,%d", d, ma, mi)
		}
	}
	for _, d := range [][2]int64{{-1, 0}, {4096, 0}, {0, 1 << 20}} {
		if _, ok := MakeDev(d[0], d[1]); ok {
			t.Errorf("%v fits", d)
		}
	}
}

// A chain's tree comes back with the layer of each inode; a damaged one is an error.
func TestChain(t *testing.T) {
	root := NewDir()
	shared := &Inode{Mode: unix.S_IFREG | 0o644, Size: 5, Off: 512, Dev: 300}
	sub := NewDir()
	sub.Dev = 2
	sub.Dir.Kids["again"] = shared
	root.Dir.Kids["a"], root.Dir.Kids["sub"] = shared, sub
	root.Dir.Kids["last"] = &Inode{Mode: unix.S_IFLNK | 0o777, Link: "a", Dev: 65535}
	var b bytes.Buffer
	if err := EncodeChain(&b, Of(root)); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeChain(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	kids := got.Dir.Kids
	if kids["a"] != kids["sub"].Dir.Kids["again"] || kids["a"].Dev != 300 || kids["sub"].Dev != 2 || kids["last"].Dev != 65535 {
		t.Errorf("%+v", kids)
	}
	var paths []string
	_ = Each(Of(root), func(p string, i *Inode) error { paths = append(paths, fmt.Sprint(p, " ", i.Dev)); return nil })
	if s := strings.Join(paths, ","); s != " 0,a 300,last 65535,sub 2,sub/again 300" {
		t.Error(s)
	}
	for n := range b.Len() {
		if _, err := DecodeChain(b.Bytes()[:n]); !errdef.Is(err, errdef.DataLoss) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}
