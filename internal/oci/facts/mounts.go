package facts

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/mountinfo"
)

// KernelMounts returns where proc and sysfs are mounted, the last mounted first (proc_pid_mountinfo(5)).
func KernelMounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 1 {
			return nil, fmt.Errorf("parse /proc/self/mountinfo: %q", s.Text())
		}
		if rest[0] == "proc" || rest[0] == "sysfs" {
			out = append(out, mountinfo.Unescape(fields[4]))
		}
	}
	slices.Reverse(out)
	return out, s.Err()
}
