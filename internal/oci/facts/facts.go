// Package facts reads what the compiler must know of the host.
//
// It promises not to change anything and to read little. It must never decide: it only tells.
package facts

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/linux/selfmem"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Host is what is true of the machine whatever the bundle: a compile.Facts without the bundle's part.
type Host func() (compile.Facts, error)

// Begin starts to read the host's facts in the background, and returns what waits for them. It is for programs that have something else
// to read meanwhile.
func Begin() Host {
	get := sync.OnceValues(host)
	go get() // ends by itself after a few reads
	return get
}

// Read returns the facts for one bundle; the caller adds its descriptors. A nil Host reads now.
func (h Host) Read(bundleDir string, s *bundle.Spec) (compile.Facts, error) {
	if h == nil {
		h = host
	}
	f, err := h()
	if err != nil {
		return f, err
	}
	f.Sources = sources(bundleDir, s)
	if s.Process != nil && s.Process.OOMScoreAdj != nil {
		f.OOMFloor = oomFloor()
	}
	f.AppArmor = s.Process != nil && s.Process.ApparmorProfile != "" && probe.Has(probe.AppArmor)
	f.SELinux = (s.Process != nil && s.Process.SelinuxLabel != "" || s.Linux != nil && s.Linux.MountLabel != "") && probe.Has(probe.SELinux)
	f.Shared = shared(s)
	f.Resctrl = resctrl(f.Resctrl, s)
	return f, nil
}

func host() (compile.Facts, error) {
	f := compile.Facts{Arch: runtime.GOARCH, LastCap: unix.CAP_CHECKPOINT_RESTORE} // of Linux 5.9
	var un unix.Utsname
	if err := unix.Uname(&un); err != nil {
		return f, fmt.Errorf("uname: %w", err)
	}
	f.Major, f.Minor = version(unix.ByteSliceToString(un.Release[:]))
	for f.LastCap < 63 && has(f.LastCap+1) {
		f.LastCap++
	}
	f.NoFile = noFile()
	f.Caps = rights()
	f.Clone3 = probe.Clone3()
	f.HugePages = selfmem.GiveHugePages()
	user(&f)
	var err error
	f.Cgroup, err = cgroup.Detect()
	return f, err
}

// has tells whether the kernel knows a capability by that number.
func has(capability int) bool {
	return unix.Prctl(unix.PR_CAPBSET_READ, uintptr(capability), 0, 0, 0) == nil
}

// rights returns our permitted capabilities.
func rights() uint64 {
	data := capabilities()
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
}

func capabilities() (data [2]unix.CapUserData) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	unix.Capget(&head, &data[0])
	return data
}

// oomFloor returns the least oom_score_adj that we may set: without CAP_SYS_RESOURCE, that is what we have.
func oomFloor() *int {
	if capabilities()[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return nil
	}
	b, err := atomicfile.ReadRecord("/proc/self/oom_score_adj", 64)
	if n, atoiErr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && atoiErr == nil {
		return &n
	}
	return nil
}

// shared looks which of the namespaces to be joined are our own.
func shared(s *bundle.Spec) map[string]bool {
	if s.Linux == nil {
		return nil
	}
	var out map[string]bool
	for _, n := range s.Linux.Namespaces {
		var theirs, ours unix.Stat_t
		if n.Path == "" || unix.Stat(n.Path, &theirs) != nil {
			continue
		}
		file := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.MountNamespace: "mnt"}[n.Type]
		if file == "" {
			file = string(n.Type)
		}
		if unix.Stat("/proc/self/ns/"+file, &ours) == nil && ours.Ino == theirs.Ino && ours.Dev == theirs.Dev {
			if out == nil {
				out = map[string]bool{}
			}
			out[n.Path] = true
		}
	}
	return out
}

// resctrl looks for Intel RDT's file system and the class of service that the config names; known is what a test knows of it already.
func resctrl(known compile.Resctrl, s *bundle.Spec) compile.Resctrl {
	if s.Linux == nil || s.Linux.IntelRdt == nil {
		return known
	}
	if known.Root == "" {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return known
		}
		for _, line := range strings.Split(string(b), "\n") {
			mount, kind, ok := strings.Cut(line, " - ")
			if f := strings.Fields(mount); ok && len(f) > 4 && strings.HasPrefix(kind, "resctrl ") {
				known.Root = f[4]
				break
			}
		}
	}
	if id := s.Linux.IntelRdt.ClosID; known.Root != "" && id != "" && (id == "/" || !strings.Contains(id, "/")) {
		b, err := os.ReadFile(filepath.Join(known.Root, id, "schemata"))
		known.Exists, known.Schemata = err == nil, string(b)
	}
	return known
}

// sources looks at what bind mounts name. stat(2) follows symbolic links, as the mount itself will; the program fails if the
// source vanishes meanwhile.
func sources(bundleDir string, s *bundle.Spec) map[string]compile.Source {
	out := map[string]compile.Source{}
	for _, m := range s.Mounts {
		p := m.Source
		if p == "" || (m.Type != "bind" && !bound(m.Options)) {
			continue
		}
		if !filepath.IsAbs(p) {
			p = filepath.Join(bundleDir, p)
		}
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			var fs unix.Statfs_t
			proc := unix.Statfs(p, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
			out[p] = compile.Source{Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, Proc: proc}
		}
	}
	return out
}

func bound(options []string) bool {
	for _, o := range options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// noFile returns the limit of open files that a program of ours inherits. Go raises its own soft limit to one below the hard one when
// it starts (syscall/rlimit.go) and does not tell what it was; then it is the kernel's own default, 1024.
func noFile() [2]uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur != l.Max-1 {
		return [2]uint64{}
	}
	return [2]uint64{min(1024, l.Max), l.Max}
}

func version(release string) (major, minor int) {
	a, rest, _ := strings.Cut(release, ".")
	b := rest
	for i, r := range rest {
		if r < '0' || r > '9' {
			b = rest[:i]
			break
		}
	}
	major, _ = strconv.Atoi(a)
	minor, _ = strconv.Atoi(b)
	return major, minor
}
