package facts

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

func TestHome(t *testing.T) {
	root := t.TempDir()
	etc := filepath.Join(root, "etc")
	passwd := filepath.Join(etc, "passwd")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	home := func(uid uint32, env ...string) string {
		s := &bundle.Spec{Process: &specs.Process{Env: env}}
		s.Process.User.UID = uid
		return Home("", root, s)
	}
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("home %q, want %q", got, want)
		}
	}
	is(home(0), "/")
	if err := os.WriteFile(passwd, []byte("broken\nroot:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::relative:/bin/sh\nann:x:1000:1000::/home/ann\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	is(home(0), "/root")
	is(home(0, "HOME="), "/root")
	is(home(0, "HOME=/else"), "")
	is(home(1000), "/home/ann") // a relative folder is none
	is(home(7), "/")
	mounted := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(mounted, []byte("me:x:7:7::/mine:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &bundle.Spec{Process: &specs.Process{User: specs.User{UID: 7}}, Mounts: []specs.Mount{{Destination: "/etc/passwd", Source: mounted, Options: []string{"ro"}}}}
	is(Home("", root, s), "/") // no bind: a file system of some type
	s.Mounts[0].Options = []string{"bind"}
	is(Home("", root, s), "/mine")
	s.Mounts[0].Source = "passwd" // relative: below the bundle
	is(Home(filepath.Dir(mounted), root, s), "/mine")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Mounts[0].Source = fifo
	is(Home("", root, s), "/")
	for name, make := range map[string]func() error{ // what an image may put there instead
		"link out": func() error { return os.Symlink(mounted, passwd) },
		"FIFO":     func() error { return syscall.Mkfifo(passwd, 0o644) },
		"folder":   func() error { return os.Mkdir(passwd, 0o755) },
		"huge":     func() error { return os.WriteFile(passwd, []byte("me:x:7:7::/mine:/bin/sh\n"), 0o644) },
	} {
		os.Remove(passwd)
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if name == "huge" {
			if err := os.Truncate(passwd, maxPasswd+1); err != nil {
				t.Fatal(err)
			}
		}
		if got := home(7); got != "/" {
			t.Errorf("%s: home %q", name, got)
		}
	}
}
