// Package selfmem owns the giving back of a process's own memory.
//
// It promises that nothing is lost: only pages that the kernel can bring back from the executable are let go. It must never touch
// writable memory.
package selfmem

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DropText unmaps the pages of the program's own text and read-only data (MADV_DONTNEED). They stay in the page cache, from
// where each comes back by a minor fault (below a microsecond) when it is next used. A process that sleeps for long then weighs
// what it writes, not what it once executed.
func DropText() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		// 00400000-00578000 r-xp 00000000 fe:00 123  /usr/bin/dhow-shim
		f := bytes.Fields(line)
		if len(f) < 6 || string(f[5]) != exe || len(f[1]) != 4 || f[1][1] != '-' || f[1][3] != 'p' {
			continue
		}
		from, to, ok := bytes.Cut(f[0], []byte("-"))
		start, err1 := strconv.ParseUint(string(from), 16, 64)
		end, err2 := strconv.ParseUint(string(to), 16, 64)
		if !ok || err1 != nil || err2 != nil || start >= end {
			continue
		}
		if err := dontNeed(uintptr(start), uintptr(end-start)); err != nil {
			return fmt.Errorf("madvise %s: %w", f[0], err)
		}
	}
	return nil
}

func dontNeed(start, n uintptr) error {
	// The mapping is the program's own and lives as long as it; the conversion is by way of a pointer to the number, as the
	// address does not come from a Go object.
	p := *(*unsafe.Pointer)(unsafe.Pointer(&start))
	return unix.Madvise(unsafe.Slice((*byte)(p), n), unix.MADV_DONTNEED)
}
