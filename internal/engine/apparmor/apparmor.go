// Package apparmor owns the default AppArmor profile of containers and its way into the kernel.
//
// It promises that a profile is loaded once, by apparmor_parser, and that what the parser reads is text of this package alone. It must never
// load a profile that came from a container, an image or a request: those name profiles that the administrator has loaded.
package apparmor

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/probe"
)

// Default is the name of the profile that containers get unless they ask for another.
const Default = "dhow-default"

// Unconfined is the profile of who has none.
const Unconfined = "unconfined"

//go:embed profile
var profile string

// loaded lists the kernel's profiles, one a line: name (mode).
const loaded = "/sys/kernel/security/apparmor/profiles"

// Enabled tells whether this machine has AppArmor.
func Enabled() bool { return probe.Has(probe.AppArmor) }

// Usable returns the name of the default profile, or "" and why containers cannot have it here.
func Usable() (name, why string) {
	if why := probe.WhyNot(probe.AppArmor); why != "" {
		return "", why
	}
	if _, err := parser(); err != nil {
		return "", err.Error()
	}
	return Default, ""
}

func parser() (string, error) {
	if p, err := exec.LookPath("apparmor_parser"); err == nil {
		return p, nil
	}
	for _, p := range []string{"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", errdef.New(errdef.NotImplemented, "apparmor_parser is not installed (Debian package apparmor)")
}

// Loader loads the default profile when it is first needed. Its zero value is ready, for several goroutines.
type Loader struct{ mu sync.Mutex }

// Ensure loads the default profile unless the kernel has one of that name: an administrator's own of that name counts.
func (l *Loader) Ensure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if has(Default) {
		return nil
	}
	if err := load(profile); err != nil {
		return errdef.New(errdef.System, "AppArmor profile %s: %w; --security-opt apparmor=unconfined does without", Default, err)
	}
	return nil
}

func has(name string) bool {
	b, err := os.ReadFile(loaded)
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, name+" (") {
			return true
		}
	}
	return false
}

func load(text string, flags ...string) error {
	path, err := parser()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, append([]string{"--replace", "--skip-cache"}, flags...)...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin = strings.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apparmor_parser: %w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
