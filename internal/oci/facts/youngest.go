package facts

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
)

// A file holds a mount namespace only where that is younger than the one the file is in (else they could hold each other; the kernel's
// answer is ELOOP). Linux 6.18 tells their age by a number, which it takes from a store of the processor's own: a namespace made on another
// processor than ours may count as older. So where one is to be held, it is made on a processor that gives it a greater number.

// Youngest finds a processor on which new mount namespaces are younger than the one we are in, and tells which we may use now; false where
// there is nothing to choose. It tries on a thread that ends with it.
func Youngest() (on, before unix.CPUSet, found bool) {
	ours, ok := mountNamespaceNumber()
	if !ok || unix.SchedGetaffinity(0, &before) != nil {
		return on, before, false // before Linux 6.18 one processor numbers for all
	}
	err := mount.Apart(func() error {
		for cpu := 0; cpu < len(on)*64 && !found; cpu++ {
			on.Zero()
			on.Set(cpu)
			if unix.SchedSetaffinity(0, &on) != nil || unix.Unshare(unix.CLONE_NEWNS) != nil {
				continue
			}
			n, ok := mountNamespaceNumber()
			found = ok && n > ours
		}
		return nil
	})
	return on, before, found && err == nil // else the kernel will say so
}

// mountNamespaceNumber is the number of this thread's mount namespace, which its file handle begins with (struct nsfs_file_handle).
func mountNamespaceNumber() (uint64, bool) {
	f, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	h, _, err := unix.NameToHandleAt(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil || len(h.Bytes()) < 8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(h.Bytes()), true
}
