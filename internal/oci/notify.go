package oci

import (
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// notifyTarget is where a container finds the folder of the socket that its NOTIFY_SOCKET names, as with runc.
const notifyTarget = "/run/notify"

func notifyFolder(o *CreateOptions, dir string) string {
	if !o.Notify {
		return ""
	}
	return filepath.Join(dir, state.Notify)
}

// withNotify returns a config that also has the folder mounted and the variable set.
func withNotify(s *bundle.Spec, folder string) *bundle.Spec {
	out := *s
	out.Mounts = append(append([]specs.Mount(nil), s.Mounts...), specs.Mount{Destination: notifyTarget, Source: folder, Type: "bind",
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}})
	if s.Process != nil {
		p := *s.Process
		p.Env = append(append([]string(nil), p.Env...), "NOTIFY_SOCKET="+notifyTarget+"/notify.sock")
		out.Process = &p
	}
	return &out
}
