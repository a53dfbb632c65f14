package jail

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/selfexe"
)

// Job is work for a process that is locked in. This program must call Main with the Trade of that Word.
type Job struct {
	Word    string
	Task    any        // told as JSON
	Folders []*os.File // what it works in: mounts on which nothing acts, see Inert
	Files   []*os.File // what else it gets. It may do with them, and with their inodes, what their mounts allow
	Memory  int64      // bytes that it may have
	// Outlives says that it goes on when this process dies; otherwise it dies, too.
	Outlives bool
}

// Inert returns a mount of a folder's own that nobody else sees, on which devices are not opened, programs not executed and their setuid bits
// not heeded; readonly, nothing is changed through it either. What is mounted below the folder is not in it.
func Inert(dir string, readonly bool) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	h := os.NewFile(uintptr(fd), dir)
	defer h.Close()
	m, err := mount.Clone(h, "", false)
	if err != nil {
		return nil, err
	}
	a := mount.Attr{Set: mount.Inert, Propagation: unix.MS_PRIVATE}
	if readonly {
		a.Set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := mount.SetAttr(m, false, a); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Run has a process do the job and waits until it is gone. The error that it ended with has its kind, text and errno. Whatever happened, what it made
// until then is still there. When ctx is done it is killed.
func (j Job) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := j.start()
	if err != nil {
		return fmt.Errorf("start the process for %s: %w", j.Word, err)
	}
	stop := context.AfterFunc(ctx, func() { c.process.Kill() })
	answer, errs := c.listen()
	state, err := c.process.Wait()
	stop()
	c.release()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("wait for the process for %s: %w", j.Word, err)
	}
	var v verdict
	if err := json.Unmarshal(answer, &v); err != nil || !state.Success() {
		why, _, _ := strings.Cut(strings.TrimSpace(string(errs)), "\n")
		return fmt.Errorf("the process for %s: %s, with no answer: %q", j.Word, state, why)
	}
	return v.err()
}

// err is what the process told, as it was there.
func (v verdict) err() error {
	if v.Text == "" {
		return nil
	}
	t := told{text: v.Text}
	if v.Errno != 0 {
		t.errno = v.Errno
	}
	return errdef.As(v.Kind, &t)
}

type told struct {
	text  string
	errno error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.errno }

// child is such a process and our ends of its standard streams.
type child struct {
	process   *os.Process
	out, errs *os.File
	release   func()
}

func (j Job) start() (c *child, err error) {
	var ours, theirs []*os.File
	closeAll := func(list []*os.File) {
		for _, f := range list {
			f.Close()
		}
	}
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
		}
	}()
	for n := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		if n == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	files := append(append(theirs[:3:3], j.Folders...), j.Files...)
	in, err := j.order(files[3:])
	if err != nil {
		return nil, err
	}
	program, err := selfexe.ReadOnly("/proc/self/exe") // it sees the file as its /proc/self/exe, and must not be able to change it
	if err != nil {
		return nil, err
	}
	if program, err = selfexe.Above(program, files...); err != nil {
		return nil, err
	}
	defer program.Close()
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS, Unshareflags: unix.CLONE_NEWNS}
	release := func() {}
	if !j.Outlives { // the kernel means the thread that started it
		runtime.LockOSThread()
		attr.Pdeathsig, release = unix.SIGKILL, runtime.UnlockOSThread
	}
	p, err := os.StartProcess(selfexe.Path(program), []string{"dhowd", j.Word, strconv.Itoa(len(j.Folders)), strconv.Itoa(len(files) - 3), strconv.FormatInt(j.Memory, 10)},
		&os.ProcAttr{Dir: "/", Env: []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0"}, Files: files, Sys: attr})
	if err != nil {
		release()
		return nil, err
	}
	go func() { // ends when the process has read it, or is gone
		ours[0].Write(in)
		ours[0].Close()
	}()
	return &child{process: p, out: ours[1], errs: ours[2], release: release}, nil
}

func (j Job) order(files []*os.File) ([]byte, error) {
	task, err := json.Marshal(j.Task)
	if err != nil {
		return nil, err
	}
	o := order{Task: task}
	for _, f := range files {
		o.Names = append(o.Names, f.Name())
	}
	return json.Marshal(o)
}

// listen reads what the process says until it is gone. One that says too much is killed.
func (c *child) listen() (answer, errs []byte) {
	heard := make(chan []byte)
	go func() { // ends with the process
		b, _ := io.ReadAll(io.LimitReader(c.errs, mostErrors))
		c.errs.Close()
		heard <- b
	}()
	answer, err := io.ReadAll(io.LimitReader(c.out, mostAnswer+1))
	if err != nil || len(answer) > mostAnswer {
		c.process.Kill()
		answer = nil
	}
	c.out.Close()
	return answer, <-heard
}
