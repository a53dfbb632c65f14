package bench

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"time"
)

// fat is an image as people have them, made by rule: many small files and some big ones, of text, of code and of what is compressed
// already. The same fat gives the same bytes.
type fat struct {
	mib     int // of all layers, uncompressed
	entries int // of all layers, about
}

// fatShares are the shares of the layers, base first, of bytes and of entries: in per cent.
var fatShares = [...]struct{ bytes, entries int }{{8, 7}, {5, 4}, {1, 1}, {30, 22}, {10, 25}, {2, 3}, {20, 20}, {12, 8}, {9, 8}, {3, 2}}

const (
	poolSize = 8 << 20 // far beyond what a compressor looks back, so that repeating it does not show
	fatTime  = 1700000000
)

// fatLayers writes the layers of a fat image, each from its own seed.
type fatLayers struct {
	fat
	pools [3][]byte // text, code, noise
}

func newFatLayers(f fat) *fatLayers {
	return &fatLayers{f, [3][]byte{words(1, 20_000, 3, 9, true), words(2, 6_000, 1, 6, false), noise(3)}}
}

// words makes a pool of words whose frequencies fall as those of a language, or of machine code, do.
func words(seed uint64, many, shortest, longest int, letters bool) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	list := make([][]byte, many)
	for i := range list {
		list[i] = make([]byte, shortest+r.IntN(longest-shortest+1))
		for j := range list[i] {
			if list[i][j] = byte(r.IntN(256)); letters {
				list[i][j] = "etaoinshrdlucmfw_ypvbgk."[r.IntN(24)]
			}
		}
	}
	frequency := rand.NewZipf(r, 1.1, 8, uint64(many-1))
	out := make([]byte, 0, poolSize+64)
	for len(out) < poolSize {
		out = append(out, list[frequency.Uint64()]...)
		switch n := r.IntN(16); {
		case !letters && n < 3:
			out = append(out, byte(r.IntN(256)), byte(r.IntN(256)), 0)
		case letters && n == 0:
			out = append(out, "\n\t"...)
		case letters:
			out = append(out, ' ')
		}
	}
	return out[:poolSize]
}

func noise(seed uint64) []byte {
	out := make([]byte, poolSize)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(out)
	return out
}

// write makes layer n as a tar.
func (f *fatLayers) write(n int, to io.Writer) error {
	share := fatShares[n]
	l := &fatLayer{fatLayers: f, n: n, w: tar.NewWriter(to), r: rand.New(rand.NewPCG(uint64(n), 7)),
		entries: f.entries * share.entries / 100, bytes: int64(f.mib) << 20 / 100 * int64(share.bytes)}
	if n == 0 {
		l.busybox()
	}
	l.small()
	l.big()
	if n == len(fatShares)-1 {
		l.changes()
	}
	if l.err != nil {
		return l.err
	}
	return l.w.Close()
}

// fatLayer is a layer being written. The first error stays.
type fatLayer struct {
	*fatLayers
	n       int
	w       *tar.Writer
	r       *rand.Rand
	entries int
	bytes   int64
	spent   int64
	err     error
}

func (l *fatLayer) put(h tar.Header) {
	h.ModTime = time.Unix(fatTime+int64(l.r.IntN(1e7)), 0)
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	if l.err == nil {
		l.err = l.w.WriteHeader(&h)
	}
}

// file has contents from one of the pools: half code, some noise, the rest text.
func (l *fatLayer) file(name string, size int64) {
	l.put(tar.Header{Name: name, Size: size})
	pool := l.pools[[10]int{0, 0, 0, 0, 1, 1, 1, 1, 1, 2}[l.r.IntN(10)]]
	at := l.r.IntN(poolSize)
	for left := size; left > 0 && l.err == nil; {
		var m int
		m, l.err = l.w.Write(pool[at:min(int64(poolSize), int64(at)+left)])
		left, at = left-int64(m), 0
	}
	l.spent += size + 512 + -size&511
}

func (l *fatLayer) dir(name string) {
	l.put(tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755})
	l.spent += 512
}

func (l *fatLayer) busybox() {
	program, err := os.ReadFile(busybox)
	if err != nil {
		l.err = fmt.Errorf("read %s (Debian package busybox-static): %w", busybox, err)
		return
	}
	l.dir("bin")
	l.put(tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	if l.err == nil {
		_, l.err = l.w.Write(program)
	}
	for _, n := range applets() {
		l.put(tar.Header{Name: "bin/" + n, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
}

func (l *fatLayer) top() string { return fmt.Sprintf("usr/lib/part%d", l.n) }

// small writes the layer's entries but its big files: folders of a dozen, files whose sizes are spread log-normally, some links.
func (l *fatLayer) small() {
	const spread = 1.4
	median := float64(l.bytes) * 0.55 / float64(l.entries) / math.Exp(spread*spread/2)
	l.dir("usr")
	l.dir("usr/lib")
	l.dir(l.top())
	dir, last := l.top(), ""
	for i := 3; i < l.entries && l.err == nil; i++ {
		name := fmt.Sprintf("%s/%s%d", dir, [...]string{"module", "lib", "test_", "README.", "icon-"}[l.r.IntN(5)], i)
		switch n := l.r.IntN(100); {
		case n < 8:
			if path.Dir(dir) != l.top() && dir != l.top() { // three deep at most
				dir = path.Dir(path.Dir(dir))
			}
			dir = fmt.Sprintf("%s/package-%d", dir, i)
			l.dir(dir)
		case n < 11 && last != "":
			l.put(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: path.Base(last), Mode: 0o777})
		case n < 12 && last != "":
			l.put(tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: last})
		default:
			l.file(name, int64(median*math.Exp(spread*l.r.NormFloat64())))
			last = name
		}
	}
}

// big spends the rest of the layer's bytes on files of 1 to 33 MiB.
func (l *fatLayer) big() {
	for i := 0; l.spent < l.bytes && l.err == nil; i++ {
		l.file(fmt.Sprintf("%s/big%d.so", l.top(), i), min(1<<20+l.r.Int64N(32<<20), l.bytes-l.spent))
	}
}

// changes hides a folder and some files of layers below and replaces others.
func (l *fatLayer) changes() {
	for n := 3; n < len(fatShares)-1; n++ {
		l.put(tar.Header{Name: fmt.Sprintf("usr/lib/part%d/.wh.big0.so", n)})
	}
	l.put(tar.Header{Name: "usr/lib/.wh.part2"})
	l.file("usr/lib/part1/replaced", 4000)
}
