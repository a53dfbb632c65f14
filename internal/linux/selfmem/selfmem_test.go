package selfmem

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

func TestDropText(t *testing.T) {
	before := fileRSS(t)
	if err := DropText(); err != nil {
		t.Fatal(err)
	}
	after := fileRSS(t)
	t.Logf("RssFile %d -> %d KiB", before, after)
	if after >= before {
		t.Errorf("nothing was let go")
	}
	// All of it still works.
	if s := fmt.Sprintf("%v %s", map[string]int{"a": 1}, bytes.ToUpper([]byte("x"))); s != "map[a:1] X" {
		t.Error(s)
	}
}

func fileRSS(t *testing.T) (n int) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := bytes.Cut(b, []byte("RssFile:"))
	if !ok {
		t.Skip("no RssFile in /proc/self/status")
	}
	fmt.Sscan(string(rest), &n)
	return n
}
