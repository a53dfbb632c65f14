package compile

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// validate refuses what no Program could honour, before anything is emitted.
func validate(s *bundle.Spec, f *Facts) error {
	switch {
	case !f.atLeast(5, 12):
		return errdef.New(errdef.NotImplemented, "containers need Linux 5.12 or newer, which has mount_setattr(2); this is %d.%d", f.Major, f.Minor)
	case s == nil:
		return invalid("", "is empty")
	case s.Linux == nil:
		return invalid("linux", "is missing")
	case s.Root == nil || s.Root.Path == "":
		return invalid("root.path", "is missing")
	case !strings.HasPrefix(s.Version, "1."):
		return invalid("ociVersion", "%q is not a version 1", s.Version)
	}
	if err := plainString("root.path", s.Root.Path); err != nil {
		return err
	}
	for _, n := range [][2]string{{"hostname", s.Hostname}, {"domainname", s.Domainname}} {
		if err := plainString(n[0], n[1]); err != nil {
			return err
		}
		if len(n[1]) > 64 {
			return invalid(n[0], "is longer than 64 bytes")
		}
	}
	if f.Arch != "amd64" && f.Arch != "arm64" {
		return unsupported("architecture " + f.Arch)
	}
	if err := validateProcess(s); err != nil {
		return err
	}
	if err := validateHooks(s.Hooks); err != nil {
		return err
	}
	if err := validateLabels(s, f); err != nil {
		return err
	}
	l := s.Linux
	if i := slices.IndexFunc(l.MaskedPaths, func(p string) bool { return path.Clean(p) == "/" }); i >= 0 {
		return invalid(field("linux.maskedPaths", i, ""), "%q would hide everything", l.MaskedPaths[i])
	}
	if err := validatePaths("linux.maskedPaths", l.MaskedPaths); err != nil {
		return err
	}
	return validatePaths("linux.readonlyPaths", l.ReadonlyPaths)
}

func validatePaths(name string, list []string) error {
	for i, p := range list {
		if err := plainString(field(name, i, ""), p); err != nil {
			return err
		}
		if !strings.HasPrefix(p, "/") {
			return invalid(field(name, i, ""), "%q is not an absolute path", p)
		}
	}
	return nil
}

func validateProcess(s *bundle.Spec) error {
	p := s.Process
	switch {
	case p == nil:
		return invalid("process", "is missing")
	case len(p.Args) == 0:
		return invalid("process.args", "is empty")
	case p.Args[0] == "": // as every name that is not there: engines give the exit code 127 for these words
		return errdef.New(errdef.NotFound, `exec: "": executable file not found in $PATH`)
	case !strings.HasPrefix(p.Cwd, "/"):
		return invalid("process.cwd", "%q is not an absolute path", p.Cwd)
	case p.IOPriority != nil && ioClass(p.IOPriority.Class) == 0:
		return invalid("process.ioPriority.class", "unknown class %q", p.IOPriority.Class)
	case p.IOPriority != nil && (p.IOPriority.Priority < 0 || p.IOPriority.Priority > 7):
		return invalid("process.ioPriority.priority", "%d is not between 0 and 7", p.IOPriority.Priority)
	case p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000):
		return invalid("process.oomScoreAdj", "%d is not between -1000 and 1000", *p.OOMScoreAdj)
	case p.User.Umask != nil && *p.User.Umask > 0o777:
		return invalid("process.user.umask", "%#o has more than the nine permission bits", *p.User.Umask)
	case len(p.User.AdditionalGids) > 65536:
		return invalid("process.user.additionalGids", "%d groups are more than the kernel's 65536", len(p.User.AdditionalGids))
	case p.Terminal && p.ConsoleSize != nil && (p.ConsoleSize.Height > 65535 || p.ConsoleSize.Width > 65535):
		return invalid("process.consoleSize", "%dx%d is more than 65535", p.ConsoleSize.Height, p.ConsoleSize.Width)
	case s.Linux.Personality != nil && (len(s.Linux.Personality.Flags) > 0 || s.Linux.Personality.Domain != specs.PerLinux && s.Linux.Personality.Domain != specs.PerLinux32):
		return invalid("linux.personality", "domain %q with %d flags: only LINUX and LINUX32 without flags are known", s.Linux.Personality.Domain, len(s.Linux.Personality.Flags))
	case slices.Contains(p.User.AdditionalGids, 1<<32-1):
		return invalid("process.user.additionalGids", "4294967295 is no group")
	case p.User.UID == 1<<32-1 || p.User.GID == 1<<32-1:
		return invalid("process.user", "4294967295 is no user")
	}
	if err := validateScheduler(p.Scheduler); err != nil {
		return err
	}
	if a := p.ExecCPUAffinity; a != nil { // it acts when a process is started inside; a mistake is told at once
		for name, list := range map[string]string{"initial": a.Initial, "final": a.Final} {
			if _, err := bitList(list, mostCPUs); err != nil {
				return invalid("process.execCPUAffinity."+name, "%w", err)
			}
		}
	}
	total := 0
	for i, a := range p.Args {
		if err := plainString(field("process.args", i, ""), a); err != nil {
			return err
		}
		total += len(a)
	}
	for i, e := range p.Env {
		if err := plainString(field("process.env", i, ""), e); err != nil {
			return err
		}
		total += len(e)
	}
	if total > maxArgBytes {
		return invalid("process.args", "arguments and environment together take %d bytes, more than execve accepts", total)
	}
	return plainString("process.cwd", p.Cwd)
}

// plainString refuses NUL, which would end the string early in the kernel.
func plainString(name string, list ...string) error {
	for _, s := range list {
		if strings.ContainsRune(s, 0) {
			return invalid(name, "contains a NUL byte")
		}
	}
	return nil
}
