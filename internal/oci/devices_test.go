package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDevices(t *testing.T) {
	b := newBox(t, "sh", "-c", "cd /dev; stat -c '%n %F %a %u:%g %t:%T' mine /run/pipe /run/deep/blk null; for l in fd stdin stdout stderr core ptmx; do readlink $l; done; echo x > full; echo y > null && echo written")
	b.set(`{"linux":{"devices":[{"path":"/dev/mine","type":"u","major":1,"minor":5,"fileMode":432,"uid":7,"gid":8},{"path":"/run/pipe","type":"p","fileMode":384},
{"path":"/run/deep/blk","type":"b","major":8,"minor":17},{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":420}]}}`)
	b.says("mine character special file 660 7:8 1:5", "/run/pipe fifo 600 0:0 0:0", "/run/deep/blk block special file 666 0:0 8:11", "null character special file 644 0:0 1:3",
		"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n/proc/kcore\npts/ptmx\n", "No space left on device", "written\n")
}

// What an image has in /dev is used where it is what it should be, and else an error; its /dev/ptmx would be the host's terminals.
func TestDevicesOfTheImage(t *testing.T) {
	b := newBox(t, "sh", "-c", "readlink /dev/ptmx; stat -c '%n %a %t:%T' /dev/null /dev/mine")
	dev := filepath.Join(b.rootfs(), "dev")
	b.spec.Mounts = append(b.spec.Mounts[:1], b.spec.Mounts[2:]...) // without the tmpfs
	node := func(name string, minor uint32) {
		t.Helper()
		check(t, unix.Mknod(filepath.Join(dev, name), unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))))
	}
	node("null", 3)
	node("mine", 5)
	check(t, unix.Mknod(filepath.Join(dev, "ptmx"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))))
	b.set(`{"linux":{"devices":[{"path":"/dev/mine","type":"c","major":1,"minor":5,"fileMode":416}]}}`)
	b.says("pts/ptmx\n/dev/null 600 1:3\n/dev/mine 640 1:5\n")

	for name, make := range map[string]func(string){
		"another device": func(p string) { check(t, unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 7)))) },
		"a file":         func(p string) { check(t, os.WriteFile(p, nil, 0o644)) },
		"a link":         func(p string) { check(t, os.Symlink("/dev/zero", p)) },
	} {
		b := newBox(t)
		b.spec.Mounts = append(b.spec.Mounts[:1], b.spec.Mounts[2:]...)
		make(filepath.Join(b.rootfs(), "dev/mine"))
		b.set(`{"linux":{"devices":[{"path":"/dev/mine","type":"c","major":1,"minor":5}]}}`)
		if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.devices[0]: it is not so that what is at /dev/mine is the device 1:5") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDevicesInUserNamespace(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo y > /dev/zero && echo written; stat -c '%n %F %t:%T' /dev/zero /dev/pipe /dev/more/zero")
	b.inUserNamespace()
	b.set(`{"linux":{"devices":[{"path":"/dev/zero","type":"c","major":1,"minor":5},{"path":"/dev/pipe","type":"p"}]}}`)
	b.says("written\n", "/dev/zero character special file 1:5", "/dev/pipe fifo")
	b = newBox(t)
	b.inUserNamespace()
	b.set(`{"linux":{"devices":[{"path":"/dev/zero","type":"c","major":1,"minor":7}]}}`)
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.devices[0]: it is not so that the host's /dev/zero is the device 1:7") {
		t.Errorf("another device of the host's: %v", err)
	}
	b = newBox(t)
	b.inUserNamespace()
	b.set(`{"linux":{"devices":[{"path":"/dev/nowhere","type":"c","major":1,"minor":7}]}}`)
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.devices[0]: open_tree bind the host's node /dev/nowhere: no such file or directory") {
		t.Errorf("no device of the host's: %v", err)
	}
}

// With the host's /dev bound nothing is made in it.
func TestDevicesOfTheHost(t *testing.T) {
	b := newBox(t, "sh", "-c", "stat -c '%n %t:%T' /dev/null /run/zero; ls -d /dev/mine")
	b.spec.Mounts[1] = mount("/dev", "/dev", "rbind")
	b.spec.Mounts = append(b.spec.Mounts[:2], b.spec.Mounts[3:]...)
	b.spec.Linux.Resources = nil
	b.set(`{"linux":{"devices":[{"path":"/dev/mine","type":"c","major":1,"minor":7},{"path":"/run/zero","type":"c","major":1,"minor":5}]}}`)
	b.says("/dev/null 1:3\n/run/zero 1:5\n", "ls: /dev/mine: No such file")
}
