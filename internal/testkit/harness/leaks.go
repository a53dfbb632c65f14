package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// baseline is what the machine had before the engine.
type baseline struct {
	mounts, links, loops []string
}

func look(e *Engine) baseline {
	return baseline{mounts: mounts(e.dir), links: links(), loops: loops(e)}
}

// moment is how long what ends by itself may take: the kernel removes namespaces and their links in the background.
const moment = 3 * time.Second

// Leaks lists what an engine without containers must not have, now or within a moment.
func (e *Engine) Leaks() (found []string) {
	for start := time.Now(); time.Since(start) < patience.Of(moment); time.Sleep(20 * time.Millisecond) {
		if found = e.leaks(); len(found) == 0 {
			return nil
		}
	}
	return found
}

func (e *Engine) leaks() []string {
	var out []string
	add := func(what string, list []string) {
		for _, l := range list {
			out = append(out, what+": "+l)
		}
	}
	add("mount", without(mounts(e.dir), e.before.mounts))
	add("link on the host", without(links(), e.before.links))
	add("loop device", without(loops(e), e.before.loops))
	add("cgroup", cgroups(e.Cgroup))
	add("process", processes(e))
	add("link", innerLinks(e))
	add("nft element", elements(e))
	for _, d := range []string{e.dir + "/run/containers", e.dir + "/run/oci", e.DataRoot + "/containers", e.DataRoot + "/snapshots", e.DataRoot + "/layers/tmp"} {
		add("file", entries(d))
	}
	return out
}

func without(now, before []string) []string {
	return slices.DeleteFunc(now, func(s string) bool { return slices.Contains(before, s) })
}

// mounts lists the host's mounts that lie below dir or are of a container's kind. Others come and go by themselves.
func mounts(dir string) []string {
	b, _ := os.ReadFile("/proc/1/mountinfo")
	var out []string
	for _, l := range strings.Split(string(b), "\n") {
		if strings.Contains(l, dir) {
			out = append(out, l)
		}
	}
	return out
}

func links() []string { return entries("/sys/class/net") }

// loops lists the loop devices over the engine's files; other tests have some, too.
func loops(e *Engine) []string {
	list, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var out []string
	for _, l := range list {
		b, _ := os.ReadFile(l)
		if strings.Contains(string(b), e.dir) || strings.HasPrefix(string(b), e.DataRoot+"/") {
			out = append(out, l+" "+strings.TrimSpace(string(b)))
		}
	}
	return out
}

func entries(dir string) []string {
	list, _ := os.ReadDir(dir)
	var out []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), ".new-") || strings.HasPrefix(e.Name(), ".rm-") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// cgroups lists what lies below path in any hierarchy.
func cgroups(path string) []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup" + path + "/*", "/sys/fs/cgroup/*" + path + "/*"} {
		list, _ := filepath.Glob(pattern)
		for _, d := range list {
			if st, err := os.Stat(d); err == nil && st.IsDir() {
				out = append(out, d)
			}
		}
	}
	return out
}

// removeCgroups removes the empty parents that a test made for itself.
func removeCgroups(top, path string) {
	for _, p := range []string{path, top} {
		for _, pattern := range []string{"/sys/fs/cgroup" + p, "/sys/fs/cgroup/*" + p} {
			list, _ := filepath.Glob(pattern)
			for _, d := range list {
				os.Remove(d)
			}
		}
	}
}

// processes lists those that name the engine's folder, except the engine.
func processes(e *Engine) []string {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var out []string
	for _, p := range list {
		pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
		b, _ := os.ReadFile(p)
		if line := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(line, e.dir) && pid != e.PID() && pid != os.Getpid() {
			out = append(out, fmt.Sprintf("%d %s", pid, line))
		}
	}
	return out
}

// innerLinks lists the veth pairs in the engine's namespace.
func innerLinks(e *Engine) []string {
	var out []string
	for _, l := range strings.Split(e.sh("ip", "-o", "link", "show", "type", "veth"), "\n") {
		if l != "" && !strings.Contains(l, uplink) {
			out = append(out, l)
		}
	}
	return out
}

// elements lists the published ports that the rules still hold.
func elements(e *Engine) []string {
	var out []string
	for _, l := range strings.Split(e.sh("nft", "list", "ruleset"), "\n") {
		if strings.Contains(l, "elements") && strings.Contains(l, "comment") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return out
}

// FDs counts the engine's open descriptors, without the one for each image whose containers share a mount of its layers.
func (e *Engine) FDs() (n int) {
	shared := map[uint64]bool{}
	for _, fd := range entries(fmt.Sprintf("/proc/%d/fd", e.PID())) {
		var fs unix.Statfs_t
		var st unix.Stat_t
		if unix.Statfs(fd, &fs) == nil && fs.Type == unix.EROFS_SUPER_MAGIC_V1 && unix.Stat(fd, &st) == nil && !shared[st.Dev] {
			shared[st.Dev] = true
			continue
		}
		n++
	}
	return n
}
