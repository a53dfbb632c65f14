package depot

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A full disk must not keep the engine from starting, nor from removing what fills it: a few files wait in the data root to be removed then.
const (
	reserveDir   = "reserve"
	reserveFiles = 16
	reserveSize  = 256 << 10 // of each
	ample        = 32 << 20  // there must be more than this free for a reserve to be made
)

// space tells whether a file system has next to nothing left, and whether it has enough for a reserve.
func space(dir string) (scarce, plenty bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false, false
	}
	free := st.Bavail * uint64(st.Bsize)
	some := st.Files > 0 // btrfs counts none
	return free < reserveFiles*reserveSize/4 || some && st.Ffree < reserveFiles, free > ample && (!some || st.Ffree > 16*reserveFiles)
}

// makeRoom gives the reserve up where there is no room without it.
func makeRoom(root string) error {
	if scarce, _ := space(root); !scarce {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(root, reserveDir)); err != nil {
		return fmt.Errorf("make room: %w", err)
	}
	return nil
}

// keepRoom makes a reserve where there is none and space is ample. What cannot be made is no error: it is a reserve.
func keepRoom(root string) {
	dir := filepath.Join(root, reserveDir)
	if _, plenty := space(root); !plenty || os.Mkdir(dir, 0o700) != nil {
		return
	}
	for n := range reserveFiles {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(n)), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return
		}
		unix.Fallocate(int(f.Fd()), 0, 0, reserveSize) // where it is not known, inodes are kept
		f.Close()
	}
}
