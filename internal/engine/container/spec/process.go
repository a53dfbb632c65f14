package spec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// clean makes p absolute without dot segments; it never looks at a file.
func clean(p string) string { return path.Clean("/" + p) }

func (b *builder) process() error {
	c := b.in.Container
	p := &specs.Process{
		Terminal:     c.Config.Tty,
		Args:         append([]string{c.Path}, c.Args...),
		Cwd:          "/",
		User:         specs.User{UID: b.in.User.UID, GID: b.in.User.GID, AdditionalGids: b.in.User.Groups, Umask: c.HostConfig.Umask},
		Capabilities: &specs.LinuxCapabilities{Bounding: b.caps, Permitted: b.caps, Effective: b.caps},
	}
	b.s.Process = p
	if c.Config.Tty {
		b.because("process.terminal", "flag --tty")
		if size := c.HostConfig.ConsoleSize; size[0] > 0 && size[1] > 0 {
			p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
		}
	}
	if c.Path == "" {
		return errdef.New(errdef.InvalidArgument, "no command specified")
	}
	b.because("process.args", argsWhy(c))
	b.because("process.user", fieldWhy(c, "User", "--user "+c.Config.User, c.Config.User != ""))
	for _, g := range c.HostConfig.GroupAdd {
		b.because("process.user.additionalGids "+g, "flag --group-add "+g)
	}
	if c.HostConfig.Umask != nil {
		b.because("process.user.umask", fmt.Sprintf("HostConfig.Umask %#o", *c.HostConfig.Umask))
	}
	if c.Config.WorkingDir != "" {
		p.Cwd = clean(c.Config.WorkingDir)
	}
	b.because("process.cwd", fieldWhy(c, "WorkingDir", "--workdir "+c.Config.WorkingDir, c.Config.WorkingDir != ""))
	p.Env = b.environment()
	if err := b.rlimits(p); err != nil {
		return err
	}
	return b.oomScore(p)
}

// argsWhy says where the command line comes from.
func argsWhy(from *api.Container) string {
	image := func(f string) bool { return slices.Contains(from.FromImage, f) }
	c := from.Config
	var parts []string
	switch {
	case len(c.Entrypoint) == 0:
	case image("Entrypoint"):
		parts = append(parts, "image field Config.Entrypoint")
	default:
		parts = append(parts, "flag --entrypoint")
	}
	switch {
	case len(c.Cmd) == 0:
	case image("Cmd"):
		parts = append(parts, "image field Config.Cmd")
	default:
		parts = append(parts, "command line")
	}
	return strings.Join(parts, " + ")
}

func fieldWhy(c *api.Container, field, flag string, set bool) string {
	switch {
	case !set:
		return Default
	case slices.Contains(c.FromImage, field):
		return "image field Config." + field
	}
	return "flag " + flag
}

// environment builds the variables from nothing: Docker's own first, then the image's and the user's, of which the last wins.
func (b *builder) environment() []string {
	c := b.in.Container
	env := []string{defaultPath, "HOSTNAME=" + b.in.Hostname}
	b.because("process.env PATH", Default)
	b.because("process.env HOSTNAME", Default)
	if c.Config.Tty {
		env = append(env, "TERM=xterm")
		b.because("process.env TERM", "flag --tty")
	}
	env = mergeEnv(env, c.Config.Env)
	for _, e := range c.Config.Env {
		name, _, _ := strings.Cut(e, "=")
		if slices.Contains(c.FromImage, "Env "+name) {
			b.because("process.env "+name, "image field Config.Env")
		} else {
			b.because("process.env "+name, "flag --env "+name)
		}
	}
	if !hasEnv(env, "HOME") {
		home := b.in.User.Home
		if home == "" {
			home = "/"
		}
		env = append(env, "HOME="+home)
		b.because("process.env HOME", "home folder of the user in /etc/passwd")
	}
	return env
}

func hasEnv(env []string, name string) bool {
	return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
}

// mergeEnv lays over on base: an entry NAME=value replaces, a bare NAME removes.
func mergeEnv(base, over []string) []string {
	out := slices.Clone(base)
	for _, e := range over {
		name, _, assigned := strings.Cut(e, "=")
		at := slices.IndexFunc(out, func(o string) bool { n, _, _ := strings.Cut(o, "="); return n == name })
		switch {
		case assigned && at >= 0:
			out[at] = e
		case assigned:
			out = append(out, e)
		case at >= 0:
			out = slices.Delete(out, at, at+1)
		}
	}
	return out
}

func (b *builder) rlimits(p *specs.Process) error {
	raise := slices.Contains(b.in.Host.Caps, "CAP_SYS_RESOURCE")
	for i, u := range b.in.Container.HostConfig.Ulimits {
		if u == nil {
			continue
		}
		if _, err := u.GetRlimit(); err != nil {
			return errdef.New(errdef.InvalidArgument, "HostConfig.Ulimits[%d] %s: %w", i, u.Name, err)
		}
		r := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Hard: uint64(u.Hard), Soft: uint64(u.Soft)}
		if own, ok := b.in.Host.Rlimits[r.Type]; ok && !raise && r.Hard > own {
			b.warn = append(b.warn, fmt.Sprintf("ulimit %s: hard limit lowered to %d: the engine lacks CAP_SYS_RESOURCE to raise its own", u.Name, own))
			r.Hard, r.Soft = own, min(r.Soft, own)
		}
		p.Rlimits = append(p.Rlimits, r)
		b.because("process.rlimits "+r.Type, "flag --ulimit "+u.String())
	}
	return nil
}

func (b *builder) oomScore(p *specs.Process) error {
	want := b.in.Container.HostConfig.OomScoreAdj
	if want < -1000 || want > 1000 {
		return errdef.New(errdef.InvalidArgument, "HostConfig.OomScoreAdj %d: must be between -1000 and 1000", want)
	}
	if own := b.in.Host.OOMScoreAdj; want < own && !slices.Contains(b.in.Host.Caps, "CAP_SYS_RESOURCE") {
		if want != 0 {
			b.warn = append(b.warn, fmt.Sprintf("oom-score-adj %d: raised to %d: the engine lacks CAP_SYS_RESOURCE to lower it", want, own))
		}
		want = own
	}
	if b.in.Container.HostConfig.OomScoreAdj != 0 {
		b.because("process.oomScoreAdj", "flag --oom-score-adj "+strconv.Itoa(b.in.Container.HostConfig.OomScoreAdj))
	} else {
		b.because("process.oomScoreAdj", Default)
	}
	p.OOMScoreAdj = &want
	return nil
}

func (b *builder) sysctls() error {
	c := b.in.Container.HostConfig
	for k, v := range c.Sysctls {
		if err := allowedSysctl(k, b.s.Linux.Namespaces); err != nil {
			return err
		}
		if b.s.Linux.Sysctl == nil {
			b.s.Linux.Sysctl = map[string]string{}
		}
		b.s.Linux.Sysctl[k] = v
		b.because("linux.sysctl "+k, "flag --sysctl "+k+"="+v)
	}
	if c.NetworkMode.IsHost() || c.NetworkMode.IsContainer() || c.Privileged {
		return nil
	}
	// An unprivileged user inside may use low ports and ping: the namespace is the container's own.
	for k, v := range map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"} {
		if _, ok := b.s.Linux.Sysctl[k]; ok {
			continue
		}
		if b.s.Linux.Sysctl == nil {
			b.s.Linux.Sysctl = map[string]string{}
		}
		b.s.Linux.Sysctl[k] = v
		b.because("linux.sysctl "+k, Default)
	}
	return nil
}

// allowedSysctl tells whether a key belongs to a namespace that the container has for itself.
func allowedSysctl(key string, own []specs.LinuxNamespace) error {
	has := func(t specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(own, func(n specs.LinuxNamespace) bool { return n.Type == t })
	}
	if strings.ContainsAny(key, "/ ") || strings.Contains(key, "..") {
		return errdef.New(errdef.InvalidArgument, "sysctl %q: not a sysctl name", key)
	}
	ipc := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
	switch {
	case slices.Contains(ipc, key) || strings.HasPrefix(key, "fs.mqueue."):
		if has(specs.IPCNamespace) {
			return nil
		}
		return errdef.New(errdef.InvalidArgument, "sysctl %q is not allowed with the host's IPC namespace", key)
	case strings.HasPrefix(key, "net."):
		if has(specs.NetworkNamespace) {
			return nil
		}
		return errdef.New(errdef.InvalidArgument, "sysctl %q is not allowed with the host's network namespace", key)
	}
	return errdef.New(errdef.InvalidArgument, "sysctl %q is not in a separate kernel namespace", key)
}

// ExecEnv is the environment of a process started in a running container: the container's, then what was asked. home replaces
// HOME where the user differs and nobody set it.
func ExecEnv(container, asked []string, tty bool, home string, keepHome bool) []string {
	var base []string
	if tty {
		base = []string{"TERM=xterm"}
	}
	env := mergeEnv(base, container)
	if home != "" && !keepHome {
		env = mergeEnv(env, []string{"HOME=" + home})
	}
	return mergeEnv(env, asked)
}
