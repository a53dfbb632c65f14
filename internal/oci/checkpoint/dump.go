package checkpoint

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/criu"
)

// Dump saves the processes of a running container; without LeaveRunning and PreDump they have ended when it returns.
func Dump(c *Container, o *Options) error {
	if err := dumpable(c, o); err != nil {
		return err
	}
	f, err := openFolders(o, dumpLog, true)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.outOfReach(c); err != nil {
		return err
	}
	m, err := common(o, f, dumpLog)
	if err != nil {
		return err
	}
	m.Int(criu.PID, int64(c.PID))
	m.Text(criu.RootDir, c.Rootfs)
	m.Bool(criu.LeaveRunning, o.LeaveRunning)
	m.Bool(criu.TCPSkipInFlight, o.TCPSkipInFlight)
	m.Bool(criu.LinkRemap, o.Unlink)
	if err := pages(&m, o, f); err != nil {
		return err
	}
	if err := namespaces(&m, c); err != nil {
		return err
	}
	if dir := freezer(c); dir != "" {
		m.Text(criu.FreezeCgroup, dir)
	}
	if !o.PreDump {
		if err := externals(&m, c); err != nil {
			return err
		}
		if err := writeDescriptors(f.images, c.PID); err != nil {
			return err
		}
	}
	return run(&m, c, o, f)
}

func run(m *criu.Message, c *Container, o *Options, f *folders) error {
	kind := criu.Dump
	if o.PreDump {
		kind = criu.PreDump
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	s, err := criu.Start([3]*os.File{null, null, null}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	var ours error
	err = s.Do(kind, *m, func(n criu.Notice) error {
		ours = notice(n, c, o)
		return ours
	})
	switch {
	case ours != nil:
		return ours
	case err != nil:
		return failed(err, f, dumpLog)
	}
	return nil
}

// notice serves one of criu's while it saves.
func notice(n criu.Notice, c *Container, o *Options) error {
	if n.File != nil {
		n.File.Close()
	}
	switch {
	case n.Script == "network-lock" && c.Alive != nil && !c.Alive(): // criu has stopped it by now: it does not become another any more
		return errdef.New(errdef.Conflict, "process %d is not the container's any more", c.PID)
	case n.Script == "status-ready" && o.StatusFD >= 0:
		_, err := unix.Write(o.StatusFD, []byte{0})
		unix.Close(o.StatusFD)
		if err != nil {
			return fmt.Errorf("--status-fd %d: %w", o.StatusFD, err)
		}
	}
	return nil
}

// dumpable refuses what cannot work before anything is written.
func dumpable(c *Container, o *Options) error {
	if o.LSMProfile != "" || o.LSMMountContext != "" {
		return errdef.New(errdef.InvalidArgument, "--lsm-profile and --lsm-mount-context belong to restore")
	}
	if o.StatusFD >= 0 {
		flags, err := unix.FcntlInt(uintptr(o.StatusFD), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY {
			return errdef.New(errdef.InvalidArgument, "--status-fd %d: not an open descriptor that can be written", o.StatusFD)
		}
		if !o.LazyPages {
			return errdef.New(errdef.InvalidArgument, "--status-fd needs --lazy-pages")
		}
	}
	for _, need := range []struct {
		on      bool
		feature criu.Field
		flag    string
	}{{o.PreDump || o.Parent != "", criu.MemTrack, "--pre-dump and --parent-path"}, {o.LazyPages, criu.FeatLazyPages, "--lazy-pages"}} {
		if !need.on {
			continue
		}
		if ok, err := criu.Has(need.feature); err != nil {
			return fmt.Errorf("%s: %w", need.flag, err)
		} else if !ok {
			return errdef.New(errdef.NotImplemented, "%s: this kernel, or criu, cannot do it (criu check --all)", need.flag)
		}
	}
	return nil
}

// pages are the options of where memory goes to.
func pages(m *criu.Message, o *Options, f *folders) error {
	if o.PageServer != "" {
		a, err := netip.ParseAddrPort(o.PageServer)
		if err != nil || a.Port() == 0 {
			return errdef.New(errdef.InvalidArgument, "--page-server %q is no ADDRESS:PORT", o.PageServer)
		}
		m.Sub(criu.PageServer, criu.Numbered(a.Addr().String(), int(a.Port())))
	}
	if o.Parent == "" {
		return nil
	}
	if filepath.IsAbs(o.Parent) {
		return errdef.New(errdef.InvalidArgument, "--parent-path %q: must be relative to the image path", o.Parent)
	}
	parent, err := openFolder(filepath.Join(o.Images, o.Parent), false)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "--parent-path: %w", err)
	}
	defer parent.Close()
	if err := vetImages(parent, 0); err != nil {
		return fmt.Errorf("--parent-path: %w", err)
	}
	m.Text(criu.ParentImage, o.Parent)
	m.Bool(criu.TrackMem, true)
	return nil
}

// namespaces names those that somebody else made.
func namespaces(m *criu.Message, c *Container) error {
	for _, t := range externalNamespaces() {
		for _, n := range c.Spec.Linux.Namespaces {
			if n.Type != t || n.Path == "" {
				continue
			}
			var st unix.Stat_t
			if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", c.PID, namespaceName(t)), &st); err != nil {
				return fmt.Errorf("namespace %s of the container: %w", t, err)
			}
			m.Text(criu.External, fmt.Sprintf("%s[%d]:%s", namespaceName(t), st.Ino, externalKey(t)))
		}
	}
	return nil
}

// freezer is the cgroup by which criu can stop all processes at once: v1's freezer, or the one v2 hierarchy.
func freezer(c *Container) string {
	for _, d := range c.Cgroups {
		if !d.V2 && d.Has("freezer") {
			return d.Path
		}
	}
	if len(c.Cgroups) == 1 && c.Cgroups[0].V2 {
		return c.Cgroups[0].Path
	}
	return ""
}

// externals names the mounts that come from outside, as the kernel shows them now.
func externals(m *criu.Message, c *Container) error {
	r, err := openRoot(fmt.Sprintf("/proc/%d/root", c.PID))
	if err != nil {
		return err
	}
	defer r.f.Close()
	table, err := mountInfo(c.PID)
	if err != nil {
		return err
	}
	list := places(c, r)
	for _, e := range table {
		if fd, err := r.open(e.point, 0, unix.RESOLVE_IN_ROOT); err == nil {
			var st unix.Stat_t
			e.file = unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR
			unix.Close(fd)
		}
		if key := outside(list, e, !newCgroupNamespace(c.Spec)); key != "" {
			m.Sub(criu.ExtMount, criu.Pair(e.point, key))
		}
	}
	return nil
}

// writeDescriptors notes what the first process's descriptors are: pipes among them are the caller's at the restore.
func writeDescriptors(images *os.File, pid int) error {
	var list []string
	for fd := range 3 {
		s, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil {
			s = os.DevNull // closed by the container
		}
		list = append(list, s)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(int(images.Fd()), descriptorsFile, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: images.Name() + "/" + descriptorsFile, Err: err}
	}
	f := os.NewFile(uintptr(fd), descriptorsFile)
	defer f.Close()
	_, err = f.Write(b)
	return err
}
