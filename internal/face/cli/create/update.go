package create

import (
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// Update holds the flags of `dhow update`: the limits that can change while a container runs, and its restart policy.
type Update struct {
	resources resources
	restart   string
	fs        *pflag.FlagSet
}

// AddTo registers the flags on fs.
func (u *Update) AddTo(fs *pflag.FlagSet) {
	u.fs = fs
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	u.resources.add(all)
	for _, name := range []string{"blkio-weight", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares", "cpus",
		"cpuset-cpus", "cpuset-mems", "memory", "memory-reservation", "memory-swap", "pids-limit"} {
		fs.AddFlag(all.Lookup(name))
	}
	fs.StringVar(&u.restart, "restart", "", "Restart policy (no, on-failure[:n], always, unless-stopped)")
}

// Request builds the update request; it is an error to change nothing.
func (u *Update) Request() (*container.UpdateConfig, error) {
	if u.fs.NFlag() == 0 {
		return nil, errors.New("nothing to update: give at least one flag")
	}
	b := &request{fs: u.fs, config: &container.Config{}, host: &container.HostConfig{}}
	if err := u.resources.apply(b); err != nil {
		return nil, err
	}
	req := &container.UpdateConfig{Resources: b.host.Resources}
	if u.restart != "" {
		p, err := restartPolicy(u.restart)
		if err != nil {
			return nil, err
		}
		req.RestartPolicy = p
	}
	return req, nil
}
