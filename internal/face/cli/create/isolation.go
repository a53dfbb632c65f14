package create

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// isolation is what the container shares with the host and what it may do.
type isolation struct {
	pid, ipc, uts, userns, cgroupns string
	capAdd, capDrop                 []string
	security                        []string
	privileged, readOnly            bool
	init                            bool
	runtime, isolation              string
}

func (i *isolation) add(fs *pflag.FlagSet) {
	fs.StringVar(&i.pid, "pid", "", "PID namespace (host, container:NAME)")
	fs.StringVar(&i.ipc, "ipc", "", "IPC namespace (private, shareable, host, none, container:NAME)")
	fs.StringVar(&i.uts, "uts", "", "UTS namespace (host)")
	fs.StringVar(&i.userns, "userns", "", "User namespace (host)")
	fs.StringVar(&i.cgroupns, "cgroupns", "", "Cgroup namespace (host, private)")
	fs.StringArrayVar(&i.capAdd, "cap-add", nil, "Add Linux capabilities")
	fs.StringArrayVar(&i.capDrop, "cap-drop", nil, "Drop Linux capabilities")
	fs.StringArrayVar(&i.security, "security-opt", nil, "Security options (seccomp=FILE, apparmor=NAME, no-new-privileges, ...)")
	fs.BoolVar(&i.privileged, "privileged", false, "Give the container all privileges of the host's root")
	fs.BoolVar(&i.readOnly, "read-only", false, "Mount the root filesystem read-only")
	fs.BoolVar(&i.init, "init", false, "Run an init that forwards signals and reaps processes")
	fs.StringVar(&i.runtime, "runtime", "", "OCI runtime to use")
	fs.StringVar(&i.isolation, "isolation", "", "Isolation technology (only default on Linux)")
}

func (i *isolation) apply(b *request) (err error) {
	h := b.host
	h.PidMode, h.IpcMode, h.UTSMode = container.PidMode(i.pid), container.IpcMode(i.ipc), container.UTSMode(i.uts)
	h.UsernsMode, h.CgroupnsMode = container.UsernsMode(i.userns), container.CgroupnsMode(i.cgroupns)
	for _, c := range []struct {
		flag, value string
		ok          bool
	}{
		{"pid", i.pid, h.PidMode.Valid()},
		{"uts", i.uts, h.UTSMode.Valid()},
		{"userns", i.userns, h.UsernsMode.Valid()},
		{"cgroupns", i.cgroupns, h.CgroupnsMode.Valid()},
	} {
		if !c.ok {
			return fmt.Errorf("--%s: %q is not a mode it has", c.flag, c.value)
		}
	}
	switch i.isolation {
	case "", "default":
		h.Isolation = container.Isolation(i.isolation)
	default:
		return fmt.Errorf("--isolation %s: only Windows containers have that", i.isolation)
	}
	h.CapAdd, h.CapDrop = capabilities(i.capAdd), capabilities(i.capDrop)
	h.Privileged, h.ReadonlyRootfs = i.privileged, i.readOnly
	h.Runtime = i.runtime
	if b.fs.Changed("init") {
		h.Init = &i.init
	}
	return i.securityOpts(b)
}

// capabilities writes names in the kernel's notation, without repetition.
func capabilities(names []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range names {
		n = strings.ToUpper(strings.TrimSpace(n))
		if n != "ALL" && n != "RESET" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

func (i *isolation) securityOpts(b *request) error {
	h := b.host
	for _, opt := range i.security {
		if opt == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		k, v, ok := strings.Cut(opt, "=")
		if !ok && k != "no-new-privileges" {
			if k, v, ok = strings.Cut(opt, ":"); !ok { // the old notation, which the engine reads as well
				return fmt.Errorf("--security-opt %q: want name=value", opt)
			}
		}
		if k == "seccomp" && v != "unconfined" && v != "builtin" {
			data, err := b.env.ReadFile(v)
			if err != nil {
				return fmt.Errorf("--security-opt seccomp: read profile: %w", err)
			}
			var short bytes.Buffer
			if err := json.Compact(&short, data); err != nil {
				return fmt.Errorf("--security-opt seccomp: profile %s: %w", v, err)
			}
			opt = "seccomp=" + short.String()
		}
		h.SecurityOpt = append(h.SecurityOpt, opt)
	}
	return nil
}
