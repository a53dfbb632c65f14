package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// host is the machine of all goldens: two CPUs, no CAP_SYS_RESOURCE.
func host() Host {
	var caps []string
	for _, c := range knownCaps() {
		if c != "CAP_SYS_RESOURCE" {
			caps = append(caps, c)
		}
	}
	return Host{
		NCPU: 2, SwapLimit: true, Caps: caps, Rlimits: map[string]uint64{"RLIMIT_NOFILE": 20000}, CgroupParent: "/dhow/0123456789ab",
		Devices:    map[string][]specs.LinuxDevice{"/dev/fuse": {{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}, "/dev/sda": {{Path: "/dev/sda", Type: "b", Major: 8}}},
		AllDevices: []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/sda", Type: "b", Major: 8}},
		SeccompProfile: func(profile []byte, _ []string) (*specs.LinuxSeccomp, error) {
			return seccomp.Parse(profile, seccomp.Host{Arch: "amd64"})
		},
		Seccomp: func([]string) *specs.LinuxSeccomp { return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno} },
	}
}

// TestGolden builds each testdata/*.txtar: request.json and, where there, image.json, user.json and mounts.json in; spec.json and why.json, or error, out.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var keep []txtar.File
			got := golden(t, a, &keep)
			next := &txtar.Archive{Comment: a.Comment, Files: append(keep, got...)}
			if *update {
				if err := os.WriteFile(f, txtar.Format(next), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want, have := txtar.Format(a), txtar.Format(next); !bytes.Equal(want, have) {
				t.Errorf("differs from %s (-update rewrites it):\n%s", f, have)
			}
		})
	}
}

func golden(t *testing.T, a *txtar.Archive, keep *[]txtar.File) []txtar.File {
	var req container.CreateRequest
	var img dockerspec.DockerOCIImageConfig
	in := Input{Host: host(), User: User{Home: "/root"}, HostsFile: "/d/hosts", HostnameFile: "/d/hostname", ResolvConf: "/d/resolv.conf"}
	in.Namespaces = map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "/proc/self/fd/3", specs.PIDNamespace: "/proc/77/ns/pid"}
	var mounts []api.Mount
	for _, f := range a.Files {
		into := map[string]any{"request.json": &req, "image.json": &img, "user.json": &in.User, "mounts.json": &mounts}[f.Name]
		if into == nil {
			continue
		}
		*keep = append(*keep, f)
		if err := json.Unmarshal(f.Data, into); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	failed := func(err error) []txtar.File { return []txtar.File{{Name: "error", Data: []byte(err.Error() + "\n")}} }
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	c, from, err := Merge(req.Config, img)
	if err != nil {
		return failed(err)
	}
	path, args, err := Command(c)
	if err != nil {
		return failed(err)
	}
	in.Hostname = "box"
	in.Container = &api.Container{ID: strings.Repeat("c0ffee00", 8), Path: path, Args: args, Config: c, HostConfig: req.HostConfig, FromImage: from, Mounts: mounts}
	out, err := Build(in)
	if err != nil {
		return failed(err)
	}
	files := []txtar.File{{Name: "spec.json", Data: indent(t, out.Spec)}, {Name: "why.json", Data: indent(t, out.Why)}}
	if len(out.Warnings) > 0 {
		files = append(files, txtar.File{Name: "warnings", Data: []byte(strings.Join(out.Warnings, "\n") + "\n")})
	}
	return files
}

func indent(t *testing.T, v any) []byte {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// TestUnsupported: every field that is not carried out is refused by its name.
func TestUnsupported(t *testing.T) {
	yes := true
	for name, h := range map[string]container.HostConfig{
		"HostConfig.Init":            {Init: &yes},
		"HostConfig.Links":           {Links: []string{"a:b"}},
		"HostConfig.StorageOpt":      {StorageOpt: map[string]string{"size": "1g"}},
		"HostConfig.Cgroup ":         {Cgroup: "container:x"},
		"HostConfig.VolumeDriver":    {VolumeDriver: "nfs"},
		"HostConfig.DeviceRequests":  {Resources: container.Resources{DeviceRequests: []container.DeviceRequest{{Count: 1}}}},
		"HostConfig.IpcMode":         {IpcMode: "shareable"},
		"HostConfig limits for":      {Resources: container.Resources{CPUCount: 2}},
		"HostConfig.SecurityOpt[0]":  {SecurityOpt: []string{"label=type:x"}},
		"HostConfig.UsernsMode":      {UsernsMode: "keep-id"},
		"unknown or invalid runtime": {Runtime: "kata"},
	} {
		in := Input{Host: host(), Container: &api.Container{ID: strings.Repeat("a", 64), Path: "x", Config: &container.Config{}, HostConfig: &h}}
		if _, err := Build(in); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMergeEnv(f *testing.F) {
	f.Add("A=1", "A=2", "B")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		out := mergeEnv([]string{a}, []string{b, c})
		seen := map[string]bool{}
		for _, e := range out {
			name, _, _ := strings.Cut(e, "=")
			if seen[name] {
				t.Fatalf("%q twice in %q", name, out)
			}
			seen[name] = true
		}
	})
}
