package apparmor

import (
	"os"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/probe"
)

// The parser takes the profile. Nothing is loaded: that needs AppArmor in the kernel.
func TestProfileCompiles(t *testing.T) {
	if _, err := parser(); err != nil {
		t.Skip(err)
	}
	if err := load(profile, "--skip-kernel-load"); err != nil {
		t.Fatal(err)
	}
	if err := load("profile x { nonsense, }", "--skip-kernel-load"); err == nil || !strings.Contains(err.Error(), "apparmor_parser") {
		t.Errorf("a wrong profile: %v", err)
	}
}

func TestEnsure(t *testing.T) {
	if why := probe.WhyNot(probe.AppArmor); why != "" {
		if name, because := Usable(); name != "" || because == "" {
			t.Errorf("Usable: %q, %q", name, because)
		}
		t.Skip(why)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var l Loader
	for range 2 {
		if err := l.Ensure(); err != nil {
			t.Fatal(err)
		}
		if !has(Default) {
			t.Fatal("not loaded")
		}
	}
}
