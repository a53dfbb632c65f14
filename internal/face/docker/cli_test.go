package docker

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve runs the API of a fake engine on a unix socket and returns the socket's path.
func serve(t *testing.T, f *fake) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dhowapi") // t.TempDir can be longer than a socket address
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	l, err := Listen("unix://" + sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	go func() { done <- Serve(ctx, New(Config{Engine: f.engine(), Version: "0.1.0", Log: log}), log, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not return")
		}
		if _, err := os.Lstat(sock); err == nil {
			t.Error("socket file left behind")
		}
		os.RemoveAll(dir)
	})
	return sock
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) { return len(p), nil }

type result struct {
	out, err string
	code     int
}

// cli runs the real docker CLI.
func cli(t *testing.T, sock, stdin string, args ...string) result {
	t.Helper()
	bin, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI on this machine")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(sock), "DOCKER_HOST=unix://" + sock, "DOCKER_CLI_HINTS=0"}
	var out, errb bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errb
	cmd.Run() // the exit code is in ProcessState
	if ctx.Err() != nil {
		t.Fatalf("docker %v hangs; stdout %q stderr %q", args, out.String(), errb.String())
	}
	return result{out.String(), errb.String(), cmd.ProcessState.ExitCode()}
}

func TestDockerCLI(t *testing.T) {
	f := newFake()
	sock := serve(t, f)
	for _, tc := range []struct {
		name, stdin string
		args        []string
		code        int
		out, err    string // substrings; "=x" means equal
	}{
		{name: "version", args: []string{"version", "-f", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Client.APIVersion}} {{.Server.Version}}"}, out: "=1.52 1.24 1.50 0.1.0\n"},
		{name: "info", args: []string{"info", "-f", "{{.ID}} {{.Swarm.LocalNodeState}} {{.ServerVersion}}"}, out: "=fake-id inactive 0.1.0\n"},
		{name: "ps empty", args: []string{"ps", "-q"}, out: "="},
		{name: "run", args: []string{"run", "--rm", "here", "echo", "hi"}, out: "=hi\n", err: "="},
		{name: "run stderr", args: []string{"run", "--rm", "here", "both"}, out: "=out\n", err: "=err\n"},
		{name: "run exit", args: []string{"run", "--rm", "here", "exit", "7"}, code: 7},
		{name: "run stdin", stdin: "a\nb\n", args: []string{"run", "--rm", "-i", "here", "cat"}, out: "=a\nb\n"},
		{name: "run eof", stdin: "12345", args: []string{"run", "--rm", "-i", "here", "count"}, out: "=5\n"},
		{name: "run unread stdin", stdin: strings.Repeat("x", 1<<20), args: []string{"run", "--rm", "-i", "here", "echo", "short"}, out: "=short\n", err: "="},
		{name: "run pulls", args: []string{"run", "--rm", "there:1", "echo", "pulled"}, out: "=pulled\n", err: "Downloaded newer image"},
		{name: "run missing", args: []string{"run", "--rm", "missing:1", "echo"}, code: 125, err: "manifest for missing:1 not found"},
		{name: "run -d", args: []string{"run", "-d", "--name", "bg", "here", "hang"}},
		{name: "name in use", args: []string{"run", "-d", "--name", "bg", "here", "hang"}, code: 125, err: "Conflict"},
		{name: "ps", args: []string{"ps", "--format", "{{.Names}} {{.Image}}"}, out: "=bg here\n"},
		{name: "inspect", args: []string{"inspect", "-f", "{{.State.Status}} {{.NetworkSettings.IPAddress}} {{.NetworkSettings.Networks.bridge.IPAddress}}", "bg"}, out: "=running 172.17.0.2 172.17.0.2\n"},
		{name: "exec", args: []string{"exec", "bg", "both"}, out: "=out\n", err: "=err\n"},
		{name: "exec -i", stdin: "x\ny\n", args: []string{"exec", "-i", "bg", "upper"}, out: "=X\nY\n"},
		{name: "exec exit", args: []string{"exec", "bg", "exit", "3"}, code: 3},
		{name: "exec -d", args: []string{"exec", "-d", "bg", "echo"}, out: "="},
		{name: "rm running", args: []string{"rm", "bg"}, code: 1, err: "cannot remove"},
		{name: "stop", args: []string{"stop", "-t", "3", "bg"}, out: "=bg\n"},
		{name: "wait", args: []string{"wait", "bg"}, out: "=143\n"},
		{name: "rm", args: []string{"rm", "bg"}, out: "=bg\n"},
		{name: "run for logs", args: []string{"run", "-d", "--name", "lg", "here", "echo", "logged"}},
		{name: "logs", args: []string{"logs", "lg"}, out: "=logged\n"},
		{name: "logs -f", args: []string{"logs", "-f", "lg"}, out: "=logged\n"},
		{name: "logs missing", args: []string{"logs", "nobody"}, code: 1, err: "No such container: nobody"},
		{name: "pull", args: []string{"pull", "reg.test/x/y:1"}, out: "Status: Downloaded newer image for reg.test/x/y:1"},
		{name: "pull broken", args: []string{"pull", "broken:1"}, code: 1, err: "digest mismatch"},
		{name: "images", args: []string{"images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}"}, out: "reg.test/x/y:1 4.1kB"},
		{name: "image inspect", args: []string{"image", "inspect", "-f", "{{.Architecture}} {{json .Config.Cmd}}", "reg.test/x/y:1"}, out: `=amd64 ["echo","hello"]` + "\n"},
		{name: "tag", args: []string{"tag", "here", "other:2"}, out: "="},
		{name: "rmi", args: []string{"rmi", "other:2"}, out: "=Untagged: other:2\n"},
		{name: "history", args: []string{"history", "-q", "here"}, out: "missing"},
		{name: "network ls", args: []string{"network", "ls", "--format", "{{.Name}}"}, out: "=bridge\n"},
		{name: "network inspect", args: []string{"network", "inspect", "-f", "{{.Driver}}", "bridge"}, out: "=bridge\n"},
		{name: "network rm", args: []string{"network", "rm", "bridge"}, code: 1, err: "pre-defined"},
		{name: "volume create", args: []string{"volume", "create", "v1"}, out: "=v1\n"},
		{name: "volume ls", args: []string{"volume", "ls", "-q"}, out: "="},
		{name: "df", args: []string{"system", "df", "--format", "{{.Type}} {{.Size}}"}, out: "Images 4.096kB"},
		{name: "events", args: []string{"events", "--until", "1s", "--format", "{{.Status}} {{.ID}} {{.Type}}"}, out: "=start c1 container\n  network\n"},
		{name: "stats", args: []string{"stats", "--no-stream", "--format", "{{.Name}}", "lg"}, out: "=lg\n"},
		{name: "top", args: []string{"top", "lg"}, out: "-ef"},
		{name: "update", args: []string{"update", "-m", "64m", "lg"}, out: "=lg\n"},
		{name: "rename", args: []string{"rename", "lg", "lg2"}, out: "="},
		{name: "build", args: []string{"build", "-"}, stdin: "FROM x\n", code: 1, err: "not implemented by this version of dhow"},
		{name: "cp", args: []string{"cp", "lg2:/there", "-"}, out: "a tar"},
		{name: "cp-nothing", args: []string{"cp", "lg2:/x", "-"}, code: 1, err: "Could not find the file /x in container lg2"},
		{name: "diff", args: []string{"diff", "lg2"}, out: "C /etc\nA /etc/new\n"},
		{name: "swarm", args: []string{"node", "ls"}, code: 1, err: "This node is not a swarm manager"},
		{name: "plugins", args: []string{"plugin", "ls", "-q"}, out: "="},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := cli(t, sock, tc.stdin, tc.args...)
			if r.code != tc.code || !holds(r.out, tc.out) || !holds(r.err, tc.err) {
				t.Errorf("docker %v: exit %d, stdout %q, stderr %q; want %d, %q, %q", tc.args, r.code, r.out, r.err, tc.code, tc.out, tc.err)
			}
		})
	}
}

func holds(got, want string) bool {
	if exact, ok := strings.CutPrefix(want, "="); ok {
		return got == exact
	}
	return strings.Contains(got, want)
}

// TestRunOrder: docker run must attach and wait before it starts, or it would lose output and exit code.
func TestRunOrder(t *testing.T) {
	f := newFake()
	sock := serve(t, f)
	if r := cli(t, sock, "", "run", "--rm", "here", "exit", "5"); r.code != 5 {
		t.Fatalf("exit %d: %s", r.code, r.err)
	}
	var order []string
	for _, c := range f.calls {
		order = append(order, strings.Fields(c)[0])
	}
	if got := strings.Join(order, " "); got != "create attach wait start" {
		t.Errorf("order %q", got)
	}
}
