package client

import (
	"bytes"
	"strings"
	"testing"
)

func TestDemux(t *testing.T) {
	var out, errs bytes.Buffer
	good := "\x01\x00\x00\x00\x00\x00\x00\x02hi\x02\x00\x00\x00\x00\x00\x00\x01!\x01\x00\x00\x00\x00\x00\x00\x00"
	if err := Demux(&out, &errs, strings.NewReader(good)); err != nil || out.String() != "hi" || errs.String() != "!" {
		t.Fatalf("%v %q %q", err, out.String(), errs.String())
	}
	for _, bad := range []string{"\x01\x00", "\x01\x00\x00\x00\x00\x00\x00\x05hi", "plain text of a terminal", "\x01\x00\x00\x00\xff\xff\xff\xff", "\x09\x00\x00\x00\x00\x00\x00\x00",
		"\x03\x00\x00\x00\x00\x00\x00\x03bad"} {
		if err := Demux(&out, &errs, strings.NewReader(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x02hi"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		Demux(&out, &out, bytes.NewReader(b))
		if out.Len() > len(b) {
			t.Fatal("more came out than went in")
		}
	})
}

func TestHosts(t *testing.T) {
	for _, bad := range []string{"", "nope", "unix://", "ssh://h", "tcp://h", "fd://3"} {
		if _, err := New(Options{Host: bad}); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	if c, err := New(Options{Host: "tcp://h:1"}); err != nil || c.Host() != "tcp://h:1" {
		t.Error(c, err)
	}
}

// What callers escape is escaped once.
func TestEscapedOnce(t *testing.T) {
	c := &Client{}
	for path, want := range map[string]string{"/images/a%20b/json": "/images/a%20b/json", "/containers/x%2Fy/json": "/containers/x%2Fy/json", "/images/x/y:1/json": "/images/x/y:1/json", "/images/50%/json": "/images/50%25/json"} {
		req, err := c.request(t.Context(), "GET", path, nil, nil, nil)
		if err != nil || req.URL.EscapedPath() != want {
			t.Errorf("%s: %v %v", path, req.URL, err)
		}
	}
}
