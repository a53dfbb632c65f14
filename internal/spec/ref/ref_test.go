package ref

import (
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, full, familiar string }{
		{"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"bitnami/redis:7", "docker.io/bitnami/redis:7", "bitnami/redis:7"},
		{"docker.io/library/a:b", "docker.io/library/a:b", "a:b"},
		{"index.docker.io/a", "docker.io/library/a:latest", "a:latest"},
		{"127.0.0.1:5000/x/y", "127.0.0.1:5000/x/y:latest", "127.0.0.1:5000/x/y:latest"},
		{"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"},
		{"localhost/x", "localhost/x:latest", "localhost/x:latest"},
		{"a@sha256:" + hex64, "docker.io/library/a@sha256:" + hex64, "a@sha256:" + hex64},
		{"a:t@sha256:" + hex64, "docker.io/library/a:t@sha256:" + hex64, "a:t@sha256:" + hex64},
	} {
		r, err := Parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if r.String() != c.full || r.Familiar() != c.familiar {
			t.Errorf("%s: %s / %s", c.in, r, r.Familiar())
		}
		again, err := Parse(r.Familiar())
		if err != nil || again != r {
			t.Errorf("%s does not survive its own spelling: %v %v", c.in, again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{
		"", ":", "A", "a/", "/a", "a//b", "a b", "a\n", "a\x00", "a:\x1b[31m", "../x", "a:" + strings.Repeat("t", 129),
		strings.Repeat("a", 300), strings.Repeat("a", 10000), hex64, "a@sha256:" + strings.ToUpper(hex64), "a@sha256:12",
		"a@sha512:" + hex64 + hex64, "a@md5:00", "https://a/b", "a:-t", "-a",
	} {
		if r, err := Parse(bad); err == nil {
			t.Errorf("%q accepted as %s", bad, r)
		} else if !errdef.Is(err, errdef.InvalidArgument) || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
			t.Errorf("%q: kind %d, text %q", bad, errdef.KindOf(err), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("busybox:1@sha256:" + hex64)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q -> %s -> %v %v", s, r, again, err)
		}
		if strings.Contains(r.Path, "..") || strings.ContainsAny(r.String(), "\x00\n\r\x1b \\") {
			t.Fatalf("unsafe %q", r.String())
		}
	})
}
