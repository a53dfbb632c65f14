package bench

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// engines are the cases about what a user of an engine waits for.
type engines struct{ *bench }

func (b engines) measure() error {
	clients, err := b.clients()
	if err != nil {
		return err
	}
	b.memoryEngine(clients)
	b.runCases(clients)
	b.longCases(clients)
	return nil
}

// clients starts the engines, once, and has them pull the small image.
func (b *bench) clients() ([]*client, error) {
	if b.fleet != nil {
		return b.fleet, nil
	}
	h, err := b.startDhow()
	if err != nil {
		return nil, err
	}
	clients := []*client{b.newClient("dhow", filepath.Join(b.Bin, "dhow"), h)}
	b.report.Programs = append(b.report.Programs, version(filepath.Join(b.Bin, "dhowd"), "--version"))
	docker, err := exec.LookPath("docker")
	if err != nil {
		docker = find("docker", filepath.Join(b.Cache, "root/usr/bin"))
	}
	if docker == "" {
		b.absent("docker client: neither installed nor unpacked")
	} else {
		b.report.Programs = append(b.report.Programs, version(docker, "--version"))
		clients = append(clients, b.newClient("dhow, by the docker client", docker, h))
		if d, err := b.startDocker(); err != nil {
			b.absent("docker: %v", err)
		} else {
			clients = append(clients, b.newClient("docker", docker, d))
		}
	}
	if p, err := b.startPodman(); err != nil {
		b.absent("podman: %v", err)
	} else {
		clients = append(clients, p)
	}
	for _, c := range clients {
		b.onEnd(c.removeAll)
		if c.broken = c.pull(); c.broken != nil && c.at == h {
			return nil, fmt.Errorf("%s: %w", c.name, c.broken)
		}
	}
	b.fleet = clients
	return clients, nil
}

// each makes contenders of clients. One that is broken says why in the place of its figures.
func each(clients []*client, measure func(*client) (float64, error)) []contender {
	var out []contender
	for _, c := range clients {
		out = append(out, contender{c.name, func() (float64, error) {
			if c.broken != nil {
				return 0, c.broken
			}
			v, err := measure(c)
			c.settle()
			return v, err
		}})
	}
	return out
}

func (b engines) runCases(clients []*client) {
	for _, network := range []string{"bridge", "host", "none"} {
		t := trial{name: "engine-" + network, what: "run --rm --network " + network + " IMAGE true", unit: "ms", n: 30, targets: []Target{{Peer: "docker", Ratio: 0.12}}}
		t.contenders = each(clients, func(c *client) (float64, error) { return c.time("run", "--rm", "--network", network, image, "true") })
		b.try(t)
	}
	b.try(trial{name: "engine-100", what: "100 times run --rm IMAGE true on the bridge, 8 at a time, per container", unit: "ms", n: 2,
		targets: []Target{{Most: 10}}, contenders: each(clients, hundred)})
}

// hundred runs a hundred containers, eight at a time, and returns the time for one.
func hundred(c *client) (float64, error) {
	const all, atOnce = 100, 8
	var wg sync.WaitGroup
	work := make(chan struct{}, all)
	errs := make([]error, atOnce)
	for range all {
		work <- struct{}{}
	}
	close(work)
	began := time.Now()
	for i := range atOnce {
		wg.Go(func() {
			for range work {
				if _, err := c.do("run", "--rm", image, "true"); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return milliseconds(time.Since(began)) / all, errors.Join(errs...)
}

// longCases are about containers that run.
func (b engines) longCases(clients []*client) {
	const name = "bench-sleeper"
	for _, c := range clients {
		if c.broken != nil {
			continue
		}
		if _, err := c.do("run", "-d", "--name", name+"-"+c.name[:4]+fmt.Sprint(len(c.name)), image, "sleep", "3600"); err != nil {
			c.broken = err
		}
	}
	sleeper := func(c *client) string { return name + "-" + c.name[:4] + fmt.Sprint(len(c.name)) }
	b.memoryShim(clients, "memory-shim", "idle", Target{Most: 3})
	b.try(trial{name: "engine-exec", what: "exec C true", unit: "ms", n: 30, targets: []Target{{Peer: "docker", Ratio: 0.12}},
		contenders: each(clients, func(c *client) (float64, error) { return c.time("exec", sleeper(c), "true") })})
	b.memoryShim(clients, "memory-shim-used", "idle again after the commands of engine-exec")
	fresh := func(c *client) (string, error) {
		o, err := c.do("run", "-d", image, "sleep", "3600")
		return lastLine(o.Out), err
	}
	b.try(trial{name: "engine-stop", what: "stop -t 0 C", unit: "ms", n: 15, targets: []Target{{Peer: "docker", Ratio: 0.1}},
		contenders: each(clients, func(c *client) (float64, error) {
			id, err := fresh(c)
			if err != nil {
				return 0, err
			}
			took, err := c.time("stop", "-t", "0", id)
			c.do("rm", "-f", id)
			return took, err
		})})
	b.try(trial{name: "engine-rm", what: "rm C, stopped", unit: "ms", n: 15, targets: []Target{{Peer: "docker", Ratio: 0.1}},
		contenders: each(clients, func(c *client) (float64, error) {
			id, err := fresh(c)
			if err != nil {
				return 0, err
			}
			if _, err := c.do("stop", "-t", "0", id); err != nil {
				return 0, err
			}
			return c.time("rm", id)
		})})
}
