package facts

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// maxPasswd bounds what is read of a container's passwd, in bytes.
const maxPasswd = 1 << 20

// Home returns the home folder of a new container's user: what engines expect their runtime to find out. It is empty where the config
// sets HOME, and "/" where the container does not know its user.
func Home(bundleDir, root string, s *bundle.Spec) string {
	if s.Process == nil || hasHome(s.Process) {
		return ""
	}
	for _, m := range slices.Backward(s.Mounts) { // podman mounts a passwd of its own
		if filepath.Clean(m.Destination) == "/etc/passwd" && (m.Type == "bind" || bound(m.Options)) {
			source := m.Source
			if !filepath.IsAbs(source) {
				source = filepath.Join(bundleDir, source)
			}
			return homeIn(os.OpenFile(source, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0))(s.Process) // a FIFO must not hold us up
		}
	}
	return homeBelow(root)(s.Process)
}

// HomeInside is Home for a process that is to be run in a container whose init is pid.
func HomeInside(pid int, p *specs.Process) string {
	if hasHome(p) {
		return ""
	}
	return homeBelow("/proc/" + strconv.Itoa(pid) + "/root")(p)
}

func hasHome(p *specs.Process) bool {
	home := ""
	for _, e := range p.Env { // the last one counts
		if v, ok := strings.CutPrefix(e, "HOME="); ok {
			home = v
		}
	}
	return home != ""
}

func homeBelow(root string) func(*specs.Process) string {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return homeIn(nil, err)
	}
	r := safepath.FromFile(dir)
	defer r.Close()
	return homeIn(r.Open("/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0))
}

// homeIn reads the file and closes it. What is no regular file, or too large, knows nobody.
func homeIn(f *os.File, err error) func(*specs.Process) string {
	var text []byte
	if err == nil {
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Size() <= maxPasswd {
			text = make([]byte, st.Size())
			n, _ := f.ReadAt(text, 0)
			text = text[:n]
		}
	}
	return func(p *specs.Process) string {
		uid := strconv.FormatUint(uint64(p.User.UID), 10)
		for line := range bytes.Lines(text) { // name:password:uid:gid:gecos:home:shell, passwd(5)
			f := strings.Split(strings.TrimRight(string(line), "\n"), ":")
			if len(f) >= 6 && f[2] == uid && strings.HasPrefix(f[5], "/") && !strings.ContainsRune(f[5], 0) {
				return f[5]
			}
		}
		return "/"
	}
}
