package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	lmount "github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Of several that start a container at once one does, and calls its hooks; the others are told that it runs.
func TestStartedOnce(t *testing.T) {
	for range 5 {
		b := newBox(t, "sleep", "1000")
		called := filepath.Join(b.dir, "called")
		b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo once >> " + called}}}}
		check(t, bundle.Save(b.dir, b.spec, nil))
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		check(t, err)
		c, err := Create(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, null, null}, Detached: true})
		check(t, err)
		null.Close()
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			other, err := Load(b.root, b.id)
			check(t, err)
			wg.Go(func() { errs[i] = other.Start() })
		}
		wg.Wait()
		started := 0
		for _, err := range errs {
			switch {
			case err == nil:
				started++
			case !strings.Contains(err.Error(), "cannot start an already running container"):
				t.Errorf("another start: %v", err)
			}
		}
		text, err := os.ReadFile(called)
		if started != 1 || string(text) != "once\n" || err != nil {
			t.Errorf("started %d times, hooks: %q, %v", started, text, err)
		}
		check(t, c.Delete(true))
		wait(t, c.init)
	}
}

// A removal that was cut off after the state was gone may leave the file that holds a mount namespace. It can be discarded, and the ID used
// again.
func TestDiscardWhatWasCutOff(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	held := filepath.Join(root, "one", state.Mounts)
	check(t, os.Mkdir(filepath.Dir(held), 0o700))
	check(t, os.WriteFile(held, nil, 0o600))
	check(t, lmount.Apart(func() error {
		if err := lmount.Private(); err != nil {
			return err
		}
		if err := unix.Mount(held, held, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		return Discard(root, "one")
	}))
	if es, err := os.ReadDir(root); err != nil || len(es) > 0 {
		t.Errorf("left: %v, %v", es, err)
	}
	if err := Discard(root, "../one"); err == nil {
		t.Error("an ID that leads out was taken")
	}
	check(t, Discard(root, "nobody"))
}

// What a hook prints is kept to some length, whatever it is.
func TestHookThatPrintsMuch(t *testing.T) {
	b := newBox(t)
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "yes | /usr/bin/head -c 30000000; exit 1"}, Env: []string{"PATH=/bin:/usr/bin"}}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, out, err := b.create()
	runtime.ReadMemStats(&after)
	<-out.done
	if err == nil || len(err.Error()) > 2*maxHookOutput+1000 || !strings.Contains(err.Error(), "hooks.createRuntime[0]") {
		t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d MiB were allocated for what it printed", grown>>20)
	}
}

// Poststop hooks take back what is outside the bundle; that the bundle is gone must not keep them from it.
func TestPoststopWithoutBundle(t *testing.T) {
	b := newBox(t, "true")
	mark := filepath.Join(t.TempDir(), "mark")
	b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "pwd > " + mark}}}}
	check(t, bundle.Save(b.dir, b.spec, nil))
	config, err := os.ReadFile(filepath.Join(b.dir, bundle.ConfigFile))
	check(t, err)
	state := t.TempDir()
	c, err := Create(CreateOptions{ID: b.id, Root: state, Bundle: b.dir, Spec: b.spec, Config: config})
	check(t, err)
	check(t, c.Start())
	wait(t, c.Init())
	check(t, os.Rename(b.dir, b.dir+".gone"))
	check(t, c.Delete(false))
	check(t, os.Rename(b.dir+".gone", b.dir))
	if text, _ := os.ReadFile(mark); string(text) != "/\n" {
		t.Errorf("the hook was called in %q", text)
	}
}

// Descriptors that are passed on are the container's, not its hooks'.
func TestHooksGetNoDescriptors(t *testing.T) {
	b := newBox(t, "sh", "-c", "readlink /proc/self/fd/3")
	seen := filepath.Join(b.dir, "seen")
	list := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "for fd in /proc/self/fd/*; do readlink $fd; done >> " + seen + "; true"}, Env: []string{"PATH=/bin:/usr/bin"}}}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: list, Poststart: list}
	check(t, bundle.Save(b.dir, b.spec, nil))
	secret := filepath.Join(b.dir, "secret")
	file, err := os.Create(secret)
	check(t, err)
	defer file.Close()
	cmd := exec.Command(buildRuntime(t), "--root", b.root, "run", "--preserve-fds", "1", "-b", b.dir, b.id)
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != secret {
		t.Errorf("the container has %q, %v", out, err)
	}
	text, err := os.ReadFile(seen)
	check(t, err)
	if strings.Contains(string(text), secret) {
		t.Errorf("hooks were given %s", text)
	}
}
