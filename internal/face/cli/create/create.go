// Package create owns the flags of `dhow run` and `dhow create`, and what they mean.
//
// It turns a command line into the create request of the Docker Engine API, the way the docker CLI does: a script that
// works there sends the same request here. It promises that a flag it accepts is in the request, or an error names it. It
// must never talk to an engine; files and environment enter through Env.
package create

import (
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// Env is the world around a command line.
type Env struct {
	LookupEnv func(string) (string, bool)
	ReadFile  func(string) ([]byte, error)
	Abs       func(string) (string, error)
}

// Flags hold the parsed flags that become part of a create request. Bind them with AddTo, then call Request.
type Flags struct {
	process   process
	resources resources
	isolation isolation
	devices   devices
	net       netFlags
	storage   storage
	health    health
	life      lifecycle

	fs *pflag.FlagSet
}

// AddTo registers all flags on fs.
func (f *Flags) AddTo(fs *pflag.FlagSet) {
	f.fs = fs
	f.process.add(fs)
	f.resources.add(fs)
	f.isolation.add(fs)
	f.devices.add(fs)
	f.net.add(fs)
	f.storage.add(fs)
	f.health.add(fs)
	f.life.add(fs)
}

// AttachSet reports whether -a was given.
func (f *Flags) AttachSet() bool { return len(f.process.attach) > 0 }

// Interactive reports whether -i was given.
func (f *Flags) Interactive() bool { return f.process.stdin }

// Request builds the request for image and the words after it. Errors name the flag.
func (f *Flags) Request(env Env, image string, cmd []string) (*container.CreateRequest, error) {
	if image == "" {
		return nil, errors.New("the image name is empty")
	}
	b := &request{
		env: env, fs: f.fs,
		config: &container.Config{Image: image},
		host:   &container.HostConfig{},
		net:    &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}},
	}
	if len(cmd) > 0 {
		b.config.Cmd = cmd
	}
	for _, part := range []interface{ apply(*request) error }{
		&f.process, &f.resources, &f.isolation, &f.devices, &f.net, &f.storage, &f.health, &f.life,
	} {
		if err := part.apply(b); err != nil {
			return nil, err
		}
	}
	return &container.CreateRequest{Config: b.config, HostConfig: b.host, NetworkingConfig: b.net}, nil
}

// request is a create request in the making.
type request struct {
	env    Env
	fs     *pflag.FlagSet
	config *container.Config
	host   *container.HostConfig
	net    *network.NetworkingConfig
}

// onlyWindows refuses the flags that mean nothing to Linux containers.
func (b *request) onlyWindows(names ...string) error {
	for _, n := range names {
		if b.fs.Changed(n) {
			return fmt.Errorf("--%s: only Windows containers have that", n)
		}
	}
	return nil
}
