package container

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "a": "a", "ctrl-a,x": "\x01x", "ctrl-[": "\x1b", "ctrl-@,ctrl-_": "\x00\x1f"} {
		if got, err := detachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-1", "ab", ","} {
		if got, err := detachKeys(in); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
}

func TestDetector(t *testing.T) {
	for _, tc := range []struct {
		pieces []string
		out    string
		hit    bool
	}{
		{[]string{"hello"}, "hello", false},
		{[]string{"a\x10\x11b"}, "a", true},
		{[]string{"a\x10", "\x11"}, "a", true},
		{[]string{"\x10x"}, "\x10x", false},
		{[]string{"\x10", "\x10", "\x11"}, "\x10", true},
		{[]string{"\x11\x10"}, "\x11", false}, // held back until the next key
	} {
		d := detector{keys: []byte{16, 17}}
		var out strings.Builder
		hit := false
		for _, p := range tc.pieces {
			b, h := d.filter([]byte(p))
			out.Write(b)
			hit = hit || h
		}
		if out.String() != tc.out || hit != tc.hit {
			t.Errorf("%q: %q %v, want %q %v", tc.pieces, out.String(), hit, tc.out, tc.hit)
		}
	}
}

func TestParseBind(t *testing.T) {
	for in, want := range map[string]api.Mount{
		"/a:/b":              {Type: mount.TypeBind, Source: "/a", Destination: "/b"},
		"/a/../c:/b:ro":      {Type: mount.TypeBind, Source: "/c", Destination: "/b", Mode: "ro", ReadOnly: true},
		"/a:/b:rslave,ro":    {Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "rslave,ro", ReadOnly: true, Propagation: mount.PropagationRSlave},
		"name:/b:nocopy":     {Type: mount.TypeVolume, Name: "name", Destination: "/b", Mode: "nocopy", NoCopy: true},
		"/only":              {Type: mount.TypeVolume, Destination: "/only", Anonymous: true},
		"/a:/b:z,cached":     {Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "z,cached"},
		"name-2.x_y:/b:rw":   {Type: mount.TypeVolume, Name: "name-2.x_y", Destination: "/b", Mode: "rw"},
		"/with space:/b":     {Type: mount.TypeBind, Source: "/with space", Destination: "/b"},
		"/a:/b:consistent,Z": {Type: mount.TypeBind, Source: "/a", Destination: "/b", Mode: "consistent,Z"},
	} {
		want.Why = "flag --volume " + in
		if got, err := parseBind(in); err != nil || got.Why != want.Why || got.Type != want.Type || got.Source != want.Source || got.Name != want.Name ||
			got.Destination != want.Destination || got.ReadOnly != want.ReadOnly || got.Propagation != want.Propagation || got.NoCopy != want.NoCopy || got.Anonymous != want.Anonymous {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
	for _, in := range []string{":/b", "/a:", "rel/path:/b", "/a:/b:what", "name:/b:rslave", "a:b:c:d", "/a:/b:nocopy"} {
		if got, err := parseBind(in); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
}

func unitOf(id, name string) *unit {
	return newUnit(&api.Container{ID: id, Name: name, Config: &container.Config{}, HostConfig: &container.HostConfig{}})
}

func TestTable(t *testing.T) {
	var tab table
	tab.init()
	a, b := unitOf("abc1"+strings.Repeat("0", 60), "one"), unitOf("abc2"+strings.Repeat("0", 60), "two")
	for _, u := range []*unit{a, b} {
		if err := tab.reserve(u.rec.Load().Name, u.id); err != nil {
			t.Fatal(err)
		}
		tab.add(u)
	}
	for ref, want := range map[string]*unit{"one": a, "/two": b, "abc1": a, a.id: a} {
		if got, err := tab.find(ref); err != nil || got != want {
			t.Errorf("%s: %v %v", ref, got, err)
		}
	}
	if _, err := tab.find("abc"); !errdef.Is(err, errdef.InvalidArgument) {
		t.Errorf("ambiguous: %v", err)
	}
	for _, ref := range []string{"", "none", "abd"} {
		if _, err := tab.find(ref); !errdef.Is(err, errdef.NotFound) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	var wg sync.WaitGroup
	var won sync.Map
	for range 16 {
		wg.Go(func() {
			if tab.reserve("three", "x") == nil {
				won.Store(new(int), true)
			}
		})
	}
	wg.Wait()
	n := 0
	won.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d won the name", n)
	}
	tab.remove(a)
	if _, err := tab.find("one"); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("removed: %v", err)
	}
}

// TestRemovedStaysRemoved is about callers who found a container just before it was removed.
func TestRemovedStaysRemoved(t *testing.T) {
	u := unitOf("abc1"+strings.Repeat("0", 60), "one")
	if err := u.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.deleted = true
	u.unlock()
	if err := u.lock(t.Context()); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("lock: %v", err)
	}
	if len(u.op) != 0 {
		t.Error("lock failed and holds op")
	}
	select {
	case <-u.wait(t.Context(), container.WaitConditionRemoved): // nobody will tell any more
	case <-time.After(5 * time.Second):
		t.Error("waiting for the removal of what is removed hangs")
	}
}

func TestLongStopTimeout(t *testing.T) {
	r := &run{ended: make(chan struct{})}
	time.AfterFunc(50*time.Millisecond, func() { close(r.ended) })
	if !ended(r, 99999999999) {
		t.Error("more seconds than a duration has: did not wait")
	}
}

func TestRestartPolicy(t *testing.T) {
	rec := func(name container.RestartPolicyMode, maximum, count int, stopped bool) *api.Container {
		return &api.Container{RestartCount: count, WantStopped: stopped, HostConfig: &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: name, MaximumRetryCount: maximum}}}
	}
	for _, tc := range []struct {
		rec  *api.Container
		code int
		boot bool
		want bool
	}{
		{rec("no", 0, 0, false), 1, false, false},
		{rec("always", 0, 9, false), 0, false, true},
		{rec("always", 0, 0, true), 0, false, false},
		{rec("always", 0, 0, true), 0, true, true},
		{rec("unless-stopped", 0, 0, true), 0, true, false},
		{rec("unless-stopped", 0, 0, false), 0, true, true},
		{rec("on-failure", 0, 100, false), 1, false, true},
		{rec("on-failure", 2, 1, false), 1, false, true},
		{rec("on-failure", 2, 2, false), 1, false, false},
		{rec("on-failure", 0, 0, false), 0, false, false},
	} {
		if got := wanted(tc.rec, tc.code, tc.boot); got != tc.want {
			t.Errorf("%+v code %d boot %v: %v", tc.rec.HostConfig.RestartPolicy, tc.code, tc.boot, got)
		}
	}
}
