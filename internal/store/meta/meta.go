// Package meta owns the engine's one transactional file: named buckets of JSON records.
//
// It promises that an Update is applied whole or not at all, also through a power loss, that one process at a time holds the
// file, and that a record which cannot be decoded is reported as errdef.DataLoss with its bucket and key.
// It must never know what the records mean.
package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another process to let go: long enough for a restart that overlaps its predecessor.
const lockTimeout = time.Second

// DB is an open metadata file. It is safe for concurrent use.
type DB struct{ b *bbolt.DB }

// Open opens or creates the file with mode 0600 and reads it through once. errdef.Conflict means that another engine holds it,
// errdef.DataLoss that the file is damaged.
func Open(path string) (*DB, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() || errors.Is(err, syscall.ELOOP) {
		return nil, errdef.New(errdef.DataLoss, "open metadata %s: %w", path, atomicfile.ErrIrregular)
	}
	var d DB
	err := guard(func() (err error) {
		d.b, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
		return err
	})
	if err == nil {
		if err = guard(d.walk); err != nil {
			_ = guard(d.b.Close) // the damage is what counts
		}
	}
	switch {
	case err == nil:
		return &d, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, errdef.New(errdef.Conflict, "open metadata %s: another engine holds it: stop that engine or choose another data root", path)
	case !ofSystem(err): // bbolt's own words, or a fault
		return nil, errdef.New(errdef.DataLoss, "open metadata %s: %w: the file is damaged or not ours", path, err)
	}
	return nil, fmt.Errorf("open metadata %s: %w", path, err)
}

// ofSystem tells whether a system call failed: permission, space, descriptors.
func ofSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

var errDamaged = errors.New("unreadable page")

// guard turns what bbolt does on a damaged file (a panic, or a fault when the file is shorter than it says) into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return fn()
}

// walk touches every page that is in use. Keys out of order are in the wrong place.
func (d *DB) walk() error {
	return d.b.View(func(t *bbolt.Tx) error {
		return t.ForEach(func(name []byte, b *bbolt.Bucket) error {
			var last []byte
			return b.ForEach(func(k, v []byte) error {
				if len(v) > 0 {
					_ = v[len(v)-1] // may be on another page
				}
				if last != nil && bytes.Compare(last, k) >= 0 {
					return fmt.Errorf("%w: keys of bucket %.40q are out of order", errDamaged, name)
				}
				last = append(last[:0], k...)
				return nil
			})
		})
	})
}

// Close waits for running transactions and releases the file.
func (d *DB) Close() error { return d.b.Close() }

// Put stores v as JSON, replacing what was there.
func (d *DB) Put(bucket, key string, v any) error {
	return d.Update(func(tx *Tx) error { return tx.Put(bucket, key, v) })
}

// Get decodes the record into v and tells whether it exists.
func (d *DB) Get(bucket, key string, v any) (found bool, err error) {
	err = d.View(func(tx *Tx) error {
		found, err = tx.Get(bucket, key, v)
		return err
	})
	return found, err
}

// Delete removes a record; one that is absent is no error.
func (d *DB) Delete(bucket, key string) error {
	return d.Update(func(tx *Tx) error { return tx.Delete(bucket, key) })
}

// Each calls fn for every record of the bucket in key order. It works on a copy of one moment, so fn may write to the DB.
func (d *DB) Each(bucket string, fn func(key string, raw []byte) error) error {
	type record struct {
		key string
		raw []byte
	}
	var all []record
	err := d.View(func(tx *Tx) error {
		return tx.Each(bucket, func(key string, raw []byte) error {
			all = append(all, record{key, append([]byte(nil), raw...)})
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := fn(r.key, r.raw); err != nil {
			return err
		}
	}
	return nil
}

// Buckets calls fn with the name of every bucket, in order.
func (d *DB) Buckets(fn func(bucket string) error) error {
	var names []string
	err := d.b.View(func(t *bbolt.Tx) error {
		return t.ForEach(func(name []byte, _ *bbolt.Bucket) error { names = append(names, string(name)); return nil })
	})
	for _, n := range names {
		if err == nil {
			err = fn(n)
		}
	}
	return err
}

// Check reads the file through again, as Open did.
func (d *DB) Check() error { return guard(d.walk) }

// Update runs fn in one read-write transaction, committed durably when fn returns nil. Updates run one after the other; fn
// must use its Tx only, never the DB.
func (d *DB) Update(fn func(tx *Tx) error) error {
	return d.b.Update(func(t *bbolt.Tx) error { return fn(&Tx{t: t}) })
}

// View runs fn on one consistent moment. fn must not write.
func (d *DB) View(fn func(tx *Tx) error) error {
	return d.b.View(func(t *bbolt.Tx) error { return fn(&Tx{t: t}) })
}

// Tx is a transaction; it ends with the function that received it.
type Tx struct{ t *bbolt.Tx }

// Put stores v as JSON.
func (x *Tx) Put(bucket, key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("put %s/%s: %w", bucket, key, err)
	}
	b, err := x.t.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return fmt.Errorf("put %s/%s: %w", bucket, key, err)
	}
	if err := b.Put([]byte(key), raw); err != nil {
		return fmt.Errorf("put %s/%s: %w", bucket, key, err)
	}
	return nil
}

// Get decodes the record into v and tells whether it exists.
func (x *Tx) Get(bucket, key string, v any) (bool, error) {
	b := x.t.Bucket([]byte(bucket))
	if b == nil {
		return false, nil
	}
	raw := b.Get([]byte(key))
	if raw == nil {
		return false, nil
	}
	return true, Decode(bucket, key, raw, v)
}

// Delete removes a record; one that is absent is no error.
func (x *Tx) Delete(bucket, key string) error {
	b := x.t.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	if err := b.Delete([]byte(key)); err != nil {
		return fmt.Errorf("delete %s/%s: %w", bucket, key, err)
	}
	return nil
}

// Each calls fn for every record in key order. raw is valid during the call only; fn must not change the bucket.
func (x *Tx) Each(bucket string, fn func(key string, raw []byte) error) error {
	b := x.t.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error { return fn(string(k), v) })
}

// Decode reads a raw record as Each hands it out; the error names bucket and key.
func Decode(bucket, key string, raw []byte, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return errdef.New(errdef.DataLoss, "read record %s/%s: %w", bucket, key, err)
	}
	return nil
}
