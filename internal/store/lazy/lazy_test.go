package lazy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/dhow-containers/dhow/internal/testkit/heap"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// memory is a registry that has one blob.
type memory struct {
	mu    sync.Mutex
	blob  []byte
	asked int
	err   error
}

func (m *memory) Section(_ context.Context, _ digest.Digest, from, to int64, put func([]byte, int64) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked++; m.err != nil {
		return m.err
	}
	if from < 0 || to > int64(len(m.blob)) || from > to {
		return errors.New("a section outside of the blob")
	}
	return put(bytes.Clone(m.blob[from:to]), from)
}

// change works on the blob while nobody reads it.
func (m *memory) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func pack(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // options are constant
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// chunked makes a blob of chunks and a table behind them, which table makes of their offsets.
func chunked(table func(at []int64) string, data ...[]byte) (*memory, ocispec.Descriptor) {
	m := &memory{}
	var at []int64
	for _, d := range data {
		at = append(at, int64(len(m.blob)))
		m.blob = append(m.blob, pack(d)...)
	}
	raw := table(at)
	sent := pack([]byte(raw))
	d := ocispec.Descriptor{Annotations: map[string]string{
		chunkedPrefix + chunkedDigest: digest.FromBytes(sent).String(),
		chunkedPrefix + chunkedPlace:  fmt.Sprintf("%d:%d:%d:1", len(m.blob), len(sent), len(raw))}}
	m.blob = append(m.blob, sent...)
	d.Digest, d.Size = digest.FromBytes(m.blob), int64(len(m.blob))
	return m, d
}

func layers(t testing.TB) *layer.Store {
	t.Helper()
	s, err := layer.Open(t.TempDir(), layer.Options{Form: layer.FormErofs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func open(t testing.TB, m *memory, d ocispec.Descriptor) (*Layer, error) {
	t.Helper()
	l, err := NewPool().Open(t.Context(), t.TempDir(), m, d, layers(t), digest.FromString("to come"))
	if err == nil {
		l.slots = make(chan struct{}, fetches)
		t.Cleanup(l.Close)
	}
	return l, err
}

// entries is a table of these entries.
func entries(all ...string) func([]int64) string {
	return func([]int64) string { return `{"version":1,"entries":[` + strings.Join(all, ",") + `]}` }
}

// file is an entry of n bytes in a chunk at the start of the blob.
func file(name string, n int64, more string) string {
	return fmt.Sprintf(`{"type":"reg","name":%q,"size":%d,"mode":420,"digest":"%s"%s}`, name, n, digest.FromString("x"), more)
}

// TestHostileTables: a table may say no more than a tar may; what is wrong in it is told, and nothing is made of it.
func TestHostileTables(t *testing.T) {
	sum := digest.FromString("x").String()
	wide := base64.StdEncoding.EncodeToString(make([]byte, 60_000))
	for name, c := range map[string]struct {
		table func([]int64) string
		kind  errdef.Kind
		words string
	}{
		"a name that climbs":      {entries(`{"type":"dir","name":"a/../../b"}`), errdef.InvalidArgument, "leads out"},
		"a name with NUL":         {entries(`{"type":"dir","name":"a\u0000b"}`), errdef.InvalidArgument, "NUL"},
		"a long name":             {entries(`{"type":"dir","name":"` + strings.Repeat("x", 300) + `"}`), errdef.InvalidArgument, "longer than 255"},
		"a long path":             {entries(`{"type":"dir","name":"` + strings.Repeat("x/", 3000) + `"}`), errdef.InvalidArgument, "longer than"},
		"a file as a folder":      {entries(file("a", 0, ""), `{"type":"dir","name":"a/b"}`), errdef.InvalidArgument, "used as a directory"},
		"the root is a file":      {entries(file("./", 0, "")), errdef.InvalidArgument, "slash"},
		"the root is a link":      {entries(`{"type":"symlink","name":"/","linkName":"x"}`), errdef.InvalidArgument, "root entry"},
		"a link without text":     {entries(`{"type":"symlink","name":"a"}`), errdef.InvalidArgument, "symbolic link"},
		"a hard link to a folder": {entries(`{"type":"dir","name":"a"}`, `{"type":"hardlink","name":"b","linkName":"a"}`), errdef.InvalidArgument, "points to a directory"},
		"a hard link that climbs": {entries(`{"type":"hardlink","name":"b","linkName":"../etc/shadow"}`), errdef.InvalidArgument, "leads out"},
		"an unknown type":         {entries(`{"type":"sock","name":"a"}`), errdef.InvalidArgument, "unknown type"},
		"a whiteout of nothing":   {entries(file(".wh.", 0, "")), errdef.InvalidArgument, "names nothing"},
		"an owner out of range":   {entries(`{"type":"dir","name":"a","uid":4294967296}`), errdef.InvalidArgument, "out of range"},
		"a device out of range":   {entries(`{"type":"char","name":"a","devMajor":5000}`), errdef.InvalidArgument, "out of range"},
		"wide attributes":         {entries(`{"type":"dir","name":"a","xattrs":{"user.a":"` + wide + `","user.b":"` + wide + `","user.c":"` + wide + `","user.d":"` + wide + `"}}`), errdef.InvalidArgument, "extended attributes exceed"},
		"no time":                 {entries(`{"type":"dir","name":"a","modtime":"yesterday"}`), errdef.InvalidArgument, "no time"},
		"a negative size":         {entries(file("a", -1, "")), errdef.InvalidArgument, "out of range"},
		"a size out of range":     {entries(file("a", 1<<41, "")), errdef.InvalidArgument, "out of range"},
		"sizes out of range":      {entries(file("a", 1<<39, `,"chunkType":"zeros"`), file("b", 1<<39, "")), errdef.InvalidArgument, "holes exceed"},
		"a chunk outside":         {entries(file("a", 1, `,"offset":99999`)), errdef.InvalidArgument, "there are none"},
		"a chunk before":          {entries(file("a", 1, `,"offset":-1`)), errdef.InvalidArgument, "there are none"},
		"a chunk too long":        {entries(file("a", 1, `,"chunkSize":2`)), errdef.InvalidArgument, "out of order or lies outside"},
		"a chunk is missing":      {entries(file("a", 2, `,"chunkSize":1,"chunkDigest":"`+sum+`"`)), errdef.InvalidArgument, "its chunks are 1 bytes, not 2"},
		"chunks overlap":          {entries(file("a", 2, `,"chunkSize":1,"chunkDigest":"`+sum+`"`), `{"type":"chunk","name":"a","chunkOffset":0,"chunkSize":2}`), errdef.InvalidArgument, "out of order"},
		"a chunk of nothing":      {entries(`{"type":"chunk","name":"a"}`), errdef.InvalidArgument, "does not follow its file"},
		"a chunk of another":      {entries(file("a", 2, `,"chunkSize":1,"chunkDigest":"`+sum+`"`), `{"type":"chunk","name":"b","chunkOffset":1}`), errdef.InvalidArgument, "does not follow its file"},
		"a digest that is none":   {entries(file("a", 1, `,"chunkDigest":"sha256:00"`)), errdef.InvalidArgument, "digest of a chunk"},
		"no digest":               {entries(`{"type":"reg","name":"a","size":1}`), errdef.NotImplemented, "no digest"},
		"a large chunk":           {entries(file("a", maxChunk+1, "")), errdef.NotImplemented, "more than"},
		"a chunk deep inside":     {entries(file("a", 1, fmt.Sprintf(`,"innerOffset":%d`, maxChunk))), errdef.NotImplemented, "more than"},
		"unknown chunks":          {entries(file("a", 1, `,"chunkType":"raw"`)), errdef.NotImplemented, "not known"},
		"a name that is no UTF-8": {entries(`{"type":"dir","name":"a\ufffd"}`), errdef.NotImplemented, "UTF-8"},
		"another version":         {func([]int64) string { return `{"version":2,"entries":[]}` }, errdef.NotImplemented, "version 2"},
		"no version":              {func([]int64) string { return `{"entries":[]}` }, errdef.InvalidArgument, "no version"},
		"two lists":               {func([]int64) string { return `{"version":1,"entries":[],"entries":[]}` }, errdef.InvalidArgument, "malformed"},
		"no object":               {func([]int64) string { return `[]` }, errdef.InvalidArgument, "malformed"},
		"cut off":                 {func([]int64) string { return `{"version":1,"entries":[{"type":"dir"` }, errdef.InvalidArgument, "malformed"},
		"something behind it":     {func([]int64) string { return `{"version":1,"entries":[]}{}` }, errdef.InvalidArgument, "behind it"},
		"a long entry":            {entries(`{"type":"dir","name":"a","x":"` + strings.Repeat("x", 8<<20) + `"}`), errdef.InvalidArgument, "an entry has more than"},
		"many entries":            {many(1<<20, `{"type":"dir","name":"a"}`), errdef.InvalidArgument, "more than 1048576 entries"},
		"much text":               {many(19_000, `{"type":"dir","name":"`+strings.Repeat("abcdefgh/", 400)+`"}`), errdef.InvalidArgument, "exceed"},
		"many chunks":             {manyChunks, errdef.NotImplemented, "more than 1048576 chunks"},
	} {
		t.Run(name, func(t *testing.T) {
			m, d := chunked(c.table, []byte("x"))
			var err error
			grown := highest(func() { _, err = open(t, m, d) }) >> 20
			if t.Logf("the heap grew by %d MiB", grown); grown > 64 {
				t.Error("that is too much")
			}
			if !errdef.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %.500v (kind %d), want %q", err, errdef.KindOf(err), c.words)
			}
		})
	}
}

// many is a table of n equal entries, and one more.
func many(n int, e string) func([]int64) string {
	return func([]int64) string { return entries(strings.Repeat(e+",", n) + e)(nil) }
}

func manyChunks([]int64) string {
	var b strings.Builder
	b.WriteString(file("a", 1<<21, `,"chunkSize":1,"chunkType":"zeros"`))
	for i := range 1 << 20 {
		fmt.Fprintf(&b, `,{"type":"chunk","name":"a","chunkOffset":%d,"chunkSize":1,"chunkType":"zeros"}`, i+1)
	}
	return entries(b.String())(nil)
}

// TestTableIsPromised: where a table is, and what it is, is the manifest's to say.
func TestTableIsPromised(t *testing.T) {
	m, d := chunked(entries(file("a", 1, "")), []byte("x"))
	at := d.Annotations[chunkedPrefix+chunkedPlace]
	for name, c := range map[string]struct {
		edit  func(a map[string]string)
		kind  errdef.Kind
		words string
	}{
		"nothing":          {func(a map[string]string) { clear(a) }, errdef.NotImplemented, "no table of contents"},
		"another digest":   {func(a map[string]string) { a[chunkedPrefix+chunkedDigest] = digest.FromString("").String() }, errdef.DataLoss, "wrong digest"},
		"no digest":        {func(a map[string]string) { a[chunkedPrefix+chunkedDigest] = "sha256:1" }, errdef.InvalidArgument, chunkedDigest},
		"no place":         {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = "1:2:3" }, errdef.InvalidArgument, chunkedPlace},
		"words":            {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = "a:b:c:d" }, errdef.InvalidArgument, chunkedPlace},
		"outside":          {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = fmt.Sprintf("%d:2:3:1", d.Size) }, errdef.InvalidArgument, chunkedPlace},
		"overflow":         {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = "5:9223372036854775807:3:1" }, errdef.InvalidArgument, chunkedPlace},
		"negative":         {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = "-5:5:3:1" }, errdef.InvalidArgument, chunkedPlace},
		"another type":     {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = strings.TrimSuffix(at, "1") + "2" }, errdef.NotImplemented, "unknown type 2"},
		"a shorter table":  {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = edited(at, 2, -1) }, errdef.DataLoss, "promised"},
		"a longer table":   {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = edited(at, 2, 1) }, errdef.DataLoss, "promised"},
		"a part of it":     {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = edited(at, 1, -1) }, errdef.DataLoss, "wrong digest"},
		"far too long":     {func(a map[string]string) { a[chunkedPrefix+chunkedPlace] = edited(at, 2, maxJSON) }, errdef.NotImplemented, "more than"},
		"an eStargz is it": {func(a map[string]string) { clear(a); a[stargzDigest] = digest.FromString("").String() }, errdef.DataLoss, "footer"},
	} {
		t.Run(name, func(t *testing.T) {
			e := d
			e.Annotations = map[string]string{}
			for k, v := range d.Annotations {
				e.Annotations[k] = v
			}
			c.edit(e.Annotations)
			if _, err := open(t, m, e); !errdef.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want %q", err, c.words)
			}
		})
	}
	if _, err := open(t, m, d); err != nil {
		t.Errorf("as it is: %v", err)
	}
}

// TestFooters: an eStargz says in its last bytes where its table is, as does the stargz that it comes from. Whatever else they say is refused.
func TestFooters(t *testing.T) {
	blob, _, notes := kit.Stargz(t, kit.Tar(t, kit.Text("a", "x")))
	table := int64(0)
	if _, err := fmt.Sscanf(string(blob[len(blob)-footerSize+16:][:16]), "%x", &table); err != nil {
		t.Fatal(err)
	}
	footer := func(extra string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Header.Extra = []byte(extra)
		w.Close()
		return b.String()
	}
	sub := func(s string) string { return "SG\x16\x00" + s }
	right := fmt.Sprintf("%016xSTARGZ", table)
	for name, c := range map[string]struct {
		end   string
		words string // "": it is taken
	}{
		"eStargz":        {footer(sub(right)), ""},
		"stargz":         {footer(right), ""},
		"none":           {strings.Repeat("x", 60), "footer"},
		"no extra field": {footer(""), "footer"},
		"another":        {footer(sub(strings.Repeat("x", 22))), "footer"},
		"behind the end": {footer(sub("00000000ffffffffSTARGZ")), "footer"},
		"overflow":       {footer(sub("ffffffffffffffffSTARGZ")), "footer"},
		"signed":         {footer(sub("-000000000000001STARGZ")), "footer"},
		"in the middle":  {footer(sub(fmt.Sprintf("%016xSTARGZ", table+1))), "damaged"},
		"the first file": {footer(sub("0000000000000000STARGZ")), "there are none"},
	} {
		b := append(bytes.Clone(blob[:len(blob)-footerSize]), c.end...)
		m := &memory{blob: b}
		_, err := open(t, m, ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b)), Annotations: notes})
		if c.words == "" && err != nil || c.words != "" && (!errdef.Is(err, errdef.DataLoss) && !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s (%d bytes): %v, want %q", name, len(c.end), err, c.words)
		}
	}
}

// edited adds to one of the numbers of a place.
func edited(at string, n int, by int64) string {
	var v [4]int64
	fmt.Sscanf(at, "%d:%d:%d:%d", &v[0], &v[1], &v[2], &v[3])
	v[n] += by
	return fmt.Sprintf("%d:%d:%d:%d", v[0], v[1], v[2], v[3])
}

// numbered is a layer of one file of so many chunks of 10,000 bytes, and its data.
func numbered(t *testing.T, n int) (*memory, *Layer, []byte) {
	t.Helper()
	all := make([]byte, n*10_000)
	rand.New(rand.NewSource(2)).Read(all)
	m, d := chunked(func(at []int64) string {
		var list []string
		for i, off := range at {
			e := map[string]any{"type": "chunk", "name": "a", "offset": off, "chunkSize": 10_000, "chunkOffset": i * 10_000, "chunkDigest": digest.FromBytes(all[i*10_000 : (i+1)*10_000])}
			if i == 0 {
				e["type"], e["size"] = "reg", len(all)
			}
			b, _ := json.Marshal(e)
			list = append(list, string(b))
		}
		return entries(list...)(at)
	}, slices.Collect(slices.Chunk(all, 10_000))...)
	l, err := open(t, m, d)
	if err != nil {
		t.Fatal(err)
	}
	m.asked = 0
	return m, l, all
}

// TestRead: data come in few requests, and nothing that is not as promised is given to anybody, nor kept.
func TestRead(t *testing.T) {
	m, l, all := numbered(t, 300)
	got := make([]byte, len(all))
	for off := 0; off < len(all); off += 4096 {
		if err := l.readAt(got[off:min(off+4096, len(all))], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, all) {
		t.Error("other bytes")
	}
	if m.asked > 4 {
		t.Errorf("3 MB took %d requests", m.asked)
	}
	m, l, all = numbered(t, 300)
	var told []error
	l.trouble = func(err error) { told = append(told, err) }
	c, err := l.chunks.get(100)
	if err != nil {
		t.Fatal(err)
	}
	m.change(func() { m.blob[c.off+100] ^= 1 })
	if err := l.readAt(got[:10], 100*10_000); !errdef.Is(err, errdef.DataLoss) {
		t.Errorf("a changed chunk: %v", err)
	}
	if err := l.readAt(got[:10], 101*10_000); err != nil || !bytes.Equal(got[:10], all[101*10_000:][:10]) {
		t.Errorf("the one behind it: %v", err)
	}
	if len(told) != 1 || !strings.Contains(told[0].Error(), `"/a"`) || !strings.Contains(told[0].Error(), l.desc.Digest.String()) {
		t.Errorf("told: %v", told)
	}
	m.change(func() { m.blob[c.off+100] ^= 1 })
	if err := l.readAt(got[:10], 100*10_000); err != nil {
		t.Errorf("the right chunk again: %v", err)
	}
	m.change(func() { m.err = errdef.New(errdef.Unavailable, "gone") })
	if err := l.readAt(got[:10], 0); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("no registry: %v", err)
	}
	m.change(func() { m.err = nil })
	if err := l.readAt(got[:10], 0); err != nil {
		t.Errorf("the registry is there again: %v", err)
	}
}

// TestManyReaders: who wants a chunk that is being fetched waits for it.
func TestManyReaders(t *testing.T) {
	m, l, all := numbered(t, 50)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			got := make([]byte, len(all))
			if err := l.readAt(got, 0); err != nil || !bytes.Equal(got, all) {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if m.asked > 2 {
		t.Errorf("%d requests", m.asked)
	}
}

// TestPoolIsBounded: what is kept has a bound, and goes with its layer.
func TestPoolIsBounded(t *testing.T) {
	_, l, all := numbered(t, 2500) // 25 MB
	if err := l.readAt(make([]byte, len(all)), 0); err != nil {
		t.Fatal(err)
	}
	if n := l.pool.bytes; n > keeps || n < keeps-10_000 {
		t.Errorf("%d bytes are kept", n)
	}
	l.pool.forget(l)
	if l.pool.bytes != 0 || len(l.pool.items) != 0 || l.pool.used.Len() != 0 {
		t.Errorf("%d bytes in %d items are left", l.pool.bytes, len(l.pool.items))
	}
}

// TestBombs: a chunk that grows without end costs no more than it may have.
func TestBombs(t *testing.T) {
	bomb := pack(make([]byte, 512<<20))
	for _, n := range []int64{1, maxChunk} {
		m, d := chunked(func([]int64) string { return entries(file("a", n, ""))(nil) }, []byte("x"))
		l, err := open(t, m, d)
		if err != nil {
			t.Fatal(err)
		}
		m.change(func() { m.blob = append(bytes.Clone(bomb), m.blob...) })
		if grown := highest(func() { err = l.readAt(make([]byte, 1), 0) }) >> 20; grown > 32 || err == nil {
			t.Errorf("%d bytes: the heap grew by %d MiB: %v", n, grown, err)
		}
	}
}

// TestServe: the kernel reads through a mount that is nowhere; a failure is EIO, and is not remembered; the last mount takes everything with it.
func TestServe(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	serveOnce(t) // the FUSE library tries whether pipes can be resized, and keeps them
	before := descriptors(t)
	serveOnce(t)
	for start := time.Now(); len(descriptors(t)) > len(before); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("%d descriptors before, then: %q", len(before), descriptors(t))
		}
	}
}

func serveOnce(t *testing.T) {
	m, l, all := numbered(t, 300)
	s, err := Serve([]*Layer{l}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	loan, err := s.Lend(0)
	if err != nil {
		t.Fatal(err)
	}
	d := tree.NewDir()
	d.Dir.Kids["f"] = &tree.Inode{Mode: unix.S_IFREG | 0o644, Size: int64(len(all))}
	index, err := os.Create(filepath.Join(t.TempDir(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	defer index.Close()
	if _, err := erofs.Write(index, d, []erofs.Device{{Size: loan.Size}}); err != nil {
		t.Fatal(err)
	}
	mnt, err := mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, mount.Param{Key: "source", Value: index.Name()}, mount.Param{Key: "device", Value: fmt.Sprintf("/proc/self/fd/%d", loan.Data.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	loan.Data.Close()
	s.Close()
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d/f", mnt.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	m.change(func() { m.err = errors.New("gone") })
	if _, err := io.ReadAll(f); !errors.Is(err, unix.EIO) {
		t.Errorf("without a registry: %v", err)
	}
	m.change(func() { m.err = nil })
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, all) {
		t.Errorf("with one: %d bytes: %v", len(got), err)
	}
	f.Close()
	mnt.Close()
	index.Close()
	for start := time.Now(); l.ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the layer is still served")
		}
	}
}

// descriptors are what this process has open.
func descriptors(t *testing.T) (open []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if to, err := os.Readlink(p); err == nil {
			open = append(open, to)
		}
	}
	return open
}

// FuzzTables: whatever a table says, there is an error of its maker's, or a tree that an image can be made of and chunks that lie in order.
func FuzzTables(f *testing.F) {
	f.Add([]byte(`{"version":1,"entries":[{"type":"dir","name":"a/"},{"type":"reg","name":"a/b","size":3,"chunkSize":1,"chunkDigest":"` + digest.FromString("x").String() + `"},{"type":"chunk","name":"a/b","chunkOffset":1,"chunkType":"zeros"},{"type":"hardlink","name":"c","linkName":"a/b"},{"type":"symlink","name":"d","linkName":"../x"},{"type":"char","name":"e","devMajor":1,"devMinor":3},{"type":"reg","name":".wh.f"}]}`))
	raw, _, _ := kit.Stargz(f, kit.Tar(f, kit.Dir("a"), kit.Text("a/b", "x"), kit.Link("c", "a"), kit.Whiteout("a/d")))
	f.Add(raw)
	pool, store, dir := NewPool(), layers(f), f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, footer := range []bool{false, true} {
			m, d := chunked(func([]int64) string { return string(b) }, []byte("x"))
			if footer { // as a whole eStargz
				m = &memory{blob: b}
				d = ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b)), Annotations: map[string]string{stargzDigest: tocSum(t, b)}}
			}
			l, err := pool.Open(t.Context(), dir, m, d, store, digest.FromString("to come"))
			if err != nil {
				if k := errdef.KindOf(err); k != errdef.InvalidArgument && k != errdef.NotImplemented && k != errdef.DataLoss {
					t.Fatal(err)
				}
				continue
			}
			defer l.Close()
			l.slots = make(chan struct{}, fetches)
			end := int64(0)
			for i := range l.chunks.n {
				c, err := l.chunks.get(i)
				if err != nil || c.at < end || c.size <= 0 || c.at+c.size > l.size || c.off < 0 || c.len < 0 || c.off+c.len > d.Size && c.kind != kindTable {
					t.Fatalf("chunk %d: %+v behind %d: %v", i, c, end, err)
				}
				end = c.at + c.size
			}
			err = l.lay(func(tr *tree.Table) error {
				_, err := erofs.WriteTable(io.Discard, tr, []erofs.Device{{Size: l.size}})
				return err
			})
			if err != nil && !errdef.Is(err, errdef.InvalidArgument) { // a hard link to what no layer below has
				t.Fatal(err)
			}
			_ = l.readAt(make([]byte, min(l.size, 1<<20)), 0)
		}
	})
}

// tocSum is the digest that the table of an eStargz has, whatever it says.
func tocSum(t *testing.T, b []byte) string {
	p := place{kind: kindGzip}
	out, err := os.Create(filepath.Join(t.TempDir(), "table"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if p.footer(t.Context(), &memory{blob: b}, ocispec.Descriptor{Size: int64(len(b))}) == nil {
		_ = p.fromTar(bytes.NewReader(b[p.off:p.off+p.len]), out)
	}
	d, err := digest.SHA256.FromReader(p.text(out))
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// highest is heap.Highest with the engine's collector.
func highest(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(40))
	return heap.Highest(f)
}
