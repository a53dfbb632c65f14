package peers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// engine is one of the peers: what it needs, and the shell that begins and ends it. The shell finds DIR (a folder of its own), RUNTIME,
// IMAGE (a docker archive of the image "box"), DRIVER (who makes cgroups: cgroupfs or systemd) and PARENT (a cgroup, or systemd's slice).
type engine struct {
	name   string
	needs  []string
	begin  string
	finish string
}

// common is the world that every engine starts in: nothing of the machine's own engines is in sight.
const common = `
ip link set lo up
RUN=/run # with the systemd driver it stays, for that is where systemd is found
[ "$DRIVER" = cgroupfs ] || RUN=
for d in $RUN /dev/shm /var/lib/containers /var/lib/docker /var/tmp; do [ ! -d $d ] || mount -t tmpfs tmpfs $d; done
mkdir -p /var/lib/cni /run/lock
cd "$DIR"
mkdir vol; echo data >vol/f
terminal() { seen "$@" || seen "$@"; } # twice for the same reason as run of containerd
seen() { script -qec "$*" /dev/null </dev/null | tr -d '\r\000' | sed 's/\^@//' | grep .; }
wait_for() { for _ in $(seq 100); do [ "$("${@:2}" 2>&1 | tr -d '\r')" != "$1" ] || return 0; sleep 0.05; done; "${@:2}"; return 1; }
`

func engines() []engine {
	return []engine{
		{name: "podman", needs: []string{"podman", "conmon"}, begin: `
cat >podman.conf <<END
[containers]
default_ulimits = ["nofile=512:1024", "nproc=1024:2048"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "$DRIVER"
events_logger = "file"
[network]
network_backend = "cni"
network_config_dir = "$DIR/networks"
END
export CONTAINERS_CONF=$DIR/podman.conf
E="podman --runtime $RUNTIME --storage-driver overlay --root $DIR/data --runroot /run/podman --tmpdir /run/podman-tmp"
e() { timeout $((60 * ${DHOW_TEST_SLOW:-1})) $E "$@"; }
run() { e run --network none --cgroup-parent "$PARENT" "$@"; }
podman --storage-driver overlay --root $DIR/data --runroot /run/podman --tmpdir /run/podman-tmp load -q -i "$IMAGE"
`, finish: `e rm -f -a -t 0 >/dev/null 2>&1; e rmi -f -a >/dev/null 2>&1`},
		{name: "docker", needs: []string{"dockerd", "containerd", "docker"}, begin: `
dockerd --data-root $DIR/data --exec-root /run/exec --pidfile /run/dockerd.pid -H unix:///run/peer.sock --iptables=false --ip6tables=false --bridge=none \
	--storage-driver overlay2 --log-level warn --cgroup-parent "$PARENT" --exec-opt native.cgroupdriver=$DRIVER --add-runtime dhow=$RUNTIME --default-runtime dhow >dockerd.log 2>&1 </dev/null &
ENGINE=$!
export DOCKER_HOST=unix:///run/peer.sock DOCKER_CONFIG=$DIR
E=docker
e() { timeout $((60 * ${DHOW_TEST_SLOW:-1})) $E "$@"; }
run() { e run --network none "$@"; }
for _ in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
docker load -q -i "$IMAGE" || cat dockerd.log
`, finish: `e rm -f $(e ps -aq) >/dev/null 2>&1; kill $ENGINE; wait $ENGINE`},
		{name: "containerd", needs: []string{"containerd", "ctr", "containerd-shim-runc-v2"}, begin: `
cat >containerd.toml <<END
version = 2
root = "$DIR/data"
state = "/run/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/peer.sock"
END
containerd -c containerd.toml >containerd.log 2>&1 </dev/null &
ENGINE=$!
E="ctr -a /run/peer.sock"
e() { timeout $((60 * ${DHOW_TEST_SLOW:-1})) $E "$@"; }
once() { e run --runc-binary "$RUNTIME" --cgroup "$PARENT/$RANDOM$RANDOM" "$@"; }
run() { # on a busy machine ctr may let go of the FIFOs of a task that ends at once before its shim has opened them: all output is lost
	case " $* " in *" -d "*) once "$@"; return;; esac
	for _ in 1 2 3; do once "$@" >said 2>&1; code=$?; [ ! -s said ] || break; done
	cat said; return $code
}
for _ in $(seq 300); do e version >/dev/null 2>&1 && break; sleep 0.1; done
e image import "$IMAGE" || cat containerd.log
status() { e task ls | awk '$1 == "'$1'" { print $3 }'; }
`, finish: `for c in $(e c ls -q); do e task rm -f $c; e c rm $c; done >/dev/null 2>&1; kill $ENGINE; wait $ENGINE`},
		{name: "buildah", needs: []string{"buildah"}, begin: `
E="buildah --storage-driver overlay --root $DIR/data --runroot /run/buildah"
e() { timeout $((60 * ${DHOW_TEST_SLOW:-1})) $E "$@"; }
run() { e run --runtime "$RUNTIME" --isolation oci --network none "$@"; }
C=$(e from docker-archive:"$IMAGE" 2>/dev/null)
`, finish: `e rm -a >/dev/null 2>&1; e rmi -a -f >/dev/null 2>&1`},
	}
}

// search is where programs are looked for: what hack/peers unpacked comes after what is installed.
func search(t *testing.T) string {
	root, err := filepath.Abs("../../.cache/peers/root")
	if err != nil {
		t.Fatal(err)
	}
	return os.Getenv("PATH") + ":" + root + "/usr/sbin:" + root + "/usr/bin:/usr/lib/podman:/usr/libexec/podman:/usr/sbin:/sbin:/opt/docker"
}

func find(name, path string) bool {
	for _, d := range filepath.SplitList(path) {
		if unix.Access(filepath.Join(d, name), unix.X_OK) == nil {
			return true
		}
	}
	return false
}

func TestEngines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("engines need root")
	}
	runtime := os.Getenv("DHOW_PEERS_RUNTIME") // to see what another runtime does
	if runtime == "" {
		runtime = filepath.Join(harness.Programs(t), "dhow-runtime")
	}
	image := archive(t)
	for _, g := range engines() {
		t.Run(g.name, func(t *testing.T) {
			path := search(t)
			need(t, g, path)
			t.Parallel()
			try(t, g, place{path: path, runtime: runtime, image: image, driver: "cgroupfs"}, g.name)
		})
	}
}

// Where systemd runs, engines have it make the cgroups.
func TestSystemdDriver(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes in an emulated machine")
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("systemd does not run here (hack/vm has a machine where it does)")
	}
	runtime := os.Getenv("DHOW_PEERS_RUNTIME")
	if runtime == "" {
		runtime = filepath.Join(harness.Programs(t), "dhow-runtime")
	}
	image := archive(t)
	for _, g := range engines()[:2] {
		t.Run(g.name, func(t *testing.T) {
			path := search(t)
			need(t, g, path)
			try(t, g, place{path: path, runtime: runtime, image: image, driver: "systemd"}, g.name+"-systemd")
		})
	}
}

func need(t *testing.T, g engine, path string) {
	for _, p := range append([]string{"unshare", "script", "ip"}, g.needs...) {
		if !find(p, path) {
			t.Skipf("%s is not installed (make needs)", p)
		}
	}
}

// place is where an engine is tried: with which programs, image and maker of cgroups.
type place struct{ path, runtime, image, driver string }

// step is a command of a script and what must come of it.
type step struct {
	line    int
	command string
	want    []string // patterns, one a line
	code    int
}

// try runs a script in one shell, which puts output and exit code of each step into files, and compares.
func try(t *testing.T, g engine, at place, script string) {
	steps := parse(t, filepath.Join("testdata", script+".script"))
	dir := t.TempDir()
	parent := fmt.Sprintf("/dhow-peers-%d-%s", os.Getpid(), g.name)
	if at.driver == "systemd" {
		parent = fmt.Sprintf("dhowpeers%d%s.slice", os.Getpid(), g.name)
		t.Cleanup(func() { exec.Command("systemctl", "stop", parent).Run() })
	}
	defer leaks(t, dir, "/"+strings.TrimPrefix(parent, "/"))
	var sh strings.Builder
	sh.WriteString(common + g.begin)
	for i, s := range steps {
		fmt.Fprintf(&sh, "{ %s\n} >%d.out 2>&1 </dev/null; echo $? >%d.code\n", s.command, i, i)
	}
	sh.WriteString(g.finish + "\n")
	cmd := exec.Command("unshare", "-m", "-n", "--propagation", "private", "bash", "-c", sh.String())
	cmd.Env = append(os.Environ(), "PATH="+at.path, "DIR="+dir, "RUNTIME="+at.runtime, "IMAGE="+at.image, "DRIVER="+at.driver, "PARENT="+parent)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	kill := time.AfterFunc(patience.Of(3*time.Minute), func() { unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	defer kill.Stop()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for i, s := range steps {
		code, err := os.ReadFile(fmt.Sprintf("%s/%d.code", dir, i))
		if err != nil {
			t.Fatalf("line %d was not reached; the shell said: %s", s.line, said.String())
		}
		out, _ := os.ReadFile(fmt.Sprintf("%s/%d.out", dir, i))
		compare(t, script, s, string(out), strings.TrimSpace(string(code)))
	}
}

func compare(t *testing.T, name string, s step, out, code string) {
	t.Helper()
	ok := code == fmt.Sprint(s.code)
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if out == "" {
		lines = nil
	}
	ok = ok && len(lines) == len(s.want)
	for k := 0; ok && k < len(lines); k++ {
		ok = regexp.MustCompile("^(?:" + s.want[k] + ")$").MatchString(strings.TrimRight(lines[k], " \r"))
	}
	if !ok {
		t.Errorf("testdata/%s.script:%d: $ %s\nexit code %s, want %d; said:\n%s\nwant:\n%s", name, s.line, s.command, code, s.code, out, strings.Join(s.want, "\n"))
	}
}

var exitCode = regexp.MustCompile(`^\[[0-9]+\]$`)

// parse reads a script: "$ " begins a command, the lines behind it are regular expressions for its output, "[N]" is its exit code.
func parse(t *testing.T, file string) []step {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for i, line := range strings.Split(string(raw), "\n") {
		command, is := strings.CutPrefix(line, "$ ")
		switch {
		case is:
			steps = append(steps, step{line: i + 1, command: command})
		case line == "" || strings.HasPrefix(line, "# "):
		case exitCode.MatchString(line):
			fmt.Sscanf(line, "[%d]", &steps[len(steps)-1].code)
		default:
			s := &steps[len(steps)-1]
			s.want = append(s.want, line)
		}
	}
	return steps
}

// archive makes a docker archive of the image box.
func archive(t *testing.T) string {
	layer := registry.BusyboxTar(t)
	config := []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},`+
		`"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"test"}]}`, hash(layer)))
	manifest := []byte(fmt.Sprintf(`[{"Config":"%s.json","RepoTags":["docker.io/library/box:latest"],"Layers":["layer.tar"]}]`, hash(config)))
	file := func(name string, body []byte) registry.File {
		return registry.File{Header: tar.Header{Name: name, Mode: 0o644}, Body: body}
	}
	path := filepath.Join(t.TempDir(), "box.tar")
	if err := os.WriteFile(path, registry.Tar(t, file(hash(config)+".json", config), file("layer.tar", layer), file("manifest.json", manifest)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// leaks fails the test when processes or cgroups of the engine's are there a moment after its end, and removes what can be removed.
func leaks(t *testing.T, dir, parent string) {
	var found []string
	for began := time.Now(); time.Since(began) < patience.Of(10*time.Second); time.Sleep(50 * time.Millisecond) {
		if found = append(processes(dir), cgroups(parent)...); len(found) == 0 {
			return
		}
	}
	t.Errorf("left behind: %q", found)
	for _, f := range found {
		var pid int
		if n, _ := fmt.Sscanf(f, "process %d", &pid); n == 1 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func processes(dir string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range all {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(dir)) {
			found = append(found, fmt.Sprintf("process %s: %q", filepath.Base(filepath.Dir(p)), bytes.ReplaceAll(b, []byte{0}, []byte(" "))))
		}
	}
	return found
}

// cgroups lists what is left below an engine's parent, which is removed once it is empty.
func cgroups(parent string) (found []string) {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
	more, _ := filepath.Glob("/sys/fs/cgroup" + parent)
	for _, top := range append(tops, more...) {
		os.Remove(top + "/conmon") // podman leaves it
		below, _ := filepath.Glob(top + "/*/cgroup.procs")
		found = append(found, below...)
		if len(below) == 0 {
			os.Remove(top)
		}
	}
	return found
}
