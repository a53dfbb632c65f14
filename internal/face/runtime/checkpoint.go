package runtime

import (
	"flag"
	"path/filepath"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
)

// criuFlags are shared by checkpoint and restore.
type criuFlags struct {
	o       oci.CheckpointOptions
	emptyNS list
}

// defaultImages is the folder of the images where none is given, in the working folder.
const defaultImages = "checkpoint"

func (f *criuFlags) define(fs *flag.FlagSet) {
	o := &f.o
	o.StatusFD = -1
	fs.StringVar(&o.Images, "image-path", "", "folder of the checkpoint (default ./"+defaultImages+")")
	fs.StringVar(&o.Work, "work-path", "", "folder for criu's log and statistics (default: the image path)")
	fs.BoolVar(&o.TCPEstablished, "tcp-established", false, "save and restore open TCP connections")
	fs.BoolVar(&o.ExtUnixSk, "ext-unix-sk", false, "allow unix sockets whose other end is outside")
	fs.BoolVar(&o.ShellJob, "shell-job", false, "allow processes that belong to the session of a shell outside")
	fs.BoolVar(&o.FileLocks, "file-locks", false, "save and restore file locks")
	fs.StringVar(&o.CgroupMode, "manage-cgroups-mode", "", "what to restore of cgroups: soft (default), full, strict or ignore")
	fs.Var(&f.emptyNS, "empty-ns", "make this namespace but do not restore what is in it: network, which is the default")
	fs.BoolVar(&o.AutoDedup, "auto-dedup", false, "drop pages from earlier images that later ones have")
	fs.BoolVar(&o.LazyPages, "lazy-pages", false, "move memory when it is used (userfaultfd)")
}

// options checks what flags alone can tell.
func (f *criuFlags) options() (*oci.CheckpointOptions, error) {
	for _, ns := range f.emptyNS {
		if ns != "network" {
			return nil, errdef.New(errdef.InvalidArgument, "--empty-ns %q: only network can be left empty", ns)
		}
	}
	o := f.o
	if o.Images == "" {
		o.Images = defaultImages
	}
	for _, p := range []*string{&o.Images, &o.Work} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return nil, err
		}
		*p = abs
	}
	return &o, nil
}

func (a *app) checkpoint(fs *flag.FlagSet, argv []string) (int, error) {
	var f criuFlags
	f.define(fs)
	fs.StringVar(&f.o.Parent, "parent-path", "", "folder of an earlier pre-dump, relative to the image path")
	fs.BoolVar(&f.o.LeaveRunning, "leave-running", false, "let the container run on")
	fs.BoolVar(&f.o.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are not established yet")
	fs.BoolVar(&f.o.Unlink, "link-remap", false, "give files without a name one for the time being")
	fs.IntVar(&f.o.StatusFD, "status-fd", -1, "descriptor that gets a NUL byte once --lazy-pages serves")
	fs.StringVar(&f.o.PageServer, "page-server", "", "ADDRESS:PORT of the page server")
	fs.BoolVar(&f.o.PreDump, "pre-dump", false, "save memory only and let the container run on")
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	o, err := f.options()
	if err != nil {
		return 1, err
	}
	c, err := a.load(args[0])
	if err != nil {
		return 1, err
	}
	if err := oci.Checkpoint(c, o); err != nil {
		return 1, err
	}
	if o.LeaveRunning || o.PreDump {
		return 0, nil
	}
	return 0, c.Delete(true)
}

func (a *app) restore(fs *flag.FlagSet, argv []string) (int, error) {
	var f createFlags
	var g criuFlags
	g.define(fs)
	f.defineBundle(fs)
	both(fs.BoolVar, &f.detach, "detach", "d", false, "do not wait for the container")
	fs.BoolVar(&f.noSubreaper, "no-subreaper", false, "do not adopt what the container's processes leave behind")
	fs.BoolVar(&f.noPivot, "no-pivot", false, "refused: criu always uses pivot_root")
	fs.StringVar(&g.o.LSMProfile, "lsm-profile", "", "another profile than the saved one: apparmor:PROFILE or selinux:LABEL")
	fs.StringVar(&g.o.LSMMountContext, "lsm-mount-context", "", "another SELinux context of mounts than the saved one")
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	if f.noPivot {
		return 1, errdef.New(errdef.NotImplemented, "restore --no-pivot: criu always uses pivot_root, which a root on a ramdisk refuses")
	}
	co, err := g.options()
	if err != nil {
		return 1, err
	}
	o, err := a.options(&f, args[0])
	if err != nil {
		return 1, err
	}
	terminal := o.Spec.Process.Terminal
	if err := terminalFits(terminal, f.detach, f.consoleSocket); err != nil {
		return 1, err
	}
	o.Notify = false // who was to be told that the container is ready has been told before the checkpoint
	var s supervisor
	if f.detach {
		o.Console = consoleTo(f.consoleSocket)
	} else {
		if err := s.begin(terminal, !f.noSubreaper && oci.SharesPids(o.Spec)); err != nil {
			return 1, err
		}
		o.Console = s.console()
	}
	c, err := oci.Restore(o, co)
	if err != nil {
		return 1, err
	}
	if err := announce(c, &f); err != nil {
		return 1, err
	}
	if f.detach {
		return 0, nil
	}
	code := s.wait(c.Init())
	return code, c.Delete(true)
}
