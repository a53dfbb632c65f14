package files

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

type fakeContainers struct{}

func (fakeContainers) Look(context.Context, string, func(*api.Container, *os.File) error) error {
	panic("not for this")
}

func (fakeContainers) Change(context.Context, string, func(*api.Container, *os.File) error) error {
	panic("not for this")
}

func (fakeContainers) Event(*api.Container, bool, string) {}

func (fakeContainers) Record(string) (*api.Container, error) { return &api.Container{ID: "c"}, nil }

type fakeSnapshots []upper.Change

func (s fakeSnapshots) Changes(_ context.Context, _ string, f func(upper.Change) error) error {
	for _, c := range s {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

func stat(mode uint32, size int64, at int64) unix.Stat_t {
	return unix.Stat_t{Mode: mode, Size: size, Mtim: unix.NsecToTimespec(at)}
}

// What a start makes to mount on does not show, unless there is something in it or the folder changed afterwards.
func TestChangesHidesMountPoints(t *testing.T) {
	const dir, file, now = unix.S_IFDIR | 0o755, unix.S_IFREG | 0o644, 1_700_000_000e9
	s := Service{Containers: fakeContainers{}, Snapshots: fakeSnapshots{
		{Kind: upper.Modified, Path: "", Stat: stat(dir, 0, now)},
		{Kind: upper.Added, Path: "a-b", Stat: stat(file, 1, now)},
		{Kind: upper.Added, Path: "a", Stat: stat(dir, 0, now)},
		{Kind: upper.Added, Path: "a/dev", Stat: stat(dir, 0, now)},
		{Kind: upper.Added, Path: "dev", Stat: stat(dir, 0, now)},
		{Kind: upper.Added, Path: "etc", Stat: stat(dir, 0, now+4e6)},
		{Kind: upper.Added, Path: "etc/hosts", Stat: stat(file, 0, now)},
		{Kind: upper.Deleted, Path: "gone"},
		{Kind: upper.Added, Path: "proc", Stat: stat(dir, 0, now)},
		{Kind: upper.Added, Path: "proc/inside", Stat: stat(file, 0, now)},
	}}
	check(t, s, "1 /a", "1 /a/dev", "1 /a-b", "2 /gone", "1 /proc", "1 /proc/inside")
	s.Snapshots = fakeSnapshots{
		{Kind: upper.Added, Path: "etc", Stat: stat(dir, 0, now+1e9)}, // something was there and is gone
		{Kind: upper.Added, Path: "etc/hosts", Stat: stat(file, 0, now)},
	}
	check(t, s, "1 /etc")
	s.Snapshots = fakeSnapshots{
		{Kind: upper.Added, Path: "etc", Stat: stat(dir, 0, now)},
		{Kind: upper.Added, Path: "etc/hosts", Stat: stat(file, 9, now)}, // an image's own, or written where nothing was mounted
	}
	check(t, s, "1 /etc", "1 /etc/hosts")
}

func check(t *testing.T, s Service, want ...string) {
	t.Helper()
	got, err := s.Changes(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	for n, c := range got {
		if text := string('0'+byte(c.Kind)) + " " + c.Path; n >= len(want) || text != want[n] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}
