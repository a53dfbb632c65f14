package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func machine() string {
	var u unix.Utsname
	unix.Uname(&u)
	model := ""
	raw, _ := os.ReadFile("/proc/cpuinfo")
	for _, l := range strings.Split(string(raw), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v) + ", "
			break
		}
	}
	return fmt.Sprintf("%s%d processors, Linux %s, %s", model, runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.GOARCH)
}

func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(raw)); len(f) > 2 {
		return strings.Join(f[:3], " ")
	}
	return "unknown"
}

// version is the first line that a program says about itself.
func version(path string, args ...string) string {
	out, err := exec.Command(path, args...).Output()
	if err != nil {
		return fmt.Sprintf("%s: %v", path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

// tree lists the processes whose ancestor is pid, and pid.
func tree(pid int) []int {
	parent := map[int]int{}
	list, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range list {
		raw, _ := os.ReadFile(f)
		if i := bytes.LastIndexByte(raw, ')'); i > 0 {
			if s := strings.Fields(string(raw[i+1:])); len(s) > 1 {
				child, _ := strconv.Atoi(strings.Split(f, "/")[2])
				parent[child], _ = strconv.Atoi(s[1])
			}
		}
	}
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		for child, p := range parent {
			if p == out[i] {
				out = append(out, child)
			}
		}
	}
	return out
}

// naming lists the processes of a program that name dir in their arguments.
func naming(program, dir string) []int {
	var out []int
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range list {
		raw, _ := os.ReadFile(f)
		args := strings.Split(string(raw), "\x00")
		if strings.HasPrefix(filepath.Base(args[0]), program) && strings.Contains(string(raw), dir) {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			out = append(out, pid)
		}
	}
	return out
}

// pss is the memory of processes in MiB, what they share divided among those who share it.
func pss(pids ...int) (float64, error) {
	sum := 0
	for _, p := range pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			return 0, err
		}
		_, after, ok := strings.Cut(string(raw), "\nPss:")
		if !ok {
			return 0, fmt.Errorf("process %d: no Pss in smaps_rollup", p)
		}
		kib, err := strconv.Atoi(strings.Fields(after)[0])
		if err != nil {
			return 0, err
		}
		sum += kib
	}
	return float64(sum) / 1024, nil
}

// idle is how long a process is left alone before its memory counts.
const idle = 3 * time.Second

// memoryEngine weighs engines that have an image and no container.
func (b *bench) memoryEngine(clients []*client) {
	if !b.wanted("memory-engine") {
		return
	}
	time.Sleep(idle)
	var list []contender
	for _, c := range distinct(clients) {
		list = append(list, contender{c.at.name, func() (float64, error) {
			if c.at.pid == 0 {
				return 0, fmt.Errorf("%s has no engine", c.at.name)
			}
			return pss(tree(c.at.pid)...)
		}})
	}
	b.try(trial{name: "memory-engine", what: "PSS of the engine (docker: with its containerd), idle, one image, no container", unit: "MiB", n: 1, targets: []Target{{Most: 25}}, contenders: list})
}

// memoryShim weighs what watches over one sleeping container.
func (b *bench) memoryShim(clients []*client, name, when string, targets ...Target) {
	if !b.wanted(name) {
		return
	}
	time.Sleep(idle)
	shim := map[string]string{"dhow": "dhow-shim", "docker": "containerd-shim", "podman": "conmon"}
	var list []contender
	for _, c := range distinct(clients) {
		list = append(list, contender{c.at.name, func() (float64, error) {
			if c.broken != nil {
				return 0, c.broken
			}
			pids := naming(shim[c.at.name], c.at.dir)
			if len(pids) == 0 {
				return 0, fmt.Errorf("no %s found", shim[c.at.name])
			}
			sum, err := pss(pids...)
			return sum / float64(len(pids)), err
		}})
	}
	b.try(trial{name: name, what: "PSS of one shim (podman: conmon), " + when, unit: "MiB", n: 1, targets: targets, contenders: list})
}

// distinct keeps one client of each engine.
func distinct(clients []*client) []*client {
	var out []*client
	for _, c := range clients {
		if !slices.ContainsFunc(out, func(o *client) bool { return o.at == c.at }) {
			out = append(out, c)
		}
	}
	return out
}

// disk weighs the programs that one needs to run a container.
func (b *bench) disk() error {
	search := filepath.Join(b.Cache, "root/usr/sbin") + ":" + filepath.Join(b.Cache, "root/usr/bin") + ":" + os.Getenv("PATH")
	weigh := func(name, search string, programs ...string) contender {
		return contender{name, func() (float64, error) {
			var sum int64
			for _, p := range programs {
				path := find(p, search)
				if path == "" {
					return 0, fmt.Errorf("%s is not here", p)
				}
				st, err := os.Stat(path)
				if err != nil {
					return 0, err
				}
				sum += st.Size()
			}
			return float64(sum) / (1 << 20), nil
		}}
	}
	b.try(trial{name: "disk", what: "the programs of a whole stack", unit: "MiB", n: 1, contenders: []contender{
		weigh("dhow", b.Bin, programs()...),
		weigh("docker", search, "docker", "dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-init", "docker-proxy"),
		weigh("podman", podmanSearch(b.Cache)+":"+os.Getenv("PATH"), "podman", "conmon", "crun", "netavark", "aardvark-dns"),
	}})
	return nil
}

// removeCgroups removes path and what is below it, in every hierarchy. Its processes have ended.
func removeCgroups(path string) {
	for _, pattern := range []string{"/sys/fs/cgroup" + path, "/sys/fs/cgroup/*" + path} {
		list, _ := filepath.Glob(pattern)
		for _, top := range list {
			var dirs []string
			filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			for _, d := range slices.Backward(dirs) {
				os.Remove(d)
			}
		}
	}
}

// unmountBelow unmounts what an engine left below its folder.
func unmountBelow(dir string) {
	raw, _ := os.ReadFile("/proc/self/mountinfo")
	for _, l := range slices.Backward(strings.Split(string(raw), "\n")) {
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
}
