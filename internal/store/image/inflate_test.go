package image

import (
	"bytes"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// tenMillionZeros is what bzip2 -9 makes of ten million zero bytes.
const tenMillionZeros = "425a6839314159265359d3a5dc7c004c97c010c00000080008200030cc0529a6aa4451b014451e2ee48a70a121a74bb8f8"

func TestInflateBzip2(t *testing.T) {
	one, err := hex.DecodeString(tenMillionZeros)
	if err != nil {
		t.Fatal(err)
	}
	all := func(b []byte, most int64) (int64, error) {
		r, err := Inflate(bytes.NewReader(b), most)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		return io.Copy(io.Discard, r)
	}
	if n, err := all(one, 1<<40); n != 10_000_000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	for name, c := range map[string]struct {
		stream []byte
		most   int64
		text   string
	}{
		"bomb":    {bytes.Repeat(one, 20), 1 << 40, "bomb"},
		"cap":     {one, 1 << 20, "bomb: more than 1048576"},
		"rubbish": {append(append([]byte(nil), one[:20]...), "rubbish rubbish rubbish"...), 1 << 40, "damaged"},
		"cut":     {one[:20], 1 << 40, "EOF"},
		"behind":  {append(append([]byte(nil), one...), "behind"...), 1 << 40, ""},
	} {
		n, err := all(c.stream, c.most)
		if err == nil || !strings.Contains(err.Error(), c.text) || n > ratioFree+1<<20 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	for name, begins := range map[string]string{"xz": "\xfd7zXZ\x00\x00\x04", "lzma": "\x5d\x00\x00\x80\x00"} {
		if _, err := Inflate(strings.NewReader(begins), 1); !errdef.Is(err, errdef.NotImplemented) || !strings.Contains(err.Error(), name+" -d") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
