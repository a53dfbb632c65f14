package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
	"github.com/dhow-containers/dhow/internal/testkit/disk"
	"github.com/dhow-containers/dhow/internal/testkit/heap"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// escape is the process that unpacks, taken over: it tries to reach the host, this store and its tars. What package jail promises is tested there.
func escape(w jail.Work) error {
	var found []string
	out := func(what string, err error) {
		if err == nil {
			found = append(found, what)
		}
	}
	dir, tar := int(w.Folders[0].Fd()), w.Files[1]
	host := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(w.Folders[0].Name())))) // that of the test
	for _, p := range []string{"../../outside", "../" + treeFile, "../../../sha256/new", "/etc/outside", host + "/outside", "/proc/self/root/outside"} {
		fd, err := unix.Openat(dir, p, unix.O_CREAT|unix.O_WRONLY, 0o600)
		if strings.HasPrefix(p, "/") { // what is above its folder is the folder
			out("made "+p, err)
		}
		unix.Close(fd)
	}
	for _, p := range []string{host + "/canary", host + "/layers/" + tar.Name(), "/etc/passwd", "../" + tarFile} {
		_, err := os.ReadFile(p)
		out("read "+p, err)
		out("chmod "+p, unix.Fchmodat(dir, p, 0o777, 0))
	}
	self := fmt.Sprintf("/proc/self/fd/%d", tar.Fd())
	_, err := os.OpenFile(self, os.O_RDWR, 0)
	out("opened the tar for writing", err)
	_, err = tar.WriteAt([]byte("x"), 0)
	out("wrote to the tar", err)
	out("changed the tar's mode", unix.Fchmodat(unix.AT_FDCWD, self, 0o777, 0))
	out("cut the tar", tar.Truncate(0))
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	out("made a socket", err)
	out("executed", exec.Command("/proc/self/exe").Run())
	_, err = tar.ReadAt(make([]byte, 512), 0)
	return fmt.Errorf("held; it did: %s; it may read: %v", strings.Join(found, ", "), err)
}

// lie makes another tree than it was told to, with links where folders should be, and says that all is well.
func lie(w jail.Work) error {
	dir := int(w.Folders[0].Fd())
	return errors.Join(unix.Symlinkat("../../../canary", dir, "folder"), unix.Symlinkat("/", dir, "above"), unix.Symlinkat("../../../", dir, "usr"))
}

// die makes something and is gone, hang makes something and is not.
func die(w jail.Work) error {
	partial(w)
	os.Exit(3)
	return nil
}

func hang(w jail.Work) error {
	partial(w)
	for {
		time.Sleep(time.Hour)
	}
}

func partial(w jail.Work) {
	if err := unix.Mkdirat(int(w.Folders[0].Fd()), "half", 0o700); err != nil {
		panic(err)
	}
}

// TestTakenOver: whatever the process that unpacks becomes, the host and the store are as before. Its layer is not there, or shows that it is another.
func TestTakenOver(t *testing.T) {
	b := tarOf(t, map[string]string{"trusted.mine": "v"}, "folder/", "above/", "usr/", "usr/folder/")
	id := digest.FromBytes(b)
	for word, want := range map[string]string{"escape": "held; it did: ; it may read: <nil>", "die": "exit status 3", "hang": "deadline exceeded", "lie": ""} {
		t.Run(word, func(t *testing.T) {
			s := store(t, FormDir)
			s.unpack.Word = word
			host := filepath.Dir(s.dir)
			canary := filepath.Join(host, "canary")
			if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience.Of(2*time.Second))
			defer cancel()
			_, err := s.Ingest(ctx, id, bytes.NewReader(b))
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if l := leftovers(t, s); word != "lie" && len(l) > 0 {
				t.Errorf("left: %v", l)
			}
			if got, err := os.ReadFile(canary); string(got) != "alive" {
				t.Errorf("the canary: %q %v", got, err)
			}
			for _, p := range []string{canary, host, s.dir} {
				if n, err := unix.Lgetxattr(p, "trusted.mine", make([]byte, 8)); err == nil {
					t.Errorf("%s has an attribute of the layer's: %d", p, n)
				}
			}
			if es, err := os.ReadDir(host); err != nil || len(es) != 2 {
				t.Errorf("%v %v", es, err)
			}
			if bad, err := Verify(t.Context(), s, id); word == "lie" && (err != nil || len(bad) != 1) {
				t.Errorf("what it made passes: %v %v", bad, err)
			}
			s.unpack.Word = unpack.Word
			if word == "lie" {
				if err := s.Remove(id); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Ingest(t.Context(), id, bytes.NewReader(b)); err != nil {
				t.Error(err)
			}
			bad, err := Verify(t.Context(), s, id)
			if err != nil || bad != nil {
				t.Error(bad, err)
			}
		})
	}
}

// TestNoRoomToUnpack: what does not fit fails with the kernel's reason and gives its space back.
func TestNoRoomToUnpack(t *testing.T) {
	dir := filepath.Join(disk.Mounted(t, "ext4", 64, "-m", "0"), "layers")
	for _, form := range []string{FormDir, FormVFS} {
		t.Run(form, func(t *testing.T) {
			s, err := Open(dir, Options{Form: form, Jail: true})
			if err != nil {
				t.Fatal(err)
			}
			big, little := simple(t, 30, 1<<20), simple(t, 3, 1<<10)
			id := digest.FromBytes(big)
			_, err = s.Ingest(t.Context(), id, bytes.NewReader(big))
			if form == FormVFS && err == nil {
				_, err = s.Merge(t.Context(), []digest.Digest{id})
			}
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") {
				t.Errorf("got %v", err)
			}
			if l := leftovers(t, s); form == FormDir && len(l) > 0 {
				t.Errorf("left: %v", l)
			}
			id = digest.FromBytes(little)
			if _, err := s.Ingest(t.Context(), id, bytes.NewReader(little)); err != nil {
				t.Error(err)
			}
			if _, err := s.Merge(t.Context(), []digest.Digest{id}); err != nil {
				t.Error(err)
			}
			if err := errors.Join(s.RemoveMerged(ChainID([]digest.Digest{id})), s.Remove(id)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMemoryOfUnpacking: the process has what it needs for many files and for much about one, and the engine does not grow with it.
func TestMemoryOfUnpacking(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: owners")
	}
	n := 60_000
	if testing.Short() {
		n = 10_000
	}
	id, open := crowded(n, 12, 0)
	s := store(t, FormDir)
	s.unpack.Word = "measure"
	var err error
	grown := heap.Highest(func() { _, err = s.Ingest(t.Context(), id, open()) }) >> 20
	var has, may int
	if err == nil {
		t.Fatal("it did not tell")
	}
	if _, serr := fmt.Sscanf(err.Error()[strings.Index(err.Error(), "measured"):], "measured %d of %d", &has, &may); serr != nil {
		t.Fatal(err, serr)
	}
	t.Logf("%d entries: the engine grew by %d MiB, the process had %d MiB of %d", n, grown, has, may)
	if grown > 64 {
		t.Errorf("the engine grew by %d MiB", grown)
	}
	if has > may/4*3 {
		t.Errorf("the process had %d MiB of %d", has, may)
	}
}

// measure is the process that unpacks; it tells how much memory it took from the kernel.
func measure(w jail.Work) error {
	if err := unpack.Trade().Do(w); err != nil {
		return err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	size, err := w.Files[0].Seek(0, io.SeekEnd)
	return fmt.Errorf("measured %d of %d: %v", (m.Sys-m.HeapReleased)>>20, unpack.Memory(size)>>20, err)
}

// BenchmarkUnpack is what the process costs: a layer of one file, and one of many.
func BenchmarkUnpack(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root: owners")
	}
	for _, files := range []int{1, 100_000} {
		id, open := crowded(files, 12, 100)
		for _, word := range []string{"", unpack.Word} {
			b.Run(fmt.Sprintf("%d/jail=%v", files, word != ""), func(b *testing.B) {
				s := store(b, FormDir)
				s.unpack.Word = word
				for b.Loop() {
					if _, err := s.Ingest(b.Context(), id, open()); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := s.Remove(id); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// tarOf is a tar of folders and empty files with these extended attributes.
func tarOf(t testing.TB, xattrs map[string]string, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		for k, v := range xattrs {
			h.PAXRecords = map[string]string{"SCHILY.xattr." + k: v}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// TestCopyShares: where the file system can, a container's copy of a chain takes no room, though another process makes it through other mounts.
func TestCopyShares(t *testing.T) {
	dir := disk.Mounted(t, "btrfs", 512)
	s, err := Open(filepath.Join(dir, "layers"), Options{Form: FormVFS, Jail: true})
	if err != nil {
		t.Fatal(err)
	}
	b := simple(t, 1, 32<<20)
	id := digest.FromBytes(b)
	if _, err := s.Ingest(t.Context(), id, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	m, err := s.Merge(t.Context(), []digest.Digest{id})
	if err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bfree) * st.Bsize
	}
	before := free()
	if err := m.Copy(t.Context(), filepath.Join(dir, "copy")); err != nil {
		t.Fatal(err)
	}
	if took := before - free(); took > 8<<20 {
		t.Errorf("the copy of 32 MiB takes %d", took)
	}
}
