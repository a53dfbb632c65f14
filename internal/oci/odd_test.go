package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Configs that are well-formed and cannot be had: the error names field, object and what to do, and nothing is left (box.leaks).
func TestOddConfigs(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		mounts []specs.Mount
		want   string
	}{
		"file over a folder":      {mounts: []specs.Mount{mount("/mnt", "/etc/hostname", "bind")}, want: "move_mount bind /etc/hostname to /mnt: invalid argument (a folder can be mounted on folders, anything else on what is no folder)"},
		"folder over a file":      {mounts: []specs.Mount{mount("/etc/f", "/etc", "bind")}, want: "a folder can be mounted on folders"},
		"option of no tmpfs":      {mounts: []specs.Mount{tmpfs("/mnt", "nosuch")}, want: `fsconfig mount tmpfs on /mnt: option "nosuch": invalid argument`},
		"value of no size":        {mounts: []specs.Mount{tmpfs("/mnt", "size=abc")}, want: `option "size" "abc": invalid argument`},
		"root is a file":          {config: `{"root":{"path":"rootfs/etc/f"}}`, want: "root.path: openat root file system: not a directory"},
		"root is not there":       {config: `{"root":{"path":"none"}}`, want: "root.path: openat root file system: no such file or directory"},
		"terminal without devpts": {config: `{"process":{"terminal":true},"mounts":[]}`, want: "process.terminal: openat2 dev/pts/ptmx: no such file or directory (a terminal needs a devpts, mounted on /dev/pts)"},
		"tiny memory":             {config: `{"linux":{"resources":{"memory":{"limit":4096}}}}`, want: "is its memory limit too small?"},
		"too many files":          {config: `{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","soft":2000000000,"hard":2000000000}]}}`, want: "of open files none is above fs.nr_open"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/f"), nil, 0o644))
			if c.config != "" {
				b.set(c.config)
			}
			b.spec.Mounts = append(b.spec.Mounts, c.mounts...)
			made, out, err := b.create()
			if err == nil { // a limit may strike at start only
				err = made.Start()
				check(t, made.Delete(true))
				wait(t, made.Init())
			}
			<-out.done
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	b := newBox(t)
	b.inUserNamespace()
	b.set(`{"process":{"user":{"uid":70000,"gid":0}}}`)
	c, out, err := b.create()
	if err == nil {
		err = c.Start()
		check(t, c.Delete(true))
	}
	<-out.done
	if err == nil || !strings.Contains(err.Error(), "process.user: setresuid: invalid argument (are these IDs mapped") {
		t.Errorf("a user that is not mapped: %v", err)
	}
}

// A filter that refuses to write and to exit: what cannot be executed ends all the same.
func TestFilterRefusesExit(t *testing.T) {
	b := newBox(t, "/etc/garbage")
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/garbage"), []byte("\x7f garbage"), 0o755))
	b.set(`{"process":{"noNewPrivileges":true},"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["write","exit","exit_group"],"action":"SCMP_ACT_ERRNO"}]}}}`)
	c, out, err := b.create()
	check(t, err)
	if err := c.Start(); err != nil {
		t.Errorf("start: %v", err) // nobody could tell
	}
	if code := wait(t, c.Init()); code != 139 {
		t.Errorf("exit code %d", code)
	}
	<-out.done
	check(t, c.Delete(false))
}

// A hook that leaves somebody behind who holds its output has done well.
func TestHookLeavesProcess(t *testing.T) {
	b := newBox(t)
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 3 & echo started"}}}}
	if out, code := b.run(); code != 0 {
		t.Errorf("code %d: %s", code, out)
	}
}
