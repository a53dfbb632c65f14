package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	kernel "github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// mostScript is how long one script may take: the longest takes ten seconds on two processors of its own, fifty on crowded ones.
const mostScript = 120 * time.Second

var update = flag.Bool("update", false, "rewrite what scripts compare with")

// TestScripts runs every script below testdata with each client, in a world of its own. A script whose first line is "# dhow only"
// is about what docker's client does not have or says in other words.
//
// Beside testscript's own words they know:
//
//	[!] client ARGS...         run the client under test; ! asks for a non-zero exit
//	exits CODE ARGS...         run it and expect this very exit code
//	eventually PATTERN ARGS... run it until its standard output matches, for 15 s
//	running in the background: exec client ARGS... &
//	[!] host ARGS...           run a program in the engine's network namespace
//	[!] outside ARGS...        run a program in the namespace beyond
//	hosteventually PATTERN ARGS...  the same until the output matches
//	[!] get host|outside URL   fetch a page from there; tries for 10 s, or once when it must not succeed
//	udp host|outside ADDR      send datagrams from there until the echo answers
//	engine kill|run|restart    the engine's life
//	let NAME                   set $NAME to what the last command said, without the last newline
//	flip GLOB...               change a bit in the middle of each of these files of the data root
//	clean                      remove all containers, then nothing may be left
func TestScripts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("running containers needs root")
	}
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for client, program := range clients(t) {
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if client != "dhow" && strings.HasPrefix(string(text), "# dhow only") {
				continue
			}
			t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar")+"/"+client, func(t *testing.T) {
				t.Parallel()
				if testing.Short() && strings.Contains(string(text), "# long\n") {
					t.Skip("takes long")
				}
				script(t, full(t), f, program)
			})
		}
	}
}

// asT lets a script run in a test that is already under way.
type asT struct{ *testing.T }

func (t asT) Parallel()                             {}
func (t asT) Verbose() bool                         { return testing.Verbose() }
func (t asT) Run(name string, f func(testscript.T)) { f(t) }

func script(t *testing.T, w *world, file, program string, vars ...string) {
	testscript.RunT(asT{t}, testscript.Params{
		Files: []string{file}, Deadline: time.Now().Add(patience.Of(mostScript)), UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			if err := os.Symlink(program, filepath.Join(bin, "client")); err != nil {
				return err
			}
			if err := os.Symlink(w.Program("dhow-runtime"), filepath.Join(bin, "runtime")); err != nil {
				return err
			}
			env.Vars = append(append(env.Vars, w.Env()...), vars...)
			env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env.Setenv("BB", bb)
			env.Setenv("REGISTRY", strings.TrimSuffix(bb, "/busybox:latest"))
			env.Setenv("RUN_ROOT", w.RunRoot)
			env.Setenv("DATA_ROOT", w.DataRoot)
			env.Setenv("CGROUP", w.Cgroup)
			env.Setenv("HOST", netnsPath(w.Netns))
			env.Setenv("OUTSIDE", netnsPath(w.outside))
			env.Setenv("PROBE", probe(t))
			env.Setenv("ALLCAPS", bounding(t))
			env.Setenv("TERM", "xterm")
			return nil
		},
		Cmds: words(t, w),
		Condition: func(c string) (bool, error) {
			if c == "apparmor" {
				return kernel.Has(kernel.AppArmor), nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
	})
}

func words(t *testing.T, w *world) map[string]func(*testscript.TestScript, bool, []string) {
	run := func(prefix ...string) func(*testscript.TestScript, bool, []string) {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			args = append(append([]string{}, prefix...), args...)
			if err := ts.Exec(args[0], args[1:]...); (err != nil) != neg {
				ts.Fatalf("%v: %v\nthe engine's log ends with\n%s", args, err, last(w.Log(), 5))
			}
		}
	}
	until := func(prefix ...string) func(*testscript.TestScript, bool, []string) {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			want := regexp.MustCompile("(?m)" + args[0])
			args = append(append([]string{}, prefix...), args[1:]...)
			for start := time.Now(); ; time.Sleep(30 * time.Millisecond) {
				program := args[0]
				if program == "client" {
					program = ts.Getenv("WORK") + "/.bin/client"
				}
				cmd := exec.Command(program, args[1:]...)
				cmd.Env = append(os.Environ(), w.Env()...)
				out, err := cmd.Output()
				if want.Match(out) != neg {
					return
				}
				if time.Since(start) > patience.Of(15*time.Second) {
					ts.Fatalf("%v: %v: %q: not as wanted within 15 seconds", args, err, out)
				}
			}
		}
	}
	return map[string]func(*testscript.TestScript, bool, []string){
		"client": run("client"), "eventually": until("client"),
		"host": run("nsenter", "--net="+netnsPath(w.Netns)), "outside": run("nsenter", "--net="+netnsPath(w.outside)),
		"hosteventually": until("nsenter", "--net="+netnsPath(w.Netns)),
		"exits":          exits,
		"get":            func(ts *testscript.TestScript, neg bool, args []string) { get(ts, w, neg, args[0], args[1]) },
		"udp":            func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(w.ask(args[0], args[1])) },
		"engine":         func(ts *testscript.TestScript, _ bool, args []string) { life(ts, w, args[0]) },
		"let": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Setenv(args[0], strings.TrimSuffix(ts.ReadFile("stdout"), "\n"))
		},
		"flip": func(ts *testscript.TestScript, _ bool, args []string) {
			for _, a := range args {
				ts.Check(flip(filepath.Join(w.DataRoot, a)))
			}
		},
		"clean": func(ts *testscript.TestScript, _ bool, args []string) {
			if ids := strings.Fields(w.Dhow("ps", "-aq").OK()); len(ids) > 0 {
				w.Dhow(append([]string{"rm", "-fv"}, ids...)...).OK()
			}
			if l := w.Leaks(); len(l) > 0 {
				ts.Fatalf("left behind:\n%s", strings.Join(l, "\n"))
			}
			if now, before := w.idle(), w.fds; now > before {
				ts.Fatalf("the engine holds %d descriptors, %d before", now, before)
			}
		},
	}
}

// flip changes a bit in the middle of the files that fit.
func flip(glob string) error {
	files, err := filepath.Glob(glob)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("flip %s: no such file", glob)
	}
	for _, f := range files {
		raw, rerr := os.ReadFile(f)
		if rerr != nil {
			return rerr
		}
		raw[len(raw)/2] ^= 1
		h, rerr := os.OpenFile(f, os.O_WRONLY, 0) // the same inode: that is what goes bad on a disk
		if rerr != nil {
			return rerr
		}
		_, rerr = h.WriteAt(raw[len(raw)/2:len(raw)/2+1], int64(len(raw)/2))
		err = errors.Join(err, rerr, h.Close())
	}
	return err
}

// bounding is the most that this machine lets anybody have, as /proc/PID/status prints it.
func bounding(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/status")
	m := regexp.MustCompile(`CapBnd:\s([0-9a-f]{16})`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no bounding set: %v", err)
	}
	return string(m[1])
}

func netnsPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// idle is the least number of descriptors that the engine gets down to within a moment.
func (w *world) idle() int {
	least := w.FDs()
	for start := time.Now(); time.Since(start) < patience.Of(2*time.Second) && least > w.fds; time.Sleep(20 * time.Millisecond) {
		least = min(least, w.FDs())
	}
	return least
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("client", args[1:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if (got == want) == neg {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// get asks for a page from the host or the outside. What is to answer may take a while; what is not is asked once.
func get(ts *testscript.TestScript, w *world, neg bool, from, url string) {
	for start := time.Now(); ; time.Sleep(30 * time.Millisecond) {
		body, err := w.fetch(from, url)
		if (err != nil) == neg {
			fmt.Fprint(ts.Stdout(), body)
			return
		}
		if neg || time.Since(start) > patience.Of(10*time.Second) {
			ts.Fatalf("%s: %s: %v %q", from, url, err, body)
		}
	}
}

func (w *world) fetch(from, url string) (string, error) {
	ns := w.Netns
	if from == "outside" {
		ns = w.outside
	}
	dial := func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = netlink.Inside(ns, func() error { c, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr); return err })
		return c, err
	}
	client := http.Client{Timeout: patience.Of(3 * time.Second), Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(b), err
}

// ask sends datagrams until one comes back.
func (w *world) ask(from, addr string) error {
	ns := w.Netns
	if from == "outside" {
		ns = w.outside
	}
	var c net.Conn
	if err := netlink.Inside(ns, func() (err error) { c, err = net.Dial("udp", addr); return err }); err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 100)
	var err error
	for start := time.Now(); time.Since(start) < patience.Of(10*time.Second); time.Sleep(20 * time.Millisecond) {
		c.Write([]byte("ahoy"))
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		var n int
		if n, err = c.Read(buf); err == nil && string(buf[:n]) == "echo ahoy" {
			return nil
		}
	}
	return fmt.Errorf("no answer from %s: %w", addr, err)
}

func life(ts *testscript.TestScript, w *world, verb string) {
	switch verb {
	case "kill":
		w.Kill()
	case "run":
		w.Run()
	case "restart":
		w.Signal(syscall.SIGTERM)
		w.Run()
	default:
		ts.Fatalf("engine %s: kill, run or restart", verb)
	}
}

func last(s string, n int) string {
	l := lines(s)
	return strings.Join(l[max(0, len(l)-n):], "\n")
}
