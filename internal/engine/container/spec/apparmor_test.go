package spec

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/engine/api"
)

// Who gets which profile, and who asked for it.
func TestAppArmor(t *testing.T) {
	for _, tt := range []struct {
		name       string
		enabled    bool
		standard   string
		host       container.HostConfig
		want, why  string
		errorNamed string
	}{
		{name: "off", want: ""},
		{name: "off, unconfined", host: container.HostConfig{SecurityOpt: []string{"apparmor=unconfined"}}},
		{name: "off, named", host: container.HostConfig{SecurityOpt: []string{"apparmor=x"}}, errorNamed: "HostConfig.SecurityOpt[0]"},
		{name: "default", enabled: true, standard: "d", want: "d", why: Default},
		{name: "no parser", enabled: true, want: ""},
		{name: "no parser, named", enabled: true, host: container.HostConfig{SecurityOpt: []string{"apparmor:x"}}, want: "x", why: "flag --security-opt apparmor:x"},
		{name: "privileged", enabled: true, standard: "d", host: container.HostConfig{Privileged: true}, want: "unconfined", why: "flag --privileged"},
		{name: "privileged, named", enabled: true, standard: "d", host: container.HostConfig{Privileged: true, SecurityOpt: []string{"apparmor=x"}}, want: "x", why: "flag --security-opt apparmor=x"},
		{name: "unconfined", enabled: true, standard: "d", host: container.HostConfig{SecurityOpt: []string{"apparmor=unconfined"}}, want: "unconfined", why: "flag --security-opt apparmor=unconfined"},
		{name: "empty", enabled: true, standard: "d", host: container.HostConfig{SecurityOpt: []string{"apparmor="}}, errorNamed: "HostConfig.SecurityOpt[0]"},
	} {
		h := host()
		h.AppArmor, h.AppArmorProfile = tt.enabled, tt.standard
		out, err := Build(Input{Host: h, Container: &api.Container{ID: strings.Repeat("a", 64), Path: "x", Config: &container.Config{}, HostConfig: &tt.host}})
		if tt.errorNamed != "" {
			if err == nil || !strings.Contains(err.Error(), tt.errorNamed) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil || out.Spec.Process.ApparmorProfile != tt.want || out.Why["process.apparmorProfile"] != tt.why {
			t.Errorf("%s: profile %q because %q, %v; want %q because %q", tt.name, out.Spec.Process.ApparmorProfile, out.Why["process.apparmorProfile"], err, tt.want, tt.why)
		}
	}
}
