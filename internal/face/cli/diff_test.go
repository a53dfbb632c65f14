package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"
)

// flagCases are command lines of `create` that dhow and the docker CLI must turn into the same request.
func flagCases(dir string) [][]string {
	var cases [][]string
	for _, line := range strings.Split(strings.TrimSpace(strings.ReplaceAll(flagText, "DIR", dir)), "\n") {
		cases = append(cases, strings.Split(line, " "))
	}
	return append(cases,
		[]string{"--health-cmd", "curl -f http://localhost/ || exit 1", "--health-interval", "5s", "--health-retries", "3", "img"},
		[]string{"--device-cgroup-rule", "c 1:3 rwm", "img"},
		[]string{"-e", "A=b c", "-e", "EMPTY=", "-e", "UNSET_VARIABLE_XYZ", "-e", "HOME", "img"},
		[]string{"--gpus", `"device=0,1","capabilities=compute,utility"`, "img"},
		[]string{"--entrypoint", "", "img"},
		[]string{"--label", "a=b=c", "--label", "bare", "-l", "sp=a b", "img"},
	)
}

const flagText = `img
img echo hello -d --name x
-it img sh
-i img
-t img
-a stdout img
-a stdin -a stderr -i img
-a STDOUT -i img
--name web -h host --domainname dom img
-u 1000:1000 -w /srv img
--entrypoint /bin/x img a b
--env-file DIR/env -e A=over img
--label-file DIR/labels -l z=1 img
--group-add 10 --group-add audio img
--annotation a=b --annotation c=d img
-m 64m --memory-reservation 32m --memory-swap 128m --memory-swappiness 30 img
--memory-swap -1 -m 1g img
-m 1.5g img
--cpus 1.5 img
--cpus 0.000000001 img
--cpu-shares 512 --cpu-period 100000 --cpu-quota 50000 --cpuset-cpus 0-1 --cpuset-mems 0 img
-c 2 --cpu-rt-period 1000 --cpu-rt-runtime 900 img
--blkio-weight 100 --blkio-weight-device /dev/sda:200 img
--device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2mb --device-read-iops /dev/sda:100 --device-write-iops /dev/sdb:200 img
--pids-limit 100 img
--pids-limit -1 img
--oom-kill-disable --oom-score-adj -500 -m 10m img
--ulimit nofile=1024:2048 --ulimit nproc=10 --ulimit core=-1 img
--sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=100 img
--cgroup-parent /x --shm-size 128m img
--pid host --ipc host --uts host --userns host --cgroupns host img
--pid container:abc --ipc container:abc img
--ipc shareable --cgroupns private img
--cap-add NET_ADMIN --cap-add sys_ptrace --cap-drop ALL img
--security-opt no-new-privileges --security-opt apparmor=unconfined --security-opt label=disable img
--security-opt seccomp=unconfined img
--security-opt seccomp=DIR/seccomp.json img
--security-opt systempaths=unconfined img
--security-opt apparmor:foo img
--privileged --read-only --init img
--init=false img
--runtime runc --isolation default img
--device /dev/null img
--device /dev/null:/dev/x:r --device /dev/zero:rw --device /dev/zero:/dev/y img
--device vendor.com/class=name --device /dev/null img
--gpus all img
--gpus 2 img
--gpus device=0 img
--network host img
--network none img
--network bridge img
--network container:abc img
--network mynet --ip 10.1.2.3 --ip6 fd00::1 --network-alias a --network-alias b --link-local-ip 169.254.1.1 --mac-address 92:d0:c6:0a:29:33 img
--network mynet --link db:db2 img
--link db:db2 img
--net host img
--network name=a,alias=x,alias=y,ip=10.0.0.3 --network name=b,mac-address=92:d0:c6:0a:29:34,gw-priority=5 img
--network name=a,driver-opt=com.x=1 img
--network a --network b img
--mac-address 92:d0:c6:0a:29:33 img
-p 80 img
-p 8080:80 img
-p 127.0.0.1:8080:80/udp img
-p 127.0.0.1::80 img
-p [::1]:8080:80 img
-p 8000-8003:9000-9003 img
-p 9000-9002 img
-p 8000-8010:80 img
-p 80:80 -p 80:80/udp -p 443:443/tcp img
-p published=8080,target=80,protocol=tcp img
-p target=80 img
-P --expose 80 --expose 90-92/udp img
--expose 7000/sctp img
--dns 8.8.8.8 --dns-option ndots:2 --dns-search example.com --dns-search . img
--add-host a:1.2.3.4 --add-host b=fd00::1 --add-host c:[::1] --add-host d:host-gateway img
-v /data img
-v /host:/ctr img
-v /host:/ctr:ro,z img
-v vol:/ctr img
-v vol:/ctr:nocopy -v /anon img
-v ./rel:/ctr img
-v .:/ctr img
--mount type=bind,source=/a,target=/b img
--mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave img
--mount type=bind,src=/a,dst=/b,readonly,bind-recursive=writable img
--mount type=volume,source=v,target=/b,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=type=nfs img
--mount source=v,target=/b,volume-subpath=x/y img
--mount type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770 img
--mount type=image,source=im,target=/t,image-subpath=x img
--mount target=/anon img
--tmpfs /run --tmpfs /tmp:size=64m,mode=1777 img
--volumes-from other:ro --volume-driver local img
--storage-opt size=10G img
--health-cmd true --health-timeout 3s --health-start-period 10s --health-start-interval 1s img
--no-healthcheck img
--restart always img
--restart on-failure:3 img
--restart unless-stopped img
--rm img
--stop-signal SIGINT --stop-timeout 30 img
--stop-timeout 0 img
--log-driver json-file --log-opt max-size=10m --log-opt max-file=3 img
--log-driver none img
--cidfile DIR/cid img
--platform linux/arm64 img
--disable-content-trust img`

// TestFlagsAsDockerSendsThem runs every case through the real docker CLI and through dhow, against the same fake engine,
// and compares the create requests.
func TestFlagsAsDockerSendsThem(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI in PATH to compare with")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"env": "# comment\nA=1\n  B=two words \nHOME\nNOT_SET_ANYWHERE\n\nC=\n", "labels": "x=1\ny\n",
		"seccomp.json": "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range flagCases(dir) {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			e := newEngine(t)
			ours := e.run(append([]string{"create"}, args...)...)
			mine, query := e.body("/containers/create"), createCall(e)
			os.Remove(filepath.Join(dir, "cid"))
			if ours.code != 0 {
				t.Fatalf("dhow create: exit %d: %s", ours.code, ours.stderr)
			}
			e.mu.Lock()
			e.calls = nil
			e.mu.Unlock()
			c := exec.Command(docker, append([]string{"create"}, args...)...)
			c.Env = append(os.Environ(), "DOCKER_HOST="+e.host, "DOCKER_CONFIG="+dir)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("docker create: %v: %s", err, out)
			}
			os.Remove(filepath.Join(dir, "cid"))
			if q := createCall(e); q != query {
				t.Errorf("query: docker %q, dhow %q", q, query)
			}
			for _, d := range difference(t, e.body("/containers/create"), mine) {
				t.Error(d)
			}
		})
	}
}

func createCall(e *engine) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		if strings.HasPrefix(c, "POST /containers/create") {
			return c
		}
	}
	return ""
}

// difference compares two requests. An absent field equals its zero value, except where zero means something else.
func difference(t *testing.T, docker, dhow []byte) []string {
	t.Helper()
	a, b := map[string]any{}, map[string]any{}
	flatten(t, docker, a)
	flatten(t, dhow, b)
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	var out []string
	for k := range keys {
		if !reflect.DeepEqual(a[k], b[k]) {
			out = append(out, fmt.Sprintf("%s: docker %v, dhow %v", k, a[k], b[k]))
		}
	}
	sort.Strings(out)
	return out
}

func flatten(t *testing.T, raw []byte, into map[string]any) {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	walk("", v, into)
}

func walk(path string, v any, into map[string]any) {
	// null is not the same as empty for these.
	pointer := strings.HasSuffix(path, ".StopTimeout") || strings.HasSuffix(path, ".Init") || strings.HasSuffix(path, ".MaskedPaths") ||
		strings.HasSuffix(path, ".ReadonlyPaths")
	switch v := v.(type) {
	case nil:
	case map[string]any:
		if len(v) == 0 && path != "" && strings.Count(path, ".") > 1 {
			switch {
			case strings.HasPrefix(path, ".HostConfig.") && strings.Count(path, ".") == 2, path == ".NetworkingConfig.EndpointsConfig",
				path == ".HostConfig.LogConfig.Config", strings.HasSuffix(path, ".DriverConfig"), path == ".IPAM.Options",
				strings.HasSuffix(path, ".DriverOpts"): // an empty map is no map
			default:
				into[path] = "{}" // the member of a set
			}
			return
		}
		for k, e := range v {
			walk(path+"."+k, e, into)
		}
	case []any:
		if len(v) == 0 && pointer {
			into[path] = "[]"
		}
		if strings.HasSuffix(path, ".Ulimits") || path == ".Env" { // docker keeps them in a map: no order
			sort.Slice(v, func(i, j int) bool { return fmt.Sprint(v[i]) < fmt.Sprint(v[j]) })
		}
		for i, e := range v {
			walk(fmt.Sprintf("%s[%d]", path, i), e, into)
		}
	case string:
		if v != "" || strings.HasSuffix(path, "]") {
			into[path] = v
		}
	case bool:
		if v || pointer {
			into[path] = v
		}
	case float64:
		if path == ".HostConfig.MemorySwappiness" && v == -1 {
			return // docker's way to say nothing
		}
		if v != 0 || pointer {
			into[path] = v
		}
	}
}

// refusedText are command lines that both CLIs must refuse without a create request reaching the engine.
const refusedText = `--cpus abc img
--cpus 0.0000000001 img
-m lots img
--network-alias a --network container:x img
--restart sometimes img
--restart always:3 img
--restart on-failure:x img
--rm --restart always img
-p 99999:80 img
-p 80:80:80:80 img
-p a:b img
-p 8000-8002:80-81 img
--expose 80:90 img
--expose 99999 img
-v rel img
-v a:b:c:d img
-v :/x img
--mount type=bind img
--mount type=nonsense,target=/x img
--mount type=bind,target=/x,volume-nocopy img
--mount nonsense img
--mount target=/x,unknown=1 img
--device /dev/null:/dev/x:q img
--device /dev/null:/x:rwm:y img
--device-cgroup-rule nonsense img
--ulimit nofile img
--ulimit nofile=2:1 img
--ulimit nonsense=1 img
--health-retries -1 img
--health-interval -1s img
--no-healthcheck --health-cmd x img
--blkio-weight-device sda:1 img
--blkio-weight-device /dev/sda:1 img
--device-read-bps /dev/sda:x img
--device-read-iops /dev/sda:-1 img
--memory-swappiness 200 img
--pid nonsense img
--uts nonsense img
--userns nonsense img
--cgroupns nonsense img
--security-opt nonsense img
--security-opt seccomp=/does/not/exist img
--env-file /does/not/exist img
--add-host x img
--add-host x:y img
--dns x img
--ip x --network n img
--mac-address x img
--log-driver none --log-opt a=b img
-a nothing img
-e =x img
--pull sometimes img
--gpus count=x img
--network a --network a img
--network host --network a img
--no-such-flag img
-Z img`

func TestRefusedAsDockerRefuses(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI in PATH to compare with")
	}
	for _, line := range strings.Split(refusedText, "\n") {
		for _, verb := range []string{"create", "run -d"} {
			t.Run(verb+" "+line, func(t *testing.T) {
				args := append(strings.Split(verb, " "), strings.Split(line, " ")...)
				e := newEngine(t)
				ours := e.run(args...)
				if createCall(e) != "" {
					t.Errorf("dhow sent a request")
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				c := exec.CommandContext(ctx, docker, args...)
				c.Env = append(os.Environ(), "DOCKER_HOST="+e.host, "DOCKER_CONFIG="+t.TempDir())
				out, _ := c.CombinedOutput()
				if code := c.ProcessState.ExitCode(); code != ours.code && (code != 0 || ours.code != exitEngine) { // 0: docker leaves it to its engine
					t.Errorf("exit: docker %d, dhow %d\ndocker: %s\ndhow: %s", code, ours.code, out, ours.stderr)
				}
				if !strings.HasPrefix(ours.stderr, "dhow: ") || ours.stdout != "" {
					t.Errorf("stderr %q stdout %q", ours.stderr, ours.stdout)
				}
			})
		}
	}
}
