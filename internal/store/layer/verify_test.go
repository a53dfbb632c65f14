package layer

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// flip changes one bit of a file, at the given part of its length.
func flip(t *testing.T, path string, num, den int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	b := make([]byte, 1)
	at := st.Size() * num / den
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestVerify: a bit flipped in any file of a layer or a merge is found, in that file and no other; what follows from the tar is made
// anew from it, the tar itself is taken anew.
func TestVerify(t *testing.T) {
	for _, form := range []string{FormErofs, FormDir} {
		t.Run(form, func(t *testing.T) {
			s, ctx := store(t, form), context.Background()
			tars := [][]byte{simple(t, 10, 3000), simple(t, 3, 100)}
			var chain []digest.Digest
			for _, b := range tars {
				i, err := s.Ingest(ctx, digest.FromBytes(b), bytes.NewReader(b))
				if err != nil {
					t.Fatal(err)
				}
				chain = append(chain, i.DiffID)
			}
			if _, err := s.Merge(ctx, chain); err != nil {
				t.Fatal(err)
			}
			sound := func() {
				t.Helper()
				for _, d := range chain {
					if bad, err := Verify(ctx, s, d); err != nil || len(bad) > 0 {
						t.Fatalf("%v %v", bad, err)
					}
				}
				if bad, err := VerifyMerged(s, ChainID(chain)); err != nil || len(bad) > 0 {
					t.Fatalf("merged: %v %v", bad, err)
				}
			}
			sound()
			for _, f := range []string{treeFile, infoFile} {
				flip(t, s.path(chain[0], f), 1, 2)
				bad, err := Verify(ctx, s, chain[0])
				if err != nil || len(bad) != 1 || filepath.Base(bad[0].Path) != f || bad[0].Tar {
					t.Fatalf("%s flipped: %v %v", f, bad, err)
				}
				if err := Mend(ctx, s, chain[0]); err != nil {
					t.Fatal(err)
				}
				sound()
			}
			if form == FormDir {
				flip(t, s.path(chain[0], fsDir, "d0", "f3"), 1, 2)
				if bad, err := Verify(ctx, s, chain[0]); err != nil || len(bad) != 1 || filepath.Base(bad[0].Path) != fsDir {
					t.Fatalf("folder: %v %v", bad, err)
				}
				if err := Mend(ctx, s, chain[0]); err != nil {
					t.Fatal(err)
				}
				sound()
			}
			flip(t, s.path(chain[0], tarFile), 1, 4)
			bad, err := Verify(ctx, s, chain[0])
			if err != nil || len(bad) != 1 || !bad[0].Tar {
				t.Fatalf("tar flipped: %v %v", bad, err)
			}
			if err := Mend(ctx, s, chain[0]); err == nil {
				t.Fatal("mended from a damaged tar")
			}
			if err := Replace(ctx, s, chain[0], bytes.NewReader(tars[1])); err == nil {
				t.Fatal("replaced by another layer")
			}
			if err := Replace(ctx, s, chain[0], bytes.NewReader(tars[0])); err != nil {
				t.Fatal(err)
			}
			sound()
			os.RemoveAll(s.path(chain[0]))
			if bad, err := Verify(ctx, s, chain[0]); err != nil || len(bad) != 1 || !bad[0].Tar {
				t.Fatalf("layer gone: %v %v", bad, err)
			}
			if err := Replace(ctx, s, chain[0], bytes.NewReader(tars[0])); err != nil {
				t.Fatal(err)
			}
			mergedFiles := []string{infoFile}
			if form == FormErofs {
				mergedFiles = append(mergedFiles, indexFile)
			}
			for _, f := range mergedFiles {
				flip(t, s.mergedPath(ChainID(chain), f), 1, 2)
				bad, err := VerifyMerged(s, ChainID(chain))
				if err != nil || len(bad) != 1 || filepath.Base(bad[0].Path) != f {
					t.Fatalf("merged %s flipped: %v %v", f, bad, err)
				}
				if err := s.RemoveMerged(ChainID(chain)); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Merge(ctx, chain); err != nil {
					t.Fatal(err)
				}
				sound()
			}
			for _, l := range leftovers(t, s) {
				if filepath.Dir(l) == tmpDir {
					t.Errorf("left behind: %s", l)
				}
			}
		})
	}
}

// TestUnpackingVerifies is torture case 28: a tar that went bad is found when it is unpacked, and nothing is left of that.
func TestUnpackingVerifies(t *testing.T) {
	for _, form := range []string{FormDir, FormVFS} {
		s := store(t, FormErofs)
		b := simple(t, 10, 3000)
		i, err := s.Ingest(t.Context(), digest.FromBytes(b), bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		flip(t, s.path(i.DiffID, tarFile), 1, 2)
		if os.Getuid() != 0 {
			t.Skip("unpacking needs root")
		}
		if s, err = Open(s.dir, Options{Form: form}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Merge(t.Context(), []digest.Digest{i.DiffID}); !errdef.Is(err, errdef.DataLoss) || !strings.Contains(err.Error(), "dhow system check --repair") {
			t.Errorf("%s: %v", form, err)
		}
		if left := leftovers(t, s); len(left) != 1 {
			t.Errorf("%s: left %v", form, left)
		}
	}
}
