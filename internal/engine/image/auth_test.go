package image

import (
	"testing"

	"github.com/moby/moby/api/types/registry"
)

// TestCredentials: what was stored for one registry is given to that one only.
func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		server, name string
		given        bool
	}{
		{"https://index.docker.io/v1/", "busybox", true},
		{"https://index.docker.io/v1/", "docker.io/a/b:1", true},
		{"https://index.docker.io/v1/", "evil.example/a", false},
		{"registry.example:5000", "registry.example:5000/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000", true},
		{"registry.example:5000", "registry.example/a", false},
		{"registry.example", "busybox", false},
		{"", "registry.example/a", true}, // chosen for this very request
	} {
		got := credentials(&registry.AuthConfig{Username: "u", Password: "p", ServerAddress: c.server}, c.name)
		if (got != nil) != c.given {
			t.Errorf("%s for %s: given %v", c.server, c.name, got != nil)
		}
	}
	if credentials(nil, "busybox") != nil {
		t.Error("something from nothing")
	}
}
