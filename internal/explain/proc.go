package explain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/mountinfo"
)

// Bounds of what is read, in bytes.
const (
	maxProc    = 4 << 20
	maxProgram = 8 << 20
	maxText    = 300 // of a value that a container chose, such as a command line, in runes
)

// read returns a file of at most limit bytes.
func read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: longer than %d bytes", path, limit)
	}
	return b, nil
}

var errNotRunning = errors.New("the container does not run")

// proc reads a file of the first process.
func (v *view) proc(name string) ([]byte, error) {
	if v.Pid == 0 {
		return nil, errNotRunning
	}
	return read(fmt.Sprintf("/proc/%d/%s", v.Pid, name), maxProc)
}

// fields reads "Key:\tvalue" lines (proc_pid_status(5)).
func fields(b []byte) map[string]string {
	out := map[string]string{}
	for l := range bytes.Lines(b) {
		if k, val, ok := strings.Cut(string(l), ":"); ok {
			out[k] = strings.TrimSpace(val)
		}
	}
	return out
}

// short cuts a text that may be long.
func short(s string) string {
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return s
}

// mountEntry is one line of mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	id, root, point, fstype, source string
	options, super                  []string
}

func (m *mountEntry) has(option string) bool {
	// A read-only file system is as good as a read-only mount; the others belong to the mount.
	return slices.Contains(m.options, option) || option == "ro" && slices.Contains(m.super, "ro")
}

func (m *mountEntry) String() string {
	what := m.fstype
	if m.root != "/" {
		what += " " + m.root
	}
	return what + " " + strings.Join(m.options, ",")
}

func parseMountinfo(b []byte) ([]mountEntry, error) {
	var out []mountEntry
	n := 0
	for l := range bytes.Lines(b) {
		n++
		left, right, ok := strings.Cut(strings.TrimSuffix(string(l), "\n"), " - ")
		f, g := strings.Split(left, " "), strings.Split(right, " ")
		if !ok || len(f) < 6 || len(g) < 3 {
			return nil, fmt.Errorf("mountinfo line %d: %q is not of the form that proc_pid_mountinfo(5) tells", n, l)
		}
		out = append(out, mountEntry{
			id: f[0], root: mountinfo.Unescape(f[3]), point: mountinfo.Unescape(f[4]), options: strings.Split(f[5], ","),
			fstype: g[0], source: mountinfo.Unescape(g[1]), super: strings.Split(g[2], ","),
		})
	}
	return out, nil
}

// at finds the mount that is visible at a path: the last one made there.
func (v *view) at(point string) *mountEntry {
	for i := range slices.Backward(v.mounts) {
		if v.mounts[i].point == point {
			return &v.mounts[i]
		}
	}
	return nil
}
