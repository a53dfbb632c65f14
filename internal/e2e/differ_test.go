package e2e

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/disk"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/listing"
)

// changes are what people's layers do, done by Debian's own programs. They leave a layer with whiteouts, opaque folders, copies of folders
// that were renamed, and attributes alone.
const changes = `set -e
rm -rf /usr/share/doc /var/lib/dpkg/info
mkdir /var/lib/dpkg/info; echo new >/var/lib/dpkg/info/format
mv /usr/share/perl5 /usr/share/perl6
rm /etc/issue; mkdir /etc/issue; echo in >/etc/issue/folder
rm -r /etc/skel; ln -s /root /etc/skel
cp -a /etc/pam.d /srv/pam.d; rm /etc/pam.d/*
chown -R 1000:1001 /etc/default; chmod 0711 /etc/cron.daily; chmod u+s /usr/bin/id
ln /etc/passwd /etc/passwd.second; ln /etc/passwd.second /srv/third
mkfifo -m 0622 /srv/fifo; mknod /srv/null c 1 3
touch -d '1961-02-03 04:05:06.789' /etc/group; touch -d '2200-01-01' /srv/third
truncate -s 20M /srv/sparse; echo middle | dd of=/srv/sparse bs=1M seek=7 conv=notrunc status=none
find /usr/share/zoneinfo -name 'A*' -delete 2>/dev/null || true
mkdir -p "/srv/$(printf 'a b\n\377')"; : >"/srv/$(printf 'a b\n\377')/$(printf '%0250d' 7)"
`

// mounted are the names in a container that are not its image's.
var mounted = []string{"./dev", "./etc/hostname", "./etc/hosts", "./etc/resolv.conf", "./proc", "./sys"}

// TestDebianAgainstUmoci: a Debian, imported, changed by its own programs, committed, pushed to a real registry and pulled from there, looks from
// inside a container as umoci unpacks what skopeo gets from the registry; before the changes, as GNU tar unpacks what was imported. It is made of
// this machine's required packages; with DHOW_DIFFER=all debootstrap makes it.
func TestDebianAgainstUmoci(t *testing.T) {
	t.Parallel()
	e := harness.Start(t)
	e.Registry(t.TempDir())
	w := &world{Engine: e}
	for _, p := range []string{"skopeo", "umoci", "tar"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	tar := debianTar(t, dir)
	const base, changed = harness.RegistryAddr + "/debian:base", harness.RegistryAddr + "/debian:changed"
	w.Dhow("import", "-c", "CMD bash", tar, base).OK()

	root := filepath.Join(disk.Tmpfs(t), "root")
	must(t, exec.Command("mkdir", root))
	must(t, exec.Command("tar", "-C", root, "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "--delay-directory-restore", "-xf", tar))
	equal(t, "tar", w.seen(t, base), root)

	w.Dhow("run", "--name", "changed", base, "bash", "-c", changes).OK()
	w.Dhow("commit", "changed", changed).OK()
	w.Dhow("rm", "changed").OK()
	w.Dhow("push", "-q", changed).OK()
	w.Dhow("rmi", base, changed).OK()
	w.Dhow("pull", "-q", changed).OK()

	copied := exec.Command("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+changed, "oci:"+dir+"/oci:t")
	var out bytes.Buffer
	copied.Stdout, copied.Stderr = &out, &out
	if err := netlink.Inside(w.Netns, copied.Start); err != nil {
		t.Fatal(err)
	}
	if err := copied.Wait(); err != nil {
		t.Fatalf("skopeo: %v: %s", err, &out)
	}
	root = filepath.Join(disk.Tmpfs(t), "root")
	must(t, exec.Command("umoci", "raw", "unpack", "--image", dir+"/oci:t", root))
	equal(t, "umoci", w.seen(t, changed), root)
}

func must(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %.4000s", cmd, err, out)
	}
}

// seen is what a container of an image sees of it.
func (w *world) seen(t *testing.T, image string) listing.Tree {
	t.Helper()
	tree, err := listing.Parse(strings.NewReader(w.Dhow("run", "--rm", image, "/srv/probe", "list", "/").OK()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range mounted {
		if k := tree[p][listing.Kind]; k != "mount" {
			t.Errorf("%s is a %s, not a mount", p, k)
		}
		delete(tree, p)
	}
	return tree
}

// equal compares what a container sees with what somebody unpacked at root.
func equal(t *testing.T, who string, got listing.Tree, root string) {
	t.Helper()
	want, err := listing.Of(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range want.Paths() {
		if slices.ContainsFunc(mounted, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") }) {
			delete(want, p)
		}
	}
	if len(want) < 4000 {
		t.Errorf("%s unpacked only %d objects", who, len(want))
	}
	ds := listing.Compare(got, want)
	for n, d := range ds {
		if n < 30 {
			t.Errorf("%s: a container sees %s", who, d)
		}
	}
	if len(ds) > 0 {
		t.Errorf("%s: %d differences in %d objects", who, len(ds), len(want))
	}
}

// debianTar is a Debian as a tar of GNU tar's, with the probe in it.
func debianTar(t *testing.T, dir string) string {
	t.Helper()
	file, root, names := filepath.Join(dir, "debian.tar"), "/", ""
	if os.Getenv("DHOW_DIFFER") == "all" {
		root, names = filepath.Join(dir, "debian"), "./\n"
		must(t, exec.Command("debootstrap", "--variant=minbase", "bookworm", root))
		must(t, exec.Command("touch", root+"/etc/hosts")) // a start would make it, and change the folder
	} else {
		names = ownPackages(t)
	}
	args := []string{"--no-recursion", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse", "--no-wildcards", "-C", root, "-cf", file, "--files-from=-"}
	if root != "/" {
		args[0] = "--recursion"
	}
	cmd := exec.Command("tar", args...)
	cmd.Stdin = strings.NewReader(names)
	must(t, cmd)
	must(t, exec.Command("install", "-D", "-m", "0755", probe(t), dir+"/p/srv/probe"))
	must(t, exec.Command("tar", "--numeric-owner", "-C", dir+"/p", "-rf", file, "srv/probe"))
	return file
}

// ownPackages are the names of what this machine's required packages, and those that they need, consist of, with dpkg's records of them.
func ownPackages(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Package}|${Essential}|${Priority}|${Pre-Depends}, ${Depends}\n").Output()
	if err != nil {
		t.Skipf("this machine is no Debian: %v", err)
	}
	needs, todo := map[string]string{}, []string{}
	for _, l := range strings.Split(string(out), "\n") {
		if f := strings.SplitN(l, "|", 4); len(f) == 4 {
			if needs[f[0]] = f[3]; f[1] == "yes" || f[2] == "required" || f[2] == "important" {
				todo = append(todo, f[0])
			}
		}
	}
	names := map[string]bool{}
	for _, f := range []string{"srv", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/passwd", "etc/group", "etc/skel", "etc/issue"} {
		names["./"+f] = true
	}
	for done := map[string]bool{}; len(todo) > 0; todo = todo[1:] {
		if done[todo[0]] {
			continue
		}
		done[todo[0]] = true
		for _, p := range regexp.MustCompile(`[a-z0-9][a-z0-9+.-]+`).FindAllString(needs[todo[0]], -1) {
			if _, here := needs[p]; here {
				todo = append(todo, p)
			}
		}
		ownFiles(t, todo[0], names)
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), "\n") + "\n"
}

// ownFiles adds what a package consists of, as far as it is here, under the names that a merged /usr gives it.
func ownFiles(t *testing.T, name string, to map[string]bool) {
	t.Helper()
	merged := regexp.MustCompile(`^/(bin|sbin|lib|lib64)/`)
	for _, pattern := range []string{name + ".*", name + ":*"} {
		records, _ := filepath.Glob("/var/lib/dpkg/info/" + pattern)
		for _, r := range records {
			to["."+r] = true
			if filepath.Ext(r) != ".list" {
				continue
			}
			b, err := os.ReadFile(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range strings.Fields(strings.ReplaceAll(string(b), "/.\n", "/\n")) {
				f = merged.ReplaceAllString(f, "/usr/$1/")
				if _, err := os.Lstat(f); err == nil {
					to["."+f] = true
				}
			}
		}
	}
}
