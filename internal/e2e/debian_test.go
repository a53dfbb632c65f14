package e2e

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// debianPrograms are dynamically linked programs of this machine, which make an image that behaves as debian:12 does.
var debianPrograms = []string{"/usr/bin/bash", "/usr/bin/cat", "/usr/bin/ls", "/usr/bin/id", "/usr/bin/stat", "/usr/bin/touch", "/usr/bin/rm", "/usr/bin/mkdir",
	"/usr/bin/chown", "/usr/bin/ln", "/usr/bin/mv", "/usr/bin/getent", "/usr/bin/find", "/usr/bin/perl", "/usr/bin/env", "/usr/bin/sleep", "/usr/bin/df"}

// debian builds an image of bash, coreutils and perl with the libraries that they name, in a merged /usr.
func debian(t *testing.T) *registry.Image {
	t.Helper()
	files := map[string]bool{"/etc/passwd": true, "/etc/group": true, "/etc/os-release": true, "/etc/nsswitch.conf": true}
	for _, p := range debianPrograms {
		out, err := exec.Command("ldd", p).Output()
		if err != nil {
			t.Skipf("this machine has no %s to copy: %v", p, err)
		}
		files[p] = true
		for _, lib := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
			files[lib[1]] = true
		}
	}
	var list []registry.File
	for _, d := range []string{"usr", "usr/bin", "usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu", "etc", "root", "proc", "dev", "sys", "var"} {
		list = append(list, registry.Dir(d))
	}
	for _, l := range []string{"bin", "lib", "lib64"} {
		list = append(list, registry.Link(l, "usr/"+l))
	}
	list = append(list, registry.File{Header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}}, registry.Link("usr/bin/sh", "bash"))
	for f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Skipf("this machine has no %s to copy: %v", f, err)
		}
		name := strings.TrimPrefix(f, "/")
		if !strings.HasPrefix(name, "usr/") && !strings.HasPrefix(name, "etc/") {
			name = "usr/" + name
		}
		list = append(list, registry.File{Header: tar.Header{Name: name, Mode: 0o755}, Body: b})
	}
	cfg := dockerspec.DockerOCIImageConfig{}
	cfg.Env, cfg.Cmd = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, []string{"bash"}
	return registry.Build(t, registry.Spec{Tars: [][]byte{registry.Tar(t, list...)}, Config: cfg, Docker: true})
}

// TestDynamicPrograms runs Debian's own programs: a dynamic linker, a merged /usr, the C library's look-ups, renames across layers.
func TestDynamicPrograms(t *testing.T) {
	t.Parallel()
	img := debian(t)
	w := start(t, "--insecure-registry", hostileAddr)
	ref := w.Hostile(hostileAddr).Serve("debian:12", img)
	ref = hostileAddr + ref[strings.Index(ref, "/"):]
	for script, want := range map[string]string{
		"id; getent hosts $(cat /etc/hostname) | cat >/dev/null; echo ok":                                            "uid=0(root) gid=0(root) groups=0(root)\nok",
		"mkdir /etc/new && mv /etc/os-release /etc/new/ && ls /etc/new && mv /usr/bin/df /tmp/ && ls /tmp":           "os-release\ndf",
		"touch /a; chown 12:34 /a; stat -c %u:%g /a; ln /a /b; stat -c %h /a; rm /a; stat -c %h /b":                  "12:34\n2\n1",
		"rm -rf /etc/nsswitch.conf; ls /etc/nsswitch.conf 2>/dev/null || echo gone":                                  "gone",
		`perl -e '$p = fork; if (!$p) { exit 3 } waitpid $p, 0; print $? >> 8, "\n"'`:                                "3",
		`perl -e 'socket(S, 2, 1, 0) or die; bind(S, pack("SnA4x8", 2, 80, "\0\0\0\0")) or die $!; print "bound\n"'`: "bound",
		"exec bash -lc 'echo $BASH_VERSION | cat >/dev/null; echo $((6*7)); ulimit -n | cat >/dev/null'":             "42",
	} {
		if got := w.Dhow("run", "--rm", ref, "bash", "-c", script).OK(); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	if got := w.Dhow("run", "--rm", "-u", "www-data", ref, "id", "-un").OK(); got != "www-data" {
		t.Errorf("a user of the image: %q", got)
	}
	if out := w.Dhow("run", "--rm", ref, filepath.Join("/usr/bin", "ls"), "/usr/bin/df", "/etc/nsswitch.conf").OK(); out != "/etc/nsswitch.conf\n/usr/bin/df" {
		t.Errorf("what others removed and moved in their layers: %q", out)
	}
}
