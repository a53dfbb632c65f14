package e2e

import (
	"bytes"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestHostileConfigs is torture case 42: what an image's configuration says, by every way it comes in, has no effect on the host, and a
// container of it runs or is refused with a reason.
func TestHostileConfigs(t *testing.T) {
	t.Parallel()
	g := newGauntlet(t)
	base := registry.BusyboxTar(t)
	links := registry.Tar(t, registry.Link("out", g.canary), registry.Link("up", strings.Repeat("../", 30)+g.canary[1:]))
	memory := g.memory(t)
	for _, c := range []struct {
		name   string
		edit   func(c *dockerspec.DockerOCIImageConfig)
		change string // the same for import and commit; "" where they have no word for it
		args   string
		want   string // in what run says: a reason when it fails
		code   int
	}{
		{"user beyond 32 bits", func(c *dockerspec.DockerOCIImageConfig) { c.User = "4294967296" }, "USER 4294967296", "true", "4294967296", 125},
		{"user that climbs", func(c *dockerspec.DockerOCIImageConfig) { c.User = "../../etc" }, "USER ../../etc", "true", "unable to find user", 125},
		{"working folder through a link", func(c *dockerspec.DockerOCIImageConfig) { c.WorkingDir = "/out/new" }, "WORKDIR /out/new", "pwd", "", -1},
		{"working folder through a climbing link", func(c *dockerspec.DockerOCIImageConfig) { c.WorkingDir = "/up/new" }, "WORKDIR /up/new", "pwd", "", -1},
		{"volume that climbs", func(c *dockerspec.DockerOCIImageConfig) { c.Volumes = map[string]struct{}{"/../../etc": {}} }, "VOLUME /../../etc", "true", "", -1},
		{"volume over a link", func(c *dockerspec.DockerOCIImageConfig) { c.Volumes = map[string]struct{}{"/out": {}} }, "VOLUME /out", "touch /out/canary", "", -1},
		{"volume over /proc", func(c *dockerspec.DockerOCIImageConfig) { c.Volumes = map[string]struct{}{"/proc": {}} }, "VOLUME /proc", "true", "", -1},
		{"volume over the root", func(c *dockerspec.DockerOCIImageConfig) { c.Volumes = map[string]struct{}{"/": {}} }, "VOLUME /", "true", "", -1},
		{"labels that mean something elsewhere", func(c *dockerspec.DockerOCIImageConfig) {
			c.Labels = map[string]string{"io.containerd.runc.v2.group": "x", "io.kubernetes.cri-o.LogPath": g.canary + "/canary", "com.docker.swarm.id": "x"}
		}, "LABEL io.kubernetes.cri-o.LogPath=" + g.canary + "/canary", "echo written", "written", 0},
		{"a bare name in the environment", func(c *dockerspec.DockerOCIImageConfig) { c.Env = append(c.Env, "DOCKER_HOST", "TMPDIR") }, "", "env", "", 0},
		{"a line end in the environment", func(c *dockerspec.DockerOCIImageConfig) { c.Env = append(c.Env, "HOME=/\nroot::0:0::/:/bin/sh") }, "", "cat /etc/passwd", "nobody", 0},
		{"no entry point", func(c *dockerspec.DockerOCIImageConfig) { c.Entrypoint = nil; c.Cmd = nil }, "", "", "", -1},
		{"an empty entry point", func(c *dockerspec.DockerOCIImageConfig) { c.Entrypoint = []string{""} }, `ENTRYPOINT [""]`, "true", "", -1},
		{"a stop signal", func(c *dockerspec.DockerOCIImageConfig) { c.StopSignal = "SIGNONSENSE" }, "", "true", "", -1},
		{"ports", func(c *dockerspec.DockerOCIImageConfig) {
			c.ExposedPorts = map[string]struct{}{"99999/tcp": {}, "x/../y": {}}
		}, "", "true", "", -1},
	} {
		for way, make := range map[string]func() bool{
			"pull": func() bool {
				img := registry.Build(t, registry.Spec{Tars: [][]byte{base, links}, Edit: func(i *dockerspec.DockerOCIImage, _ *ocispec.Manifest) { c.edit(&i.Config) }})
				g.h.Serve("config:1", img)
				r := g.Dhow("pull", "-q", hostileAddr+"/config:1")
				if r.Code != 0 {
					t.Logf("%s: pull: %s", c.name, last(r.Err, 1))
					return false
				}
				g.Dhow("tag", hostileAddr+"/config:1", "config:1").OK()
				g.Dhow("rmi", hostileAddr+"/config:1").OK()
				return true
			},
			"load": func() bool {
				img := registry.Build(t, registry.Spec{Compress: "none", Tars: [][]byte{base, links}, Edit: func(i *dockerspec.DockerOCIImage, _ *ocispec.Manifest) { c.edit(&i.Config) }})
				code, text := g.post(t, "/images/load?quiet=1", bytes.NewReader(registry.Tar(t, registry.Archive(t, img, "config:1")...)))
				return code == 200 && !strings.Contains(text, `"error"`)
			},
			"import": func() bool {
				code, text := g.post(t, "/images/create?fromSrc=-&repo=config&tag=1&changes="+url.QueryEscape(c.change), bytes.NewReader(base))
				return code == 200 && !strings.Contains(text, `"error"`)
			},
			"commit": func() bool { return g.Dhow("commit", "-c", c.change, "running", "config:1").Code == 0 },
		} {
			if c.change == "" && (way == "import" || way == "commit") {
				continue
			}
			if !make() {
				continue // refused: nothing can come of it
			}
			start := time.Now()
			r := g.Dhow(append([]string{"run", "--rm", "config:1"}, strings.Fields(c.args)...)...)
			if d := time.Since(start); d > patience.Of(5*time.Second) {
				t.Errorf("%s: %s: took %s", c.name, way, d)
			}
			out := r.Out + r.Err
			if c.code >= 0 && r.Code != c.code || !strings.Contains(out, c.want) || r.Code != 0 && r.Err == "" || strings.Contains(out, "panic") {
				t.Errorf("%s: %s: exit code %d: %s", c.name, way, r.Code, out)
			}
			if strings.Contains(out, "sock") || strings.Contains(out, "alive") {
				t.Errorf("%s: %s: the host shows: %s", c.name, way, out)
			}
			g.sings(c.name + ": " + way)
			g.Dhow("rmi", "config:1").OK()
		}
	}
	huge := registry.Build(t, registry.Spec{Tars: [][]byte{base}, Edit: func(i *dockerspec.DockerOCIImage, _ *ocispec.Manifest) {
		i.Config.Env = []string{"A=" + strings.Repeat("x", 100<<20)}
	}})
	g.h.Serve("config:1", huge)
	g.Dhow("pull", "-q", hostileAddr+"/config:1").Fails(1, "4194304")
	if code, text := g.post(t, "/images/load", bytes.NewReader(registry.Tar(t, registry.Archive(t, huge, "config:1")...))); code < 400 && !strings.Contains(text, "documents may have 4194304") {
		t.Errorf("load of a configuration of 100 MiB: %d %s", code, text)
	}
	if grown := g.memory(t) - memory; grown > 64<<20 {
		t.Errorf("the engine grew by %d MiB", grown>>20)
	}
	if _, err := os.Stat(g.canary + "/new"); err == nil {
		t.Error("a folder was made on the host")
	}
	g.Dhow("rm", "-f", "running").OK()
	g.Dhow("volume", "prune", "-af").OK()
}
