package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// A profile that the kernel does not take fails the container, however the image's /proc looks: the write goes to the kernel or nowhere
// (CVE-2019-16884, CVE-2025-52881). On a kernel with AppArmor the profile is unknown, on one without nobody takes it.
func TestProfileIsNeverLost(t *testing.T) {
	b := newBox(t, "true")
	b.spec.Process.ApparmorProfile = "dhow-test-no-such-profile"
	fake := filepath.Join(b.rootfs(), "fake/thread-self/attr/apparmor")
	check(t, os.MkdirAll(fake, 0o755))
	check(t, os.WriteFile(filepath.Join(fake, "exec"), nil, 0o666))
	check(t, os.Remove(filepath.Join(b.rootfs(), "proc")))
	check(t, os.Symlink("/fake", filepath.Join(b.rootfs(), "proc")))
	b.spec.Mounts = b.spec.Mounts[1:] // no /proc of its own
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = nil, nil
	check(t, bundle.Save(b.dir, b.spec, nil))
	enabled := func() (compile.Facts, error) {
		f, err := facts.Host(nil).Read(b.dir, &bundle.Spec{})
		return f, err
	}
	o := CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Host: enabled}
	if !probe.Has(probe.AppArmor) {
		_, err := Create(o)
		if !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), "process.apparmorProfile") || !strings.Contains(err.Error(), "not enabled") {
			t.Errorf("without AppArmor: %v", err)
		}
	}
	in, done, err := input(&o, "")
	check(t, err)
	defer done()
	in.Facts.AppArmor = true
	_, err = createFrom(o, in)
	if err == nil || !strings.Contains(err.Error(), "process.apparmorProfile: write profile dhow-test-no-such-profile") {
		t.Errorf("with an unknown profile: %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(fake, "exec")); len(got) > 0 {
		t.Errorf("the profile went into a file of the image: %q", got)
	}
}

func createFrom(o CreateOptions, in compile.Input) (*Container, error) {
	p, err := compile.Compile(in)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Root, o.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c := &Container{root: o.Root, spec: o.Spec, program: p}
	return c, c.make(&o, in, dir, nil)
}

// With AppArmor: a profile that forbids writing below /tmp is in force for the container's process and for exec.
func TestAppArmorProfile(t *testing.T) {
	if why := probe.WhyNot(probe.AppArmor); why != "" {
		t.Skip(why)
	}
	const name = "dhow-test-profile"
	loadProfile(t, name, "profile "+name+" flags=(attach_disconnected) {\n  file,\n  capability,\n  signal,\n  ptrace,\n  deny /tmp/** w,\n}\n")
	script := "cat /proc/self/attr/current; touch /mnt/allowed && echo one; touch /tmp/denied || echo refused"
	b := newBox(t, "sh", "-c", script)
	b.spec.Process.ApparmorProfile, b.spec.Process.NoNewPrivileges = name, true
	out, _ := b.run()
	if !strings.HasPrefix(out, name+" (enforce)\none\n") || !strings.HasSuffix(out, "refused\n") {
		t.Errorf("run: %q", out)
	}
	e := newBox(t)
	e.spec.Process.ApparmorProfile = name
	c := e.sleeping()
	w := newOutput(t)
	p := *e.spec.Process
	p.Args = []string{"sh", "-c", script}
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, w.w, w.w}})
	check(t, err)
	w.w.Close()
	wait(t, proc)
	if got := <-w.done; !strings.HasPrefix(got, name+" (enforce)\n") || !strings.HasSuffix(got, "refused\n") {
		t.Errorf("exec: %q", got)
	}
	out2 := newOutput(t) // one that names no profile is confined all the same
	proc, err = c.Exec(ExecOptions{Process: &specs.Process{Args: []string{"cat", "/proc/self/attr/current"}, Cwd: "/", Env: p.Env}, Stdio: [3]*os.File{nil, out2.w, out2.w}})
	check(t, err)
	out2.w.Close()
	wait(t, proc)
	if got := <-out2.done; got != name+" (enforce)\n" {
		t.Errorf("exec without a profile of its own runs as %q", got)
	}
	p.ApparmorProfile = "dhow-test-no-such-profile"
	if _, err := c.Exec(ExecOptions{Process: &p}); err == nil || !strings.Contains(err.Error(), "apparmor_parser") {
		t.Errorf("exec with an unknown profile: %v", err)
	}
}

func loadProfile(t *testing.T, name, text string) {
	t.Helper()
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skip("apparmor_parser (Debian package apparmor) is not installed")
	}
	do := func(flag string) {
		cmd := exec.Command(parser, flag, "--skip-cache")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apparmor_parser %s: %v: %s", flag, err, out)
		}
	}
	do("--replace")
	t.Cleanup(func() { do("--remove") })
}
