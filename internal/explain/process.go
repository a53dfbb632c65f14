package explain

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/cgroup"
)

// changed is the note of what a process may change by itself; such rows never differ.
const changed = "changed by the process itself"

// processSection compares the first process: its command line, its user, its environment.
func processSection(v *view) Section {
	s := Section{Name: "process", Title: "First process"}
	p := v.Spec.Process
	if p == nil {
		return s
	}
	now := ""
	if b, err := v.proc("cmdline"); err == nil {
		now = words(splitNul(b))
	}
	v.own(&s, "command", v.why("process.args"), words(p.Args), now)
	now = ""
	if v.Pid > 0 {
		now, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", v.Pid))
	}
	v.own(&s, "working folder", v.why("process.cwd"), p.Cwd, now)
	user := fmt.Sprintf("%d:%d", p.User.UID, p.User.GID)
	if row := s.compare("user:group", v.why("process.user"), user, v.effectiveUser()); row.Differs {
		row.Note = "a process may change its user by itself"
	}
	if groups, ok := v.status["Groups"]; ok || v.Pid == 0 {
		want := numbers(p.User.AdditionalGids)
		row := s.compare("groups", groupsWhy(v), orNone(want), "")
		if ok {
			have := strings.Fields(groups)
			slices.Sort(want)
			slices.Sort(have)
			row.Kernel, row.Differs = orNone(have), !slices.Equal(slices.Compact(want), slices.Compact(have))
		}
	}
	if u := p.User.Umask; u != nil {
		v.own(&s, "umask", v.why("process.user.umask"), fmt.Sprintf("%04o", *u), v.status["Umask"])
	}
	v.environment(&s)
	if p.OOMScoreAdj != nil {
		b, _ := v.proc("oom_score_adj")
		s.compare("oom_score_adj", v.why("process.oomScoreAdj"), strconv.Itoa(*p.OOMScoreAdj), strings.TrimSpace(string(b)))
	}
	return s
}

// groupsWhy names every --group-add, or else what chose the user, whose groups they are.
func groupsWhy(v *view) string {
	var list []string
	for k, why := range v.Why {
		if strings.HasPrefix(k, "process.user.additionalGids ") {
			list = append(list, why)
		}
	}
	if len(list) == 0 {
		return v.why("process.user")
	}
	slices.Sort(list)
	return strings.Join(list, " + ")
}

// own adds a row about something that the process may change.
func (v *view) own(s *Section, what, asked, planned, now string) {
	row := Row{What: what, Asked: asked, Planned: short(planned), Kernel: short(now)}
	if now != "" && now != planned {
		row.Note = changed
	}
	s.add(row)
}

// environment has one row per variable; the kernel knows what the program was started with.
func (v *view) environment(s *Section) {
	have := map[string]string{}
	b, err := v.proc("environ")
	for _, e := range splitNul(b) {
		k, val, _ := strings.Cut(e, "=")
		have[k] = val
	}
	for _, e := range v.Spec.Process.Env {
		k, val, _ := strings.Cut(e, "=")
		now := ""
		if err == nil && v.Pid > 0 {
			if got, ok := have[k]; !ok {
				now = "(unset)"
			} else if now = got; now == "" {
				now = "(empty)"
				if val == "" {
					val = now
				}
			}
		}
		v.own(s, "$"+k, v.why("process.env "+k), val, now)
	}
}

func splitNul(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// words prints an argument list so that its borders show.
func words(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\") {
			out[i] = strconv.Quote(a)
		}
	}
	return strings.Join(out, " ")
}

func numbers(in []uint32) []string {
	var out []string
	for _, n := range in {
		out = append(out, strconv.FormatUint(uint64(n), 10))
	}
	return out
}

// effectiveUser is UID:GID as the kernel has them, "" when it does not run.
func (v *view) effectiveUser() string {
	u, g := strings.Fields(v.status["Uid"]), strings.Fields(v.status["Gid"])
	if len(u) < 2 || len(g) < 2 {
		return ""
	}
	return u[1] + ":" + g[1]
}

// limitsSection compares the resource limits; those that nobody asked for are inherited from the engine.
func limitsSection(v *view) Section {
	s := Section{Name: "rlimits", Title: "Resource limits (soft hard)"}
	b, err := v.proc("limits")
	have := map[string]string{}
	var order []string
	for l := range bytes.Lines(b) {
		if name, val, ok := limitLine(string(l)); ok {
			have[name] = val
			order = append(order, name)
		}
	}
	if v.Spec.Process != nil {
		for _, r := range v.Spec.Process.Rlimits {
			planned := limit(r.Soft) + " " + limit(r.Hard)
			asked := v.why("process.rlimits " + r.Type)
			if v.Pid > 0 && err != nil {
				s.unread(r.Type, asked, planned, err)
				continue
			}
			now := have[r.Type]
			row := Row{What: r.Type, Asked: asked, Planned: planned, Kernel: now}
			// The soft limit is the process's own to move, and programs do (Go's raise that of open files); so is lowering the hard one.
			if now != "" && now != planned {
				row.Note = changed
				row.Differs = above(now, r.Hard)
			}
			if row.Differs {
				row.Note = "only a privileged process can have raised it"
			}
			s.add(row)
			order = slices.DeleteFunc(order, func(n string) bool { return n == r.Type })
		}
	}
	for _, n := range order {
		s.add(Row{What: n, Asked: "inherited from the engine", Kernel: have[n]})
	}
	return s
}

func limit(n uint64) string {
	if n == 1<<64-1 {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// above tells whether the hard limit of "soft hard" is above the one that was asked for.
func above(now string, hard uint64) bool {
	_, h, _ := strings.Cut(now, " ")
	n, err := strconv.ParseUint(h, 10, 64)
	if h == "unlimited" {
		n, err = 1<<64-1, nil
	}
	return err == nil && n > hard
}

// limitLine reads one line of /proc/PID/limits: a name in words, then soft, hard and unit.
func limitLine(l string) (name, value string, ok bool) {
	for _, k := range [][2]string{
		{"Max cpu time", "CPU"}, {"Max file size", "FSIZE"}, {"Max data size", "DATA"}, {"Max stack size", "STACK"},
		{"Max core file size", "CORE"}, {"Max resident set", "RSS"}, {"Max processes", "NPROC"}, {"Max open files", "NOFILE"},
		{"Max locked memory", "MEMLOCK"}, {"Max address space", "AS"}, {"Max file locks", "LOCKS"}, {"Max pending signals", "SIGPENDING"},
		{"Max msgqueue size", "MSGQUEUE"}, {"Max nice priority", "NICE"}, {"Max realtime priority", "RTPRIO"}, {"Max realtime timeout", "RTTIME"},
	} {
		if rest, found := strings.CutPrefix(l, k[0]+" "); found {
			f := strings.Fields(rest)
			if len(f) < 2 {
				return "", "", false
			}
			return "RLIMIT_" + k[1], f[0] + " " + f[1], true
		}
	}
	return "", "", false
}

// maxListed bounds the processes that are listed one by one.
const maxListed = 200

// processesSection lists what runs in the container by host and container PID.
func processesSection(v *view) Section {
	s := Section{Name: "processes", Title: "Processes"}
	if v.State == nil || v.Pid == 0 {
		return s
	}
	pids, err := cgroup.Pids(v.State.Cgroups)
	if err != nil {
		s.unread("processes", "", "", err)
		return s
	}
	for i, pid := range pids {
		if i == maxListed {
			s.add(Row{What: fmt.Sprintf("and %d more", len(pids)-i)})
			break
		}
		b, err := read(fmt.Sprintf("/proc/%d/status", pid), maxProc)
		if err != nil {
			continue // it has ended
		}
		f := fields(b)
		cmd, _ := read(fmt.Sprintf("/proc/%d/cmdline", pid), maxProc)
		what := words(splitNul(cmd))
		if what == "" {
			what = "[" + f["Name"] + "]"
		}
		inside := "?"
		if ns := strings.Fields(f["NSpid"]); len(ns) > 0 {
			inside = ns[len(ns)-1]
		}
		uid, _, _ := strings.Cut(f["Uid"], "\t")
		s.add(Row{What: short(what), Kernel: fmt.Sprintf("host %d, container %s, user %s, %s threads, %s", pid, inside, uid, f["Threads"], f["State"])})
	}
	return s
}
