package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
)

// TestMain lets the test's own program be the helper that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == HelperArg {
		if err := Helper(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestHelper(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a mount namespace needs root")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	netns, err := netlink.NewNetns(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	b := &bench{Options: Options{Log: io.Discard}, dir: dir}
	defer b.end()
	spawn, err := b.helper(surroundings{Fresh: []string{dir}}, netns)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := spawn(job{Args: []string{"/bin/busybox", "ls", dir}}); err != nil || o.Out != "" {
		t.Errorf("ls of a fresh folder: %q, %v", o.Out, err)
	}
	inode, err := netlink.Inode(netns)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := spawn(job{Args: []string{"/bin/busybox", "readlink", "/proc/self/ns/net"}}); err != nil || o.Out != fmt.Sprintf("net:[%d]", inode) {
		t.Errorf("network namespace: %q, %v; want %d", o.Out, err, inode)
	}
	if _, err := spawn(job{Args: []string{"/bin/busybox", "sh", "-c", "echo why; exit 3"}}); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("a job that fails: %v", err)
	}
	concurrent(t, spawn)
}

// concurrent starts jobs of which the first ends last: every caller must get the outcome of its own, and at the same time.
func concurrent(t *testing.T, spawn spawn) {
	const jobs = 8
	var wg sync.WaitGroup
	began := time.Now()
	for i := range jobs {
		wg.Go(func() {
			line := fmt.Sprintf("sleep 0.%d; echo %d $V", jobs-i, i)
			o, err := spawn(job{Args: []string{"/bin/busybox", "sh", "-c", line}, Env: []string{"V=x"}})
			if want := fmt.Sprint(i, " x"); err != nil || o.Out != want {
				t.Errorf("job %d: %q, %v; want %q", i, o.Out, err, want)
			}
			if least := time.Duration(jobs-i) * 100 * time.Millisecond; o.Took < least {
				t.Errorf("job %d took %v, less than it slept", i, o.Took)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("%d jobs took %v: one after the other", jobs, took)
	}
}

func TestHelperThatEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a mount namespace needs root")
	}
	b := &bench{Options: Options{Log: io.Discard}}
	spawn, err := b.helper(surroundings{Without: []string{"/bench-nowhere"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spawn(job{Args: []string{"/bin/true"}}); err == nil {
		t.Error("a helper that could not make its surroundings ran a job")
	}
	b.end()
	if _, err := spawn(job{Args: []string{"/bin/true"}}); err == nil {
		t.Error("a helper that has ended ran a job")
	}
}

func TestClientFlags(t *testing.T) {
	var got []string
	c := &client{program: "podman", global: []string{"--root", "r"}, run: []string{"--cgroup-parent", "p"}, at: &host{dir: t.TempDir()},
		spawn: func(j job) (outcome, error) { got = j.Args; return outcome{}, nil }}
	for _, test := range [][2]string{
		{"run --rm image true", "podman --root r run --cgroup-parent p --rm image true"},
		{"exec c true", "podman --root r exec c true"},
	} {
		if _, err := c.do(strings.Fields(test[0])...); err != nil || !slices.Equal(got, strings.Fields(test[1])) {
			t.Errorf("%s: %q, %v", test[0], got, err)
		}
	}
}
