package rescue

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/image"
)

// root is a data root without metadata, and with what the given files hold.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, dir string) *Metadata {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.DB.Close() })
	return d
}

func reopen(t *testing.T, d *Metadata) *Metadata {
	t.Helper()
	if err := d.DB.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, d.root)
}

// TestIrregular: what is no file in the place of the metadata is damage like any other: nobody waits for it, and a restore moves it away.
func TestIrregular(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"pipe":   func(p string) error { return unix.Mkfifo(p, 0o600) },
		"folder": func(p string) error { return os.Mkdir(p, 0o700) },
		"device": func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
		"loop":   func(p string) error { return os.Symlink(filepath.Base(p), p) },
	} {
		for _, inhabited := range []bool{false, true} {
			dir := root(t, map[string]string{"x": ""})
			if inhabited {
				dir = root(t, map[string]string{"volumes/kept/_data/x": ""})
			}
			for _, file := range []string{"meta.db", "meta.db.bak", "content/index.json"} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := make(filepath.Join(dir, file)); err != nil {
					t.Skip(err)
				}
			}
			d := open(t, dir)
			if d.Degraded() == "" {
				t.Errorf("%s: not degraded", name)
			}
			found, err := d.DB.Get("volumes", "kept", new(json.RawMessage))
			if err != nil || found != inhabited {
				t.Errorf("%s: %v %v", name, found, err)
			}
			if err := os.RemoveAll(d.path("meta.db.bak")); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Restore(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if d = reopen(t, d); d.Degraded() != "" {
				t.Errorf("%s: %s", name, d.Degraded())
			}
		}
	}
}

// TestLostContainers: what a container without a record wrote is moved, not removed, whenever the next start comes.
func TestLostContainers(t *testing.T) {
	d := open(t, root(t, map[string]string{"volumes/known/_data/x": "", "volumes/lost/_data/x": "", "snapshots/one/upper/x": "", "snapshots/two/upper/x": "two's", "snapshots/.scratch/x": ""}))
	if d.Degraded() == "" {
		t.Fatal("not degraded")
	}
	for name, owner := range map[string]string{"known": "one", "lost": "two"} {
		if err := d.DB.Put("volumes", name, map[string]string{"Name": name, "Owner": owner}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.DB.Put("containers", "one", map[string]string{"id": "one"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Restore(); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d)
	if d.Degraded() != "" {
		t.Fatal(d.Degraded())
	}
	if _, err := os.Stat(d.path("snapshots/two")); err == nil {
		t.Error("the writable layer is where the next sweep removes it")
	}
	if got, _ := filepath.Glob(d.path("quarantine/*-two/upper/x")); len(got) != 1 {
		t.Errorf("in quarantine: %q", got)
	}
	for _, stays := range []string{"snapshots/one/upper/x", "snapshots/.scratch/x", "volumes/lost/_data/x"} {
		if _, err := os.Stat(d.path(stays)); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]string{"known": "one", "lost": ""} {
		var v struct{ Name, Owner string }
		if _, err := d.DB.Get("volumes", name, &v); err != nil || v.Owner != want || v.Name != name {
			t.Errorf("volume %s is %+v, %v", name, v, err)
		}
	}
	if err := os.MkdirAll(d.path("snapshots/young"), 0o700); err != nil { // of a crash after that: the engine's to remove
		t.Fatal(err)
	}
	d = reopen(t, d)
	if _, err := os.Stat(d.path("snapshots/young")); err != nil {
		t.Error(err)
	}
}

// TestTags: index.json is younger than the backup, and may be damaged itself.
func TestTags(t *testing.T) {
	_, names, _ := image.Buckets()
	was, is := digest.FromString("was"), digest.FromString("is")
	doc := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"` + ocispec.MediaTypeImageConfig + `","digest":"` + is.String() + `","size":2},"layers":[]}`
	at := digest.FromString(doc)
	entry := func(d, name string) string {
		return `{"mediaType":"` + ocispec.MediaTypeImageManifest + `","size":` + "1" + `,"digest":"` + d + `","annotations":{"` + ocispec.AnnotationRefName + `":"` + name + `"}}`
	}
	index := `{"schemaVersion":2,"manifests":[` + strings.Join([]string{entry("", "a:1"), entry("nonsense", "a:2"), entry("sha256:../../x", "a:3"), entry(at.String(), ""), entry(at.String(), "app:1")}, ",") + `]}`
	d := open(t, root(t, map[string]string{"content/index.json": "{}", "content/blobs/sha256/" + at.Encoded(): doc, "volumes/v/_data/x": ""}))
	for _, n := range []string{"app:1", "old:1"} {
		if err := d.DB.Put(names[0], n, was); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Restore(); err != nil { // leaves a backup
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path("content/index.json"), []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.path("meta.db"), 0); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d)
	got := map[string]digest.Digest{}
	if err := d.DB.Each(names[0], func(key string, raw []byte) error {
		var to digest.Digest
		err := json.Unmarshal(raw, &to)
		got[key] = to
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["app:1"] != is || got["old:1"] != was {
		t.Errorf("tags: %v", got)
	}
}
