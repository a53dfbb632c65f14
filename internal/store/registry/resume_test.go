package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// beginning is kept in memory; behind good bytes it cannot be read.
type beginning struct {
	had, came []byte
	good      int
}

func (b *beginning) Len() int64      { return int64(len(b.had)) }
func (b *beginning) Append(p []byte) { b.came = append(b.came, p...) }
func (b *beginning) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(b.good) {
		return copy(p, b.had[off:b.good]), errors.New("a bad sector")
	}
	return copy(p, b.had[off:]), nil
}

// TestResume: what is kept of a blob is not asked for again, and what is not, is given to who keeps it.
func TestResume(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	size := len(body)
	other := bytes.Repeat([]byte("?"), size)
	d := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(size)}
	noRanges := func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }
	for _, c := range []struct {
		name  string
		had   []byte
		good  int // of had can be read
		fault kit.Fault
		want  []string // ranges asked for
		kind  errdef.Kind
	}{
		{"nothing", nil, 0, nil, []string{""}, 0},
		{"one byte", body[:1], 1, nil, []string{"bytes=1-"}, 0},
		{"half", body[:size/2], size / 2, nil, []string{"bytes=32768-"}, 0},
		{"all but one", body[:size-1], size, nil, []string{"bytes=65535-"}, 0},
		{"all", body, size, nil, nil, 0},
		{"half, and it breaks off", body[:size/2], size, kit.Times(2, kit.BreakAfter(body, 1000)), []string{"bytes=32768-", "bytes=33768-", "bytes=34768-"}, 0},
		{"half, of which not all can be read", body[:size/2], 20000, nil, []string{"bytes=20000-"}, 0},
		{"nothing of it can be read", body[:size/2], 0, nil, []string{""}, 0},
		{"no ranges", body[:size/2], size, noRanges, []string{"bytes=32768-"}, 0},
		{"the registry has less", body[:size/2], size, kit.Status(416, ""), []string{"bytes=32768-"}, errdef.DataLoss},
		{"another range", body[:size/2], size, func(w http.ResponseWriter, r *http.Request) bool { r.Header.Set("Range", "bytes=5-"); return false }, []string{"bytes=32768-"}, errdef.DataLoss},
		{"it is gone", body[:size/2], size, kit.Status(404, ""), []string{"bytes=32768-"}, errdef.NotFound},
		{"half of another", other[:size/2], size, nil, []string{"bytes=32768-"}, errdef.DataLoss},
		{"all of another", other, size, nil, nil, errdef.DataLoss},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := kit.StartHostile(t)
			h.Serve("x:1", &kit.Image{Blobs: map[digest.Digest][]byte{d.Digest: body}})
			h.Fault("blob", c.fault)
			kept := &beginning{had: c.had, good: c.good}
			b, err := repo(t, client(), h.Host+"/x:1", nil).Resume(t.Context(), d, kept)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if n := len(h.Seen()); len(c.had) > 0 && n != 0 {
				t.Errorf("%d requests before the beginning was read", n)
			}
			got, err := io.ReadAll(b)
			if c.kind == 0 && (err != nil || !bytes.Equal(got, body)) || c.kind != 0 && !errdef.Is(err, c.kind) {
				t.Errorf("%d bytes, kind %d: %v", len(got), errdef.KindOf(err), err)
			}
			if c.kind == 0 && !bytes.Equal(append(c.had[:min(c.good, len(c.had)):min(c.good, len(c.had))], kept.came...), body) {
				t.Errorf("%d bytes were given to who keeps them", len(kept.came))
			}
			var asked []string
			for _, s := range h.Seen() {
				if strings.Contains(s.Path, "/blobs/") {
					asked = append(asked, s.Range)
				}
			}
			if fmt.Sprintf("%q", asked) != fmt.Sprintf("%q", c.want) {
				t.Errorf("asked for %q, want %q", asked, c.want)
			}
		})
	}
}
