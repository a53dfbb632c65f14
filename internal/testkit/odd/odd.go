// Package odd owns an image that holds what images seldom hold: every kind of object in every form of tar, and layers that change what lies
// below them in every way there is.
//
// It promises equal bytes in every run, layers that every reader can apply in order (no link or change names what is not there), and to say
// of each object about which readers disagree why they do. It must never be linked into a program.
package odd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strings"
)

// Why readers disagree about an object: a Maker's Notes say which of these holds.
const (
	Unlisted    = "a folder that no layer lists"
	ListedLate  = "a folder listed behind what it holds"
	LateIn      = "a folder with one in it that is listed late or not at all"
	HidesIn     = "a folder in which a layer hides something"
	Through     = "a path through a symbolic link of a lower layer"
	LinksOut    = "a folder with symbolic links that lead out of it"
	Replaced    = "a folder that its own layer replaces"
	FewerXattrs = "a folder listed again with fewer extended attributes"
	Overlay     = "attributes of overlayfs itself"
	HostLabel   = "a security attribute other than capabilities"
	EmptyXattr  = "an extended attribute without a value"
	Far         = "a time that nanoseconds in 64 bits cannot say"
)

// Maker makes the layers of an image, lowest first.
type Maker struct {
	Notes   map[string][]string // paths, and why readers disagree about them
	Entries int

	r     *rand.Rand
	w, s  writer
	n     int // the layer's number
	root  *node
	low   []string // units of lower layers that this layer has not touched
	pairs []pair
	done  map[string]bool // units that later layers leave alone
	pool  []byte
	count int // entries of units
}

// pair is a folder and a symbolic link to it beside it.
type pair struct{ link, dir string }

// node is a name of the image as it stands.
type node struct {
	entry
	kids map[string]*node // folders; nil: it is none
}

func newNode(e entry) *node {
	n := &node{entry: e}
	if n.data, n.pieces = nil, nil; e.typ == '5' {
		n.kids = map[string]*node{}
	}
	return n
}

// New returns a Maker.
func New(seed uint64) *Maker {
	m := &Maker{Notes: map[string][]string{}, done: map[string]bool{}, r: rand.New(rand.NewPCG(seed, 1)), root: newNode(entry{typ: '5'}), pool: make([]byte, 256<<10)}
	for i := range m.pool {
		m.pool[i] = byte(m.r.Uint32())
	}
	return m
}

// Layer writes the next layer, of about so many entries. posix gets the same tree with GNU's old sparse files in the form of POSIX: umoci does
// not know their type, S.
func (m *Maker) Layer(to, posix io.Writer, entries int) error {
	m.w, m.s = writer{bufio.NewWriterSize(to, 1<<20)}, writer{bufio.NewWriterSize(posix, 1<<20)}
	before := m.Entries
	if m.n == 0 || m.chance(2) {
		m.put(entry{name: "./", typ: '5', mode: 0o755, sec: 1700000000 + int64(m.n)})
	}
	m.low = m.units()
	m.r.Shuffle(len(m.low), func(i, j int) { m.low[i], m.low[j] = m.low[j], m.low[i] })
	for k := 0; k < len(changes)*(1+entries/1600) && m.n > 0; k++ {
		changes[k%len(changes)](m)
	}
	top := fmt.Sprintf("layer%d", m.n)
	m.dir(top)
	for k := 0; m.Entries-before < entries; k++ {
		m.unit(fmt.Sprintf("%s/u%d", top, k))
	}
	m.n++
	return errors.Join(m.w.close(), m.s.close())
}

// Paths are the names that the image has by now.
func (m *Maker) Paths() []string {
	out := []string{"."}
	for _, p := range m.below("", "0123456") {
		out = append(out, "."+p)
	}
	sort.Strings(out)
	return out
}

// units are the folders that were made as units, as far as they are there.
func (m *Maker) units() (out []string) {
	for top, l := range m.root.kids {
		for u, n := range l.kids {
			if p := top + "/" + u; n.typ == '5' && !m.done[p] {
				out = append(out, p)
			}
		}
	}
	sort.Strings(out)
	return out
}

// chance is true once in n times.
func (m *Maker) chance(n int) bool { return m.r.IntN(n) == 0 }

func pick[T any](m *Maker, list []T) T { return list[m.r.IntN(len(list))] }

// find is what stands at a clean path; nil: nothing.
func (m *Maker) find(p string) *node {
	n := m.root
	for _, c := range strings.Split(p, "/") {
		if n == nil {
			return nil
		}
		n = n.kids[c]
	}
	return n
}

// nanoseconds that 64 bits hold end in 2262, and begin in 1677.
const farthest = 1 << 63 / 1000000000

// put writes an entry and takes it into the model. Folders on its way come to be.
func (m *Maker) put(e entry) { m.putAt(e, path.Clean("/" + e.name)[1:]) }

// putAt is put for an entry whose name leads to p through a link.
func (m *Maker) putAt(e entry, p string) {
	e = m.write(e)
	if p == "" {
		return
	}
	for why, is := range map[string]bool{Far: e.sec >= farthest, Overlay: e.xattrs["user.overlay.opaque"] != "", HostLabel: e.xattrs["security.other"] != ""} {
		if is {
			m.note(p, why)
		}
	}
	if v, is := e.xattrs["user.a"]; is && v == "" {
		m.note(p, EmptyXattr)
	}
	if e.typ == '1' {
		for _, why := range m.Notes["."+path.Clean("/"+e.link)] {
			m.note(p, why)
		}
	}
	n := m.root
	dir, base := path.Split(p)
	for _, c := range strings.Split(strings.TrimSuffix(dir, "/"), "/") {
		if c == "" {
			continue
		}
		if k := n.kids[c]; k == nil || k.kids == nil {
			n.kids[c] = newNode(entry{typ: '5'})
		}
		n = n.kids[c]
	}
	made := newNode(e)
	if old := n.kids[base]; old != nil && old.typ == '5' && e.typ == '5' {
		if made.kids = old.kids; len(e.xattrs) < len(old.xattrs) {
			m.note(p, FewerXattrs)
		}
	}
	n.kids[base] = made
}

// write writes an entry and returns it in the form that it took.
func (m *Maker) write(e entry) entry {
	m.Entries++
	e.choose()
	m.w.put(e)
	p := e
	if e.form == gnu && e.pieces != nil {
		p.form = pax
	}
	m.s.put(p)
	return e
}

// whiteout writes the mark that hides p of lower layers.
func (m *Maker) whiteout(p string) {
	m.write(entry{name: path.Dir(p) + "/.wh." + path.Base(p), typ: '0', mode: 0o644})
	m.note(path.Dir(p), HidesIn)
}

// hide writes a whiteout; what it hides is of a lower layer.
func (m *Maker) hide(p string) {
	dir, base := path.Split(p)
	m.whiteout(p)
	if n := m.find(strings.TrimSuffix(dir, "/")); n != nil {
		delete(n.kids, base)
	}
}

// note says why readers disagree about p.
func (m *Maker) note(p, why string) {
	if has := m.Notes["./"+p]; !slices.Contains(has, why) {
		m.Notes["./"+p] = append(has, why)
	}
}

// below are the paths below dir of the given types, in order.
func (m *Maker) below(dir, types string) (out []string) {
	var walk func(p string, n *node)
	walk = func(p string, n *node) {
		for name, k := range n.kids {
			if strings.IndexByte(types, k.typ) >= 0 {
				out = append(out, p+"/"+name)
			}
			walk(p+"/"+name, k)
		}
	}
	if dir == "" {
		walk("", m.root)
	} else {
		walk(dir, m.find(dir))
	}
	sort.Strings(out)
	return out
}
