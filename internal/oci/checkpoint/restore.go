package checkpoint

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/oci/criu"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Restorer is what a restore needs from its caller. The functions are called in another thread than the caller's, one at a time.
type Restorer struct {
	Container Container
	Stdio     [3]*os.File
	// Place is an empty folder of ours, on which the root file system is mounted where nobody but criu sees it.
	Place string
	// Join moves a process into the container's cgroups.
	Join func(pid int) error
	// Namespaces is called when the first process exists and has its namespaces, before anything else of it.
	Namespaces func(pid int) error
	// Born is called when all is restored, and nothing runs yet.
	Born func(pid int) error
	// Keyring is the name of the session keyring of the container's processes; empty: they stay in ours.
	Keyring string
	// Console takes the terminal's master; nil where the container has none.
	Console func(master *os.File) error

	pid int
}

// Run restores the container. Its first process becomes a child of this process.
func (r *Restorer) Run(o *Options) error {
	if err := restorable(r, o); err != nil {
		return err
	}
	return mount.Apart(func() error { return r.apart(o) })
}

func restorable(r *Restorer, o *Options) error {
	if o.PreDump || o.LeaveRunning || o.Parent != "" || o.PageServer != "" || o.Unlink || o.TCPSkipInFlight || o.StatusFD >= 0 {
		return errdef.New(errdef.InvalidArgument, "restore: an option of checkpoint was given")
	}
	for _, n := range r.Container.Spec.Linux.Namespaces {
		if n.Path != "" && n.Type == specs.CgroupNamespace {
			return errdef.New(errdef.NotImplemented, "config.json: linux.namespaces: criu cannot restore into an existing cgroup namespace")
		}
	}
	if l := r.Container.Spec.Linux; l.IntelRdt != nil || l.MemoryPolicy != nil {
		return errdef.New(errdef.NotImplemented, "config.json: linux.intelRdt, linux.memoryPolicy: criu does not restore them")
	} else if len(l.NetDevices) > 0 && !slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace && n.Path != "" }) {
		return errdef.New(errdef.NotImplemented, "config.json: linux.netDevices: the new network namespace of a restored container is empty; give linux.namespaces a path for it")
	}
	if p := o.LSMProfile; p != "" && !strings.HasPrefix(p, "apparmor:") && !strings.HasPrefix(p, "selinux:") {
		return errdef.New(errdef.InvalidArgument, "--lsm-profile %q is neither apparmor:PROFILE nor selinux:LABEL", p)
	}
	return nil
}

// apart works in a mount namespace of its own, on a thread that ends with it.
func (r *Restorer) apart(o *Options) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil { // not private: criu gives binds the propagation of their sources
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	f, err := openFolders(o, restoreLog, false)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.outOfReach(&r.Container); err != nil {
		return err
	}
	m, err := common(o, f, restoreLog)
	if err != nil {
		return err
	}
	root, err := openRoot(r.Container.Rootfs)
	if err != nil {
		return err
	}
	defer root.f.Close()
	if err := r.prepareRoot(root); err != nil {
		return err
	}
	if err := r.mounts(&m, f, root); err != nil {
		return err
	}
	m.Text(criu.RootDir, r.Place)
	m.Bool(criu.RestoreSibling, true)
	m.Bool(criu.EvasiveDevices, true)
	m.Text(criu.LSMProfile, o.LSMProfile)
	m.Text(criu.LSMMountContext, o.LSMMountContext)
	extra, err := r.joined(&m)
	defer func() {
		for _, e := range extra {
			e.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := r.descriptors(&m, f); err != nil {
		return err
	}
	return r.restore(&m, f, extra)
}

func (r *Restorer) restore(m *criu.Message, f *folders, extra []*os.File) error {
	if err := joinKeyring(r.Keyring); err != nil { // criu leaves to the processes the one that it has itself
		return err
	}
	s, err := criu.Start(r.Stdio, extra)
	if err != nil {
		return err
	}
	defer sweep(f.work)
	defer s.Close()
	if err := outsideThread(func() error { return r.Join(s.PID()) }); err != nil {
		return err
	}
	if err := cgroupRoots(m, s.PID()); err != nil {
		return err
	}
	var ours error
	err = s.Do(criu.Restore, *m, func(n criu.Notice) error {
		ours = outsideThread(func() error { return r.notice(n) })
		return ours
	})
	switch {
	case ours != nil:
		return ours
	case err != nil:
		return failed(err, f, restoreLog)
	}
	return nil
}

// sweep removes the folder that criu had for cgroup hierarchies, which it mounts where we see it, if it was killed before it could: with it
// nothing could be restored from there again. Before criu there was no folder.
func sweep(dir *os.File) {
	at := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	entries, err := os.ReadDir(at)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), ".criu.") {
			unix.Unmount(at+e.Name(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			unix.Unlinkat(int(dir.Fd()), e.Name(), unix.AT_REMOVEDIR)
		}
	}
}

// joinKeyring gives this thread, and so whoever it starts, the container's session keyring, with the rights that create gives it.
func joinKeyring(name string) error {
	const possessorAllUserSearch = 0x3f080000
	if name == "" {
		return nil
	}
	id, err := unix.KeyctlJoinSessionKeyring(name)
	if err == nil {
		err = unix.KeyctlSetperm(id, possessorAllUserSearch)
	}
	switch err {
	case nil, unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EDQUOT: // create goes on without, too
		return nil
	}
	return fmt.Errorf("session keyring: keyctl: %w", err)
}

// outsideThread runs f where the host's mounts are in sight: hooks and consoles are the host's.
func outsideThread(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }() // ends at once
	return <-done
}

func (r *Restorer) notice(n criu.Notice) error {
	switch n.Script {
	case "setup-namespaces":
		return r.Namespaces(n.PID)
	case "post-restore": // nothing runs yet
		if s := r.Container.Spec.Root; s != nil && s.Readonly {
			if err := protectRoot(n.PID); err != nil {
				return fmt.Errorf("config.json: root.readonly: %w", err)
			}
		}
		r.pid = n.PID
		return r.Born(n.PID)
	case "pre-resume": // rights and filters are back now, and still nothing runs
		if err := verify(r.pid, r.Container.Spec); err != nil {
			unix.Kill(r.pid, unix.SIGKILL) // our child, not reaped: the number is its own; criu does not take back any more
			return err
		}
		return nil
	case "orphan-pts-master":
		switch {
		case n.File == nil:
			return errdef.New(errdef.System, "criu sent no terminal")
		case r.Console == nil:
			n.File.Close()
			return errdef.New(errdef.InvalidArgument, "the container has a terminal but nobody takes it (console socket)")
		}
		return r.Console(n.File)
	}
	if n.File != nil {
		n.File.Close()
	}
	return nil
}

// cgroupRoots tells criu where this container's cgroups are, whatever they were called when it was saved.
func cgroupRoots(m *criu.Message, pid int) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if fields := strings.SplitN(line, ":", 3); len(fields) == 3 {
			m.Sub(criu.CgroupRoot, criu.Pair(fields[1], fields[2]))
		}
	}
	return nil
}

// prepareRoot mounts the root file system where criu finds it, and makes the mount points that are missing in it.
func (r *Restorer) prepareRoot(root *root) error {
	tree, err := mount.Clone(root.f, "", true)
	if err != nil {
		return fmt.Errorf("config.json: root.path: %w", err)
	}
	defer tree.Close()
	if err := mount.SetAttr(tree, true, mount.Attr{Propagation: unix.MS_PRIVATE}); err != nil {
		return err
	}
	if err := mount.AttachAt(tree, r.Place); err != nil {
		return err
	}
	safe := safepath.FromFile(root.f)
	list := places(&r.Container, root)
	for _, p := range list {
		if slices.ContainsFunc(list, func(q place) bool { return q != p && covers(q, p.point) }) {
			continue // made by what is mounted there
		}
		switch p.kind {
		case "mask", "read-only", "device", "console", "cgroup":
			continue
		}
		if _, err := safe.Lstat(p.point); err == nil {
			continue
		}
		if err := makePoint(safe, p); err != nil {
			return fmt.Errorf("config.json: %s.destination: %w", p.config, err)
		}
	}
	return nil
}

// covers tells whether a mount hides what the root file system has at a point below it.
func covers(q place, point string) bool {
	switch q.kind {
	case "mask", "read-only", "device", "console":
		return false
	}
	return strings.HasPrefix(point, q.point+"/")
}

func makePoint(safe *safepath.Root, p place) error {
	if p.kind == "bind" {
		var st unix.Stat_t
		if err := unix.Stat(p.source, &st); err != nil {
			return errdef.New(errdef.InvalidArgument, "source %s: %w", p.source, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if dir, err := safe.MkdirAll(parentOf(p.point), 0o755); err != nil {
				return err
			} else {
				dir.Close()
			}
			f, err := safe.Create(p.point, 0o644)
			if err == nil {
				f.Close()
			}
			return err
		}
	}
	dir, err := safe.MkdirAll(p.point, 0o755)
	if err == nil {
		dir.Close()
	}
	return err
}

func parentOf(p string) string { return p[:max(1, strings.LastIndexByte(p, '/'))] }

// joined names the namespaces that exist already.
func (r *Restorer) joined(m *criu.Message) ([]*os.File, error) {
	var extra []*os.File
	for i, n := range r.Container.Spec.Linux.Namespaces {
		switch {
		case n.Path == "":
		case slices.Contains(externalNamespaces(), n.Type):
			f, err := os.Open(n.Path)
			if err != nil {
				return extra, errdef.New(errdef.InvalidArgument, "config.json: linux.namespaces[%d].path: %w", i, err)
			}
			m.Sub(criu.InheritFD, criu.Numbered(externalKey(n.Type), criu.Extra(len(extra))))
			extra = append(extra, f)
		default:
			m.Sub(criu.JoinNS, criu.Pair(namespaceName(n.Type), n.Path))
		}
	}
	return extra, nil
}

// descriptors hands our own standard input, output and error over for the pipes that the first process had.
func (r *Restorer) descriptors(m *criu.Message, f *folders) error {
	list, err := readDescriptors(f.images)
	if err != nil {
		return err
	}
	for i, s := range list {
		if i < 3 && strings.HasPrefix(s, "pipe:") {
			m.Sub(criu.InheritFD, criu.Numbered(s, i))
		}
	}
	return nil
}

// protectRoot makes a restored container's root read-only, which criu forgets before version 4. It enters the mount namespace for that, in
// a thread that ends with it, and resolves nothing there but the root.
func protectRoot(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return mount.Apart(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	})
}

// verify checks that the first process is as confined as config.json says: older versions of criu restore less than they save.
func verify(pid int, s *bundle.Spec) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	status := string(b)
	switch {
	case s.Process.NoNewPrivileges && !strings.Contains(status, "\nNoNewPrivs:\t1\n"):
		return errdef.New(errdef.NotImplemented, "config.json: process.noNewPrivileges: this criu restores the process without it; CRIU 4.0 or newer does")
	case s.Linux.Seccomp != nil && strings.Contains(status, "\nSeccomp:\t0\n"):
		return errdef.New(errdef.NotImplemented, "config.json: linux.seccomp: the process came back without its filter; is criu built with seccomp?")
	}
	return nil
}
