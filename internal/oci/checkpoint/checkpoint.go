// Package checkpoint saves the processes of a container with criu, and restores them.
//
// It owns the images' folder while it works, the private mount namespace of a restore, and what criu is told: which mounts, namespaces
// and descriptors come from outside. It promises that nothing is restored that config.json does not have, that no symbolic link of an
// image's folder or of the root file system is followed out of it, and that the host's mount table does not change. It must never know
// states, cgroups or hooks: its callers do.
package checkpoint

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/criu"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Options are what a user may ask of both directions; runc's flags have the same names.
type Options struct {
	Images string // folder of the images
	Work   string // folder of log and statistics; "": Images
	Parent string // dump: an earlier pre-dump's folder, relative to Images

	LeaveRunning, PreDump                                                   bool
	TCPEstablished, TCPSkipInFlight, ExtUnixSk, ShellJob, FileLocks, Unlink bool // Unlink: --link-remap
	LazyPages, AutoDedup                                                    bool
	StatusFD                                                                int // where \0 is written once pages are served; -1: nowhere

	PageServer      string // ADDRESS:PORT
	CgroupMode      string // soft, full, strict, ignore or ""
	LSMProfile      string // restore: TYPE:NAME
	LSMMountContext string // restore
}

// Container is what of a container matters here.
type Container struct {
	PID     int         // of its first process; restore: 0
	Alive   func() bool // tells whether PID is still that process; nil: nobody knows
	Bundle  string
	Rootfs  string
	Spec    *bundle.Spec
	Cgroups []plan.Dir
}

// descriptorsFile lists, as runc's and crun's checkpoints do, what the first process's descriptors 0, 1 and 2 were.
const descriptorsFile = "descriptors.json"

const (
	dumpLog    = "dump.log"
	restoreLog = "restore.log"
	// siteConfig is criu's configuration for runtimes: what administrators write there counts for this one too.
	siteConfig = "/etc/criu/runc.conf"
	logDebug   = 4
)

// cgroupMode is criu's number of a mode (rpc.proto, criu_cg_mode).
func cgroupMode(mode string) (int64, error) {
	switch mode {
	case "":
		return 6, nil
	case "ignore":
		return 0, nil
	case "soft":
		return 3, nil
	case "full":
		return 4, nil
	case "strict":
		return 5, nil
	}
	return 0, errdef.New(errdef.InvalidArgument, "--manage-cgroups-mode %q is none of soft, full, strict, ignore", mode)
}

// folders are the open folders of one run of criu.
type folders struct {
	images, work *os.File
	workPath     string
}

func (f *folders) close() {
	f.images.Close()
	if f.work != f.images {
		f.work.Close()
	}
}

// openFolders opens the folders and looks at what lies in them: criu follows symbolic links there.
func openFolders(o *Options, log string, make bool) (*folders, error) {
	images, err := openFolder(o.Images, make)
	if err != nil {
		return nil, fmt.Errorf("--image-path: %w", err)
	}
	f := &folders{images: images, work: images, workPath: o.Images}
	if err := vetImages(images, 0); err != nil {
		images.Close()
		return nil, fmt.Errorf("--image-path: %w", err)
	}
	if o.Work == "" || o.Work == o.Images {
		return f, nil
	}
	if f.work, err = openFolder(o.Work, true); err == nil {
		f.workPath = o.Work
		err = vetNames(f.work, log, "stats-dump", "stats-restore")
	}
	if err != nil {
		images.Close()
		return nil, fmt.Errorf("--work-path: %w", err)
	}
	return f, nil
}

func openFolder(p string, make bool) (*os.File, error) {
	if make {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p, Err: err}
	}
	f := os.NewFile(uintptr(fd), p)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, err
	}
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 || st.Mode&0o022 != 0 {
		f.Close()
		return nil, errdef.New(errdef.Forbidden, "%s: others may write there (owner %d, mode %04o): a checkpoint is as good as root's memory; chmod 700 it", p, st.Uid, st.Mode&0o7777)
	}
	return f, nil
}

// maxChain bounds the number of pre-dumps before a dump.
const maxChain = 64

// vetImages refuses whatever criu never makes: everything but plain files, the link "parent" to the folder of an earlier dump, and the socket
// of criu lazy-pages.
func vetImages(dir *os.File, depth int) error {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case e.Type().IsRegular(), e.Name() == "lazy-pages.socket" && e.Type() == os.ModeSocket:
		case e.Name() == "parent" && e.Type() == os.ModeSymlink && depth < maxChain:
			if err := vetParent(dir, depth); err != nil {
				return err
			}
		default:
			return errdef.New(errdef.InvalidArgument, "%s: %q is no plain file: this is no checkpoint, or a hostile one", dir.Name(), e.Name())
		}
	}
	return nil
}

func vetParent(dir *os.File, depth int) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), "parent", buf)
	if err != nil {
		return err
	}
	if target := string(buf[:n]); filepath.IsAbs(target) {
		return errdef.New(errdef.InvalidArgument, "%s/parent leads to %s: only relative links are followed", dir.Name(), target)
	}
	parent, err := openFolder(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), "parent"), false)
	if err != nil {
		return err
	}
	defer parent.Close()
	return vetImages(parent, depth+1)
}

// vetNames refuses files of these names that are no plain ones, in a folder that is not criu's alone.
func vetNames(dir *os.File, names ...string) error {
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			return errdef.New(errdef.InvalidArgument, "%s/%s is no plain file: criu would write through it", dir.Name(), name)
		}
	}
	return nil
}

// common are the options of both directions.
func common(o *Options, f *folders, log string) (criu.Message, error) {
	var m criu.Message
	mode, err := cgroupMode(o.CgroupMode)
	if err != nil {
		return m, err
	}
	m.Int(criu.ImagesDirFD, int64(f.images.Fd()))
	if f.work != f.images {
		m.Int(criu.WorkDirFD, int64(f.work.Fd()))
	}
	m.Int(criu.LogLevel, logDebug)
	m.Text(criu.LogFile, log)
	m.Bool(criu.ManageCgroups, true)
	m.Int(criu.CgroupMode, mode)
	m.Bool(criu.NotifyScripts, true)
	m.Bool(criu.ShellJob, o.ShellJob)
	m.Bool(criu.ExtUnixSk, o.ExtUnixSk)
	m.Bool(criu.TCPEstablished, o.TCPEstablished)
	m.Bool(criu.FileLocks, o.FileLocks)
	m.Bool(criu.AutoDedup, o.AutoDedup)
	m.Bool(criu.LazyPages, o.LazyPages)
	m.Bool(criu.OrphanPtsMaster, true)
	m.Int(criu.EmptyNS, unix.CLONE_NEWNET) // whoever made the network makes it again
	if _, err := os.Stat(siteConfig); err == nil {
		m.Text(criu.ConfigFile, siteConfig)
	}
	return m, nil
}

// failed adds what criu's log says to an error.
func failed(err error, f *folders, log string) error {
	if text := criu.Complaint(f.work, log); text != "" {
		return errdef.New(errdef.System, "criu failed: %s (log: %s)", text, path.Join(f.workPath, log))
	}
	return errdef.New(errdef.System, "%w (log, if any: %s)", err, path.Join(f.workPath, log))
}

// readDescriptors reads what the first process's descriptors were.
func readDescriptors(images *os.File) ([]string, error) {
	const most = 64 << 10
	fd, err := unix.Openat(int(images.Fd()), descriptorsFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "%s/%s: %w: is this the folder of a checkpoint?", images.Name(), descriptorsFile, err)
	}
	file := os.NewFile(uintptr(fd), descriptorsFile)
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil {
		return nil, err
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "parse %s: %w", descriptorsFile, err)
	}
	return list, nil
}

// externalNamespaces are those that criu leaves alone: somebody else made them, and makes them again.
func externalNamespaces() []specs.LinuxNamespaceType {
	return []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.PIDNamespace}
}

// namespaceName is criu's and the kernel's word for a namespace.
func namespaceName(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// externalKey is the name under which an external namespace is known to the restorer; runc uses the same.
func externalKey(t specs.LinuxNamespaceType) string {
	n := namespaceName(t)
	return "extRoot" + strings.ToUpper(n[:1]) + n[1:] + "NS"
}
