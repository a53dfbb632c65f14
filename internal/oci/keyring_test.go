package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/state"
)

// aside runs f in a thread of its own, whose keyrings nobody else uses.
func aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends
		f()
	}()
	<-done
}

// sessionKeys is a command that prints the names of the session keyrings that a process inside sees: its own.
const sessionKeys = `grep -o '_ses\.dhow-test-[0-9a-f]*\.[^:]*' /proc/keys`

// Class I: a process of the same user that knows a container's ID neither enters its session keyring nor makes it enter another.
func TestKeyringOutOfReach(t *testing.T) {
	b := newBox(t)
	b.spec.Linux.MaskedPaths = nil
	const open = 0x3f3f3f3f
	var planted string
	aside(func() { // made before the container: a keyring by the name that other runtimes use
		id, err := unix.KeyctlJoinSessionKeyring("_ses." + b.id)
		check(t, err)
		check(t, unix.KeyctlSetperm(id, open))
		planted = fmt.Sprintf("%08x", id)
	})
	c := b.sleeping()
	inside := b.shell(c, nil, "grep '_ses."+b.id+"[.]' /proc/keys; true")
	if strings.HasPrefix(inside, planted) || strings.Count(inside, "_ses."+b.id+".") != 1 {
		t.Errorf("the container's session keyrings: %q; planted: %s", inside, planted)
	}
	id, _, _ := strings.Cut(inside, " ")
	var serial int
	_, err := fmt.Sscanf(id, "%x", &serial)
	check(t, err)
	aside(func() { // as another container's root would
		_, err := unix.KeyctlJoinSessionKeyring("dhow-test-of-another")
		check(t, err)
		keys, err := os.ReadFile("/proc/keys")
		check(t, err)
		if strings.Contains(string(keys), id) {
			t.Error("others see the container's session keyring")
		}
		for name, call := range map[string]func() error{
			"describe": func() error { _, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, serial); return err },
			"read":     func() error { _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, serial, make([]byte, 64), 0); return err },
			"link": func() error {
				_, err := unix.KeyctlInt(unix.KEYCTL_LINK, serial, unix.KEY_SPEC_SESSION_KEYRING, 0, 0)
				return err
			},
			"add":     func() error { _, err := unix.AddKey("user", "x", []byte("y"), serial); return err },
			"setperm": func() error { return unix.KeyctlSetperm(serial, open) },
		} {
			if err := call(); err == nil {
				t.Errorf("others may %s the container's session keyring", name)
			}
		}
		if now, err := unix.KeyctlJoinSessionKeyring("_ses." + b.id); err != nil || now == serial {
			t.Errorf("joined by the container's ID: %x (%v)", now, err)
		}
	})
}

// The processes of a container share one session keyring, in a user namespace as well; without one of its own they stay in the caller's.
func TestKeyring(t *testing.T) {
	for name, prepare := range map[string]func(b *box){
		"plain":          func(*box) {},
		"user namespace": func(b *box) { b.inUserNamespace() },
		"other user":     func(b *box) { b.spec.Process.User.UID = 1234 },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "sh", "-c", sessionKeys+" > /tmp/keys; sleep 1000")
			check(t, os.Chmod(filepath.Join(b.rootfs(), "tmp"), 0o777))
			b.spec.Linux.MaskedPaths = nil
			prepare(b)
			c := b.sleepingAs()
			exec := b.shell(c, nil, "while ! [ -s /tmp/keys ]; do :; done; "+sessionKeys+"; cat /tmp/keys")
			f := strings.Fields(exec)
			if len(f) != 2 || f[0] != f[1] || !regexp.MustCompile(`^_ses\.`+b.id+`\.[0-9a-f]{32}$`).MatchString(f[0]) {
				t.Errorf("exec is in, and init: %q", f)
			}
		})
	}
	b := newBox(t, "sh", "-c", sessionKeys)
	b.spec.Linux.MaskedPaths, b.noKeyring = nil, true
	if out, _ := b.run(); strings.Contains(out, b.id) {
		t.Errorf("without a keyring of its own: %q", out)
	}
	if k := keyringOf(&state.State{ID: "x"}); k != "_ses.x" {
		t.Errorf("the keyring of an earlier version is %q", k)
	}
}
