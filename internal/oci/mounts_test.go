package oci

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

func tmpfs(dest string, options ...string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "tmpfs", Source: "t", Options: options}
}

func TestMountOptions(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat /proc/self/mountinfo; stat -c 'mode %n %a' /m1 /m2 /tmp; touch /m1/x; echo over > /etc/over; cat /etc/over")
	src := t.TempDir()
	check(t, os.WriteFile(filepath.Join(src, "file"), []byte("file\n"), 0o644))
	check(t, os.MkdirAll(filepath.Join(b.dir, "rel"), 0o755))
	check(t, os.Chmod(filepath.Join(b.rootfs(), "tmp"), 0o777|os.ModeSticky))
	b.spec.Mounts = append(b.spec.Mounts,
		tmpfs("/m1", "ro", "rnosuid", "nodev", "sync", "lazytime", "noatime", "mode=711,size=1m"),
		tmpfs("/m2", "silent", "iversion", "nosymfollow", "strictatime", "nodiratime", "noexec", "size=2m"),
		tmpfs("/m1/deep", "dirsync", "ro"),
		tmpfs("/tmp", "size=3m"),
		mount("/bound", src, "bind", "nosuid", "nodev", "noexec", "ro", "noatime"),
		mount("/rbound", src, "rbind", "rro", "rnosuid", "rnodev", "async", "loud"),
		specs.Mount{Destination: "/relative", Type: "none", Source: "rel", Options: []string{"bind"}},
		mount("/etc/over", filepath.Join(src, "file"), "bind"),
		mount("/unbindable", src, "bind", "unbindable"),
		specs.Mount{Destination: "relativedest", Type: "mqueue", Source: "mqueue", Options: []string{"noexec"}},
		specs.Mount{Destination: "/tmp", Options: []string{"remount", "size=4m", "ro"}},
		specs.Mount{Destination: "/m2", Type: "none", Options: []string{"remount", "bind", "nosuid"}},
	)
	out, _ := b.run()
	line := func(dest string) string {
		t.Helper()
		for _, l := range strings.Split(out, "\n") {
			if f := strings.Fields(l); len(f) > 5 && f[4] == dest {
				return l
			}
		}
		t.Errorf("nothing is mounted on %s:\n%s", dest, out)
		return ""
	}
	for dest, want := range map[string][]string{
		"/m1": {" ro,nosuid,nodev,noatime ", "rw,sync,lazytime", "size=1024k", "mode=711"}, "/m1/deep": {" ro,", "dirsync"},
		"/m2":  {" rw,nosuid,noexec,nodiratime,nosymfollow ", "size=2048k"},
		"/tmp": {" ro,", "size=4096k"}, "/bound": {" ro,nosuid,nodev,noexec,noatime "}, "/rbound": {" ro,nosuid,nodev"}, "/relative": {" rw"},
		"/etc/over": {" rw"}, "/unbindable": {" unbindable "}, "/relativedest": {"noexec", "mqueue"},
	} {
		for _, w := range want {
			if l := line(dest); !strings.Contains(l, w) {
				t.Errorf("no %q in %q", w, l)
			}
		}
	}
	for _, w := range []string{"mode /m1 711", "mode /m2 1777", "mode /tmp 1777", "Read-only file system", "\nover\n"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in:\n%s", w, out)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(src, "file")); string(text) != "over\n" {
		t.Errorf("the bound file holds %q", text)
	}
}

// A bind mount in a user namespace keeps what its source forbids.
func TestLockedFlagsStay(t *testing.T) {
	src := t.TempDir()
	ownMounts(t, src)
	check(t, unix.Mount("", src, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, ""))
	b := newBox(t, "grep", " /mnt ", "/proc/self/mountinfo")
	b.inUserNamespace()
	b.spec.Mounts = append(b.spec.Mounts, mount("/mnt", src, "bind", "ro"))
	b.says(" ro,nosuid,nodev,noexec,noatime ")
	b = newBox(t)
	b.inUserNamespace()
	b.spec.Mounts = append(b.spec.Mounts, mount("/mnt", src, "bind", "suid"))
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "mounts[5]: mount_setattr") {
		t.Errorf("a locked flag was to be cleared: %v", err)
	}
}

func TestPropagation(t *testing.T) {
	shared := t.TempDir()
	ownMounts(t, shared)
	for _, d := range []string{"in", "out"} {
		check(t, os.Mkdir(filepath.Join(shared, d), 0o755))
	}
	admin := `{"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"],"effective":["CAP_SYS_ADMIN"],"permitted":["CAP_SYS_ADMIN"]}}}`
	for _, tt := range []struct {
		option, root string
		heard, told  bool // of mounts of the host's; the host of the container's
	}{{"rshared", "", true, true}, {"shared", "rprivate", true, true}, {"rslave", "", true, false}, {"rslave", "rprivate", true, false}, {"rprivate", "", false, false},
		{"", "", true, false}, {"", "private", false, false}} {
		b := newBox(t)
		b.set(admin)
		b.spec.Linux.RootfsPropagation = tt.root
		o := []string{"rbind"}
		if tt.option != "" {
			o = append(o, tt.option)
		}
		b.spec.Mounts = append(b.spec.Mounts, mount("/mnt", shared, o...))
		c := b.sleeping()
		b.shell(c, nil, "mount -t tmpfs told /mnt/out")
		if told := strings.Contains(mountTable(t), "- tmpfs told"); told != tt.told {
			t.Errorf("%+v: the host is told: %v", tt, told)
		}
		check(t, unix.Mount("heard", filepath.Join(shared, "in"), "tmpfs", 0, ""))
		if heard := strings.Contains(b.shell(c, nil, "cat /proc/self/mountinfo"), "- tmpfs heard"); heard != tt.heard {
			t.Errorf("%+v: the container hears: %v", tt, heard)
		}
		check(t, unix.Unmount(filepath.Join(shared, "in"), 0))
		if tt.told {
			check(t, unix.Unmount(filepath.Join(shared, "out"), 0))
		}
		check(t, c.Delete(true))
		wait(t, c.Init())
	}
}

func TestRootPropagation(t *testing.T) {
	for mode, want := range map[string]string{"": " / / rw", "private": " / / rw", "rshared": " shared:", "shared": " shared:", "unbindable": " unbindable", "slave": " master:", "rslave": " master:"} {
		t.Run(mode, func(t *testing.T) {
			shared := t.TempDir()
			ownMounts(t, shared)
			b := newBox(t, "grep", " / ", "/proc/self/mountinfo")
			check(t, os.Mkdir(filepath.Join(shared, "rootfs"), 0o755))
			check(t, unix.Mount(b.rootfs(), filepath.Join(shared, "rootfs"), "", unix.MS_BIND, ""))
			b.spec.Root.Path = filepath.Join(shared, "rootfs")
			b.spec.Linux.RootfsPropagation = mode
			out, _ := b.run()
			line, _, _ := strings.Cut(out, "\n")
			if mode == "" || mode == "private" {
				if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
					t.Errorf("root %q", line)
				}
			} else if !strings.Contains(line, want) {
				t.Errorf("root %q, want %q", line, want)
			}
			if n := strings.Count(mountTable(t), shared+"/rootfs "); n != 1 {
				t.Errorf("the host has %d mounts there", n)
			}
			check(t, unix.Unmount(filepath.Join(shared, "rootfs"), unix.MNT_DETACH))
		})
	}
}

func TestReadonlyRoot(t *testing.T) {
	b := newBox(t, "sh", "-c", "touch /x /tmp/x; echo > /dev/null && echo devices")
	b.spec.Root.Readonly = true
	b.spec.Mounts = append(b.spec.Mounts, tmpfs("/run/deep/made", "mode=700"))
	b.says("touch: /x: Read-only file system", "touch: /tmp/x: Read-only file system", "devices")
}

func TestTmpcopyup(t *testing.T) {
	for _, user := range []bool{false, true} {
		b := newBox(t, "sh", "-c", "cd /etc; stat -c '%n %a %u:%g %F' . a sub sub/b link pipe; cat a sub/b; readlink link; touch new; mount | grep ' /etc '")
		etc := filepath.Join(b.rootfs(), "etc")
		check(t, os.MkdirAll(filepath.Join(etc, "sub"), 0o750))
		check(t, os.WriteFile(filepath.Join(etc, "a"), []byte("A\n"), 0o604))
		check(t, os.WriteFile(filepath.Join(etc, "sub/b"), []byte("B\n"), 0o4755))
		check(t, os.Chmod(filepath.Join(etc, "sub/b"), 0o755|os.ModeSetuid))
		check(t, os.Symlink("/root/secret", filepath.Join(etc, "link")))
		check(t, unix.Mkfifo(filepath.Join(etc, "pipe"), 0o640))
		if user {
			b.inUserNamespace()
			check(t, os.Lchown(filepath.Join(etc, "a"), 100007, 100008))
			check(t, os.Chmod(filepath.Join(etc, "sub/b"), 0o755|os.ModeSetuid))
		} else {
			check(t, os.Lchown(filepath.Join(etc, "a"), 7, 8))
		}
		b.spec.Mounts = append(b.spec.Mounts, tmpfs("/etc", "tmpcopyup", "size=1m"), tmpfs("/newly/made", "tmpcopyup"))
		b.says(". 755 0:0 directory", "a 604 7:8 regular file", "sub 750 0:0 directory", "sub/b 4755 0:0", "link 777", "pipe 640", "A\nB\n/root/secret\n", "on /etc type tmpfs")
		if _, err := os.Stat(filepath.Join(etc, "new")); err == nil {
			t.Error("the image was written to")
		}
	}
}

func TestTmpcopyupTooMuch(t *testing.T) {
	b := newBox(t)
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/big"), make([]byte, 2<<20), 0o600))
	b.spec.Mounts = append(b.spec.Mounts, tmpfs("/etc", "tmpcopyup", "size=1m"))
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "mounts[5]: tmpcopyup: big:") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
}

// mappable mounts at a folder, seen by this thread alone, a file system on which this kernel can map owners.
func mappable(t *testing.T, at string) {
	t.Helper()
	f, err := facts.Host(nil).Read(at, &bundle.Spec{})
	check(t, err)
	if f.Major > 6 || f.Major == 6 && f.Minor >= 3 {
		check(t, unix.Mount("tmpfs", at, "tmpfs", 0, ""))
	} else {
		check(t, unix.Mount(t.TempDir(), at, "", unix.MS_BIND, ""))
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
}

func TestIDMappedMounts(t *testing.T) {
	src := t.TempDir()
	ownMounts(t, src)
	mappable(t, src)
	check(t, os.WriteFile(filepath.Join(src, "root"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(src, "user"), nil, 0o644))
	check(t, os.Chown(filepath.Join(src, "user"), 7, 8))
	check(t, os.Mkdir(filepath.Join(src, "sub"), 0o755))
	mappable(t, filepath.Join(src, "sub"))
	check(t, os.WriteFile(filepath.Join(src, "sub/root"), nil, 0o644))
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 100}}
	idmap := func(m specs.Mount) specs.Mount { m.UIDMappings, m.GIDMappings = maps, maps; return m }
	b := newBox(t, "sh", "-c", "stat -c '%n %u:%g' /one/* /all/* /all/sub/root /one/sub/root; touch /one/new")
	b.spec.Mounts = append(b.spec.Mounts, idmap(mount("/one", src, "rbind", "idmap")), idmap(mount("/all", src, "rbind", "ridmap", "ro")))
	b.spec.Process.User.UID, b.spec.Process.User.GID = 5003, 5004
	check(t, os.Chmod(src, 0o777))
	b.says("/one/root 5000:5000", "/one/user 5007:5008", "/all/sub/root 5000:5000", "/one/sub/root 0:0")
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(src, "new"), &st))
	if st.Uid != 3 || st.Gid != 4 {
		t.Errorf("the new file belongs to %d:%d on the host", st.Uid, st.Gid)
	}
	user := newBox(t, "sh", "-c", "stat -c '%n %u:%g' /one/root /own/root; touch /one/newer")
	user.inUserNamespace()
	maps = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	user.spec.Mounts = append(user.spec.Mounts, mount("/one", src, "bind", "idmap"), idmap(mount("/own", src, "bind")))
	user.says("/one/root 0:0", "/own/root 0:0")
	check(t, unix.Stat(filepath.Join(src, "newer"), &st))
	if st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the newer file belongs to %d:%d on the host", st.Uid, st.Gid)
	}
	check(t, unix.Unmount(filepath.Join(src, "sub"), 0))
}

func TestIDMappedInJoinedUserNamespace(t *testing.T) {
	src := t.TempDir()
	ownMounts(t, src)
	mappable(t, src)
	check(t, os.WriteFile(filepath.Join(src, "root"), nil, 0o644))
	a := newBox(t)
	a.inUserNamespace()
	ca := a.sleeping()
	b := newBox(t, "sh", "-c", "stat -c '%n %u:%g' /one/root")
	b.inUserNamespace()
	b.namespace(specs.UserNamespace, fmt.Sprintf("/proc/%d/ns/user", ca.Init().Pid))
	b.spec.Mounts = append(b.spec.Mounts, mount("/one", src, "bind", "idmap"))
	b.says("/one/root 0:0")
}

// Without a network namespace of its own a user namespace has no sysfs; the host's is bound.
func TestSysfsOfTheHost(t *testing.T) {
	b := newBox(t, "sh", "-c", "ls /sys/class/net; grep ' /sys ' /proc/self/mountinfo")
	b.inUserNamespace()
	var kept []specs.LinuxNamespace
	for _, n := range b.spec.Linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			kept = append(kept, n)
		}
	}
	b.spec.Linux.Namespaces = kept
	b.spec.Mounts = b.spec.Mounts[:4] // the host's cgroup mounts come with its sysfs
	b.says("lo", " ro,")
}

// What is swapped for a device or a pipe between the look and the opening is not opened.
func TestOpenRegular(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	check(t, err)
	defer dir.Close()
	at := int(dir.Fd())
	check(t, os.WriteFile(filepath.Join(dir.Name(), "file"), []byte("text"), 0o600))
	check(t, unix.Mkfifo(filepath.Join(dir.Name(), "fifo"), 0o600))
	check(t, os.Symlink("file", filepath.Join(dir.Name(), "link")))
	fd, err := openRegular(at, "file")
	check(t, err)
	f := os.NewFile(uintptr(fd), "file")
	defer f.Close()
	if b, err := io.ReadAll(f); string(b) != "text" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{"fifo", "link", "."} {
		if fd, err := openRegular(at, name); err == nil {
			unix.Close(fd)
			t.Errorf("%s was opened", name)
		}
	}
}
