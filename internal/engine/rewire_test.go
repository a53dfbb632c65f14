package engine_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
)

// TestRewire connects and disconnects containers that exist.
func TestRewire(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	rewireRunning(t, e)
	rewireStopped(t, e)
}

func rewireRunning(t *testing.T, e *harness.Engine) {
	e.Docker("network", "create", "--subnet", "10.98.0.0/24", "back").OK()
	e.Docker("run", "-d", "--name", "srv", "--network", "back", bb, "sleep", "100").OK()
	e.Docker("run", "-d", "--name", "cc", "-p", "8099:80", bb, "sleep", "100").OK()
	since := fmt.Sprint(time.Now().Unix())
	ping := func(from, to string) harness.Result {
		return e.Docker("exec", from, "ping", "-c", "1", "-W", "2", to)
	}
	want(t, e.Docker("exec", "cc", "ls", "/sys/class/net").OK(), `^eth0\nlo$`)
	e.Docker("network", "connect", "--alias", "front", "--ip", "10.98.0.42", "back", "cc").OK()
	want(t, ping("cc", "srv").OK(), `10\.98\.0\.`)
	want(t, ping("srv", "front").OK(), `10\.98\.0\.42`)
	want(t, e.Docker("exec", "cc", "cat", "/etc/hosts").OK(), `(?m)^10\.98\.0\.42\s`)
	want(t, e.Docker("exec", "cc", "cat", "/etc/resolv.conf").OK(), `nameserver 127\.0\.0\.11`)
	show := func(net, field string) string {
		return e.Docker("inspect", "-f", `{{with (index .NetworkSettings.Networks "`+net+`")}}{{.`+field+`}}{{else}}none{{end}}`, "cc").OK()
	}
	want(t, show("back", "IPAddress"), `^10\.98\.0\.42$`)
	want(t, show("back", "Aliases"), `front`)
	want(t, show("bridge", "IPAddress"), `^172\.`)
	want(t, e.Docker("network", "inspect", "back").OK(), `10\.98\.0\.42/24`)
	e.Docker("network", "connect", "back", "cc").Fails(1, "endpoint with name cc already exists in network back")

	e.Docker("restart", "-t", "0", "cc").OK()
	want(t, ping("cc", "srv").OK(), `10\.98\.0\.`)
	want(t, show("back", "IPAddress"), `^10\.98\.0\.42$`)
	e.Kill()
	e.Run()
	want(t, ping("cc", "srv").OK(), `10\.98\.0\.`)

	e.Docker("network", "disconnect", "back", "cc").OK()
	ping("cc", "10.98.0.42").Fails(1)
	want(t, show("back", "IPAddress"), `^none$`)
	e.Docker("network", "disconnect", "back", "cc").Fails(1, "is not connected to network back")
	e.Docker("network", "connect", "back", "cc").OK()
	e.Docker("network", "disconnect", "bridge", "cc").OK()
	want(t, e.Docker("exec", "cc", "ip", "route").OK(), `default via 10\.98\.0\.1 `)
	want(t, e.Docker("port", "cc").OK(), `^$`)
	e.Docker("restart", "-t", "0", "cc").OK()
	want(t, show("bridge", "IPAddress"), `^none$`)
	want(t, e.Docker("port", "cc").OK(), `80/tcp -> 0\.0\.0\.0:8099`)
	e.Docker("network", "disconnect", "back", "cc").OK()
	want(t, e.Docker("exec", "cc", "ls", "/sys/class/net").OK(), `^lo$`)
	e.Docker("restart", "-t", "0", "cc").OK()
	want(t, e.Docker("exec", "cc", "ls", "/sys/class/net").OK(), `^lo$`)
	e.Docker("network", "connect", "bridge", "cc").OK()
	want(t, e.Docker("exec", "cc", "ip", "route").OK(), `default via 172\.`)

	out := e.Docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.container}}").Out
	want(t, out, `(?m)^disconnect bridge [0-9a-f]{64}$`)
	want(t, out, `(?m)^connect bridge [0-9a-f]{64}$`)
	e.Docker("rm", "-f", "srv", "cc").OK()
	e.Docker("network", "rm", "back").OK()
}

// rewireStopped does so while nothing runs, and where it must be refused.
func rewireStopped(t *testing.T, e *harness.Engine) {
	e.Docker("network", "create", "--subnet", "10.97.0.0/24", "side").OK()
	e.Docker("network", "create", "gone").OK()
	e.Docker("create", "--name", "cc", bb, "sleep", "100").OK()
	e.Docker("network", "connect", "--ip", "10.97.0.9", "side", "cc").OK()
	e.Docker("network", "connect", "gone", "cc").OK()
	want(t, e.Docker("inspect", "-f", "{{range $k, $_ := .NetworkSettings.Networks}}{{$k}} {{end}}", "cc").OK(), `^bridge gone side $`)
	e.Docker("network", "connect", "side", "cc").Fails(1, "already exists in network side")
	e.Docker("network", "rm", "gone").OK()
	e.Docker("start", "cc").Fails(1, "gone")
	e.Docker("network", "disconnect", "gone", "cc").OK()
	e.Docker("start", "cc").OK()
	want(t, e.Docker("exec", "cc", "ip", "addr").OK(), `10\.97\.0\.9/24`)

	e.Docker("network", "connect", "nosuch", "cc").Fails(1, "network nosuch not found")
	e.Docker("network", "disconnect", "nosuch", "cc").Fails(1, "network nosuch not found")
	e.Docker("network", "connect", "side", "nosuch").Fails(1, "No such container: nosuch")
	e.Docker("network", "connect", "host", "cc").Fails(1, "host network")
	e.Docker("network", "connect", "none", "cc").Fails(1, "(none) mode")
	for mode, word := range map[string]string{"none": "(none) mode", "host": "host network", "container:cc": "sharing network namespace"} {
		id := e.Docker("run", "-d", "--network", mode, bb, "sleep", "100").OK()
		e.Docker("network", "connect", "side", id).Fails(1, word)
	}
	e.Docker("run", "-d", "--name", "dd", bb, "sleep", "100").OK()
	e.Docker("network", "connect", "--ip", "10.97.0.9", "side", "dd").Fails(1, "10.97.0.9") // c has it
	e.Docker("network", "connect", "--ip", "10.1.1.1", "side", "dd").Fails(1, "10.1.1.1")
	e.Docker("network", "connect", "--link", "cc:x", "side", "dd").Fails(1, "Links")
	want(t, e.Docker("exec", "dd", "ls", "/sys/class/net").OK(), `^eth0\nlo$`)
	want(t, e.Docker("inspect", "-f", "{{len .NetworkSettings.Networks}}", "dd").OK(), `^1$`)
	e.Docker("network", "connect", "side", "dd").OK() // what was refused left nothing that is in the way
	e.Docker("rm", "-f", "cc", "dd").OK()
	e.Docker("network", "rm", "side").OK()
}

// TestBridgeName: a data root keeps its device, and takes nobody else's.
func TestBridgeName(t *testing.T) {
	e := harness.Start(t, "--bridge-name", "dhowx")
	second := func(data string, flags ...string) string {
		args := append([]string{"--data-root", data, "--run-root", filepath.Join(t.TempDir(), "run"), "--host", "unix://" + filepath.Join(t.TempDir(), "s"), "--cgroup-parent", e.Cgroup + "/2", "--table", "dhow2"}, flags...)
		cmd := exec.Command(e.Program("dhowd"), args...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := netlink.Inside(e.Netns, cmd.Start); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("the engine did not refuse to start: %v\n%s", err, out.String())
		}
		return out.String()
	}
	got := second(filepath.Join(t.TempDir(), "data"), "--bridge-name", "dhowx")
	for _, w := range []string{"dhowx is there already", "172.", "--bridge-name"} {
		want(t, got, w)
	}
	e.Kill()
	got = second(e.DataRoot, "--bridge-name", "dhowy")
	for _, w := range []string{"--bridge-name dhowy", "device dhowx", "another data root"} {
		want(t, got, w)
	}
	e.Run() // with its own name, and the device is its own by record
	e.Docker("network", "ls").OK()
}
