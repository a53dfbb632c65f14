package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// throttled writes through a connection that takes 16 KiB at a time and then a rest.
type throttled struct {
	http.ResponseWriter
	ctx context.Context
}

func (w throttled) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), 16<<10)])
		n, b = n+m, b[m:]
		w.ResponseWriter.(http.Flusher).Flush()
		select {
		case <-time.After(2 * time.Millisecond):
		case <-w.ctx.Done():
			return n, w.ctx.Err()
		}
	}
	return n, err
}

// large is a registry with one blob, each of whose connections is slow; odd answers a request for a range in its place.
func large(t *testing.T, odd kit.Fault) (p *registry.Repo, d ocispec.Descriptor, body []byte, ranges, most *atomic.Int32) {
	body = make([]byte, 2<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = byte(r.IntN(256))
	}
	d = ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	ranges, most = new(atomic.Int32), new(atomic.Int32)
	var open atomic.Int32
	h := kit.StartHostile(t)
	h.Fault("blob", func(w http.ResponseWriter, r *http.Request) bool {
		now := open.Add(1)
		defer open.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		if r.Header.Get("Range") != "" {
			ranges.Add(1)
			if odd != nil && odd(w, r) {
				return true
			}
		}
		http.ServeContent(throttled{w, r.Context()}, r, "", time.Time{}, bytes.NewReader(body))
		return true
	})
	k := registry.New(registry.Config{BackOff: time.Millisecond, Stall: 2 * time.Second,
		Split: registry.Split{Dir: t.TempDir(), From: 1 << 20, Part: 64 << 10, Rate: 1 << 40}})
	return repo(t, k, h.Host+"/big:1", nil), d, body, ranges, most
}

// TestParts: a large blob from slow connections comes over several, and whole, whatever becomes of some of them.
func TestParts(t *testing.T) {
	cut := func() kit.Fault { // ends in the middle of what was asked for
		return func(w http.ResponseWriter, r *http.Request) bool {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, 2<<20))
			w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	for _, c := range []struct {
		name  string
		odd   kit.Fault
		parts bool // comes in parts all the same
	}{
		{"slow", nil, true},
		{"no ranges", func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }, false},
		{"416", kit.Status(http.StatusRequestedRangeNotSatisfiable, ""), false},
		{"another range", func(w http.ResponseWriter, r *http.Request) bool { r.Header.Set("Range", "bytes=0-99"); return false }, false},
		{"the first break", kit.Times(3, cut()), true},
		{"busy at first", kit.Times(4, kit.Status(http.StatusServiceUnavailable, "", "Retry-After", "0")), true},
		{"none works later", func() kit.Fault {
			var n atomic.Int32
			return func(w http.ResponseWriter, r *http.Request) bool {
				return n.Add(1) > 6 && strings.Count(r.Header.Get("Range"), "-") == 1 && !strings.HasSuffix(r.Header.Get("Range"), "-") && kit.Status(http.StatusNotFound, "")(w, r)
			}
		}(), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, d, body, ranges, most := large(t, c.odd)
			kept := &beginning{}
			b, err := p.Resume(t.Context(), d, kept)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, body) || !bytes.Equal(kept.came, body) {
				t.Fatalf("%d bytes, %d kept, right: %v; %v", len(got), len(kept.came), bytes.Equal(got, body), err)
			}
			if c.parts && (ranges.Load() < 6 || most.Load() < 3) || !c.parts && ranges.Load() > 3 {
				t.Errorf("%d requests for ranges, at most %d connections at a time", ranges.Load(), most.Load())
			}
		})
	}
}

// TestPartsOfTheRest: what is left of a blob whose beginning is kept comes over several connections, too.
func TestPartsOfTheRest(t *testing.T) {
	p, d, body, ranges, most := large(t, nil)
	const had = 300_001
	kept := &beginning{had: body[:had], good: had}
	b, err := p.Resume(t.Context(), d, kept)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, body) || !bytes.Equal(kept.came, body[had:]) {
		t.Errorf("%d bytes, %d of them kept, right: %v; %v", len(got), len(kept.came), bytes.Equal(got, body), err)
	}
	if ranges.Load() < 6 || most.Load() < 3 {
		t.Errorf("%d requests for ranges, at most %d connections at a time", ranges.Load(), most.Load())
	}
}

// TestPartsBad: a part with other bytes spoils the blob; a reader that goes ends all that was under way.
func TestPartsBad(t *testing.T) {
	p, d, _, ranges, _ := large(t, kit.Times(1, func(w http.ResponseWriter, r *http.Request) bool {
		var from, to int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, 2<<20))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(make([]byte, to-from+1))
		return true
	}))
	if err := readBlob(t, p, d); !errdef.Is(err, errdef.DataLoss) {
		t.Errorf("bytes of another blob: %v", err)
	}
	if ranges.Load() < 6 {
		t.Errorf("%d requests for ranges", ranges.Load())
	}
	p, d, _, ranges, _ = large(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	b, err := p.Blob(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, b, 512<<10); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, b); !errdef.Is(err, errdef.Cancelled) {
		t.Errorf("cancelled: %v", err)
	}
	b.Close()
	was := ranges.Load()
	time.Sleep(20 * time.Millisecond)
	if ranges.Load() != was || was == 0 {
		t.Errorf("%d requests for ranges, %d behind the end", was, ranges.Load()-was)
	}
}
