package lazy

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
)

// entry is one of a table's entries. Both formats have the fields of stargz; innerOffset is eStargz', chunkType zstd:chunked's.
type entry struct {
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	LinkName    string            `json:"linkName"`
	Mode        int64             `json:"mode"`
	UID         int64             `json:"uid"`
	GID         int64             `json:"gid"`
	Size        int64             `json:"size"`
	ModTime     string            `json:"modtime"`
	DevMajor    int64             `json:"devMajor"`
	DevMinor    int64             `json:"devMinor"`
	Xattrs      map[string][]byte `json:"xattrs"`
	Digest      string            `json:"digest"`
	Offset      int64             `json:"offset"`
	InnerOffset int64             `json:"innerOffset"`
	ChunkOffset int64             `json:"chunkOffset"`
	ChunkSize   int64             `json:"chunkSize"`
	ChunkDigest string            `json:"chunkDigest"`
	ChunkType   string            `json:"chunkType"`
}

// types are the entries of a tar by their names in a table.
var types = map[string]byte{"reg": '0', "hardlink": '1', "symlink": '2', "char": '3', "block": '4', "dir": '5', "fifo": '6'}

// Bounds of what a table says.
const (
	maxEntry = 2 << 20  // bytes of one entry in JSON
	maxHoles = 64 << 30 // bytes that are zeros by promise, as sparse files of a tar may have
	maxSize  = 1 << 40  // bytes of all files
	page     = 4096
)

// reader makes a tree and a list of chunks of a table. The files lie behind each other in the layer's data, each at the start of a page:
// who reads one needs nothing of another.
type reader struct {
	entries *tarindex.Entries
	chunks  *writer
	size    int64 // bytes of the data so far
	holes   int64

	file *entry // whose chunks are being read
	at   int64  // where its data begin
	next int64  // the offset in it that has no chunk yet
}

// all reads the whole table.
func (r *reader) all(toc *os.File, at place) error {
	g := &guard{r: at.text(toc)}
	d := json.NewDecoder(g)
	err := r.object(d, g)
	if err == nil {
		err = r.settle()
	}
	if err == nil && at.file.Name != "" {
		r.open(at.file.Size)
		if err = r.entries.Add(at.file, r.at); err == nil && at.file.Size > 0 {
			err = r.chunks.add(chunk{at: r.at, size: at.file.Size, kind: kindTable, off: at.at})
		}
	}
	if err == nil {
		r.entries.Finish()
	}
	return err
}

// object reads {"version": 1, "entries": [...], ...}.
func (r *reader) object(d *json.Decoder, g *guard) error {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return malformed(err)
	}
	seen := map[string]bool{}
	for d.More() {
		g.most = d.InputOffset() + maxEntry
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok || seen[key] || len(seen) > 16 {
			return malformed(err)
		}
		seen[key] = true
		switch key {
		case "version":
			var v int
			if err := d.Decode(&v); err != nil {
				return malformed(err)
			}
			if v != 1 {
				return errdef.New(errdef.NotImplemented, "version %d is not known", v)
			}
		case "entries":
			if err := r.list(d, g); err != nil {
				return err
			}
		default:
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return malformed(err)
			}
		}
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	if !seen["version"] || !seen["entries"] {
		return errdef.New(errdef.InvalidArgument, "it has no version or no entries")
	}
	if _, err := d.Token(); err != io.EOF {
		return errdef.New(errdef.InvalidArgument, "something is behind it")
	}
	return nil
}

func (r *reader) list(d *json.Decoder, g *guard) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return malformed(err)
	}
	for d.More() {
		g.most = d.InputOffset() + maxEntry
		var e entry
		if err := d.Decode(&e); err != nil {
			return malformed(err)
		}
		if err := r.entry(&e); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	return nil
}

// malformed is what the decoder says, or, when it says nothing, that something else was expected.
func malformed(err error) error {
	switch {
	case err == nil:
		return errdef.New(errdef.InvalidArgument, "it is malformed: want an object with version and entries")
	case errdef.KindOf(err) != errdef.System: // of the guard's
		return err
	}
	return errdef.New(errdef.InvalidArgument, "it is malformed: %w", err)
}

// entry takes one entry.
func (r *reader) entry(e *entry) error {
	if e.Type == "chunk" {
		if r.file == nil || e.Name != r.file.Name {
			return errdef.New(errdef.InvalidArgument, "a chunk of %.100q does not follow its file", e.Name)
		}
		return r.chunk(e)
	}
	if err := r.settle(); err != nil {
		return err
	}
	if strings.ContainsRune(e.Name+e.LinkName, utf8.RuneError) { // JSON has no words for such names: this one is another in the layer
		return errdef.New(errdef.NotImplemented, "the name %.100q was not UTF-8", e.Name)
	}
	typ, ok := types[e.Type]
	if !ok {
		return errdef.New(errdef.InvalidArgument, "%.100q has the unknown type %.20q", e.Name, e.Type)
	}
	n := tarindex.Entry{Type: typ, Name: e.Name, Link: e.LinkName, Mode: e.Mode, UID: e.UID, GID: e.GID, Major: e.DevMajor, Minor: e.DevMinor, Xattrs: e.Xattrs}
	if e.ModTime != "" {
		t, err := time.Parse(time.RFC3339Nano, e.ModTime)
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "%.100q: modtime %.60q is no time", e.Name, e.ModTime)
		}
		n.Sec, n.Nsec = t.Unix(), uint32(t.Nanosecond())
	}
	if typ != '0' {
		return r.entries.Add(n, 0)
	}
	if n.Size = e.Size; strings.HasSuffix(e.Name, "/") {
		return errdef.New(errdef.InvalidArgument, "%.100q is a file whose name ends in a slash", e.Name)
	}
	r.open(e.Size)
	if err := r.entries.Add(n, r.at); err != nil {
		return err
	}
	if r.size > maxSize {
		return errdef.New(errdef.InvalidArgument, "its files exceed %d bytes", int64(maxSize))
	}
	if e.Size == 0 {
		return nil
	}
	r.file = e
	return r.chunk(e)
}

// open makes room for a file.
func (r *reader) open(size int64) {
	r.at, r.next = r.size, 0
	r.size += (max(0, min(size, maxSize+page)) + page - 1) &^ (page - 1)
}

// settle ends the file before.
func (r *reader) settle() error {
	if f := r.file; f != nil && r.next != f.Size {
		return errdef.New(errdef.InvalidArgument, "%.100q: its chunks are %d bytes, not %d", f.Name, r.next, f.Size)
	}
	r.file = nil
	return nil
}

// chunk takes the next chunk of the file.
func (r *reader) chunk(e *entry) error {
	f := r.file
	c := chunk{at: r.at + r.next, size: e.ChunkSize, kind: r.chunks.kind, off: e.Offset, inner: e.InnerOffset}
	if c.size == 0 { // the rest
		c.size = f.Size - r.next
	}
	switch {
	case e.ChunkOffset != r.next || c.size <= 0 || c.size > f.Size-r.next:
		return errdef.New(errdef.InvalidArgument, "%.100q: a chunk of %d bytes at %d is out of order or lies outside", f.Name, e.ChunkSize, e.ChunkOffset)
	case e.ChunkType == "zeros":
		c.kind, c.off, c.inner = kindZeros, 0, 0
		if r.holes += c.size; r.holes > maxHoles {
			return errdef.New(errdef.InvalidArgument, "%.100q: the holes exceed %d bytes in all", f.Name, int64(maxHoles))
		}
	case e.ChunkType != "":
		return errdef.New(errdef.NotImplemented, "%.100q: chunks of the type %.20q are not known", f.Name, e.ChunkType)
	case c.off < 0 || c.off >= r.chunks.table || c.inner < 0:
		return errdef.New(errdef.InvalidArgument, "%.100q: a chunk begins at byte %d of the blob, behind %d in it, where there are none", f.Name, c.off, c.inner)
	case c.size > maxChunk || c.inner > maxChunk-c.size:
		return errdef.New(errdef.NotImplemented, "%.100q: a chunk of %d bytes behind %d others: more than %d", f.Name, c.size, c.inner, maxChunk)
	default:
		sum := e.ChunkDigest
		if sum == "" && c.size == f.Size {
			sum = f.Digest
		}
		if sum == "" {
			return errdef.New(errdef.NotImplemented, "%.100q: a chunk has no digest", f.Name)
		}
		d, err := ref.ParseDigest(sum)
		if err != nil || d.Algorithm() != digest.SHA256 {
			return errdef.New(errdef.InvalidArgument, "%.100q: the digest of a chunk is %.100q: want sha256", f.Name, sum)
		}
		copy(c.sum[:], unhex(d))
	}
	r.next += c.size
	return r.chunks.add(c)
}

// guard refuses to read far ahead of what was understood: an entry may be as large as maxEntry.
type guard struct {
	r       io.Reader
	n, most int64
}

func (g *guard) Read(p []byte) (int, error) {
	room := g.most + maxEntry - g.n
	if room <= 0 {
		return 0, errdef.New(errdef.InvalidArgument, "an entry has more than %d bytes", maxEntry)
	}
	n, err := g.r.Read(p[:min(int64(len(p)), room)])
	g.n += int64(n)
	return n, err
}
