package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/store/layer/unpack"
)

// TestMain lets the test binary play the process that gets killed.
func TestMain(m *testing.M) {
	jail.Main(os.Args, unpack.Trade(), jail.Trade{Word: "escape", Do: escape}, jail.Trade{Word: "lie", Do: lie}, jail.Trade{Word: "die", Do: die}, jail.Trade{Word: "hang", Do: hang}, jail.Trade{Word: "measure", Do: measure})
	if dir := os.Getenv("LAYER_KILL_DIR"); dir != "" {
		churn(dir, os.Getenv("LAYER_KILL_FORM"))
		return
	}
	os.Exit(m.Run())
}

// churn ingests, merges and removes the same few layers for ever.
func churn(dir, form string) {
	s, err := Open(dir, Options{Form: form, Jail: true})
	if err != nil {
		os.Exit(3)
	}
	for {
		var chain []digest.Digest
		for n := range 3 {
			b := killTar(n)
			id := digest.FromBytes(b)
			if _, err := s.Ingest(context.Background(), id, bytes.NewReader(b)); err != nil {
				os.Exit(4)
			}
			chain = append(chain, id)
		}
		m, err := s.Merge(context.Background(), chain)
		if err != nil {
			os.Exit(5)
		}
		if s.RemoveMerged(m.ChainID) != nil || s.Remove(chain[rand.Intn(3)]) != nil {
			os.Exit(6)
		}
		s.Free()
	}
}

// killTar is layer n of the churn.
func killTar(n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for k := range 50 {
		w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", n, k), Typeflag: tar.TypeReg, Mode: 0o644, Size: 20000})
		w.Write(bytes.Repeat([]byte{byte(n), byte(k)}, 10000))
	}
	w.Close()
	return b.Bytes()
}

// TestKilled kills a busy process at random moments. Whatever has a name afterwards is whole, Sweep removes all else, and the
// work can be done again.
func TestKilled(t *testing.T) {
	killed(t, FormErofs, 40, 60*time.Millisecond)
}

// TestKilledUnpacking is TestKilled where a process that is locked in does the work.
func TestKilledUnpacking(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: owners")
	}
	killed(t, FormDir, 40, 200*time.Millisecond)
	killed(t, FormVFS, 20, 200*time.Millisecond)
}

func killed(t *testing.T, form string, rounds int, most time.Duration) {
	if testing.Short() {
		rounds = 5
	}
	dir := filepath.Join(t.TempDir(), "layers")
	for round := range rounds {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "LAYER_KILL_DIR="+dir, "LAYER_KILL_FORM="+form)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20*time.Millisecond + time.Duration(rand.Int63n(int64(most-20*time.Millisecond))))
		cmd.Process.Kill()
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != -1 {
			t.Fatalf("round %d: the process ended by itself with %d", round, code)
		}
		s, err := Open(dir, Options{Form: form, Jail: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		if ents, err := os.ReadDir(filepath.Join(dir, tmpDir)); err != nil || len(ents) != 0 {
			t.Fatalf("round %d: left in tmp: %v %v", round, ents, err)
		}
		checkWhole(t, s)
	}
}

func checkWhole(t *testing.T, s *Store) {
	t.Helper()
	ids, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		info, err := s.Info(id)
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.OpenTar(id)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil || digest.FromBytes(b) != id || info.Size != int64(len(b)) {
			t.Fatalf("%s: %d bytes of %d, %v", id, len(b), info.Size, err)
		}
		if _, err := s.tree(id); err != nil {
			t.Fatal(err)
		}
		if bad, err := Verify(t.Context(), s, id); err != nil || bad != nil {
			t.Fatalf("%s: %v %v", id, bad, err)
		}
	}
	merged, err := s.ListMerged()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range merged {
		if bad, err := VerifyMerged(s, id); err != nil || bad != nil {
			t.Fatalf("merged %s: %v %v", id, bad, err)
		}
	}
}
