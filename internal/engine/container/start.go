package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/keeper"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/shim/wire"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// WhyFile lies beside config.json and maps its entries to the flags and image fields that asked for them.
const WhyFile = "why.json"

// hostsFile is what is mounted at /etc/hosts; every start writes it into the container's durable folder.
const hostsFile = "hosts"

// Start implements api.Containers.
func (s *Service) Start(ctx context.Context, ref string) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	return s.start(ctx, u, true)
}

// start runs the container's command. byUser tells it from a restart by policy, which user's wishes may have overtaken.
func (c *core) start(ctx context.Context, u *unit, byUser bool) error {
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	rec := u.rec.Load()
	u.mu.Lock()
	running, removing := u.run != nil, u.removing
	u.mu.Unlock()
	switch {
	case removing:
		return errdef.New(errdef.Conflict, "container %s is marked for removal and cannot be started", u.id)
	case rec.State.Paused && running:
		return errdef.New(errdef.Conflict, "cannot start a paused container, try unpause instead")
	case running:
		return errdef.New(errdef.NotModified, "container %s is running already", u.id)
	case !byUser && rec.WantStopped:
		return nil
	}
	if byUser {
		u.cancelRestart()
	}
	// A client that hangs up must not leave half a start: from here on only the clock interrupts.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
	defer cancel()
	l := &launch{c: c, u: u, rec: rec}
	if err := l.do(ctx); err != nil {
		return c.startFailed(u, byUser, err)
	}
	return nil
}

// startFailed records why, in Docker's exit codes, and takes an --rm container away.
func (c *core) startFailed(u *unit, byUser bool, err error) error {
	rec := u.change()
	rec.State = api.State{ExitCode: startExitCode(err), Error: err.Error(), StartedAt: rec.State.StartedAt, FinishedAt: rec.State.FinishedAt}
	c.note(u, rec)
	c.Log.Warn("container not started", "container", u.id, "err", err)
	c.endPending(u, nil)
	if byUser && rec.HostConfig.AutoRemove {
		if rerr := c.delete(context.Background(), u, true); rerr != nil {
			c.Log.Error("container not removed", "container", u.id, "err", rerr)
		}
	}
	return err
}

// startExitCode is what a shell would say: 127 for a command that is not there, 126 for one that may not run.
func startExitCode(err error) int {
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory"):
		return 127
	case strings.Contains(text, "permission denied") || strings.Contains(text, "is a directory"):
		return 126
	}
	return 128
}

// launch is one start under way.
type launch struct {
	c    *core
	u    *unit
	rec  *api.Container
	conn *Connection
	// layers holds what rootfs.json names by this process's descriptor.
	layers *os.File
	undo   []func(context.Context)
}

func (l *launch) do(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			// Time of its own: it may be because ctx ended that there is something to undo.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			for _, f := range slices.Backward(l.undo) {
				f(ctx)
			}
		}
		if l.conn != nil && l.conn.Netns != nil {
			l.conn.Netns.Close()
		}
		l.layers.Close()
	}()
	dir := l.c.runDir(l.rec.ID)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear the run folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	l.undo = append(l.undo, func(context.Context) { os.RemoveAll(dir) })
	if err := keepRecord(dir, l.rec); err != nil {
		return err
	}
	if err := keeper.Forget(l.c.stateDir(l.rec.ID)); err != nil {
		return err
	}
	conf, err := l.c.shimConfig(l.rec)
	if err != nil {
		return err
	}
	shim := l.spawn(ctx, conf) // a process start takes about as long as all that is prepared meanwhile
	if err := l.bundle(ctx, dir); err != nil {
		return err
	}
	return l.run(ctx, shim)
}

// spawn starts the shim in the background; the function returned waits until it listens.
func (l *launch) spawn(ctx context.Context, conf wire.Config) func() (*keeper.Shim, error) {
	var shim *keeper.Shim
	var err error
	done := make(chan struct{})
	go func() { // ends when the shim listens or could not be started, at latest with ctx
		defer close(done)
		shim, err = keeper.Start(ctx, l.c.Shim, conf)
	}()
	l.undo = append(l.undo, func(ctx context.Context) {
		if <-done; err != nil {
			return
		}
		if err := shim.End(ctx, true); err != nil {
			l.c.Log.Error("shim not ended", "container", l.rec.ID, "err", err)
		}
	})
	return func() (*keeper.Shim, error) {
		<-done
		return shim, err
	}
}

// bundle writes what the runtime reads.
func (l *launch) bundle(ctx context.Context, dir string) error {
	out, err := l.prepare(ctx)
	if err != nil {
		return err
	}
	rootfs, layers, err := l.c.Snapshots.Open(l.rec.ID)
	if err != nil {
		return err
	}
	l.layers = layers
	if err := bundle.Save(dir, out.Spec, &rootfs); err != nil {
		return err
	}
	return writeWhy(dir, out.Why)
}

func writeWhy(dir string, why spec.Why) error {
	b, err := json.MarshalIndent(why, "", " ")
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(dir, WhyFile), append(b, '\n'), 0o600, false)
}

// prepare gets the network and builds the specification.
func (l *launch) prepare(ctx context.Context) (spec.Output, error) {
	in := spec.Input{Container: l.rec, Namespaces: map[specs.LinuxNamespaceType]string{}}
	var err error
	if in.Host, err = l.c.host(l.rec); err != nil {
		return spec.Output{}, err
	}
	in.Hostname = l.rec.Config.Hostname
	if l.rec.HostConfig.UTSMode.IsHost() || in.Hostname == "" {
		in.Hostname, _ = os.Hostname()
	}
	looked := make(chan error, 1)
	go func() { // ends by itself: a mount, two small files; it takes about as long as the network
		var err error
		in.User, err = l.user()
		looked <- err
	}()
	err = l.join(ctx, &in)
	if lookErr := <-looked; err == nil {
		err = lookErr
	}
	if err != nil {
		return spec.Output{}, err
	}
	out, err := spec.Build(in)
	if err == nil && out.Spec.Process.ApparmorProfile != "" && out.Spec.Process.ApparmorProfile == in.Host.AppArmorProfile {
		err = l.c.LoadProfile()
	}
	return out, err
}

// user looks the command's user up in the container's own files.
func (l *launch) user() (spec.User, error) {
	f, err := l.c.Snapshots.Mount(l.rec.ID, true)
	if err != nil {
		return spec.User{}, err
	}
	root := rootfs.New(f)
	defer root.Close()
	u, err := root.User(l.rec.Config.User, l.rec.HostConfig.GroupAdd)
	return spec.User{UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home}, err
}

// join connects the network, or finds the namespaces of the container whose network or PIDs are shared.
func (l *launch) join(ctx context.Context, in *spec.Input) error {
	h := l.rec.HostConfig
	var hosts, resolv []byte
	switch m := h.NetworkMode; {
	case m.IsContainer():
		other, pid, err := l.c.runningOther(m.ConnectedContainer(), "network")
		if err != nil {
			return err
		}
		netns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			return fmt.Errorf("join the network of container %s: %w", other.ID[:12], err)
		}
		l.conn = &Connection{Netns: netns}
		// The other's files are the same files here, as its network is the same network.
		dir := l.c.stateDir(other.ID)
		in.HostsFile, in.ResolvConf, in.HostnameFile = filepath.Join(dir, hostsFile), filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hostname")
		if other.Config.Hostname != "" {
			in.Hostname = other.Config.Hostname
		}
	case m.IsHost():
		var err error
		if hosts, resolv, err = l.c.Network.HostFiles(l.rec); err != nil {
			return err
		}
	default:
		conn, err := l.c.Network.Connect(ctx, l.rec)
		if err != nil {
			return err
		}
		l.conn, hosts, resolv = conn, conn.Hosts, conn.Resolv
		l.undo = append(l.undo, func(ctx context.Context) {
			if err := l.c.Network.Disconnect(ctx, l.rec.ID); err != nil {
				l.c.Log.Error("network not released", "container", l.rec.ID, "err", err)
			}
		})
	}
	if l.conn != nil {
		// Nothing but this descriptor holds the namespace until the container does.
		in.Namespaces[specs.NetworkNamespace] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.conn.Netns.Fd())
	}
	if m := h.PidMode; m.IsContainer() {
		_, pid, err := l.c.runningOther(m.Container(), "PID")
		if err != nil {
			return err
		}
		in.Namespaces[specs.PIDNamespace] = fmt.Sprintf("/proc/%d/ns/pid", pid)
	}
	if in.HostsFile != "" {
		return nil
	}
	return l.files(in, hosts, resolv)
}

// files writes what is mounted at /etc/hosts, /etc/hostname and /etc/resolv.conf into the container's durable folder.
func (l *launch) files(in *spec.Input, hosts, resolv []byte) error {
	dir := l.c.stateDir(l.rec.ID)
	for _, f := range []struct {
		name string
		data []byte
		to   *string
	}{
		{hostsFile, hosts, &in.HostsFile}, {"resolv.conf", resolv, &in.ResolvConf}, {"hostname", []byte(in.Hostname + "\n"), &in.HostnameFile},
	} {
		*f.to = filepath.Join(dir, f.name)
		// A container of the last run may have written to it: it is the same file then, and stays readable for every user.
		if err := atomicfile.WriteVolatile(*f.to, f.data, 0o644, false); err != nil {
			return err
		}
	}
	return nil
}

// runningOther finds the container whose namespace is joined.
func (c *core) runningOther(ref, what string) (*api.Container, int, error) {
	u, err := c.table.find(ref)
	if err != nil {
		return nil, 0, err
	}
	rec := u.rec.Load()
	if _, err := u.current(); err != nil || rec.State.Pid == 0 {
		return nil, 0, errdef.New(errdef.Conflict, "cannot join the %s namespace of container %s: it is not running", what, rec.Name)
	}
	return rec, rec.State.Pid, nil
}

// run starts shim and command and records that they run.
func (l *launch) run(ctx context.Context, spawned func() (*keeper.Shim, error)) error {
	c := l.c
	shim, err := spawned()
	if err != nil {
		return err
	}
	streams := c.openPending(ctx, l.u, shim)
	fail := func(err error) error {
		for _, st := range streams {
			st.end(nil)
		}
		return startError(err)
	}
	pid, err := shim.Run(ctx)
	if err != nil {
		return fail(err)
	}
	l.started(shim, pid)
	return nil
}

// started makes it known. The container runs: nothing that fails from here on may undo that.
func (l *launch) started(shim *keeper.Shim, pid int) {
	c, u := l.c, l.u
	rec := u.change()
	rec.State = api.State{Running: true, Pid: pid, StartedAt: time.Now().UTC(), FinishedAt: rec.State.FinishedAt}
	if l.conn != nil {
		rec.State.Ports, rec.State.Endpoints = l.conn.Ports, l.conn.Endpoints
	}
	rec.WantStopped = false
	if rec.HostConfig.AutoRemove && l.conn == nil { // all that is new the shim can tell; see Recovery.adopt
		u.rec.Store(rec)
	} else {
		c.note(u, rec)
	}
	r := &run{shim: shim, ended: make(chan struct{})}
	u.setRun(r)
	c.event(rec, events.ActionStart, nil)
	c.Log.Info("container started", "container", rec.ID, "pid", pid)
	go ender{c}.watch(u, r) // ends with the run or the engine
}

// startError gives an error of the runtime the kind and the words by which Docker's clients tell the exit code.
func startError(err error) error {
	text := err.Error()
	switch errdef.KindOf(err) {
	case errdef.NotFound:
		if !strings.Contains(text, "no such file or directory") && !strings.Contains(text, "executable file not found") {
			err = fmt.Errorf("%w: executable file not found in $PATH", err)
		}
		return errdef.As(errdef.InvalidArgument, err)
	case errdef.Forbidden:
		if !strings.Contains(text, "permission denied") && !strings.Contains(text, "is a directory") {
			err = fmt.Errorf("%w: permission denied", err)
		}
		return errdef.As(errdef.InvalidArgument, err)
	}
	return err
}

// shimConfig says what the shim has to know.
func (c *core) shimConfig(rec *api.Container) (wire.Config, error) {
	log, err := logConfig(rec.HostConfig.LogConfig, filepath.Join(c.stateDir(rec.ID), rec.ID+"-json.log"))
	if err != nil {
		return wire.Config{}, err
	}
	return wire.Config{
		ID: rec.ID, Bundle: c.runDir(rec.ID), RunDir: c.runDir(rec.ID), StateDir: c.stateDir(rec.ID), OCIRoot: c.ociRoot(),
		Volatile: rec.HostConfig.AutoRemove, // nobody asks after a power loss how a container ended that is removed then
		Terminal: rec.Config.Tty, Stdin: rec.Config.OpenStdin, StdinOne: rec.Config.StdinOnce, Log: log,
		Height: uint16(rec.HostConfig.ConsoleSize[0]), Width: uint16(rec.HostConfig.ConsoleSize[1]),
	}, nil
}
