package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// However many mounts and paths there are, few descriptors are open at a time.
func TestManyMountsFewDescriptors(t *testing.T) {
	b := newBox(t, "sh", "-c", "grep -c /many/ /proc/self/mountinfo; cat /many/f/7; touch /many/r/499/x /many/b/499/x")
	for i := range 500 {
		in := func(kind string) string { return fmt.Sprintf("/many/%s/%d", kind, i) }
		for _, kind := range []string{"r", "d"} {
			check(t, os.MkdirAll(filepath.Join(b.rootfs(), in(kind)), 0o755))
		}
		check(t, os.MkdirAll(filepath.Join(b.rootfs(), "many/f"), 0o755))
		check(t, os.WriteFile(filepath.Join(b.rootfs(), in("f")), []byte("seen"), 0o644))
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: in("t"), Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: in("b"), Type: "bind", Source: b.rootfs() + in("d"), Options: []string{"bind", "ro"}})
		b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, in("f"), in("d"))
		b.spec.Linux.ReadonlyPaths = append(b.spec.Linux.ReadonlyPaths, in("r"))
	}
	check(t, bundle.Save(b.dir, b.spec, nil))
	cmd := exec.Command("/bin/sh", "-c", `ulimit -n 100; exec "$0" "$@"`, buildRuntime(t), "--root", b.root, "run", "-b", b.dir, b.id)
	out, _ := cmd.CombinedOutput()
	if want := "2500\ntouch: /many/r/499/x: Read-only file system\ntouch: /many/b/499/x: Read-only file system\n"; strings.TrimSpace(string(out)) != strings.TrimSpace(want) {
		t.Errorf("%s\nwant:\n%s", out, want)
	}
}
