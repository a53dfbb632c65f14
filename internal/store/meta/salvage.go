package meta

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
)

// Records are raw records by bucket and key.
type Records map[string]map[string][]byte

// Add takes what other has and r lacks.
func (r Records) Add(other Records) {
	for bucket, keys := range other {
		for k, v := range keys {
			r.put(bucket, k, v)
		}
	}
}

func (r Records) put(bucket, key string, v []byte) {
	if r[bucket] == nil {
		r[bucket] = map[string][]byte{}
	}
	if _, ok := r[bucket][key]; !ok {
		r[bucket][key] = v
	}
}

// maxSalvage bounds the file that is read back: an engine with 10,000 containers has 100 MiB.
const maxSalvage = 1 << 30

// The parts of a bbolt file, little-endian. A page: id 8, flags 2, count 2, overflow 4, then its elements. A meta page: magic 4, version 4,
// page size 4, flags 4, root page 8, sequence 8, freelist 8, pages 8, transaction 8, FNV-1a of these 64 bytes.
const (
	pageHead = 16
	element  = 16
	boltMark = 0xED0CDAED
	branch   = 0x01
	leaf     = 0x02
)

// Salvage reads what can be read of a damaged file, or a sound one: the newest state that one of its two meta pages names, and for what is
// missing in it the one before. damage counts the places that could not be read; records that are no JSON are among them. A file that is
// not there, and what is no file, is nothing.
func Salvage(path string) (found Records, damage int, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() || errors.Is(err, unix.ELOOP) {
		return Records{}, 0, nil
	}
	if err == nil && st.Size() > maxSalvage {
		err = fmt.Errorf("salvage %s: larger than %d bytes", path, maxSalvage)
	}
	if err != nil {
		return nil, 0, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	s := salvaged(raw)
	return s.found, s.damage, nil
}

func salvaged(raw []byte) *salvage {
	s := &salvage{raw: raw, found: Records{}}
	roots := s.roots()
	s.damage += 2 - len(roots)
	for n, root := range roots {
		if n == 0 || s.damage > 0 {
			s.page, s.seen = root.size, map[uint64]bool{}
			s.walk(root.page, 0, s.bucket)
		}
	}
	return s
}

type salvage struct {
	raw    []byte
	page   uint64          // size of one
	seen   map[uint64]bool // pages of this root: each belongs in one place
	found  Records
	damage int
}

type root struct{ page, size, tx uint64 }

// roots are those of the meta pages that are sound, the newest first.
func (s *salvage) roots() (out []root) {
	for _, size := range []uint64{4096, 8192, 16384, 65536} {
		for n := range uint64(2) {
			at := n*size + pageHead
			if at+72 > uint64(len(s.raw)) || n == 0 && len(out) > 0 {
				continue
			}
			m := s.raw[at : at+72]
			sum := fnv.New64a()
			sum.Write(m[:56])
			r := root{binary.LittleEndian.Uint64(m[16:]), uint64(binary.LittleEndian.Uint32(m[8:])), binary.LittleEndian.Uint64(m[48:])}
			if binary.LittleEndian.Uint32(m) != boltMark || sum.Sum64() != binary.LittleEndian.Uint64(m[56:]) || r.size < 1024 || r.size > 1<<16 || n == 1 && r.size != size {
				continue
			}
			out = append(out, r)
		}
	}
	if len(out) > 1 && out[1].tx > out[0].tx {
		out[0], out[1] = out[1], out[0]
	}
	return out[:min(len(out), 2)]
}

// walk visits the leaves below a page. depth bounds what a damaged page may lead to.
func (s *salvage) walk(n uint64, depth int, visit func(key, value []byte, isBucket bool)) {
	at := n * s.page
	if depth > 32 || s.seen[n] || n > uint64(len(s.raw)) || at+pageHead > uint64(len(s.raw)) || binary.LittleEndian.Uint64(s.raw[at:]) != n {
		s.damage++
		return
	}
	s.seen[n] = true
	pages := 1 + uint64(binary.LittleEndian.Uint32(s.raw[at+12:]))
	s.elements(s.raw[at:min(at+pages*s.page, uint64(len(s.raw)))], depth, visit)
}

// elements visits those of one page, which may lie within a value.
func (s *salvage) elements(p []byte, depth int, visit func(key, value []byte, isBucket bool)) {
	if len(p) < pageHead {
		s.damage++
		return
	}
	flags, count := binary.LittleEndian.Uint16(p[8:]), int(binary.LittleEndian.Uint16(p[10:]))
	if flags != branch && flags != leaf {
		s.damage++
		return
	}
	for i := range count {
		at := uint64(pageHead + i*element)
		if at+element > uint64(len(p)) {
			s.damage++
			return
		}
		e := p[at : at+element]
		if flags == branch {
			s.walk(binary.LittleEndian.Uint64(e[8:]), depth+1, visit)
			continue
		}
		pos, k, v := uint64(binary.LittleEndian.Uint32(e[4:])), uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
		if at+pos+k+v > uint64(len(p)) {
			s.damage++
			continue
		}
		key := p[at+pos:]
		visit(key[:k], key[k:k+v], e[0]&1 != 0)
	}
}

// bucket visits a bucket's entry in the root.
func (s *salvage) bucket(name, value []byte, isBucket bool) {
	if !isBucket || len(value) < 16 {
		s.damage++
		return
	}
	record := func(key, v []byte, isBucket bool) {
		if isBucket || !json.Valid(v) {
			s.damage++
			return
		}
		s.found.put(string(name), string(key), v)
	}
	if page := binary.LittleEndian.Uint64(value); page != 0 {
		s.walk(page, 0, record)
		return
	}
	s.elements(value[16:], 0, record) // a small bucket lies within its value
}

// Create makes a new file of these records.
func Create(path string, all Records) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d, err := Open(tmp)
	if err != nil {
		return err
	}
	err = d.Update(func(tx *Tx) error {
		for bucket, keys := range all {
			for k, v := range keys {
				if err := tx.Put(bucket, k, json.RawMessage(v)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// Backup writes a copy of one moment, which may be lost with the power: the next one is not far.
func (d *DB) Backup(path string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.b.View(func(t *bbolt.Tx) error { _, err := t.WriteTo(f); return err }); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("copy metadata: %w", err)
	}
	return os.Rename(tmp, path)
}
