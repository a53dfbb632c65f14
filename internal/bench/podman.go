package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// podmanHelpers is where podman finds the programs that it starts for a network.
const podmanHelpers = "/usr/lib/podman:/usr/libexec/podman"

// podmanSearch adds the cache folder.
func podmanSearch(cache string) string {
	return podmanHelpers + ":" + filepath.Join(cache, "root/usr/lib/podman")
}

// ownPlaces are where podman keeps what does not depend on --root: the state of crun and network namespaces, the locks of all containers,
// a cache of what registries hold. An installed podman must keep its own.
func ownPlaces() []string { return []string{"/run", "/dev/shm", "/var/lib/containers"} }

// startPodman makes a client of podman. Podman has no engine: each command does the work itself and leaves a conmon with every
// container. A helper spawns the commands in a mount namespace where the folders of ownPlaces are empty.
func (b *bench) startPodman() (*client, error) {
	path, err := exec.LookPath("podman")
	if err != nil {
		return nil, errors.New("not installed")
	}
	runtime := find("crun", os.Getenv("PATH")) // as Debian's podman chooses
	if runtime == "" {
		runtime = find("runc", os.Getenv("PATH"))
	}
	if runtime == "" {
		return nil, errors.New("podman needs crun or runc, and neither is installed")
	}
	for _, p := range []string{"conmon", "netavark"} {
		if find(p, podmanSearch(b.Cache)+":"+os.Getenv("PATH")) == "" {
			return nil, fmt.Errorf("podman needs %s, which is not installed", p)
		}
	}
	b.report.Programs = append(b.report.Programs, version(path, "--version")+" with "+filepath.Base(runtime))
	h, err := b.newHost("podman")
	if err != nil {
		return nil, err
	}
	env, err := h.configurePodman(runtime, podmanSearch(b.Cache))
	if err != nil {
		return nil, err
	}
	place := surroundings{Fresh: ownPlaces()}
	if hybrid() {
		place.Without = []string{unified}
	}
	for _, p := range place.Fresh {
		if err := os.Mkdir(p, 0o755); err == nil {
			b.onEnd(func() { os.Remove(p) }) // empty still, unless somebody else began to use it
		} else if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	b.onEnd(func() { h.killConmons(); removeCgroups(cgroupTop + "/podman") })
	s, err := b.helper(place, h.netns)
	if err != nil {
		return nil, err
	}
	return &client{
		name: "podman", program: path, env: env, at: h, spawn: s,
		global: []string{"--root", h.dir + "/data", "--runroot", h.dir + "/run", "--tmpdir", h.dir + "/tmp", "--storage-driver", "overlay"},
		run:    []string{"--cgroup-parent", cgroupTop + "/podman"},
		remove: []string{"-f", "-t", "0"},
	}, nil
}

// configurePodman writes what podman has no flag for, and returns the environment that points at it. The files stand in the place of
// the machine's: logs and events go to files, as dhow's and docker's do.
func (h *host) configurePodman(runtime, helpers string) ([]string, error) {
	for _, d := range []string{"tmp", "networks"} {
		if err := os.Mkdir(filepath.Join(h.dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	engine := fmt.Sprintf(`[containers]
default_ulimits = ["nofile=1024:2048", "nproc=1024:2048"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = %q
helper_binaries_dir = ["%s"]
[network]
network_backend = "netavark"
network_config_dir = %q
`, runtime, strings.ReplaceAll(helpers, ":", `", "`), h.dir+"/networks")
	registries := fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n[[registry]]\nlocation = %q\ninsecure = true\n", registryAddr, fatAddr)
	for name, text := range map[string]string{"containers.conf": engine, "registries.conf": registries} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return []string{"CONTAINERS_CONF=" + h.dir + "/containers.conf", "CONTAINERS_REGISTRIES_CONF=" + h.dir + "/registries.conf"}, nil
}

// killConmons ends what podman could not remove, with what runs below it.
func (h *host) killConmons() {
	for _, conmon := range naming("conmon", h.dir) {
		for _, p := range tree(conmon) {
			unix.Kill(p, unix.SIGKILL)
		}
	}
}

// settle waits until podman's commands have ended: conmon starts one to clean up after its container, which would else run in the
// turn of the next contender.
func (c *client) settle() {
	if c.spawn == nil {
		return
	}
	for began := time.Now(); len(naming("podman", c.at.dir)) > 0 && time.Since(began) < 10*time.Second; {
		time.Sleep(5 * time.Millisecond)
	}
}
