package torture

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Zeros writes a tar with one file of zeros, cut off after n of them.
func Zeros(w io.Writer, n int64) {
	tw := tar.NewWriter(w)
	tw.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4 << 30})
	io.CopyN(tw, zeros{}, n)
}

// Bomb is bytes that become very many more, and a name for how.
type Bomb struct {
	Name string
	Body []byte
}

// Bombs are the torture list's 37. The tools that make bzip2 and xz may be missing; then those are.
func Bombs(t testing.TB) []Bomb {
	t.Helper()
	bombs.once.Do(func() {
		var gz, gzgz, zst bytes.Buffer
		w := gzip.NewWriter(&gz)
		Zeros(w, 1<<30)
		w.Close()
		w = gzip.NewWriter(&gzgz)
		w.Write(gz.Bytes())
		w.Close()
		z, err := zstd.NewWriter(&zst, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
		if err != nil {
			panic(err) // options are constant
		}
		Zeros(z, 1<<30)
		z.Close()
		bombs.made = []Bomb{{"gzip", gz.Bytes()}, {"zstd", zst.Bytes()}, {"gzip in gzip", gzgz.Bytes()}}
		for _, tool := range []string{"bzip2", "xz"} {
			cmd := exec.Command(tool, "-c", "-1")
			in, err := cmd.StdinPipe()
			if err != nil {
				continue
			}
			var out bytes.Buffer
			cmd.Stdout = &out
			if cmd.Start() != nil {
				continue
			}
			Zeros(in, 256<<20)
			in.Close()
			if cmd.Wait() == nil {
				bombs.made = append(bombs.made, Bomb{tool, out.Bytes()})
			}
		}
	})
	return bombs.made
}

var bombs struct {
	once sync.Once
	made []Bomb
}
