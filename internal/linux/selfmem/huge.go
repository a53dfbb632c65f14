package selfmem

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// hugePages tells a program that it does without huge pages for its own sake only.
const hugePages = "DHOW_HUGE_PAGES"

// NoHugePages has this process do without transparent huge pages, and the programs that it starts (prctl(2), PR_SET_THP_DISABLE: it outlives
// execve), which can be too late for this process itself. Where the host has them always, Go's heap and tables get 2 MiB for each few
// pages in use. It returns what such a program needs in its environment to know, by GiveHugePages, that the programs it starts for others
// are to have them again; nothing where we were without them before.
var NoHugePages = sync.OnceValue(func() []string {
	disabled, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil || disabled != 0 || unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) != nil {
		return nil
	}
	return []string{hugePages + "=again"}
})

// GiveHugePages tells whether processes that we start for others are to have what we do without.
func GiveHugePages() bool { return os.Getenv(hugePages) == "again" }
