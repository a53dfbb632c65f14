// Package change owns the instructions of a Dockerfile that change an image's configuration and nothing else: what commit and import
// take as changes.
//
// It promises that an instruction either does what the same one does in a Dockerfile or is refused by name. It must never
// touch a file or run anything: it is pure.
package change

import (
	"encoding/json"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Apply applies instructions to c in order. Variables in them are those of env and what ENV sets.
func Apply(c *container.Config, env []string, lines []string) error {
	a := &applier{c: c, env: append([]string(nil), env...)}
	for _, l := range lines {
		for _, one := range split(l) {
			if err := a.line(one); err != nil {
				return err
			}
		}
	}
	return nil
}

// split joins lines that end in a backslash and leaves out comments and empty ones.
func split(s string) []string {
	var out []string
	for _, l := range strings.Split(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\\\n", " "), "\n") {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out
}

type applier struct {
	c      *container.Config
	env    []string
	cmdSet bool
}

// The instructions, by name.
func (a *applier) instructions() map[string]func(string) error {
	return map[string]func(string) error{
		"CMD": a.cmd, "ENTRYPOINT": a.entrypoint, "ENV": a.setEnv, "EXPOSE": a.expose, "HEALTHCHECK": a.healthcheck, "LABEL": a.label,
		"ONBUILD": a.onBuild, "STOPSIGNAL": a.stopSignal, "USER": a.user, "VOLUME": a.volume, "WORKDIR": a.workDir,
	}
}

func (a *applier) line(l string) error {
	name, rest := l, ""
	if i := strings.IndexAny(l, " \t"); i >= 0 {
		name, rest = l[:i], strings.TrimSpace(l[i:])
	}
	f := a.instructions()[strings.ToUpper(name)]
	if f == nil {
		return errdef.New(errdef.InvalidArgument, "%.60q is not a valid change command: use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR", name)
	}
	if strings.IndexByte(l, 0) >= 0 {
		return errdef.New(errdef.InvalidArgument, "change %.60q holds a NUL byte", name)
	}
	if rest == "" {
		return bad(name, rest, "it needs an argument")
	}
	return f(rest)
}

func bad(name, rest, why string) error {
	return errdef.New(errdef.InvalidArgument, "change %s %.200q: %s", strings.ToUpper(name), rest, why)
}

// list reads a JSON list of strings.
func list(s string) ([]string, bool) {
	var l []string
	if !strings.HasPrefix(s, "[") || json.Unmarshal([]byte(s), &l) != nil {
		return nil, false
	}
	return append([]string{}, l...), true
}

// command is the exec or the shell form.
func (a *applier) command(s string) []string {
	if l, ok := list(s); ok {
		return l
	}
	shell := a.c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string{}, shell...), s)
}

func (a *applier) cmd(s string) error {
	a.c.Cmd, a.cmdSet = a.command(s), true
	return nil
}

func (a *applier) entrypoint(s string) error {
	a.c.Entrypoint = a.command(s)
	if !a.cmdSet { // a command for another entrypoint means nothing for this one
		a.c.Cmd = nil
	}
	return nil
}

func (a *applier) setEnv(s string) error {
	pairs, err := pairs("ENV", s, a.lookup)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		a.c.Env, a.env = with(a.c.Env, p), with(a.env, p)
	}
	return nil
}

// with sets a variable in place, or adds it.
func with(env []string, p [2]string) []string {
	out := append([]string{}, env...)
	for i, e := range out {
		if n, _, _ := strings.Cut(e, "="); n == p[0] {
			out[i] = p[0] + "=" + p[1]
			return out
		}
	}
	return append(out, p[0]+"="+p[1])
}

func (a *applier) lookup(name string) (string, bool) {
	for _, e := range a.env {
		if n, v, _ := strings.Cut(e, "="); n == name {
			return v, true
		}
	}
	return "", false
}

func (a *applier) label(s string) error {
	pairs, err := pairs("LABEL", s, a.lookup)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if a.c.Labels == nil {
			a.c.Labels = map[string]string{}
		}
		a.c.Labels[p[0]] = p[1]
	}
	return nil
}

func (a *applier) expose(s string) error {
	list, err := words("EXPOSE", s, a.lookup)
	if err != nil {
		return err
	}
	for _, w := range list {
		r, err := network.ParsePortRange(w)
		if err != nil {
			return bad("EXPOSE", w, err.Error())
		}
		if a.c.ExposedPorts == nil {
			a.c.ExposedPorts = network.PortSet{}
		}
		for p := range r.All() {
			a.c.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

func (a *applier) onBuild(s string) error {
	word, _, _ := strings.Cut(s, " ")
	switch strings.ToUpper(word) {
	case "ONBUILD", "FROM", "MAINTAINER":
		return bad("ONBUILD", s, word+" isn't allowed as an ONBUILD trigger")
	}
	a.c.OnBuild = append(a.c.OnBuild, s)
	return nil
}

func (a *applier) one(name, s string) (string, error) {
	list, err := words(name, s, a.lookup)
	if err == nil && (len(list) != 1 || list[0] == "") {
		err = bad(name, s, "it takes one argument")
	}
	if err != nil {
		return "", err
	}
	return list[0], nil
}

func (a *applier) stopSignal(s string) (err error) {
	if s, err = a.one("STOPSIGNAL", s); err != nil {
		return err
	}
	if _, err := signal.ParseSignal(s); err != nil {
		return bad("STOPSIGNAL", s, "no such signal")
	}
	a.c.StopSignal = s
	return nil
}

func (a *applier) user(s string) (err error) {
	a.c.User, err = a.one("USER", s)
	return err
}

func (a *applier) volume(s string) error {
	l, ok := list(s)
	if !ok {
		var err error
		if l, err = words("VOLUME", s, a.lookup); err != nil {
			return err
		}
	}
	for _, v := range l {
		if strings.TrimSpace(v) == "" {
			return bad("VOLUME", s, "an empty path")
		}
		if a.c.Volumes == nil {
			a.c.Volumes = map[string]struct{}{}
		}
		a.c.Volumes[v] = struct{}{}
	}
	return nil
}

func (a *applier) workDir(s string) error {
	dir, err := expand("WORKDIR", s, a.lookup) // one path, spaces and all
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", a.c.WorkingDir, dir)
	}
	a.c.WorkingDir = path.Clean(dir)
	return nil
}
