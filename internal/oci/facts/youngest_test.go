package facts

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The search leaves the process where it was, which its first thread shows to all the world as /proc/PID.
func TestYoungestLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mount namespaces need root")
	}
	where := func() (ns string, on unix.CPUSet) {
		ns, err := os.Readlink("/proc/self/ns/mnt")
		if err == nil {
			err = unix.SchedGetaffinity(os.Getpid(), &on)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ns, on
	}
	ns, on := where()
	var all sync.WaitGroup
	for range 32 { // on whatever threads, the first one too
		all.Go(func() { Youngest() })
	}
	all.Wait()
	if ns2, on2 := where(); ns2 != ns || on2 != on {
		t.Errorf("the process is in %s on %v, was in %s on %v", ns2, on2, ns, on)
	}
}
