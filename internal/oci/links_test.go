package oci

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Class P: mount points and working folders that are links to nothing are made, as with runc, and inside the root only, whatever they name.
func TestLinksToNothing(t *testing.T) {
	host := newCanary(t)
	b := newBox(t, "sh", "-c", "cat /etc/resolv.conf; cat /run/a/b/stub; cat /var/run/dir/f; readlink /etc/resolv.conf; pwd")
	root, source := b.rootfs(), t.TempDir()
	check(t, os.WriteFile(filepath.Join(source, "f"), []byte("f\n"), 0o644))
	check(t, os.MkdirAll(filepath.Join(root, "var"), 0o755))
	for path, link := range map[string]string{
		"etc/resolv.conf": "../run/a/./b//stub",           // its folders are missing, too
		"var/run":         "../../../../run",              // climbs out
		"mnt/abs":         filepath.Join(host.dir, "new"), // a path of the host's
		"mnt/chain":       "chain2",
		"mnt/chain2":      "/mnt/chain3/deep",
		"mnt/chain3":      "../etc/chained/",
		"mnt/cwd":         "/opt/work/here",
	} {
		check(t, os.Symlink(link, filepath.Join(root, path)))
	}
	file := filepath.Join(source, "f")
	usual := b.spec.Mounts
	b.spec.Mounts = append(b.spec.Mounts, mount("/etc/resolv.conf", file, "bind"), mount("/var/run/dir", source, "bind"), mount("/mnt/abs/deep", source, "bind"),
		mount("/mnt/abs/file", file, "bind"), mount("/mnt/chain/folder", source, "bind"))
	b.spec.Process.Cwd = "/mnt/cwd/deep"
	b.says("f\nf\nf\n../run/a/./b//stub\n/opt/work/here/deep\n")
	host.sings()
	for _, path := range []string{"run/a/b/stub", "run/dir", filepath.Join(host.dir, "new/deep"), filepath.Join(host.dir, "new/file"), "etc/chained/deep/folder"} {
		if _, err := os.Lstat(filepath.Join(root, path)); err != nil {
			t.Errorf("not made inside the root: %v", err)
		}
	}
	for name, link := range map[string]string{"loop": "loop", "mutual": "mutual2", "mutual2": "mutual", "long": strings.Repeat("x/", 2000), "wide": strings.Repeat("x", 300)} {
		check(t, os.Symlink(link, filepath.Join(root, "mnt", name)))
	}
	for name, why := range map[string]string{"loop": "too many levels", "mutual": "too many levels", "long": "too long", "wide": "too long", "f": ""} {
		b.spec.Mounts = append(usual[:len(usual):len(usual)], mount("/mnt/"+name+"/"+strings.Repeat("y/", 200), source, "bind"))
		if why == "" {
			b.spec.Mounts[len(b.spec.Mounts)-1].Destination = "/etc/hosts/below"
			check(t, os.WriteFile(filepath.Join(root, "etc/hosts"), nil, 0o644))
			why = "not a directory"
		}
		if _, err := b.try(); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "mounts["+strconv.Itoa(len(usual))+"]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The same in a user namespace: what is made belongs to the container's root.
func TestLinksToNothingOwner(t *testing.T) {
	b := newBox(t, "stat", "-c", "%u %g", "/run", "/run/made")
	b.inUserNamespace()
	check(t, os.Symlink("/run/made/f", filepath.Join(b.rootfs(), "etc/link")))
	source := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(source, nil, 0o644))
	b.spec.Mounts = append(b.spec.Mounts, mount("/etc/link", source, "bind"))
	b.says("0 0\n0 0\n")
}

// Class P: links to nothing, swapped for folders and back while the way to them is made.
func TestSwappedLinksToNothing(t *testing.T) {
	b := newBox(t)
	host := newCanary(t)
	source := t.TempDir()
	inside := filepath.Join(b.rootfs(), "mnt/swapped")
	check(t, os.MkdirAll(inside, 0o755))
	b.spec.Mounts = append(b.spec.Mounts, mount("/mnt/swapped/a/b/c", source, "bind"), mount("/etc/link/d", source, "bind"))
	check(t, os.Symlink("/mnt/swapped/e", filepath.Join(b.rootfs(), "etc/link")))
	stop := swaps(t, inside, strings.Repeat("../", 20)+host.dir[1:])
	defer stop()
	for range races(t) {
		c, out, err := b.create()
		if err == nil {
			check(t, c.Delete(true))
			wait(t, c.Init())
		}
		<-out.done
		for _, made := range []string{"a", "e"} {
			for _, from := range []string{"mnt/swapped", "mnt/swapped.swapped"} {
				if fi, err := os.Lstat(filepath.Join(b.rootfs(), from)); err == nil && fi.IsDir() {
					os.RemoveAll(filepath.Join(b.rootfs(), from, made))
				}
			}
		}
	}
	host.sings()
}

// Class P: a mount that only mount(2) can make gets its attributes itself, whatever its target has become meanwhile.
func TestSwappedTargetOfOldMount(t *testing.T) {
	b := newBox(t)
	host := t.TempDir() // a volume of the container's; its mode is the host's to set
	check(t, os.Chmod(host, 0o705))
	check(t, os.Mkdir(filepath.Join(b.rootfs(), "vol"), 0o755))
	inside := filepath.Join(b.rootfs(), "mnt/t")
	check(t, os.Mkdir(inside, 0o700))
	b.spec.Mounts = append(b.spec.Mounts, mount("/vol", host, "bind"), tmpfs("/mnt/t", "silent", "ro"))
	stop := swaps(t, inside, "../vol")
	defer stop()
	for range races(t) {
		c, out, err := b.create()
		if err == nil {
			check(t, c.Delete(true))
			wait(t, c.Init())
		}
		<-out.done
		if fi, err := os.Stat(host); err != nil || fi.Mode().Perm() != 0o705 {
			t.Fatalf("the volume now has mode %v (%v)", fi.Mode(), err)
		}
	}
}

// Class P: remount changes what the config names and nothing else, though the image has a link there.
func TestRemountThroughLinks(t *testing.T) {
	host := t.TempDir()
	for name, c := range map[string]struct {
		link    string
		mounts  []specs.Mount
		refused string
		says    string
	}{
		"a volume by a link": {"../vol", []specs.Mount{mount("/vol", host, "bind", "ro"), {Destination: "/mnt/x", Options: []string{"remount", "bind", "rw"}}},
			"too many levels of symbolic links", ""},
		"its file system by a link": {"../vol", []specs.Mount{mount("/vol", host, "bind"), {Destination: "/mnt/x", Options: []string{"remount", "ro"}}},
			"options: remount without bind changes the file system itself, and no mount before this one is at /mnt/x", ""},
		"no mount at all": {"", []specs.Mount{{Destination: "/etc", Options: []string{"remount", "ro"}}}, "no mount before this one is at /etc", ""},
		"no mount's root": {"", []specs.Mount{{Destination: "/etc", Options: []string{"remount", "bind", "ro"}}}, "mount_setattr remount /etc: invalid argument", ""},
		"what was hidden": {"", []specs.Mount{tmpfs("/mnt/y/z"), tmpfs("/mnt/y"), {Destination: "/mnt/y/z", Options: []string{"remount", "ro"}}}, "no mount before this one is at /mnt/y/z", ""},
		"a mount below a link": {"../vol", []specs.Mount{mount("/vol", host, "bind"), tmpfs("/mnt/x/sub", "size=1m"), {Destination: "/mnt/x//sub/", Options: []string{"remount", "ro"}}},
			"", "ro /vol/sub\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "sh", "-c", `while read _ _ _ _ at options _; do case $at in /vol/sub) echo ${options%%,*} $at;; esac; done < /proc/self/mountinfo`)
			check(t, os.Mkdir(filepath.Join(b.rootfs(), "vol"), 0o755))
			if c.link != "" {
				check(t, os.Symlink(c.link, filepath.Join(b.rootfs(), "mnt/x")))
			}
			b.spec.Mounts = append(b.spec.Mounts, c.mounts...)
			if c.refused == "" {
				b.says(c.says)
				return
			}
			if _, err := b.try(); err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("error %v, want %q", err, c.refused)
			}
		})
	}
}

// A link with ".." in the image is followed though files are renamed and mounts made all over the machine, which makes openat2(2) give up.
func TestLinksWhileOthersRename(t *testing.T) {
	b := newBox(t, "cat", "/etc/hosts")
	source := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(source, []byte("hosts\n"), 0o644))
	check(t, os.Mkdir(filepath.Join(b.rootfs(), "run"), 0o755))
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "run/hosts"), nil, 0o644))
	check(t, os.Symlink(strings.Repeat("../etc/", 12)+"../run/hosts", filepath.Join(b.rootfs(), "etc/hosts")))
	b.spec.Mounts = append(b.spec.Mounts, mount("/etc/hosts", source, "bind"))
	elsewhere := t.TempDir()
	end := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(end)
	for k := range 2 {
		name := filepath.Join(elsewhere, strconv.Itoa(k))
		check(t, os.WriteFile(name, nil, 0o600))
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					unix.Rename(name, name+"x")
					unix.Rename(name+"x", name)
				}
			}
		})
	}
	for range races(t) {
		b.says("hosts\n")
	}
}
