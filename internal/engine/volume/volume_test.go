package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/volume"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

func open(t *testing.T, dir string) (*Service, *meta.DB) {
	t.Helper()
	db, err := meta.Open(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "volumes"), db, &event.Bus{})
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

func TestLifeAndRecovery(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s, db := open(t, dir)
	v, err := s.Create(ctx, volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	anon, made, err := s.Ensure(volume.CreateRequest{}, "c1")
	if err != nil || !made {
		t.Fatal(made, err)
	}
	s.Hold("data", "c1")
	if err := s.Remove(ctx, "data", false); !errdef.Is(err, errdef.Conflict) {
		t.Fatalf("remove of a held volume: %v", err)
	}
	db.Close()
	os.MkdirAll(filepath.Join(dir, "volumes", "half", "_data"), 0o755) // a crash between folder and record

	s, db = open(t, dir)
	defer db.Close()
	if _, err := os.Stat(filepath.Join(dir, "volumes", "half")); !os.IsNotExist(err) {
		t.Fatalf("half-made volume survived: %v", err)
	}
	list, _, err := s.List(ctx, map[string][]string{"label": {"a=b"}})
	if err != nil || len(list) != 1 || list[0].Name != "data" {
		t.Fatalf("%v %v", list, err)
	}
	s.Hold(anon.Name, "c1")
	if err := s.Release(anon.Name, "c1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(ctx, anon.Name); !errdef.Is(err, errdef.NotFound) {
		t.Fatalf("anonymous volume still there: %v", err)
	}
	rep, err := s.Prune(ctx, nil)
	if err != nil || len(rep.VolumesDeleted) != 0 {
		t.Fatalf("prune took a named volume: %v %v", rep, err)
	}
	takes := s.Usage()[0].UsageData.Size // as du says it
	rep, err = s.Prune(ctx, map[string][]string{"all": {"1"}})
	if err != nil || len(rep.VolumesDeleted) != 1 || rep.SpaceReclaimed != uint64(takes) || takes < 1 {
		t.Fatalf("prune all: %+v %v", rep, err)
	}
}

func TestRefusals(t *testing.T) {
	s, db := open(t, t.TempDir())
	defer db.Close()
	for _, tc := range []struct {
		req  volume.CreateRequest
		kind errdef.Kind
	}{
		{volume.CreateRequest{Name: "../x"}, errdef.InvalidArgument},
		{volume.CreateRequest{Name: "a/b"}, errdef.InvalidArgument},
		{volume.CreateRequest{Name: "ok1", Driver: "nfs"}, errdef.NotFound},
		{volume.CreateRequest{Name: "ok1", DriverOpts: map[string]string{"type": "tmpfs"}}, errdef.NotImplemented},
	} {
		if _, err := s.Create(t.Context(), tc.req); !errdef.Is(err, tc.kind) {
			t.Errorf("%+v: %v", tc.req, err)
		}
	}
	if err := s.Remove(t.Context(), "none", false); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("remove none: %v", err)
	}
	if err := s.Remove(t.Context(), "none", true); err != nil {
		t.Errorf("remove none by force: %v", err)
	}
}

// TestDamagedRecord: one record that cannot be read neither keeps the engine from starting nor costs the volume its files.
func TestDamagedRecord(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s, db := open(t, dir)
	v, err := s.Create(ctx, volume.CreateRequest{Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(v.Mountpoint, "file")
	if err := errors.Join(os.WriteFile(file, []byte("kept"), 0o600), db.Put("volumes", "vol", "damaged"), db.Put("volumes", "lost", "damaged")); err != nil {
		t.Fatal(err)
	}
	db.Close()

	s, db = open(t, dir)
	defer db.Close()
	if got, err := s.Inspect(ctx, "vol"); err != nil || got.Mountpoint != v.Mountpoint {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if _, err := s.Inspect(ctx, "lost"); err == nil {
		t.Error("a volume without a folder is there")
	}
}

// TestSweep tells what a crash left from what somebody chose to keep.
func TestSweep(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s, db := open(t, dir)
	ensure := func(container string) string {
		t.Helper()
		v, _, err := s.Ensure(volume.CreateRequest{}, container)
		if err != nil {
			t.Fatal(err)
		}
		return v.Name
	}
	orphan, kept, owned, loose := ensure("gone"), ensure("gone"), ensure("here"), ensure("")
	if err := s.Keep(kept); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, volume.CreateRequest{Name: "named"}); err != nil {
		t.Fatal(err)
	}
	db.Close()

	s, db = open(t, dir)
	defer db.Close()
	if err := s.Sweep(func(container string) bool { return container == "here" }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{orphan: false, kept: true, owned: true, loose: true, "named": true} {
		if _, err := s.Inspect(ctx, name); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", name, err == nil, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "volumes", orphan)); !os.IsNotExist(err) {
		t.Errorf("the orphan's folder: %v", err)
	}
}
