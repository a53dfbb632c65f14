package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// as runs one of our programs as nobody, who may read and run it but nothing else.
func as(t *testing.T, uid uint32, env []string, program string, args ...string) (stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience.Of(20*time.Second))
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stderr, cmd.Dir = env, &errs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return errs.String(), cmd.ProcessState.ExitCode()
}

// TestNotRoot runs the engine and the client as nobody.
func TestNotRoot(t *testing.T) {
	t.Parallel()
	w := start(t)
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	for _, p := range []string{"dhow", "dhowd", "dhow-shim"} {
		b, err := os.ReadFile(w.Program(p))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	oneError := func(stderr string, code, want int, words ...string) {
		t.Helper()
		if code != want || len(lines(stderr)) != 1 {
			t.Errorf("exit code %d, want %d and one line: %s", code, want, stderr)
		}
		for _, word := range words {
			if !strings.Contains(stderr, word) {
				t.Errorf("no %q in %q", word, stderr)
			}
		}
	}
	stderr, code := as(t, 65534, nil, dir+"/dhowd", "--data-root", dir+"/d", "--run-root", dir+"/r", "--host", "unix://"+dir+"/s")
	oneError(stderr, code, 1, "root")
	if _, err := os.Stat(dir + "/d"); err == nil {
		t.Error("an engine without rights makes its data root")
	}
	// The socket lies in a folder that only root enters: nobody is refused, and told what to do.
	stderr, code = as(t, 65534, append(w.Env(), "HOME=/nonexistent"), dir+"/dhow", "ps")
	oneError(stderr, code, 1, "permission denied")
	stderr, code = as(t, 65534, []string{"DOCKER_HOST=unix://" + dir + "/nosuch.sock"}, dir+"/dhow", "ps")
	oneError(stderr, code, 1, dir+"/nosuch.sock")
	stderr, code = as(t, 65534, []string{"DOCKER_HOST=unix://" + dir + "/nosuch.sock"}, dir+"/dhow", "run", "--rm", bb)
	if code != 125 {
		t.Errorf("run without an engine: exit code %d, %s", code, stderr)
	}
}

const hostileAddr = "127.0.0.1:5001"

// TestHostileRegistry pulls what is not what its digest says, and what never comes.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	w := start(t, "--insecure-registry", hostileAddr)
	h := w.Hostile(hostileAddr)
	img := registry.Busybox(t)
	h.Serve("bad:1", img)
	layer := img.Manifest.Layers[0].Digest
	ref := hostileAddr + "/bad:1"
	blob := img.Blobs[layer]
	wrong := append(bytes.Clone(blob[:len(blob)-1]), blob[len(blob)-1]^1)
	plain := registry.Build(t, registry.Spec{Tars: [][]byte{registry.BusyboxTar(t)}, Compress: "none"})
	h.Serve("plain:1", plain)
	other := bytes.Clone(plain.Blobs[plain.Manifest.Layers[0].Digest])
	other[len(other)/2] ^= 1
	h.Fault(plain.Manifest.Layers[0].Digest.String(), registry.Body(other, true))
	w.Dhow("pull", hostileAddr+"/plain:1").Fails(1, "digest")
	for name, c := range map[string]struct {
		at    string
		fault registry.Fault
		words string
	}{
		"another layer":    {layer.String(), registry.Body(wrong, true), ""},
		"a shorter layer":  {layer.String(), registry.Body(blob[:len(blob)/2], true), ""},
		"another config":   {img.ID.String(), registry.Body([]byte(`{}`), true), ""},
		"no manifest":      {"manifest", registry.Body([]byte(`{"schemaVersion":2}`), true), ""},
		"not JSON":         {"manifest", registry.Body([]byte(`<html>`), true), ""},
		"out of order":     {"*", registry.Status(500, `{"errors":[{"code":"UNKNOWN","message":"out of order"}]}`), ""},
		"access forbidden": {"*", registry.Status(403, `{"errors":[{"code":"DENIED","message":"requested access is denied"}]}`), "denied"},
	} {
		h.Fault(c.at, c.fault)
		for _, args := range [][]string{{"pull", ref}, {"run", "--rm", ref, "true"}} {
			r := w.Dhow(args...)
			want := map[string]int{"pull": 1, "run": 125}[args[0]]
			if r.Code != want || !strings.Contains(r.Err, c.words) || r.Err == "" || strings.Contains(r.Err, "panic") {
				t.Errorf("%s: %s: exit code %d, want %d: %s", name, args[0], r.Code, want, r.Err)
			}
			t.Logf("%s: %s", name, last(r.Err, 1))
		}
		h.Fault(c.at, nil)
	}
	if out := w.Dhow("images", "-q", ref).OK(); out != "" {
		t.Errorf("an image is left: %s", out)
	}
	w.Dhow("run", "--rm", ref, "true").OK() // and once all is well again, so is the pull
}

// TestRegistryWithoutPort: where http is allowed and no port named, a registry may be at port 80 with nothing at 443.
func TestRegistryWithoutPort(t *testing.T) {
	t.Parallel()
	w := start(t)
	ref := "127.0.0.1/busybox:latest"
	w.Dhow("pull", ref).Fails(1, "127.0.0.1:443: connect: connection refused")
	w.Hostile("127.0.0.1:80").Serve("busybox:latest", registry.Busybox(t))
	w.Dhow("pull", "-q", ref).OK()
}

// TestFullDisk gives the engine a data root of few megabytes.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := images(t)
	root := t.TempDir()
	if err := syscall.Mount("none", root, "tmpfs", 0, "size=24m,mode=700"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := &world{Engine: harness.Start(t, "--data-root", root+"/data")}
	w.Registry(dir)
	w.Dhow("pull", "-q", bb).OK()
	w.Dhow("run", "-d", "--name", "before", bb, "sleep", "1000").OK()
	ballast := root + "/ballast"
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=64k").CombinedOutput(); err == nil {
		t.Fatalf("the disk does not get full: %s", out)
	}
	for _, args := range [][]string{
		{"run", "--rm", bb, "true"}, {"run", "--rm", "-v", "vol:/v", bb, "sh", "-c", "echo x > /v/f"}, {"pull", strings.Replace(bb, "busybox:latest", "app:1", 1)},
	} {
		r := w.Dhow(args...)
		if r.Code == 0 || !strings.Contains(strings.ToLower(r.Err), "no space left on device") {
			t.Errorf("%v on a full disk: exit code %d: %s", args, r.Code, r.Err)
		}
	}
	if out := w.Dhow("exec", "before", "echo", "alive").OK(); out != "alive" {
		t.Errorf("who was there before: %q", out)
	}
	if out := w.Dhow("ps", "-a", "--format", "{{.Names}}").OK(); out != "before" {
		t.Errorf("left behind: %q", out)
	}
	w.Dhow("rm", "-f", "before").OK() // removing needs no space
	os.Remove(ballast)
	w.Dhow("run", "--rm", bb, "true").OK()
	w.Dhow("volume", "prune", "-af").OK()
	if out := fmt.Sprint(names(root+"/data/containers"), names(root+"/data/snapshots"), names(root+"/data/volumes")); out != "[] [] []" {
		t.Errorf("files left: %s", out)
	}
}
