package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/dhow-containers/dhow/internal/store/layer"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/klauspost/compress/gzip"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// prose makes n bytes that compress about as well as programs do.
func prose(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+r.IntN(10))
		for j := range words[i] {
			words[i][j] = byte(r.IntN(256))
		}
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.Write(words[r.IntN(len(words))])
	}
	return b.Bytes()[:n]
}

// BenchmarkPull pulls an image of 8 gzip layers of 32 MiB from docker-registry on loopback; BenchmarkFloor only inflates and
// hashes the same bytes, one layer after the other on one processor.
func BenchmarkPull(b *testing.B) {
	srv := kit.Start(b)
	img := big(b)
	name := srv.Push(b, "big:1", img)
	b.SetBytes(8 * 32 << 20)
	for b.Loop() {
		e := newEnv(b, quick())
		if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPush pushes that image, every layer compressed anew, to a docker-registry that has nothing of it; BenchmarkPushAgain where
// all is there.
func BenchmarkPush(b *testing.B) {
	benchPush(b, func(i int) string { return fmt.Sprint("/new", i, ":1") })
}
func BenchmarkPushAgain(b *testing.B) { benchPush(b, func(int) string { return "/same:1" }) }

func benchPush(b *testing.B, to func(i int) string) {
	src, e := kit.Start(b), newEnv(b, quick())
	name := src.Push(b, "big:1", big(b))
	if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
		b.Fatal(err)
	}
	push := func(srv *kit.Server, i int) {
		at := srv.Host + to(i)
		if err := e.Tag(name, at); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Push(context.Background(), at, PushOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	srv := kit.Start(b)
	if to(0) == to(1) {
		push(srv, 0)
	}
	b.SetBytes(8 * 32 << 20)
	for i := 0; b.Loop(); i++ {
		if to(0) != to(1) {
			b.StopTimer()
			srv = kit.Start(b)
			b.StartTimer()
		}
		push(srv, i)
	}
}

func BenchmarkFloor(b *testing.B) {
	img := big(b)
	b.SetBytes(8 * 32 << 20)
	for b.Loop() {
		for _, l := range img.Manifest.Layers {
			z, err := gzip.NewReader(bytes.NewReader(img.Blobs[l.Digest]))
			if err != nil {
				b.Fatal(err)
			}
			h := sha256.New()
			if _, err := io.Copy(h, z); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func big(b *testing.B) *kit.Image {
	b.Helper()
	var tars [][]byte
	for i := range 8 {
		tars = append(tars, kit.Tar(b, kit.File{Header: kit.Text(string(rune('a'+i)), "").Header, Body: prose(uint64(i), 32<<20)}))
	}
	return kit.Build(b, kit.Spec{Tars: tars})
}

// BenchmarkRemove removes an image of 10 layers, of 10,000 files and 32 MiB each, as tars and unpacked.
func BenchmarkRemove(b *testing.B) {
	var tars [][]byte
	for i := range 10 {
		files := []kit.File{{Header: kit.Text("big", "").Header, Body: prose(uint64(i), 32<<20)}}
		for n := range 10_000 {
			files = append(files, kit.Text(fmt.Sprint("d", i, "/", n), "x"))
		}
		tars = append(tars, kit.Tar(b, files...))
	}
	for _, form := range []string{layer.FormErofs, layer.FormDir} {
		b.Run(form, func(b *testing.B) {
			e := newEnv(b, nil)
			var err error
			if e.l, err = layer.Open(e.dir+"/layers", layer.Options{Form: form}); err != nil {
				b.Fatal(err)
			}
			e.c.Layers = e.l
			for b.Loop() {
				b.StopTimer()
				var rs []io.Reader
				for _, t := range tars {
					rs = append(rs, bytes.NewReader(t))
				}
				img, err := e.AddLocal(context.Background(), "x:1", dockerspec.DockerOCIImage{}, rs...)
				if err == nil {
					_, err = e.l.Merge(context.Background(), img.DiffIDs)
				}
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, _, err := e.Remove("x:1", false, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
