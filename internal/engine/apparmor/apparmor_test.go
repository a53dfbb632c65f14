package apparmor

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
)

// The parser takes the profile. Nothing is loaded: that needs AppArmor in the kernel.
func TestProfileCompiles(t *testing.T) {
	if _, err := parser(); err != nil {
		t.Skip(err)
	}
	if err := load(profile, "--skip-kernel-load"); err != nil {
		t.Fatal(err)
	}
	if err := load("profile x { nonsense, }", "--skip-kernel-load"); err == nil || !strings.Contains(err.Error(), "apparmor_parser") {
		t.Errorf("a wrong profile: %v", err)
	}
}

func TestEnsure(t *testing.T) {
	if why := probe.WhyNot(probe.AppArmor); why != "" {
		if name, because := Usable(); name != "" || because == "" {
			t.Errorf("Usable: %q, %q", name, because)
		}
		t.Skip(why)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var l Loader
	for range 2 {
		if err := l.Ensure(); err != nil {
			t.Fatal(err)
		}
		if !has(Default) {
			t.Fatal("not loaded")
		}
	}
}

// What the profile forbids to a container whose capabilities and masks would allow it, and what it lets be. The runtime makes the container.
func TestProfileConfines(t *testing.T) {
	if why := probe.WhyNot(probe.AppArmor); why != "" {
		t.Skip(why)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and busybox-static")
	}
	caps := []string{"CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_RESOURCE"}
	var l Loader
	dir := t.TempDir()
	runtime := filepath.Join(dir, "dhow-runtime")
	for _, err := range []error{l.Ensure(), programs.Build(runtime, "github.com/dhow-containers/dhow/cmd/dhow-runtime"),
		os.MkdirAll(dir+"/rootfs/bin", 0o755), os.Mkdir(dir+"/rootfs/mnt", 0o755), os.WriteFile(dir+"/rootfs/bin/busybox", busybox, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	script := `b=/bin/busybox; try() { name=$1; shift; if "$@" 2>/dev/null; then echo $name yes; else echo $name no; fi; }
try mount $b mount -t tmpfs x /mnt
try core $b sh -c 'echo x > /proc/sys/kernel/core_pattern'
try panic $b sh -c 'echo 0 > /proc/sys/kernel/panic'
try sysrq $b sh -c 'echo h > /proc/sysrq-trigger'
try modprobe $b sh -c 'echo /x > /proc/sys/kernel/modprobe'
try sysfs $b sh -c 'echo 1 > /sys/kernel/profiling'
try files $b sh -c 'echo a > /mnt/a && cat /mnt/a > /dev/null && rm /mnt/a'
try read $b sh -c 'cat /proc/meminfo /proc/1/status > /dev/null'
try self $b sh -c 'echo 100 > /proc/self/oom_score_adj'
try forward $b sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
try shm $b sh -c 'echo 100 > /proc/sys/kernel/shmmni'
try signal $b sh -c '$0 sleep 9 & kill $!' $b
read x < /proc/self/attr/current; echo $x`
	config := map[string]any{"ociVersion": "1.0.2", "root": map[string]any{"path": "rootfs"},
		"process": map[string]any{"args": []string{"/bin/busybox", "sh", "-c", script}, "cwd": "/", "env": []string{"PATH=/bin"}, "apparmorProfile": Default,
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps}},
		"mounts": []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"}, map[string]any{"destination": "/sys", "type": "sysfs", "source": "sysfs"},
			map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}},
		"linux": map[string]any{"cgroupsPath": "/dhow-test/apparmor", "namespaces": []any{map[string]any{"type": "mount"}, map[string]any{"type": "pid"},
			map[string]any{"type": "ipc"}, map[string]any{"type": "network"}}}}
	b, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(dir+"/config.json", b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(runtime, "--root", dir+"/state", "run", "--bundle", dir, "dhow-test-apparmor").CombinedOutput()
	want := "mount no\ncore no\npanic no\nsysrq no\nmodprobe no\nsysfs no\nfiles yes\nread yes\nself yes\nforward yes\nshm yes\nsignal yes\n" + Default + " (enforce)\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, out, want)
	}
}
