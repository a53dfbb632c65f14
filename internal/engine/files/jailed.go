package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/extract"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
)

// Word is the one argument with which dhowd is no engine, but the process that lays a tar over a container's files.
const Word = "lay-tar-in-jail"

// The descriptors of that process, behind the standard ones: the container's root, the folder, the tar.
const (
	rootFD = 3 + iota
	dirFD
	tarFD
)

// task is what it reads, and verdict what it answers; no text is success.
type task struct {
	Path    string
	Options extract.Options
}

type verdict struct {
	Kind errdef.Kind
	Text string
}

const mostAnswer = 64 << 10

// jailed has a tar laid by a process in namespaces of its own, that reaches files below the container's root only, and has the
// capabilities to make files and no others. It lives on when the engine dies: no half copy then.
func jailed(ctx context.Context, t extract.Target, data *os.File, o extract.Options) error {
	in, err := json.Marshal(task{t.Path, o})
	if err != nil {
		return fmt.Errorf("describe the copy: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Word)
	cmd.Args[0] = "dhowd"
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.Dir = "/"
	var out, errs limited
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	cmd.ExtraFiles = []*os.File{t.Root.File(), t.Dir, data}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS, Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Run()
	var v verdict
	if derr := json.Unmarshal(out.Bytes(), &v); err != nil || derr != nil {
		return fmt.Errorf("the process that writes into the container: %w: %s", errors.Join(err, derr), strings.TrimSpace(errs.String()))
	}
	if v.Text != "" {
		return errdef.New(v.Kind, "%s", v.Text)
	}
	return nil
}

// limited keeps the beginning of what is written.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if room := mostAnswer - l.Len(); room > 0 {
		l.Buffer.Write(b[:min(len(b), room)])
	}
	return len(b), nil
}

// Jailed is that process, when the arguments say so, and does not return then.
func Jailed(args []string) {
	if len(args) != 2 || args[1] != Word {
		return
	}
	var v verdict
	if err := layHere(); err != nil {
		v = verdict{errdef.KindOf(err), err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func layHere() error {
	root := os.NewFile(rootFD, "root")
	if err := jail.Enter(runtime.GOARCH, root); err != nil {
		return err
	}
	var k task
	if err := json.NewDecoder(io.LimitReader(os.Stdin, mostAnswer)).Decode(&k); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	data := os.NewFile(tarFD, "tar")
	p := tarindex.NewPlain(tarindex.Limits{Size: most})
	if _, err := io.CopyBuffer(p, io.NewSectionReader(data, 0, most), make([]byte, 256<<10)); err != nil {
		return bad(err)
	}
	table, err := p.Finish()
	if err != nil {
		return bad(err)
	}
	t := extract.Target{Root: safepath.FromFile(root), Dir: os.NewFile(dirFD, "folder"), Path: k.Path}
	return extract.Into(context.Background(), t, table.Tree(), data, k.Options)
}
