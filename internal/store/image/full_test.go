package image_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// rig is what an engine opens on a data root.
type rig struct {
	db      *meta.DB
	content *content.Store
	layers  *layer.Store
	images  *image.Store
}

func openRig(dir string) (r rig, err error) {
	if r.db, err = meta.Open(filepath.Join(dir, "meta.db")); err != nil {
		return r, err
	}
	if r.content, err = content.Open(filepath.Join(dir, "content")); err != nil {
		return r, err
	}
	if r.layers, err = layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: layer.FormErofs}); err != nil {
		return r, err
	}
	r.images, err = image.Open(image.Config{DB: r.db, Content: r.content, Layers: r.layers, Registry: registry.New(registry.Config{})})
	return r, err
}

// TestMain lets the test binary be the engine whose disk is full: it pulls, removes and pulls again, and says how far it came.
func TestMain(m *testing.M) {
	dir, name := os.Getenv("FULL_DIR"), os.Getenv("FULL_REF")
	if dir == "" {
		os.Exit(m.Run())
	}
	r, err := openRig(dir)
	if err == nil {
		_, err = r.images.Pull(context.Background(), name, image.PullOptions{})
	}
	if err == nil && os.Getenv("FULL_FILL") != "" {
		fill(dir)
	}
	if err == nil && os.Getenv("FULL_TAG") != "" {
		terr := r.images.Tag(name, "other:1")
		_, there := r.images.Resolve("other:1")
		fmt.Printf("tag: %v, %v\n", terr, there)
		r.db.Close()
		r, err = openRig(dir)
	}
	if err == nil && os.Getenv("FULL_REMOVE") != "" {
		if _, _, err = r.images.Remove(name, false, nil); err == nil {
			err = os.Remove(filepath.Join(dir, "more")) // for the second index.json, before it takes the other's name
		}
		if err == nil {
			_, err = r.images.Pull(context.Background(), name, image.PullOptions{})
		}
	}
	if err != nil {
		fmt.Println(err)
		if os.Getenv("FULL_PRUNE") != "" {
			_, _, _, perr := r.images.Prune(image.PruneOptions{All: true})
			fmt.Println("pruned:", perr)
			out, _ := exec.Command("find", dir, "-type", "f").Output()
			fmt.Printf("files:\n%s", out)
		}
		os.Exit(1)
	}
	fmt.Println("done")
	os.Exit(0)
}

// fill writes until the file system has not one byte left.
func fill(dir string) {
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "more"), make([]byte, 64<<10), 0o600)
	}
	if err != nil {
		panic(err)
	}
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	f.Close()
	if os.WriteFile(filepath.Join(dir, "full"), []byte("x"), 0o600) == nil {
		panic("the disk is not full")
	}
}

// victim is the command that pulls name into dir.
func victim(dir, name string, remove bool, before ...string) *exec.Cmd {
	args := append(before, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "FULL_DIR="+dir, "FULL_REF="+name, "GOMAXPROCS=2")
	if remove {
		cmd.Env = append(cmd.Env, "FULL_REMOVE=1")
	}
	return cmd
}

func serve(t *testing.T) (*kit.Image, string) {
	srv := kit.Start(t)
	var tars [][]byte
	for i := range 3 {
		tars = append(tars, kit.Tar(t, kit.Dir("d"), kit.Text(fmt.Sprint("d/", i), noise(1<<20+i))))
	}
	img := kit.Build(t, kit.Spec{Tars: tars})
	return img, srv.Push(t, "kill:1", img)
}

func noise(n int) string {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// TestFullDisk is torture cases 20 and 21: the data root is a small tmpfs in a mount namespace of its own.
func TestFullDisk(t *testing.T) {
	_, name := serve(t) // 3 MiB of layers
	dir := t.TempDir()
	cmd := victim(dir, name, false, "unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=2500k none "$FULL_DIR" || exit 77; exec "$0"`)
	cmd.Env = append(cmd.Env, "FULL_PRUNE=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 || cmd.ProcessState.ExitCode() == 127 {
		t.Skipf("no mount namespace here: %s", out)
	}
	text := string(out)
	if err == nil || !strings.Contains(text, "no space left on device") || !strings.Contains(text, "pruned: <nil>\nfiles:\n/") {
		t.Fatalf("%v: %s", err, text)
	}
	for _, sub := range []string{"/ingest/", "/layers/tmp/", "/.tmp-", "/blobs/sha256/"} {
		if _, files, _ := strings.Cut(text, "files:"); strings.Contains(files, sub) {
			t.Errorf("left behind: %s", text)
		}
	}
}

// TestTagOnFullDisk: a tag is there when it was said to be, although index.json has no room to say so, and the store opens again.
func TestTagOnFullDisk(t *testing.T) {
	_, name := serve(t)
	cmd := victim(t.TempDir(), name, false, "unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=12m none "$FULL_DIR" || exit 77; exec "$0"`)
	cmd.Env = append(cmd.Env, "FULL_FILL=1", "FULL_TAG=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 || cmd.ProcessState.ExitCode() == 127 {
		t.Skipf("no mount namespace here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "tag: <nil>, <nil>\n") {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestRemoveOnFullDisk: with 0 bytes free an image can be removed (rule R4), and what comes next has its space.
func TestRemoveOnFullDisk(t *testing.T) {
	_, name := serve(t)
	cmd := victim(t.TempDir(), name, true, "unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=12m none "$FULL_DIR" || exit 77; exec "$0"`)
	cmd.Env = append(cmd.Env, "FULL_FILL=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 || cmd.ProcessState.ExitCode() == 127 {
		t.Skipf("no mount namespace here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "done") {
		t.Fatalf("%v: %s", err, out)
	}
}
