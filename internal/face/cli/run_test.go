package cli

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// order returns which of the marks arrived, in order.
func (e *engine) order(marks ...string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, c := range e.calls {
		for _, m := range marks {
			if strings.Contains(c, m) {
				out = append(out, m)
			}
		}
	}
	return out
}

func TestRunOrderOutputAndExitCode(t *testing.T) {
	e := newEngine(t)
	go func() {
		s := <-e.attach
		<-e.started
		s.frame(1, "out\n")
		s.frame(2, "err\x1b[0m\n") // the container's own bytes pass as they are
		s.Close()
		e.exit <- 7
	}()
	r := e.run("run", "--rm", "img", "cmd")
	if r.code != 7 || r.stdout != "out\n" || r.stderr != "err\x1b[0m\n" {
		t.Fatalf("%+v", r)
	}
	got := strings.Join(e.order("/create", "/attach", "/wait?condition=removed", "/start"), " ")
	if got != "/create /attach /wait?condition=removed /start" {
		t.Fatalf("order %s", got)
	}
}

func TestRunDetachedPrintsTheID(t *testing.T) {
	e := newEngine(t)
	r := e.run("run", "-d", "--name", "x", "img")
	if r.code != 0 || r.stdout != fakeID+"\n" || e.called("POST /containers/"+fakeID+"/attach") || e.called("POST /containers/"+fakeID+"/wait") {
		t.Fatalf("%+v %q", r, e.calls)
	}
}

func TestRunPullsAMissingImage(t *testing.T) {
	e := newEngine(t)
	e.mux.HandleFunc("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"status":"Pulling from other","id":"latest"}{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"aa"}
{"status":"Downloading","progressDetail":{"current":2,"total":2},"id":"aa"}{"status":"Pull complete","id":"aa"}{"status":"evil \u001b]0;x\u0007"}`)
		e.images["other"] = true
	})
	r := e.run("run", "-d", "other")
	want := "Unable to find image 'other:latest' locally\nlatest: Pulling from other\naa: Downloading\naa: Pull complete\nevil \\x1b]0;x\\x07\n"
	if r.code != 0 || r.stderr != want || r.stdout != fakeID+"\n" {
		t.Fatalf("%+v", r)
	}
	if !e.called("POST /images/create?fromImage=other&tag=latest") {
		t.Fatalf("%q", e.calls)
	}
}

func TestRunPullNeverAndPullError(t *testing.T) {
	e := newEngine(t)
	e.mux.HandleFunc("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"errorDetail":{"message":"manifest unknown\u001b[2J"},"error":"x"}`)
	})
	if r := e.run("run", "--pull", "never", "nope"); r.code != 125 || r.stderr != "dhow: Error response from daemon: No such image: nope:latest\n" || e.called("POST /images/create") {
		t.Fatalf("%+v", r)
	}
	if r := e.run("run", "-q", "nope"); r.code != 125 || r.stderr != "dhow: manifest unknown\\x1b[2J\n" {
		t.Fatalf("%+v", r)
	}
}

func TestRunStartErrors(t *testing.T) {
	for text, code := range map[string]int{
		`exec: "nope": executable file not found in $PATH`: 127,
		"exec /etc/passwd: permission denied":              126,
		"exec /bin: is a directory":                        126,
		"port 8080 is in use":                              125,
		"mount /data: no such file or directory":           125,
	} {
		e := newEngine(t)
		old := e.mux
		e.mux = http.NewServeMux()
		e.mux.Handle("/", old)
		e.mux.HandleFunc("POST /containers/{id}/start", func(w http.ResponseWriter, r *http.Request) { e.fail(w, 400, text) })
		if r := e.run("run", "img", "nope"); r.code != code || r.stderr != "dhow: Error response from daemon: "+text+"\n" {
			t.Errorf("%s: %+v", text, r)
		}
	}
}

func TestRunStdinHalfClose(t *testing.T) {
	e := newEngine(t)
	c := e.command("run", "-i", "img", "cat")
	c.Stdin = strings.NewReader("hello")
	var out bytes.Buffer
	c.Stdout = &out
	go func() {
		s := <-e.attach
		<-e.started
		in, err := io.ReadAll(s) // ends only when the client closes its half
		if err != nil {
			t.Error(err)
		}
		s.frame(1, "got "+string(in)) // and output still goes through
		s.Close()
		e.exit <- 0
	}()
	if err := c.Run(); err != nil || out.String() != "got hello" {
		t.Fatalf("%v %q", err, out.String())
	}
}

func TestRunForwardsSignals(t *testing.T) {
	e := newEngine(t)
	c := e.command("run", "img", "sleep")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s := <-e.attach
	<-e.started
	time.Sleep(50 * time.Millisecond)
	c.Process.Signal(syscall.SIGTERM)
	e.await("POST /containers/" + fakeID + "/kill?signal=SIGTERM")
	s.Close()
	e.exit <- 143
	c.Wait()
	if c.ProcessState.ExitCode() != 143 {
		t.Fatal(c.ProcessState)
	}
}

// terminal starts dhow with a pseudo-terminal as its standard streams.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd
	before unix.Termios

	mu  sync.Mutex
	got []byte
}

func (e *engine) terminal(args ...string) *terminal {
	e.t.Helper()
	m, s, err := tty.OpenPTY()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := tty.SetSize(int(s.Fd()), 30, 90); err != nil {
		e.t.Fatal(err)
	}
	x := &terminal{t: e.t, master: m, slave: s, cmd: e.command(args...)}
	old, err := unix.IoctlGetTermios(int(s.Fd()), unix.TCGETS)
	if err != nil {
		e.t.Fatal(err)
	}
	x.before = *old
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = s, s, s
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	go func() { // ends when the master closes
		b := make([]byte, 4096)
		for {
			n, err := m.Read(b)
			if err != nil {
				return
			}
			x.mu.Lock()
			x.got = append(x.got, b[:n]...)
			x.mu.Unlock()
		}
	}()
	e.t.Cleanup(func() { x.cmd.Process.Kill(); m.Close(); s.Close() })
	return x
}

func (x *terminal) expect(text string) {
	x.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		ok := bytes.Contains(x.got, []byte(text))
		got := string(x.got)
		x.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("terminal shows %q, want %q", got, text)
		}
	}
}

// end waits for the command and checks that the terminal is as it was.
func (x *terminal) end(code int) {
	x.t.Helper()
	x.cmd.Wait()
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("exit %d, want %d; terminal %q", got, code, x.got)
	}
	after, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	if *after != x.before {
		x.t.Errorf("the terminal was not restored: %+v", after)
	}
}

func (x *terminal) raw() bool {
	now, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	return err == nil && now.Lflag&unix.ICANON == 0
}

func TestTerminalSession(t *testing.T) {
	e := newEngine(t)
	x := e.terminal("run", "-it", "img", "sh")
	s := <-e.attach
	<-e.started
	e.await("POST /containers/" + fakeID + "/resize?h=30&w=90")
	s.Write([]byte("prompt# "))
	x.expect("prompt# ")
	if !x.raw() {
		t.Fatal("the terminal is not raw")
	}
	x.master.Write([]byte{3, 'x'}) // ctrl-c is the container's business
	b := make([]byte, 2)
	if _, err := io.ReadFull(s, b); err != nil || b[0] != 3 || b[1] != 'x' {
		t.Fatalf("%v %v", b, err)
	}
	if err := tty.SetSize(int(x.master.Fd()), 40, 100); err != nil {
		t.Fatal(err)
	}
	e.await("POST /containers/" + fakeID + "/resize?h=40&w=100")
	s.Close()
	e.exit <- 3
	x.end(3)
}

func TestTerminalDetach(t *testing.T) {
	e := newEngine(t)
	x := e.terminal("run", "-it", "img", "sh")
	s := <-e.attach
	<-e.started
	s.Write([]byte("$ "))
	x.expect("$ ")
	x.master.Write([]byte{'a', 16, 16, 'b', 16, 17}) // a ^P ^P b are data; ^P^Q detaches
	x.end(0)
	in, _ := io.ReadAll(s)
	if string(in) != "a\x10\x10b" {
		t.Fatalf("the container got %q", in)
	}
}

func TestTerminalRestoredOnErrorsAndSignals(t *testing.T) {
	e := newEngine(t)
	x := e.terminal("run", "-it", "--sig-proxy=false", "img", "sh")
	s := <-e.attach
	<-e.started
	s.Write([]byte("$ "))
	x.expect("$ ")
	x.cmd.Process.Signal(syscall.SIGTERM)
	x.end(-1) // killed by the signal, after it put the terminal back

	e = newEngine(t)
	old := e.mux
	e.mux = http.NewServeMux()
	e.mux.Handle("/", old)
	e.mux.HandleFunc("POST /containers/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond) // let the terminal become raw
		e.fail(w, 500, "no")
	})
	x = e.terminal("run", "-it", "img", "sh")
	<-e.attach
	x.expect("no")
	x.end(125)
}

func TestExec(t *testing.T) {
	e := newEngine(t)
	e.json("POST /containers/{id}/exec", map[string]string{"Id": "e1"})
	e.json("GET /exec/e1/json", map[string]any{"ExitCode": 42, "Running": false})
	go func() {
		s := <-e.attach
		s.frame(1, "hi\n")
		s.Close()
	}()
	r := e.run("exec", "-e", "A=1", "-w", "/x", "-u", "me", "web", "sh", "-c", "exit 42")
	if r.code != 42 || r.stdout != "hi\n" {
		t.Fatalf("%+v", r)
	}
	want := `"User":"me","Privileged":false,"Tty":false,"AttachStdin":false,"AttachStderr":true,"AttachStdout":true,"DetachKeys":"","Env":["A=1"],"WorkingDir":"/x","Cmd":["sh","-c","exit 42"]}`
	if got := string(e.body("/containers/web/exec")); !strings.HasSuffix(got, want) {
		t.Fatal(got)
	}
	x := e.terminal("exec", "-it", "web", "sh")
	s := <-e.attach
	e.await("POST /exec/e1/resize?h=30&w=90")
	s.Write([]byte("# "))
	x.expect("# ")
	s.Close()
	x.end(42)
}

func TestDetachKeysFromTheConfigFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/config.json", []byte(`{"detachKeys":"ctrl-x,d"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"detachKeys=ctrl-x%2Cd": {"--config", dir, "run", "img"},
		"detachKeys=ctrl-y":     {"--config", dir, "run", "--detach-keys", "ctrl-y", "img"},
	} {
		e := newEngine(t)
		go func() {
			s := <-e.attach
			<-e.started
			s.Close()
			e.exit <- 0
		}()
		if r := e.run(args...); r.code != 0 || len(e.order(want)) != 1 {
			t.Errorf("%v: %+v, calls %q", args, r, e.calls)
		}
	}
}
