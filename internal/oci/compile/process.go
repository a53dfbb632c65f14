package compile

import (
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

const capSysAdmin = 21

// oomScore is the value to set, in range of what we may: lowering it below what we have ourselves needs CAP_SYS_RESOURCE.
func (c *compiler) oomScore() (int, bool) {
	s := c.spec.Process.OOMScoreAdj
	if s == nil {
		return 0, false
	}
	c.Why("process.oomScoreAdj")
	if least := c.in.Facts.OOMFloor; least != nil && *s < *least {
		c.Warn("process.oomScoreAdj: " + strconv.Itoa(*s) + " needs CAP_SYS_RESOURCE; it is " + strconv.Itoa(*least))
		return *least, true
	}
	return *s, true
}

// ownOOMScore writes the process's own value while the host's /proc is in sight.
func (c *compiler) ownOOMScore() {
	if v, ok := c.oomScore(); ok {
		c.writeFile("", 0, "/proc/self/oom_score_adj", strconv.Itoa(v))
	}
}

// folder makes the working folder where there is none, before anything becomes read-only.
func (c process) folder() error {
	if cwd := c.spec.Process.Cwd; path.Clean("/"+cwd) != "/" && (c.in.Rootfs != nil || c.spec.Root != nil) {
		c.Why("process.cwd")
		c.ensure(cwd, true)
	}
	return nil
}

// beforePark is what can fail early and needs root: limits, the working folder, whether there is something to execute.
func (c process) beforePark() error {
	if err := c.scheduling(); err != nil {
		return err
	}
	labeller(c).process()
	c.lookup()
	if err := c.rlimits(); err != nil { // last of what opens anything: the limit of open files may be small
		return err
	}
	c.Why("")
	keep := []prog.Reg(nil)
	if c.in.Facts.Park != [2]int{} {
		keep = c.park[:]
	}
	hooker{c}.tellState(startContainer)
	c.Why("")
	keep = append(slices.Clone(keep), hooker{c}.stateKept()...)
	c.Emit(prog.Ins{Op: prog.Keep, Args: [6]prog.Arg{prog.Imm(int64(3 + c.in.Facts.Preserve))}, Keep: keep, Note: "nothing of the host's stays open"})
	if !c.filter.notifies() { // else it parks with its filter loaded, so that who listens knows of it before start
		c.parkHere(false)
	}
	return nil
}

// parkHere waits for start; silent where the filter may forbid to say so.
func (c process) parkHere(silent bool) {
	var args [6]prog.Arg
	if c.in.Facts.Park != [2]int{} {
		args = [6]prog.Arg{prog.Imm(int64(c.park[0])), prog.Imm(int64(c.park[1]))}
	}
	if silent {
		args[2] = prog.Imm(1, "silent")
	}
	c.Why("")
	c.Emit(prog.Ins{Op: prog.Park, Args: args, Note: "created; wait for start"})
}

func (c process) rlimits() error {
	if n := c.in.Facts.NoFile; n != [2]uint64{} && !slices.ContainsFunc(c.spec.Process.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NOFILE" }) {
		c.Why("default limit")
		c.rlimit(specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: n[0], Hard: n[1]})
	}
	seen := map[string]bool{}
	for i, l := range c.spec.Process.Rlimits {
		name := field("process.rlimits", i, "")
		c.Why(name)
		if !slices.Contains(rlimitNames(), l.Type) {
			return invalid(name+".type", "unknown limit %q", l.Type)
		}
		if seen[l.Type] {
			return invalid(name+".type", "%s is listed twice", l.Type)
		}
		seen[l.Type] = true
		if l.Soft > l.Hard {
			return invalid(name+".soft", "%d is above hard %d", l.Soft, l.Hard)
		}
		c.rlimit(l)
	}
	return nil
}

func (c process) rlimit(l specs.POSIXRlimit) {
	nr := slices.Index(rlimitNames(), l.Type)
	val := c.Bytes(prog.U64(l.Soft, l.Hard), "{"+strconv.FormatUint(l.Soft, 10)+", "+strconv.FormatUint(l.Hard, 10)+"}")
	c.Call("", prog.SysPrlimit64, prog.Imm(0), prog.Imm(int64(nr), l.Type), val, prog.Imm(0))
}

// rlimitNames is indexed by the number of the limit (getrlimit(2), the same on amd64 and arm64).
func rlimitNames() []string {
	return []string{"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
		"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME"}
}

// candidates are the files execve is tried on, in order (execvp(3)).
func (c process) candidates() []string {
	p := c.spec.Process
	name := p.Args[0]
	if strings.Contains(name, "/") {
		if !strings.HasPrefix(name, "/") {
			name = path.Join(p.Cwd, name)
		}
		return []string{name}
	}
	search := defaultPath
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if strings.HasPrefix(dir, "/") && !slices.Contains(out, path.Join(dir, name)) { // a relative entry would follow the working folder
			out = append(out, path.Join(dir, name))
		}
	}
	return out
}

// lookup fails before the container is "created" when there is nothing to execute.
func (c process) lookup() {
	c.Why("process.args[0]")
	list := c.candidates()
	if len(list) == 1 && !c.inUserNamespace() { // in one, root may be refused what the process's user is not
		c.Call(ExecNote(c.spec.Process.Args[0]), prog.SysFaccessat, prog.Imm(u.AT_FDCWD), c.Str(list[0]), prog.Imm(1, "X_OK"))
		return
	}
	found := c.Label()
	for _, p := range list {
		next := c.Label()
		c.Call("", prog.SysFaccessat, prog.Imm(u.AT_FDCWD), c.Str(p), prog.Imm(0, "F_OK")).Else(next, u.ENOENT, u.ENOTDIR, u.EACCES, u.ELOOP)
		c.Jump(found)
		c.Bind(next)
	}
	c.Emit(prog.Ins{Op: prog.Fail, Errno: u.ENOENT, Note: ExecNote(c.spec.Process.Args[0])})
	c.Bind(found)
}

// ExecNote is the note of the instructions that execute a command: by it the runtime tells "not found" from other failures.
func ExecNote(arg string) string { return "exec: " + strconv.Quote(arg) }

// finish turns the child into the container's process.
func (c process) finish() error {
	if !c.filter.notifies() {
		if err := (hooker{c}).afterStart(c.become); err != nil {
			return err
		}
	}
	c.ownStdio()
	if err := c.become(); err != nil {
		return err
	}
	if c.filter.notifies() { // it is loaded, for its listener's sake before start; the hooks inherit it with all the rest
		if err := (hooker{c}).afterStart(func() error { return nil }); err != nil {
			return err
		}
	}
	c.execute()
	return nil
}

// become gives a process what it runs with: working folder, identity, rights, filter.
func (c process) become() error {
	p := c.spec.Process
	umask := int64(0o22)
	if p.User.Umask != nil {
		umask = int64(*p.User.Umask)
	}
	c.Why("process.user.umask")
	c.Call("", prog.SysUmask, prog.Imm(umask, "0"+strconv.FormatInt(umask, 8)))
	cwd, away := prog.Arg{}, c.Label()
	elsewhere := p.Cwd != "" && p.Cwd != "/"
	switch {
	case elsewhere:
		cwd = c.Bytes(make([]byte, 4096), "&cwd")
		c.Why("process.cwd")
		at := c.Call("", prog.SysChdir, c.Str(p.Cwd))
		if !c.staysRoot() {
			at.Else(away, u.EACCES)
		}
		c.Call("", prog.SysGetcwd, cwd, prog.Imm(4096))
		c.Bind(away)
	case p.Cwd == "/":
		c.Why("process.cwd")
		c.Call("", prog.SysChdir, c.Str(p.Cwd))
	}
	caps := c.capabilities()
	c.identity()
	if elsewhere {
		c.Why("process.cwd")
		if !c.staysRoot() { // where root may not go its user may: NFS, a user namespace
			there := c.Label()
			c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{cwd, prog.Imm(0), prog.Imm(0), prog.Imm(0xff)}}).Otherwise(there)
			c.Call("again, as the user", prog.SysChdir, c.Str(p.Cwd))
			c.Call("", prog.SysGetcwd, cwd, prog.Imm(4096))
			c.Bind(there)
		}
		c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{cwd, prog.Imm(0), prog.Imm('/'), prog.Imm(0xff)}, Errno: u.ENOENT, Note: "the working folder lies inside the root"})
	}
	if p.NoNewPrivileges {
		c.Why("process.noNewPrivileges")
		c.Call("", prog.SysPrctl, prog.Imm(u.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), prog.Imm(1), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	}
	return c.restrict(caps)
}

// identity sets groups and users; capabilities survive it until restrict sets them.
func (c process) identity() {
	p := c.spec.Process
	c.Why("process.user")
	keep := !c.staysRoot()
	if keep {
		c.Call("", prog.SysPrctl, prog.Imm(u.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), prog.Imm(1), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	}
	groups := prog.U32(p.User.AdditionalGids...)
	text := make([]string, len(p.User.AdditionalGids))
	for i, g := range p.User.AdditionalGids {
		text[i] = strconv.Itoa(int(g))
	}
	at := c.Call("", prog.SysSetgroups, prog.Imm(int64(len(p.User.AdditionalGids))), c.Bytes(groups, "["+strings.Join(text, " ")+"]"))
	if c.in.Facts.Rootless && len(groups) == 0 {
		at.Tolerate(u.EPERM) // nobody may, where an ordinary user has mapped himself
	}
	gid, uid := prog.Imm(int64(p.User.GID)), prog.Imm(int64(p.User.UID))
	c.Call("", prog.SysSetresgid, gid, gid, gid)
	c.Call("", prog.SysSetresuid, uid, uid, uid)
	if keep || p.User.GID != c.in.Facts.User[1] {
		c.Call("changing IDs must not have made us traceable", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
	}
	if keep {
		c.Call("", prog.SysPrctl, prog.Imm(u.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), prog.Imm(0), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	}
}

// staysRoot tells whether the process's user is who the child is from the beginning: nothing changes for it by becoming that user.
func (c process) staysRoot() bool {
	f := &c.in.Facts
	return c.spec.Process.User.UID == 0 && f.User[0] == 0 && (f.Caps == 0 || f.Caps&(1<<capSysAdmin) != 0) && !c.inUserNamespace()
}

type capSets struct{ bounding, effective, permitted, inheritable, ambient uint64 }

// capabilities drops the bounding set and returns the other four. A config without any has none, as with other runtimes.
func (c process) capabilities() *capSets {
	cc := c.spec.Process.Capabilities
	if cc == nil {
		cc = &specs.LinuxCapabilities{}
	}
	var s capSets
	for _, set := range []struct {
		name string
		list []string
		to   *uint64
	}{{"bounding", cc.Bounding, &s.bounding}, {"effective", cc.Effective, &s.effective}, {"permitted", cc.Permitted, &s.permitted},
		{"inheritable", cc.Inheritable, &s.inheritable}, {"ambient", cc.Ambient, &s.ambient}} {
		for i, name := range set.list {
			nr := CapNumber(name)
			if nr < 0 || nr > c.in.Facts.LastCap {
				c.Warn(field("process.capabilities."+set.name, i, "") + ": " + strconv.Quote(name) + " is no capability of this kernel; it is left out")
				continue
			}
			*set.to |= 1 << nr
		}
	}
	c.grantable(&s)
	c.Why("process.capabilities.bounding")
	for nr := 0; nr <= c.in.Facts.LastCap; nr++ {
		if s.bounding&(1<<nr) == 0 {
			c.Call("", prog.SysPrctl, prog.Imm(u.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), prog.Imm(int64(nr), CapName(nr)), prog.Imm(0), prog.Imm(0), prog.Imm(0))
		}
	}
	return &s
}

// grantable leaves out what cannot be given, with a warning: what we lack ourselves, and what the sets rule out between them
// (capabilities(7), "Transformation of capabilities"; runtime-spec, config.md: such a config should not fail).
func (c process) grantable(s *capSets) {
	have := ^uint64(0)
	if c.in.Facts.Caps != 0 && !c.inUserNamespace() { // a user namespace gives all
		have = c.in.Facts.Caps
	}
	leave := func(set string, from *uint64, allowed uint64, why string) {
		for nr := 0; nr <= c.in.Facts.LastCap; nr++ {
			if bit := uint64(1) << nr; *from&bit != 0 && allowed&bit == 0 {
				*from &^= bit
				c.Warn("process.capabilities." + set + ": " + CapName(nr) + " " + why + "; it is left out")
			}
		}
	}
	leave("permitted", &s.permitted, have, "is not ours to give")
	leave("inheritable", &s.inheritable, have, "is not ours to give")
	leave("inheritable", &s.inheritable, s.bounding, "is not in the bounding set")
	leave("effective", &s.effective, s.permitted, "is not permitted")
	leave("ambient", &s.ambient, s.permitted&s.inheritable, "is not permitted and inheritable")
}

func (c process) capset(s *capSets, note string) {
	c.Why("process.capabilities")
	head := c.Bytes(prog.U32(u.CAP_VERSION_3, 0), "&v3")
	lo := func(v uint64) uint32 { return uint32(v) }
	hi := func(v uint64) uint32 { return uint32(v >> 32) }
	data := c.Bytes(prog.U32(lo(s.effective), lo(s.permitted), lo(s.inheritable), hi(s.effective), hi(s.permitted), hi(s.inheritable)),
		"{effective 0x"+strconv.FormatUint(s.effective, 16)+", permitted 0x"+strconv.FormatUint(s.permitted, 16)+", inheritable 0x"+strconv.FormatUint(s.inheritable, 16)+"}")
	c.Call(note, prog.SysCapset, head, data)
}

// ambient raises what is asked for, once nothing is left that our caller had raised: capset keeps of it what stays permitted and inheritable.
func (c process) ambient(s *capSets) {
	c.Why("process.capabilities.ambient")
	if s.permitted&s.inheritable&^s.ambient != 0 {
		c.Call("", prog.SysPrctl, prog.Imm(u.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), prog.Imm(u.PR_CAP_AMBIENT_CLEAR_ALL, "CLEAR_ALL"), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	}
	for nr := 0; nr <= c.in.Facts.LastCap; nr++ {
		if s.ambient&(1<<nr) != 0 {
			c.Call("", prog.SysPrctl, prog.Imm(u.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), prog.Imm(u.PR_CAP_AMBIENT_RAISE, "RAISE"), prog.Imm(int64(nr), CapName(nr)), prog.Imm(0), prog.Imm(0))
		}
	}
}

// execute tries the candidates in order. When none could be executed it tries once more, and the first answer other than
// "not there" is the one reported (execvp(3) prefers EACCES to ENOENT).
func (c process) execute() {
	p := c.spec.Process
	c.Why("process.args")
	argv := c.Strings(p.Args, prog.List(p.Args))
	vars := lastOfEach(p.Env)
	if h := c.in.Facts.Home; h != "" {
		vars = append(slices.DeleteFunc(slices.Clone(vars), func(v string) bool { return v == "HOME=" }), "HOME="+h)
	}
	env := c.Strings(vars, strconv.Itoa(len(vars))+" variables")
	list := c.candidates()
	note := ExecNote(p.Args[0])
	if len(list) > 1 {
		for _, f := range list {
			c.Call(note, prog.SysExecve, c.Str(f), argv, env).Tolerate(u.ENOENT, u.ENOTDIR, u.EACCES)
		}
	}
	for _, f := range list {
		c.Call(note, prog.SysExecve, c.Str(f), argv, env).Tolerate(u.ENOENT, u.ENOTDIR)
	}
	c.Emit(prog.Ins{Op: prog.Fail, Errno: u.ENOENT, Note: note})
}

// lastOfEach returns the variables without those that a later one of the same name replaces.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	out := make([]string, len(env))
	first := len(out)
	for _, v := range slices.Backward(env) {
		name, _, _ := strings.Cut(v, "=")
		if !seen[name] {
			seen[name] = true
			first--
			out[first] = v
		}
	}
	return out[first:]
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
