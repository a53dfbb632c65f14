package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
)

const (
	wakeDeadline = 15 * time.Second
	engineLog    = "/var/log/dhow/dhowd.log"
)

// wakeEngine starts dhowd when nothing answers on the default socket, and waits until it does.
func wakeEngine(ctx context.Context, a *app) error {
	sock := strings.TrimPrefix(client.DefaultHost, "unix://")
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("no engine answers and uid %d may not start one; run `sudo dhow info` once, or set DHOW_HOST", uid)
	}
	bin, err := findEngine()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(sock), 0o755); err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(sock), "start.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	defer lock.Close() // and with it the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("start engine: lock %s: %w", lock.Name(), err)
	}
	if answers(sock) {
		return nil // someone else started it while we waited for the lock
	}
	began := time.Now()
	gone, err := spawnEngine(bin)
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	for time.Since(began) < wakeDeadline {
		if answers(sock) {
			fmt.Fprintf(a.Stderr, "dhow: started the engine %s in %d ms (log: %s)\n", bin, time.Since(began).Milliseconds(), engineLog)
			return nil
		}
		select {
		case err := <-gone:
			if answers(sock) {
				return nil
			}
			return fmt.Errorf("the engine %s ended at once: %v; its log %s ends with:\n%s", bin, err, engineLog, tail(engineLog))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return fmt.Errorf("the engine %s does not answer on %s after %s; see %s", bin, sock, wakeDeadline, engineLog)
}

func answers(sock string) bool {
	c, err := net.Dial("unix", sock)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// findEngine looks for dhowd beside this program, then in PATH.
func findEngine() (string, error) {
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		p := filepath.Join(filepath.Dir(self), "dhowd")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	p, err := exec.LookPath("dhowd")
	if err != nil {
		return "", errors.New("no engine answers, and dhowd is neither beside dhow nor in PATH; install it or set DHOW_HOST")
	}
	return p, nil
}

// spawnEngine starts bin in a session of its own; gone tells when it ended.
func spawnEngine(bin string) (gone <-chan error, err error) {
	if err := os.MkdirAll(filepath.Dir(engineLog), 0o750); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(engineLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(bin)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { // ends with the engine or with this process
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		ended <- err
	}()
	return ended, nil
}

// tail returns the last lines of a small piece of a file.
func tail(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 2048
	if st, err := f.Stat(); err == nil && st.Size() > most {
		f.Seek(-most, 2)
	}
	b := make([]byte, most)
	n, _ := f.Read(b)
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
