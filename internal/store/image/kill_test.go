package image_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/gc"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/opencontainers/go-digest"
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

// TestMain lets the test binary be the engine that is killed: it pulls, removes, or both, and says how far it came.
func TestMain(m *testing.M) {
	dir, name := os.Getenv("KILL_DIR"), os.Getenv("KILL_REF")
	if dir == "" {
		os.Exit(m.Run())
	}
	r, err := openRig(dir)
	if err == nil {
		_, err = r.images.Pull(context.Background(), name, image.PullOptions{})
	}
	if err == nil && os.Getenv("KILL_FILL") != "" {
		fill(dir)
	}
	if err == nil && os.Getenv("KILL_REMOVE") != "" {
		_, _, err = r.images.Remove(name, false, nil)
	}
	if err != nil {
		fmt.Println(err)
		if os.Getenv("KILL_PRUNE") != "" {
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
	if err != nil {
		panic(err)
	}
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	f.Close()
	if os.WriteFile(filepath.Join(dir, "more"), []byte("x"), 0o600) == nil {
		panic("the disk is not full")
	}
}

// victim is the command that pulls name into dir.
func victim(dir, name string, remove bool, before ...string) *exec.Cmd {
	args := append(before, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "KILL_DIR="+dir, "KILL_REF="+name, "GOMAXPROCS=2")
	if remove {
		cmd.Env = append(cmd.Env, "KILL_REMOVE=1")
	}
	return cmd
}

// recovered does what the next engine does and checks that it finds all or nothing, and that a pull then succeeds.
func recovered(t *testing.T, dir, name string, want *kit.Image) (had bool) {
	t.Helper()
	r, err := openRig(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.db.Close()
	img, err := r.images.Resolve(name)
	if err != nil && !errdef.Is(err, errdef.NotFound) {
		t.Fatal(err)
	}
	if had = err == nil; had {
		intact(t, r, img)
	}
	if _, err := gc.Sweep(gc.Config{Images: r.images, Content: r.content, Layers: r.layers, Start: true}); err != nil {
		t.Fatal(err)
	}
	if n := len(tree(t, dir)); !had && n != 0 {
		t.Fatalf("no image, but files after the sweep: %v", tree(t, dir))
	}
	if img, err = r.images.Pull(context.Background(), name, image.PullOptions{}); err != nil || img.ID != want.ID {
		t.Fatal(err)
	}
	intact(t, r, img)
	return had
}

func intact(t *testing.T, r rig, img image.Image) {
	t.Helper()
	for _, d := range img.DiffIDs {
		f, err := r.layers.OpenTar(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := digest.SHA256.FromReader(f)
		f.Close()
		if err != nil || got != d {
			t.Fatalf("layer %s holds %s: %v", d, got, err)
		}
	}
	if _, err := r.layers.Merge(context.Background(), img.DiffIDs); err != nil {
		t.Fatal(err)
	}
}

// tree lists blobs, layers and temporary files.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	for _, d := range []string{"content/blobs/sha256", "content/ingest", "layers/sha256", "layers/merged", "layers/tmp"} {
		es, err := os.ReadDir(filepath.Join(dir, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			all = append(all, d+"/"+e.Name())
		}
	}
	return all
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

// TestKilledPull kills a pulling process at instants spread over its life (torture cases 1 and 2).
func TestKilledPull(t *testing.T) {
	img, name := serve(t)
	start := time.Now()
	if out, err := victim(t.TempDir(), name, false).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	life := time.Since(start)
	const rounds = 24
	before, after := 0, 0
	for i := range rounds {
		dir := t.TempDir()
		cmd := victim(dir, name, false)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(life * time.Duration(i+1) / rounds)
		cmd.Process.Kill()
		cmd.Wait()
		if recovered(t, dir, name, img) {
			after++
		} else {
			before++
		}
	}
	t.Logf("life of a pull %s: %d kills before it was complete, %d after", life, before, after)
	if before == 0 {
		t.Error("no kill came before the pull was complete: the test proves nothing")
	}
}

// TestKilledAtEverySyscall kills a process that pulls and removes at its first, second, third ... call of every kind that
// changes the disk, until it survives (rule R2). strace counts calls per thread: a point is "the Nth such call of a thread".
func TestKilledAtEverySyscall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	img, name := serve(t)
	if out, err := victim(t.TempDir(), name, true, strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync").CombinedOutput(); err != nil {
		t.Skipf("strace does not work here: %v: %s", err, out)
	}
	for _, call := range []string{"fsync", "fdatasync", "renameat,renameat2,rename", "unlinkat,unlink", "mkdirat,mkdir", "pwrite64"} {
		t.Run(strings.ReplaceAll(call, ",", "+"), func(t *testing.T) {
			for when := 1; ; when++ {
				dir := t.TempDir()
				cmd := victim(dir, name, true, strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, when))
				out, err := cmd.CombinedOutput()
				if err == nil {
					if !strings.Contains(string(out), "done") {
						t.Fatalf("%s", out)
					}
					t.Logf("%d points", when-1)
					if when == 1 {
						t.Error("the call is never made")
					}
					return
				}
				if strings.Contains(string(out), "done") || when > 200 {
					t.Fatalf("at %d: %v: %s", when, err, out)
				}
				recovered(t, dir, name, img)
			}
		})
	}
}

// TestFullDisk is torture cases 20 and 21: the data root is a small tmpfs in a mount namespace of its own.
func TestFullDisk(t *testing.T) {
	_, name := serve(t) // 3 MiB of layers
	dir := t.TempDir()
	cmd := victim(dir, name, false, "unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=2500k none "$KILL_DIR" || exit 77; exec "$0"`)
	cmd.Env = append(cmd.Env, "KILL_PRUNE=1")
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

// TestRemoveOnFullDisk: with 0 bytes free an image can be removed (rule R4).
func TestRemoveOnFullDisk(t *testing.T) {
	_, name := serve(t)
	cmd := victim(t.TempDir(), name, true, "unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=12m none "$KILL_DIR" || exit 77; exec "$0"`)
	cmd.Env = append(cmd.Env, "KILL_FILL=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 || cmd.ProcessState.ExitCode() == 127 {
		t.Skipf("no mount namespace here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "done") {
		t.Fatalf("%v: %s", err, out)
	}
}
