package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/opencontainers/go-digest"
)

// noise is a blob that no proxy makes smaller.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// source serves raw; known tells whether digest and size are said before.
func source(raw []byte, known bool, opened *atomic.Int32) registry.Source {
	s := registry.Source{Size: -1, Open: func() (io.ReadCloser, error) {
		opened.Add(1)
		return io.NopCloser(bytes.NewReader(raw)), nil
	}}
	if known {
		s.Digest, s.Size = digest.FromBytes(raw), int64(len(raw))
	}
	return s
}

func TestUpload(t *testing.T) {
	raw := noise(9 << 20)
	for name, c := range map[string]struct {
		at    string
		fault func(h *kit.Hostile) kit.Fault
		kind  errdef.Kind // of the error; System: none
	}{
		"whole":          {},
		"cut, PATCH":     {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Times(1, h.CutUpload(5<<20)) }, 0},
		"cut, PUT":       {"PUT upload", func(h *kit.Hostile) kit.Fault { return kit.Times(1, h.CutUpload(3<<20)) }, 0},
		"cut at once":    {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Times(2, h.CutUpload(0)) }, 0},
		"503 once":       {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Times(1, kit.Status(503, "")) }, 0},
		"500 at the end": {"PUT upload", func(h *kit.Hostile) kit.Fault { return kit.Times(1, kit.Status(500, "")) }, 0},
		"cut for ever":   {"PATCH upload", func(h *kit.Hostile) kit.Fault { return h.CutUpload(0) }, errdef.Unavailable},
		"503 for ever":   {"upload", func(h *kit.Hostile) kit.Fault { return kit.Status(503, "") }, errdef.Unavailable},
		"away for long":  {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Status(503, "", "Retry-After", "99999") }, errdef.Unavailable},
		"denied": {"POST upload", func(h *kit.Hostile) kit.Fault {
			return kit.Status(403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
		}, errdef.Forbidden},
		"quota":              {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Status(413, "quota of 1 GiB exceeded") }, errdef.Forbidden},
		"no location":        {"POST upload", func(h *kit.Hostile) kit.Fault { return kit.Status(202, "") }, errdef.DataLoss},
		"location ftp":       {"POST upload", func(h *kit.Hostile) kit.Fault { return kit.Status(202, "", "Location", "ftp://"+h.Host+"/x") }, errdef.Forbidden},
		"location with user": {"POST upload", func(h *kit.Hostile) kit.Fault { return kit.Status(202, "", "Location", "http://a:b@"+h.Host+"/x") }, errdef.Forbidden},
		"location elsewhere": {"POST upload", func(h *kit.Hostile) kit.Fault { return kit.Status(202, "", "Location", "http://192.0.2.1/x") }, errdef.Forbidden},
		"307 elsewhere":      {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Status(307, "", "Location", "http://192.0.2.1/x") }, errdef.Forbidden},
		"307 for ever": {"PATCH upload", func(h *kit.Hostile) kit.Fault {
			return kit.Status(307, "", "Location", h.URL+"/v2/a/blobs/uploads/1?state=a%2Bb")
		}, errdef.Unavailable},
		"deaf":           {"PATCH upload", func(h *kit.Hostile) kit.Fault { return h.Silent() }, errdef.Unavailable},
		"endless answer": {"PATCH upload", func(h *kit.Hostile) kit.Fault { return h.Endless([]byte("no")) }, errdef.DataLoss},
		"401 loop":       {"PATCH upload", func(h *kit.Hostile) kit.Fault { return kit.Status(401, "", "WWW-Authenticate", `Basic realm="r"`) }, errdef.Unauthorized},
		"huge chunks": {"POST upload", func(h *kit.Hostile) kit.Fault {
			return kit.Status(202, "", "Location", "/x", "OCI-Chunk-Min-Length", "1099511627776")
		}, errdef.NotImplemented},
	} {
		for _, known := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", known"}[known], func(t *testing.T) {
				t.Parallel()
				h := kit.StartHostile(t)
				at := c.at
				if known && c.kind != 0 {
					at = strings.Replace(at, "PATCH", "PUT", 1)
				}
				if c.fault != nil {
					h.Fault(at, c.fault(h))
				}
				var opened atomic.Int32
				p := repo(t, client(), h.Host+"/app:1", auth())
				start := time.Now()
				d, err := p.Upload(context.Background(), nil, source(raw, known, &opened))
				switch {
				case c.kind == 0 && err != nil, c.kind != 0 && !errdef.Is(err, c.kind) && name != "endless answer", c.kind != 0 && err == nil:
					t.Fatalf("kind %d: %v", errdef.KindOf(err), err)
				case c.kind == 0 && (d.Digest != digest.FromBytes(raw) || !bytes.Equal(h.Blob(d.Digest), raw)):
					t.Fatal("the registry holds something else")
				case opened.Load() > 10, time.Since(start) > 20*time.Second:
					t.Fatal("sent", opened.Load(), "times in", time.Since(start))
				}
			})
		}
	}
}

// TestUploadResumes: what the registry has is not sent again.
func TestUploadResumes(t *testing.T) {
	h, raw := kit.StartHostile(t), noise(12<<20)
	h.Fault("PATCH upload", kit.Times(1, h.CutUpload(7<<20)))
	var again atomic.Int64
	count := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Content-Range") != "" {
			again.Add(r.ContentLength)
		}
		return false
	}
	h.Fault("*", count)
	var opened atomic.Int32
	if _, err := repo(t, client(), h.Host+"/app:1", nil).Upload(context.Background(), nil, source(raw, false, &opened)); err != nil {
		t.Fatal(err)
	}
	if again.Load() != 5<<20 {
		t.Errorf("%d bytes were sent again, 5 MiB were missing", again.Load())
	}
}

// TestUploadCredentials: another host may take the upload, but gets no credentials; 307 neither.
func TestUploadCredentials(t *testing.T) {
	for name, fault := range map[string]func(evil *kit.Hostile) (string, kit.Fault){
		"location": func(evil *kit.Hostile) (string, kit.Fault) {
			return "POST upload", kit.Status(202, "", "Location", evil.URL+"/v2/x/blobs/uploads/1?state=a%2Bb")
		},
		"307": func(evil *kit.Hostile) (string, kit.Fault) {
			return "PATCH upload", kit.Status(307, "", "Location", evil.URL+"/v2/x/blobs/uploads/1?state=a%2Bb", "Set-Cookie", "c=1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, evil := kit.StartHostile(t), kit.StartHostile(t)
			if _, err := repo(t, client(), evil.Host+"/x:1", nil).Begin(context.Background(), "", ""); err != nil { // makes upload 1
				t.Fatal(err)
			}
			h.Fault("*", needs(`Basic realm="r"`, basic))
			at, f := fault(evil)
			h.Fault(at, f)
			raw := noise(1 << 20)
			var opened atomic.Int32
			d, err := repo(t, client(), h.Host+"/app:1", auth()).Upload(context.Background(), nil, source(raw, false, &opened))
			if err != nil || evil.Blob(d.Digest) == nil {
				t.Fatal("the upload did not go where the registry said:", err)
			}
			clean(t, evil)
		})
	}
}

// TestUploadCancel: a cancelled push ends at once, whatever the peer does.
func TestUploadCancel(t *testing.T) {
	h := kit.StartHostile(t)
	h.Fault("PATCH upload", h.Silent())
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
	var opened atomic.Int32
	start := time.Now()
	k := registry.New(registry.Config{})
	_, err := repo(t, k, h.Host+"/app:1", nil).Upload(ctx, nil, source(noise(64<<20), false, &opened))
	if !errors.Is(err, why) || time.Since(start) > time.Second {
		t.Fatal(err, time.Since(start))
	}
}

// TestUploadBadSource: an error of the blob itself is told as it is, and not tried again.
func TestUploadBadSource(t *testing.T) {
	h := kit.StartHostile(t)
	bad := errdef.New(errdef.DataLoss, "the layer is damaged")
	opened := 0
	src := registry.Source{Size: -1, Open: func() (io.ReadCloser, error) {
		opened++
		return io.NopCloser(io.MultiReader(bytes.NewReader(noise(1<<20)), broken{bad})), nil
	}}
	if _, err := repo(t, client(), h.Host+"/app:1", nil).Upload(context.Background(), nil, src); !errors.Is(err, bad) || opened != 1 {
		t.Fatal(opened, err)
	}
}

type broken struct{ error }

func (b broken) Read([]byte) (int, error) { return 0, b.error }
