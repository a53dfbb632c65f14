package cgroup

import (
	"os"
	"strconv"
	"strings"
)

// CallerUID says who we are as the initial user namespace numbers users (user_namespaces(7)); what its map does not tell is nobody.
func CallerUID() int {
	uid := os.Geteuid()
	b, err := read("/proc/self/uid_map", maxFile)
	if err != nil {
		return uid
	}
	return mapUID(string(b), uid)
}

func mapUID(uidMap string, uid int) int {
	for line := range strings.Lines(uidMap) {
		w := strings.Fields(line)
		if len(w) != 3 {
			continue
		}
		inside, err1 := strconv.Atoi(w[0])
		outside, err2 := strconv.Atoi(w[1])
		n, err3 := strconv.Atoi(w[2])
		if err1 == nil && err2 == nil && err3 == nil && uid >= inside && uid-inside < n {
			return outside + uid - inside
		}
	}
	return 65534
}

// Delegated lists the files of a v2 cgroup that may be given to whom it is delegated to; none where the kernel does not tell (before 4.15).
func Delegated() []string {
	b, err := read("/sys/kernel/cgroup/delegate", maxFile)
	if err != nil {
		return nil
	}
	var out []string
	for _, name := range strings.Fields(string(b)) {
		if !strings.ContainsRune(name, '/') {
			out = append(out, name)
		}
	}
	return out
}
