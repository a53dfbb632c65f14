package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/archive"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestMain lets the test binary be the engine whose disk is full while it loads.
func TestMain(m *testing.M) {
	dir, name := os.Getenv("FULL_DIR"), os.Getenv("FULL_ARCHIVE")
	if dir == "" {
		os.Exit(m.Run())
	}
	e, err := openEnv(dir)
	if err == nil {
		var f *os.File
		if f, err = os.Open(name); err == nil {
			_, err = archive.Load(context.Background(), e.images, f, archive.LoadOptions{Host: manifest.HostPlatform()})
		}
	}
	if err != nil {
		fmt.Println(err)
		filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				fmt.Println("file:", strings.TrimPrefix(p, dir))
			}
			return err
		})
		os.Exit(1)
	}
	fmt.Println("done")
	os.Exit(0)
}

// victim is the command that loads an archive into dir.
func victim(dir, name string, before ...string) *exec.Cmd {
	args := append(before, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "FULL_DIR="+dir, "FULL_ARCHIVE="+name, "GOMAXPROCS=2")
	return cmd
}

// prey is an archive of two images that share a layer, and its file.
func prey(t *testing.T) (b []byte, file string, want map[string]*kit.Image) {
	t.Helper()
	base := kit.Tar(t, kit.Dir("d"), kit.Text("d/base", noise(5<<20)))
	want = map[string]*kit.Image{
		"one:1": kit.Build(t, kit.Spec{Compress: "none", Tars: [][]byte{base, kit.Tar(t, kit.Text("d/one", noise(5<<20+1)))}}),
		"two:1": kit.Build(t, kit.Spec{Compress: "none", Tars: [][]byte{base, kit.Tar(t, kit.Text("d/two", "small"))}}),
	}
	e := newEnv(t)
	for tag, img := range want {
		if _, err := e.load(t, kit.Tar(t, kit.Archive(t, img, tag)...)); err != nil {
			t.Fatal(err)
		}
	}
	b = e.save(t, "one:1", "two:1")
	file = filepath.Join(t.TempDir(), "all.tar")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b), file, want
}

// TestFullDisk is torture case 20 for load: wherever the disk is full, the error says so and the space is given back.
func TestFullDisk(t *testing.T) {
	_, file, _ := prey(t)
	for _, size := range []string{"1m", "4m", "7m", "10m"} {
		cmd := victim(t.TempDir(), file, "unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=`+size+` none "$FULL_DIR" || exit 77; exec "$0"`)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code == 77 || code == 127 {
			t.Skipf("no mount namespace here: %s", out)
		}
		if err == nil || !strings.Contains(string(out), "no space left on device") {
			t.Errorf("%s: %v: %s", size, err, out)
		}
		for _, sub := range []string{"/ingest/", "/layers/tmp/", "/layers/sha256/", "/blobs/sha256/", "/.tmp-"} {
			if _, files, _ := strings.Cut(string(out), "\n"); strings.Contains(files, sub) {
				t.Errorf("%s: left behind: %s", size, out)
			}
		}
	}
}

// TestTogether loads the same archive many times at once, some of them cut off: the images are whole, and nothing but them is there.
func TestTogether(t *testing.T) {
	b, _, want := prey(t)
	e := newEnv(t)
	errs := make(chan error, 12)
	for i := range 12 {
		go func() {
			part := b
			if i%3 == 0 {
				part = b[:len(b)*(i+1)/13]
			}
			_, err := archive.Load(context.Background(), e.images, bytes.NewReader(part), archive.LoadOptions{Host: manifest.HostPlatform()})
			if (err != nil) != (i%3 == 0) {
				err = fmt.Errorf("load %d: %v", i, err)
			} else {
				err = nil
			}
			errs <- err
		}()
	}
	for range 12 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for name, img := range want {
		e.whole(t, name, img)
		if _, _, err := e.images.Remove(name, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if left := e.files(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
