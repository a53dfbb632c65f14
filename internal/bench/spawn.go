package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
)

// job is a program to run to its end.
type job struct {
	Args  []string
	Env   []string // beyond our own
	Quiet bool     // no output: for what leaves a process behind that would hold the pipe
}

// outcome is how it went. Took is from before the fork until it was waited for.
type outcome struct {
	Took time.Duration
	Out  string
	Err  string
}

// spawn runs jobs and takes their time. Somebody who has to run in other surroundings is spawned there by a helper that entered
// them once: nobody pays for an unshare or a shell.
type spawn func(job) (outcome, error)

// locally spawns from this process; output goes to a pipe.
func locally(j job) (outcome, error) {
	var out bytes.Buffer
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Env = append(os.Environ(), j.Env...)
	if !j.Quiet {
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	began := time.Now()
	err := cmd.Run()
	o := outcome{Took: time.Since(began), Out: strings.TrimSpace(out.String())}
	if err != nil {
		return o, fmt.Errorf("%s: %w: %s", strings.Join(j.Args, " "), err, lastLine(o.Out))
	}
	return o, nil
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// HelperArg as the only argument makes the program a helper: see Helper.
const HelperArg = "-spawn-helper"

// unified is where systemd's hybrid layout mounts cgroup v2 beside the v1 hierarchies.
const unified = "/sys/fs/cgroup/unified"

// hybrid tells whether crun 1.8, which refuses that layout, needs a mount namespace without it.
func hybrid() bool {
	var above, at unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &above) == nil && above.Type == unix.TMPFS_MAGIC && unix.Statfs(unified, &at) == nil && at.Type == unix.CGROUP2_SUPER_MAGIC
}

// surroundings are how a helper's mount namespace differs from ours.
type surroundings struct {
	Without []string // mount points taken away
	Fresh   []string // folders that are an empty tmpfs there
}

func (s surroundings) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	for _, p := range s.Without {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	for _, p := range s.Fresh {
		if err := unix.Mount("tmpfs", p, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", p, err)
		}
	}
	return nil
}

// order and answer are the lines between a helper and its master; ID pairs them.
type order struct {
	ID int
	job
}

type answer struct {
	ID int
	outcome
}

// Helper spawns the jobs it reads from in until in ends, any number at a time. It was started in a mount namespace of its own, which it
// first changes as the first value in in says.
func Helper(in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	var place surroundings
	if err := dec.Decode(&place); err != nil {
		return err
	}
	if err := place.enter(); err != nil {
		return err
	}
	var mu sync.Mutex // guards enc
	var jobs sync.WaitGroup
	defer jobs.Wait()
	for {
		var o order
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		jobs.Go(func() {
			a := answer{ID: o.ID}
			var err error
			if a.outcome, err = locally(o.job); err != nil {
				a.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			enc.Encode(a) // a master that has gone needs no answer
		})
	}
}

// master is our end of a helper.
type master struct {
	mu      sync.Mutex
	enc     *json.Encoder
	last    int
	waiting map[int]chan answer // nil once the helper has ended
}

// spawn sends one job and waits for its outcome.
func (m *master) spawn(j job) (outcome, error) {
	c := make(chan answer, 1)
	m.mu.Lock()
	if m.waiting == nil {
		m.mu.Unlock()
		return outcome{}, errors.New("the helper has ended")
	}
	m.last++
	m.waiting[m.last] = c
	err := m.enc.Encode(order{m.last, j})
	m.mu.Unlock()
	if err != nil {
		return outcome{}, fmt.Errorf("helper: %w", err)
	}
	a, ok := <-c
	if !ok {
		return outcome{}, errors.New("the helper has ended")
	}
	if a.Err != "" {
		return a.outcome, errors.New(a.Err)
	}
	return a.outcome, nil
}

// receive hands out answers until the helper ends.
func (m *master) receive(from io.Reader) {
	dec := json.NewDecoder(from)
	for {
		var a answer
		err := dec.Decode(&a)
		m.mu.Lock()
		if err != nil {
			for _, c := range m.waiting {
				close(c)
			}
			m.waiting = nil
			m.mu.Unlock()
			return
		}
		if c := m.waiting[a.ID]; c != nil {
			c <- a
			delete(m.waiting, a.ID)
		}
		m.mu.Unlock()
	}
}

// helper starts a helper, in a network namespace when there is one; it ends with the run, or when its input does.
func (b *bench) helper(place surroundings, netns *os.File) (spawn, error) {
	cmd := exec.Command("/proc/self/exe", HelperArg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true} // a ^C must leave it to remove containers
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := cmd.Start
	if netns != nil {
		start = func() error { return netlink.Inside(netns, cmd.Start) }
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("start helper in a mount namespace: %w", err)
	}
	m := &master{enc: json.NewEncoder(in), waiting: map[int]chan answer{}}
	received := make(chan struct{})
	go func() { m.receive(out); close(received) }() // ends with the helper
	b.onEnd(func() { in.Close(); <-received; cmd.Wait() })
	if err := m.enc.Encode(place); err != nil {
		return nil, fmt.Errorf("helper: %w", err)
	}
	return m.spawn, nil
}
