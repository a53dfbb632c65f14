package bench

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
)

// host is an engine on a network of its own: two engines in one namespace would rewrite each other's rules.
type host struct {
	name   string
	dir    string
	socket string
	netns  *os.File
	pid    int
	log    string
}

// client is a command line that talks to an engine.
type client struct {
	name    string // as a contender
	program string
	env     []string
	at      *host
	spawn   spawn    // nil: locally
	global  []string // flags before the command
	run     []string // flags of every run
	remove  []string // flags of rm that end a running container at once
	broken  error    // why it cannot be measured
}

func (c *client) do(args ...string) (outcome, error) {
	line := append(append([]string{c.program}, c.global...), args[0])
	if args[0] == "run" {
		line = append(line, c.run...)
	}
	j := job{Args: append(line, args[1:]...), Env: c.env}
	if c.spawn != nil {
		return c.spawn(j)
	}
	return locally(j)
}

func (c *client) time(args ...string) (float64, error) {
	o, err := c.do(args...)
	return milliseconds(o.Took), err
}

func (b *bench) newClient(name, program string, h *host) *client {
	at := "unix://" + h.socket
	return &client{name: name, program: program, at: h, remove: []string{"-f"}, env: []string{"DOCKER_HOST=" + at, "DHOW_HOST=" + at, "DOCKER_CONFIG=" + filepath.Join(b.dir, "client")}}
}

// startDhow starts dhowd.
func (b *bench) startDhow() (*host, error) {
	return b.start("dhow", func(h *host) *exec.Cmd {
		return exec.Command(filepath.Join(b.Bin, "dhowd"), "--data-root", h.dir+"/data", "--run-root", h.dir+"/run", "--host", "unix://"+h.socket,
			"--cgroup-parent", cgroupTop+"/dhow", "--insecure-registry", registryAddr)
	})
}

// startDocker starts dockerd with the containerd and runc beside it: the one in the cache folder (Debian's docker.io, unpacked, not
// installed), else an installed one.
func (b *bench) startDocker() (*host, error) {
	search := filepath.Join(b.Cache, "root/usr/sbin") + ":" + filepath.Join(b.Cache, "root/usr/bin") + ":" + os.Getenv("PATH")
	dockerd := find("dockerd", search)
	if dockerd == "" {
		return nil, errors.New("dockerd is neither installed nor unpacked in " + b.Cache)
	}
	if find("iptables", search) == "" {
		return nil, errors.New("dockerd needs iptables, which is not installed")
	}
	b.report.Programs = append(b.report.Programs, version(dockerd, "--version"))
	_, err := os.Stat("/run/containerd")
	if os.IsNotExist(err) {
		b.onEnd(func() { os.RemoveAll("/run/containerd") }) // the sockets of containerd's shims lie there, whatever one asks
	}
	return b.start("docker", func(h *host) *exec.Cmd {
		cmd := exec.Command(dockerd, "--data-root", h.dir+"/data", "--exec-root", h.dir+"/run", "--pidfile", h.dir+"/pid", "-H", "unix://"+h.socket,
			"--cgroup-parent", cgroupTop+"/docker", "--log-level", "warn")
		cmd.Env = append(os.Environ(), "PATH="+search)
		return cmd
	})
}

func find(name, search string) string {
	for _, d := range filepath.SplitList(search) {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// newHost makes a folder and a network namespace with the registry in it.
func (b *bench) newHost(name string) (*host, error) {
	h := &host{name: name, dir: filepath.Join(b.dir, name)}
	h.socket, h.log = h.dir+"/sock", h.dir+"/log"
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if h.netns, err = netlink.NewNetns(nil); err != nil {
		return nil, err
	}
	b.onEnd(func() { h.netns.Close() })
	if err := h.loopback(); err != nil {
		return nil, err
	}
	return h, b.serve(h)
}

// start runs an engine in a new network namespace, with a registry beside it.
func (b *bench) start(name string, command func(*host) *exec.Cmd) (*host, error) {
	h, err := b.newHost(name)
	if err != nil {
		return nil, err
	}
	out, err := os.Create(h.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := command(h)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C must leave it to remove containers
	if err := netlink.Inside(h.netns, cmd.Start); err != nil {
		return nil, err
	}
	h.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }() // ends with the engine
	b.onEnd(func() { stop(cmd.Process, ended); unmountBelow(h.dir); removeCgroups(cgroupTop + "/" + name) })
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", h.socket); err == nil {
			c.Close()
			return h, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s ended at once: %s", cmd.Args[0], tail(h.log))
		default:
		}
	}
	return nil, fmt.Errorf("%s does not answer: %s", cmd.Args[0], tail(h.log))
}

func stop(p *os.Process, ended chan struct{}) {
	p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		p.Kill()
		<-ended
	}
}

func tail(file string) string {
	raw, _ := os.ReadFile(file)
	return strings.TrimSpace(string(raw[max(0, len(raw)-600):]))
}

func (h *host) loopback() error {
	n, err := netlink.OpenAt(h.netns)
	if err != nil {
		return err
	}
	defer n.Close()
	lo, err := n.Link("lo")
	if err != nil {
		return err
	}
	return n.SetUp(lo.Index)
}

// serve puts the registry on the engine's loopback.
func (b *bench) serve(h *host) error {
	s, err := newShelf()
	if err != nil {
		return err
	}
	var l net.Listener
	if err := netlink.Inside(h.netns, func() (err error) { l, err = net.Listen("tcp", registryAddr); return err }); err != nil {
		return err
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go srv.Serve(l) // ends with Close
	b.onEnd(func() { srv.Close() })
	return nil
}

// pull brings the image, and says at the end of the run what is left to remove.
func (c *client) pull() error {
	_, err := c.do("pull", "-q", image)
	return err
}

// removeAll removes every container, so that the engine can end.
func (c *client) removeAll() {
	o, err := c.do("ps", "-aq")
	if ids := strings.Fields(o.Out); err == nil && len(ids) > 0 {
		c.do(append(append([]string{"rm"}, c.remove...), ids...)...)
	}
	c.settle()
}
