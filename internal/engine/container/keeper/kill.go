package keeper

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Kill kills the shim of a run folder that does not answer, after its container has been killed. It is found by its command line
// and held by a pidfd while that is checked again, so that no other process is ever hit. No such shim is no error.
func Kill(runDir string) error {
	list, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range list {
		if !isShim(dir, runDir) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue
		}
		if err != nil {
			return fmt.Errorf("kill shim %d: %w", pid, os.NewSyscallError("pidfd_open", err))
		}
		defer unix.Close(fd)
		if !isShim(dir, runDir) {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill shim %d: %w", pid, os.NewSyscallError("pidfd_send_signal", err))
		}
	}
	return nil
}

func isShim(proc, runDir string) bool {
	f, err := os.Open(proc + "/cmdline")
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 8192))
	return err == nil && bytes.Equal(b, []byte("dhow-shim\x00"+runDir+"\x00"))
}
