package runtime

import (
	"encoding/json"
	"flag"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// event is one line of the events command, in runc's shape (types.Event).
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// stats are the counters and, for readers of runc's, what is counted elsewhere.
type stats struct {
	cgroup.Counters
	IntelRdt          struct{} `json:"intel_rdt"`
	NetworkInterfaces []string `json:"network_interfaces"`
}

func (a viewer) events(fs *flag.FlagSet, argv []string) (int, error) {
	interval := fs.Duration("interval", 5*time.Second, "time between two readings")
	once := fs.Bool("stats", false, "print one reading and end")
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	if *interval <= 0 {
		return 1, errdef.New(errdef.InvalidArgument, "duration interval must be greater than 0")
	}
	c, status, err := a.loadStatus(args[0])
	if err != nil {
		return 1, err
	}
	if status == state.Stopped {
		return 1, errdef.New(errdef.Conflict, "container with id %s is not running", args[0])
	}
	m := oci.MeterOf(c)
	out := json.NewEncoder(a.stdout)
	reading := func() error {
		n, err := m.Counters()
		if err != nil {
			return err
		}
		return out.Encode(event{Type: "stats", ID: c.State.ID, Data: stats{Counters: n}})
	}
	if *once {
		return 0, reading()
	}
	return 0, a.follow(c, m, *interval, reading)
}

// follow prints a reading every interval and tells of memory that ran out, until the container has ended.
func (a viewer) follow(c *oci.Container, m oci.Meter, interval time.Duration, reading func() error) error {
	watch, err := m.WatchOOM()
	if err != nil {
		return err
	}
	defer watch.Close()
	oom := make(chan error, 16)
	go func() { // ends with the container's cgroup, or when watch is closed
		defer close(oom)
		for {
			happened, err := watch.Wait()
			if err != nil {
				oom <- err
			}
			if err != nil || !happened {
				return
			}
			oom <- nil
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	out := json.NewEncoder(a.stdout)
	for {
		select {
		case err, more := <-oom:
			if !more {
				return nil
			}
			if err == nil {
				err = out.Encode(event{Type: "oom", ID: c.State.ID})
			}
			if err != nil {
				return err
			}
		case <-tick.C:
			if !c.State.Alive() {
				return nil
			}
			if err := reading(); err != nil {
				return err
			}
		}
	}
}
