package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/image"
)

// lists gives the fake engine something to list.
func (e *engine) lists() {
	now := time.Now()
	e.json("GET /containers/json", []map[string]any{
		{"Id": fakeID, "Names": []string{"/web", "/other/alias"}, "Image": "nginx:1.27", "Command": "/docker-entrypoint.sh nginx -g 'daemon off;'",
			"Created": now.Add(-3 * time.Hour).Unix(), "State": "running", "Status": "Up 3 hours", "Labels": map[string]string{"a": "b", "com.x.y": "z"},
			"Ports": []map[string]any{{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
				{"PrivatePort": 443, "Type": "tcp"}, {"PrivatePort": 7000, "Type": "tcp"}, {"PrivatePort": 7001, "Type": "tcp"},
				{"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"}},
			"SizeRw": 12345, "SizeRootFs": 200000000, "Mounts": []map[string]any{{"Name": "a-volume-with-a-long-name", "Driver": "local"}, {"Source": "/host/path"}},
			"NetworkSettings": map[string]any{"Networks": map[string]any{"bridge": map[string]any{}}}},
		{"Id": strings.Repeat("f", 64), "Names": []string{"/job"}, "Image": "busybox", "Command": "sh", "Created": now.Add(-26 * time.Hour).Unix(),
			"State": "exited", "Status": "Exited (0) 25 hours ago"},
	})
	e.json("GET /images/json", []map[string]any{
		{"Id": "sha256:" + fakeID, "RepoTags": []string{"nginx:1.27", "reg.example:5000/nginx:latest"}, "RepoDigests": []string{"nginx@sha256:" + fakeID},
			"Created": now.Add(-50 * 24 * time.Hour).Unix(), "Size": 187654321, "SharedSize": -1, "Containers": -1},
		{"Id": "sha256:" + strings.Repeat("1", 64), "RepoTags": []string{}, "RepoDigests": []string{}, "Created": now.Add(-time.Minute).Unix(), "Size": 999, "SharedSize": -1, "Containers": -1},
	})
	e.json("GET /networks", []map[string]any{{"Name": "bridge", "Id": fakeID, "Driver": "bridge", "Scope": "local", "Created": "2026-01-02T03:04:05Z"},
		{"Name": "a-rather-long-network-name", "Id": strings.Repeat("2", 64), "Driver": "null", "Scope": "local", "Labels": map[string]string{"k": "v"}}})
	e.json("GET /volumes", map[string]any{"Volumes": []map[string]any{{"Name": "data", "Driver": "local", "Mountpoint": "/m", "Scope": "local", "Labels": map[string]string{"k": "v"}},
		{"Name": strings.Repeat("ab", 32), "Driver": "local", "Mountpoint": "/n", "Scope": "local"}}})
	e.json("GET /images/{name}/history", []map[string]any{{"Id": "sha256:" + fakeID, "Created": now.Add(-time.Hour).Unix(), "CreatedBy": "/bin/sh -c #(nop)  CMD [\"nginx\" \"-g\" \"daemon off;\"]", "Size": 0},
		{"Id": "<missing>", "Created": now.Add(-2 * time.Hour).Unix(), "CreatedBy": "RUN x", "Size": 81900000, "Comment": "buildkit.dockerfile.v0"}})
	e.json("GET /containers/{id}/top", map[string]any{"Titles": []string{"UID", "PID", "CMD"}, "Processes": [][]string{{"root", "1", "nginx: master"}, {"www", "22", "nginx: worker"}}})
	e.json("GET /containers/{id}/json", json.RawMessage(`{"Id":"`+fakeID+`","Name":"/web","Created":"2026-01-02T03:04:05Z","Image":"sha256:x","State":{"Status":"running","Running":true,"Pid":4242},
"Config":{"Image":"nginx","Tty":false,"Env":["A=1"],"Labels":{"k":"v"}},"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"443/tcp":null}}}`))
	e.json("POST /volumes/create", map[string]string{"Name": "data"})
	e.json("POST /networks/create", map[string]string{"Id": fakeID})
	e.json("GET /events", map[string]any{"Type": "container", "Action": "start", "Actor": map[string]any{"ID": fakeID, "Attributes": map[string]string{"name": "web", "image": "nginx"}}, "time": 1767323045, "timeNano": 1767323045123456789})
	ok := func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "missing") {
			e.fail(w, 404, "No such container: missing")
			return
		}
		w.WriteHeader(204)
	}
	for _, v := range []string{"POST /containers/{id}/stop", "POST /containers/{id}/restart", "POST /containers/{id}/pause", "POST /containers/{id}/unpause",
		"POST /containers/{id}/rename", "DELETE /containers/{id}", "DELETE /volumes/{id}", "DELETE /networks/{id}", "POST /networks/{id}/connect",
		"POST /networks/{id}/disconnect"} {
		e.mux.HandleFunc(v, ok)
	}
	e.mux.HandleFunc("POST /images/{name}/tag", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201) })
	e.json("DELETE /images/{name}", []map[string]string{{"Untagged": "nginx:1.27"}, {"Deleted": "sha256:" + fakeID}})
	e.mux.HandleFunc("GET /containers/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
		fmt.Fprint(w, "\x01\x00\x00\x00\x00\x00\x00\x04one\n\x02\x00\x00\x00\x00\x00\x00\x04two\n\x01\x00\x00\x00\x00\x00\x00\x04end\n")
	})
	e.json("POST /containers/{id}/update", map[string]any{"Warnings": nil})
}

const listText = `ps
ps -a
ps -q
ps -aq --no-trunc
ps --no-trunc
ps -s
ps -n 3
ps -l
ps -f status=running -f label=a=b
ps --format {{.Names}}
ps --format json
ps --format table {{.ID}}\t{{.Names}}\t{{.Label "com.x.y"}}\t{{.Mounts}}\t{{.Networks}}\t{{.LocalVolumes}}
ps --format {{json .}}
ps --format {{.ID|upper}} {{truncate .Image 3}} {{pad .Names 2 3}}| {{join (split .Labels ",") ";"}} {{println .State}}
container ls -a
images
images -q
images --no-trunc
images --digests
images --format {{.Repository}}:{{.Tag}} {{.Size}}
images --format table {{.ID}}\t{{.CreatedSince}}
images nginx
images -a -f dangling=true
image ls
network ls
network ls --no-trunc
network ls -q
network ls --format {{.Name}} {{.Driver}} {{.Label "k"}}
network ls -f driver=bridge
volume ls
volume ls -q
volume ls --format {{.Name}} {{.Mountpoint}} {{.Labels}}
history nginx
history --no-trunc nginx
history -q nginx
history --format {{.Size}} {{.Comment}} nginx
top web
port web
port web 80
port web 80/tcp
port web 81
stop web
stop -t 3 -s INT web web2
stop missing web
restart web
kill web
kill -s HUP web
pause web
unpause web
rm -f web
rm -fv web missing
rename web new
wait web
tag nginx reg.example:5000/x:1
rmi nginx
inspect web
inspect -f {{.State.Pid}} web
inspect -f {{json .Config.Env}} web
inspect -f {{range.Config.Env}}{{.}}{{end}} web
inspect -f {{.HostConfig.NetworkMode}}/{{index .Config.Labels "k"}} web
inspect --type container web
volume create data
volume create --label a=b --opt type=nfs -d local data
volume rm data
network create back
network create --subnet 10.7.0.0/24 --gateway 10.7.0.1 --ip-range 10.7.0.128/25 --aux-address x=10.7.0.9 --internal --label a=b -o o=p back
network create --ipv6 --subnet fd00::/64 --attachable back
network connect --ip 10.7.0.5 --alias db back web
network disconnect -f back web
network rm back
logs web
logs --tail 5 -t web
update -m 512m --cpus 1.5 --restart always web
start web
`

// TestListsAsDockerPrintsThem compares output, exit code, calls and bodies with the real docker CLI on the same answers.
func TestListsAsDockerPrintsThem(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI in PATH to compare with")
	}
	for _, line := range strings.Split(strings.TrimSpace(listText), "\n") {
		t.Run(line, func(t *testing.T) {
			args := splitLine(line)
			e := newEngine(t)
			e.lists()
			e.exit <- 0
			e.exit <- 0
			ours := e.run(args...)
			mine, bodies := e.traffic()
			c := exec.Command(docker, args...)
			c.Env = append(os.Environ(), "DOCKER_HOST="+e.host, "DOCKER_CONFIG="+t.TempDir())
			var out, errb strings.Builder
			c.Stdout, c.Stderr = &out, &errb
			c.Run()
			if canonicalLines(out.String()) != canonicalLines(ours.stdout) {
				t.Errorf("stdout\ndocker:\n%s\ndhow:\n%s", out.String(), ours.stdout)
			}
			if code := c.ProcessState.ExitCode(); code != ours.code {
				t.Errorf("exit: docker %d (%s), dhow %d (%s)", code, errb.String(), ours.code, ours.stderr)
			}
			theirs, theirBodies := e.traffic()
			theirs = slices.DeleteFunc(theirs, func(c string) bool { return strings.HasPrefix(line, "network rm") && strings.HasPrefix(c, "GET") })
			slices.Sort(theirs) // several objects: no order
			slices.Sort(mine)
			if a, b := strings.Join(theirs, "\n"), strings.Join(mine, "\n"); a != b {
				t.Errorf("calls\ndocker:\n%s\ndhow:\n%s", a, b)
			}
			for p, b := range theirBodies {
				if len(b) > 0 && len(bodies[p]) > 0 {
					for _, d := range difference(t, b, bodies[p]) {
						t.Errorf("%s %s", p, d)
					}
				} else if len(b) != len(bodies[p]) && string(b) != "{}" {
					t.Errorf("%s: docker %q, dhow %q", p, b, bodies[p])
				}
			}
		})
	}
}

// canonicalLines leaves out what has no meaning: the order of an image's names (a map in docker), escapes in JSON, and a
// platform that docker writes as null.
func canonicalLines(s string) string {
	s = strings.NewReplacer(`\u003e`, ">", `"Platform":null`, `"Platform":""`).Replace(s)
	if strings.Contains(s, "reg.example") {
		lines := strings.Split(s, "\n")
		slices.Sort(lines)
		s = strings.Join(lines, "\n")
	}
	return s
}

// splitLine keeps what is in braces in one word, tables included.
func splitLine(line string) []string {
	i := strings.Index(line, "--format ")
	j := strings.Index(line, "-f {{")
	switch {
	case i >= 0:
		i += len("--format ")
	case j >= 0:
		i = j + len("-f ")
	default:
		return strings.Split(line, " ")
	}
	head, rest := strings.Fields(line[:i]), line[i:]
	end := strings.LastIndex(rest, "}}") + 2
	if end < 2 {
		return append(head, strings.Fields(rest)...)
	}
	return append(append(head, rest[:end]), strings.Fields(rest[end:])...)
}

// traffic takes the calls and bodies so far, without what only one of the two asks.
func (e *engine) traffic() ([]string, map[string][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var calls []string
	for _, c := range e.calls {
		if !strings.Contains(c, "/_ping") && !strings.HasSuffix(c, "/info") {
			calls = append(calls, c)
		}
	}
	b := e.bodies
	e.calls, e.bodies = nil, map[string][]byte{}
	return calls, b
}

// An image has a line for each tag, and for each repository that it is of by a digest only, as docker images prints it.
func TestImageRows(t *testing.T) {
	s := &image.Summary{ID: "sha256:0123456789abcdef", RepoTags: []string{"one:1", "one:2"}, RepoDigests: []string{"one@sha256:aa", "two@sha256:bb"}}
	var got []string
	for _, r := range imageRows(s, time.Now(), false) {
		got = append(got, r.Repository+" "+r.Tag+" "+r.Digest)
	}
	if want := "one 1 sha256:aa, one 2 sha256:aa, two <none> sha256:bb"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}
