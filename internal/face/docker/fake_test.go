package docker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// fake is an engine in memory. A container's command is a tiny language run on its streams: "echo X", "err X", "cat",
// "upper" (answers each line in capitals), "count" (prints the number of input bytes at EOF), "hang", "exit N".
type fake struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer
	images     map[string]bool
	execs      map[string]*fakeExec
	calls      []string
	lastCreate container.CreateRequest
	lastFilter api.Filters
	lastAuth   *registry.AuthConfig
	next       int
	sessions   int // running now
}

type fakeContainer struct {
	id, name string
	req      container.CreateRequest
	state    container.ContainerState
	code     int
	started  chan struct{}
	exited   chan struct{}
	removed  chan struct{}
	sess     *fakeSession
	log      []string
}

type fakeExec struct {
	id, container string
	req           container.ExecCreateRequest
	code          int
	ran           bool
}

func newFake() *fake {
	return &fake{containers: map[string]*fakeContainer{}, images: map[string]bool{"here:latest": true}, execs: map[string]*fakeExec{}}
}

func (f *fake) engine() api.Engine {
	return api.Engine{Containers: fakeContainers{f}, Execs: fakeExecs{f}, Files: fakeFiles{f}, Images: fakeImages{f}, Archives: fakeArchives{f}, Networks: fakeNetworks{f}, Volumes: fakeVolumes{f}, System: fakeSystem{f}}
}

func (f *fake) called(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) find(ref string) (*fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ref == "panic" {
		panic("asked to")
	}
	for _, c := range f.containers {
		if c.name == ref || strings.HasPrefix(c.id, ref) {
			return c, nil
		}
	}
	return nil, errdef.New(errdef.NotFound, "No such container: %s", ref)
}

// run speaks the tiny language and returns the exit code.
func run(ctx context.Context, cmd []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(cmd) == 0 {
		return 0
	}
	rest := strings.Join(cmd[1:], " ")
	switch cmd[0] {
	case "echo":
		fmt.Fprintln(stdout, rest)
	case "err":
		fmt.Fprintln(stderr, rest)
	case "both":
		fmt.Fprintln(stdout, "out")
		fmt.Fprintln(stderr, "err")
	case "cat":
		io.Copy(stdout, stdin)
	case "count":
		n, _ := io.Copy(io.Discard, stdin)
		time.Sleep(50 * time.Millisecond) // output after EOF must still arrive
		fmt.Fprintln(stdout, n)
	case "upper":
		for sc := bufio.NewScanner(stdin); sc.Scan(); {
			fmt.Fprintln(stdout, strings.ToUpper(sc.Text()))
		}
	case "hang":
		<-ctx.Done()
	case "exit":
		n := 0
		fmt.Sscan(rest, &n)
		return n
	case "big":
		b := []byte(strings.Repeat("0123456789abcde\n", 1<<16)) // 1 MiB
		stdout.Write(b)
	}
	return 0
}

type fakeSession struct {
	f     *fake
	tty   bool
	ready chan struct{} // closed when the process may run
	do    func(ctx context.Context, in io.Reader, out, errw io.Writer) int
	done  chan struct{}
	code  int // valid after done
	once  sync.Once
}

func (s *fakeSession) TTY() bool { return s.tty }

func (s *fakeSession) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	s.f.mu.Lock()
	s.f.sessions++
	s.f.mu.Unlock()
	defer func() {
		s.f.mu.Lock()
		s.f.sessions--
		s.f.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ready:
	}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	end := make(chan int, 1)
	go func() { end <- s.do(ctx, stdin, stdout, stderr) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case code := <-end:
		s.once.Do(func() { s.code = code; close(s.done) })
		return nil
	}
}

type fakeContainers struct{ f *fake }

func (s fakeContainers) Create(ctx context.Context, name, platform string, req container.CreateRequest) (container.CreateResponse, error) {
	s.f.called("create %s", name)
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if !s.f.images[req.Image] && !s.f.images[req.Image+":latest"] {
		return container.CreateResponse{}, errdef.New(errdef.NotFound, "No such image: %s", req.Image)
	}
	_ = req.HostConfig.NetworkMode // must not panic
	_ = req.NetworkingConfig.EndpointsConfig
	for _, c := range s.f.containers {
		if c.name == name && name != "" {
			return container.CreateResponse{}, errdef.New(errdef.Conflict, "Conflict. The container name %q is already in use", "/"+name)
		}
	}
	s.f.next++
	c := &fakeContainer{id: fmt.Sprintf("%064x", 0xabc000+s.f.next), name: name, req: req, state: container.StateCreated,
		started: make(chan struct{}), exited: make(chan struct{}), removed: make(chan struct{})}
	if c.name == "" {
		c.name = fmt.Sprintf("fake_%d", s.f.next)
	}
	s.f.containers[c.id] = c
	s.f.lastCreate = req
	return container.CreateResponse{ID: c.id}, nil
}

func (s fakeContainers) List(ctx context.Context, o api.ListOptions) ([]container.Summary, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.lastFilter = o.Filters
	var l []container.Summary
	for _, c := range s.f.containers {
		if c.state == container.StateRunning || o.All {
			l = append(l, container.Summary{ID: c.id, Names: []string{"/" + c.name}, Image: c.req.Image, Command: strings.Join(c.req.Cmd, " "), State: c.state, Status: string(c.state)})
		}
	}
	slices.SortFunc(l, func(a, b container.Summary) int { return strings.Compare(a.ID, b.ID) })
	return l, nil
}

func (s fakeContainers) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	c, err := s.f.find(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	mac := network.HardwareAddr{2, 0x42, 0xac, 17, 0, 2}
	return container.InspectResponse{ID: c.id, Name: "/" + c.name, Config: c.req.Config, HostConfig: c.req.HostConfig,
		State: &container.State{Status: c.state, Running: c.state == container.StateRunning, ExitCode: c.code},
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"bridge": {
			IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.17.0.1"), MacAddress: mac}}}}, nil
}

func (s fakeContainers) session(c *fakeContainer) *fakeSession {
	return &fakeSession{f: s.f, tty: c.req.Tty, ready: c.started, done: make(chan struct{}), do: func(ctx context.Context, in io.Reader, out, errw io.Writer) int {
		return run(ctx, c.req.Cmd, in, out, errw)
	}}
}

func (s fakeContainers) Start(ctx context.Context, ref string) error {
	s.f.called("start")
	c, err := s.f.find(ref)
	if err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if c.state == container.StateRunning {
		return errdef.New(errdef.NotModified, "already running")
	}
	c.state = container.StateRunning
	close(c.started)
	go s.supervise(c, c.sess)
	return nil
}

// supervise ends the container when its attached session ended; unattached ones run to a log.
func (s fakeContainers) supervise(c *fakeContainer, sess *fakeSession) {
	code := 0
	if sess != nil {
		<-sess.done
		code = sess.code
	} else if len(c.req.Cmd) > 0 && c.req.Cmd[0] != "hang" {
		var b strings.Builder
		code = run(context.Background(), c.req.Cmd, strings.NewReader(""), &b, &b)
		s.f.mu.Lock()
		c.log = append(c.log, b.String())
		s.f.mu.Unlock()
	} else {
		return
	}
	s.exit(c, code)
}

// exit reports whether the container ran.
func (s fakeContainers) exit(c *fakeContainer, code int) bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if c.state != container.StateRunning {
		return false
	}
	c.code = code
	c.state = container.StateExited
	close(c.exited)
	if c.req.HostConfig.AutoRemove {
		delete(s.f.containers, c.id)
		close(c.removed)
	}
	return true
}

func (s fakeContainers) Stop(ctx context.Context, ref, signal string, timeout *int) error {
	t := "default"
	if timeout != nil {
		t = fmt.Sprint(*timeout)
	}
	s.f.called("stop signal=%s t=%s", signal, t)
	c, err := s.f.find(ref)
	if err != nil {
		return err
	}
	if !s.exit(c, 143) {
		return errdef.New(errdef.NotModified, "not running")
	}
	return nil
}

func (s fakeContainers) Restart(ctx context.Context, ref, signal string, timeout *int) error {
	_, err := s.f.find(ref)
	return err
}
func (s fakeContainers) Kill(ctx context.Context, ref, signal string) error {
	s.f.called("kill %s", signal)
	return s.Stop(ctx, ref, signal, nil)
}
func (s fakeContainers) Pause(ctx context.Context, ref string) error {
	_, err := s.f.find(ref)
	return err
}
func (s fakeContainers) Unpause(ctx context.Context, ref string) error {
	_, err := s.f.find(ref)
	return err
}

func (s fakeContainers) Rename(ctx context.Context, ref, name string) error {
	c, err := s.f.find(ref)
	if err == nil {
		s.f.mu.Lock()
		defer s.f.mu.Unlock()
		c.name = name
	}
	return err
}

func (s fakeContainers) Remove(ctx context.Context, ref string, o api.RemoveOptions) error {
	s.f.called("remove %+v", o)
	c, err := s.f.find(ref)
	if err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if c.state == container.StateRunning && !o.Force {
		return errdef.New(errdef.Conflict, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+c.name)
	}
	delete(s.f.containers, c.id)
	return nil
}

func (s fakeContainers) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	s.f.called("wait %s", cond)
	c, err := s.f.find(ref)
	if err != nil {
		return nil, err
	}
	end := c.exited
	if cond == container.WaitConditionRemoved {
		end = c.removed
	}
	ch := make(chan container.WaitResponse, 1)
	go func() {
		defer close(ch)
		select {
		case <-end:
			s.f.mu.Lock()
			ch <- container.WaitResponse{StatusCode: int64(c.code)}
			s.f.mu.Unlock()
		case <-ctx.Done():
			ch <- container.WaitResponse{Error: &container.WaitExitError{Message: ctx.Err().Error()}}
		}
	}()
	return ch, nil
}

func (s fakeContainers) Attach(ctx context.Context, ref string, o api.AttachOptions) (api.Session, error) {
	s.f.called("attach %+v", o)
	c, err := s.f.find(ref)
	if err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	c.sess = s.session(c)
	return c.sess, nil
}

type fakeLog struct {
	c     *fakeContainer
	o     api.LogOptions
	lines []string
}

func (l fakeLog) TTY() bool { return l.c.req.Tty }
func (l fakeLog) Copy(ctx context.Context, stdout, stderr io.Writer) error {
	for _, s := range l.lines {
		if l.o.Stdout {
			io.WriteString(stdout, s)
		}
	}
	if l.o.Follow {
		select {
		case <-ctx.Done():
		case <-l.c.exited:
		}
	}
	return nil
}

func (s fakeContainers) Logs(ctx context.Context, ref string, o api.LogOptions) (api.LogStream, error) {
	s.f.called("logs tail=%d since=%d", o.Tail, o.Since.UnixNano())
	c, err := s.f.find(ref)
	if err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return fakeLog{c, o, slices.Clone(c.log)}, nil
}

func (s fakeContainers) Resize(ctx context.Context, ref string, h, w uint) error {
	s.f.called("resize %dx%d", h, w)
	_, err := s.f.find(ref)
	return err
}

func (s fakeContainers) Top(ctx context.Context, ref, args string) (container.TopResponse, error) {
	_, err := s.f.find(ref)
	return container.TopResponse{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"1", args}}}, err
}

func (s fakeContainers) Stats(ctx context.Context, ref string) (container.StatsResponse, error) {
	c, err := s.f.find(ref)
	if err != nil {
		return container.StatsResponse{}, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.next++
	return container.StatsResponse{ID: c.id, Name: "/" + c.name, Read: time.Unix(int64(s.f.next), 0).UTC(), CPUStats: container.CPUStats{OnlineCPUs: uint32(s.f.next)}}, nil
}

func (s fakeContainers) Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	s.f.called("update memory=%d", u.Memory)
	_, err := s.f.find(ref)
	return container.UpdateResponse{}, err
}

func (s fakeContainers) Prune(ctx context.Context, fl api.Filters) (container.PruneReport, error) {
	return container.PruneReport{ContainersDeleted: []string{"x"}, SpaceReclaimed: 1}, nil
}

func (s fakeContainers) Explain(ctx context.Context, ref string) ([]byte, error) {
	if _, err := s.f.find(ref); err != nil {
		return nil, err
	}
	return []byte(`{"explained":true}`), nil
}
