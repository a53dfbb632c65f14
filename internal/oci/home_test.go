package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Where the config has no HOME the container's own passwd gives it: to its process and to those that are run in it.
func TestHome(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo $HOME; exec sleep 100")
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"), 0o644))
	c, out, err := b.create()
	check(t, err)
	defer c.Delete(true)
	check(t, c.Start())
	said := newOutput(t)
	p := specs.Process{Args: []string{"sh", "-c", "echo $HOME"}, Cwd: "/", Env: []string{"PATH=/bin"}, User: specs.User{UID: 1000}}
	null, err := os.Open(os.DevNull)
	check(t, err)
	defer null.Close()
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{null, said.w, said.w}})
	check(t, err)
	said.w.Close()
	wait(t, proc)
	if got := <-said.done; got != "/home/ann\n" {
		t.Errorf("exec: HOME is %q", got)
	}
	check(t, c.Delete(true))
	if got := <-out.done; got != "/root\n" {
		t.Errorf("HOME is %q", got)
	}
}

// What cannot be executed is told by create, not by start.
func TestNotExecutable(t *testing.T) {
	b := newBox(t, "/etc/data")
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/data"), []byte("#!/bin/sh\n"), 0o644))
	c, _, err := b.create()
	if err == nil {
		c.Delete(true)
	}
	if !errdef.Is(err, errdef.Forbidden) || !strings.Contains(err.Error(), `exec: "/etc/data": permission denied`) {
		t.Errorf("%v", err)
	}
}
