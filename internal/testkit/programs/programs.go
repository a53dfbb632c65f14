// Package programs owns how tests come to our programs: built once for all test processes, or found where DHOW_TEST_PROGRAMS says they
// lie, as on machines without Go (hack/vm).
//
// It promises programs of this very checkout. It must never be linked into a program.
package programs

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Env names the folder that holds programs already built, each under its package's last name.
const Env = "DHOW_TEST_PROGRAMS"

// names are our programs.
var names = []string{"dhow", "dhowd", "dhow-shim", "dhow-runtime"}

// Build puts the program of a package at path: go build with flags, or a copy of what is built already.
func Build(path, pkg string, flags ...string) error {
	if dir := os.Getenv(Env); dir != "" {
		return copyFile(filepath.Join(dir, filepath.Base(pkg)), path)
	}
	args := append([]string{"build", "-o", path}, flags...)
	return goCommand("", append(args, pkg)...)
}

// Dir is the folder with our four programs.
var Dir = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(Env); dir != "" {
		return dir, nil
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	module := filepath.Dir(strings.TrimSpace(string(mod)))
	// A name that stays, so that the linker has to work once for all packages' tests.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("dhow-harness-%d", os.Getuid()))
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := goCommand(module, "build", "-o", filepath.Join(module, "cmd/dhowd/hello/rootfs/hello"), "./cmd/hello"); err != nil {
		return "", err
	}
	args := []string{"build", "-o", dir + "/"}
	for _, n := range names {
		args = append(args, "./cmd/"+n)
	}
	return dir, goCommand(module, args...)
})

// Keep gives a test names of its own for our programs, in a new folder below dir: another test process may be about to build them anew.
func Keep(dir string) (string, error) {
	from, err := Dir()
	if err != nil {
		return "", err
	}
	own := filepath.Join(dir, "bin")
	if err := os.Mkdir(own, 0o755); err != nil {
		return "", err
	}
	for _, n := range names {
		if os.Link(filepath.Join(from, n), filepath.Join(own, n)) == nil {
			continue
		}
		if err := copyFile(filepath.Join(from, n), filepath.Join(own, n)); err != nil { // another file system
			return "", err
		}
	}
	return own, nil
}

func goCommand(dir string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
