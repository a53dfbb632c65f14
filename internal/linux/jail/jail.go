// Package jail owns processes that are locked in: our own program, started anew, that does one piece of work with bytes of strangers.
//
// It promises that such a process reaches the descriptors it was given and nothing else: its root is an empty folder that it cannot write
// to, it has mounts, processes and IPC of its own, files below its folders only, no device, no program and no socket, the few
// capabilities that making files takes, and the system calls of the list in filter.go; and that no thread of it begins before all that
// holds. What the kernel does not know (Landlock before Linux 5.19) is left out, all else is not. It must never be entered by a process
// that has other work.
package jail

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/selfexe"
)

// Trade is what a locked in process can do.
type Trade struct {
	Word string // the first argument of a program that is to be that process
	Do   func(Work) error
}

// Work is what it gets.
type Work struct {
	Task           json.RawMessage
	Folders, Files []*os.File // with the names they had
}

// order is what it reads, and verdict what it answers; no text is success.
type order struct {
	Names []string
	Task  json.RawMessage
}

type verdict struct {
	Kind  errdef.Kind
	Text  string
	Errno syscall.Errno
}

// Limits of what the two tell each other.
const (
	mostOrder  = 1 << 20
	mostAnswer = 64 << 10
	mostErrors = 4 << 10
)

// firstFD is the first descriptor behind the standard ones.
const firstFD = 3

// Main is for the beginning of every program that calls Run: it does not return when the arguments say that this process is to be locked in.
func Main(args []string, trades ...Trade) {
	if len(args) != 5 {
		return
	}
	for _, t := range trades {
		if t.Word == args[1] {
			os.Exit(t.serve(args[2:]))
		}
	}
}

func (t Trade) serve(args []string) (code int) {
	selfexe.Name(t.Word)
	var v verdict
	if err := t.work(args); err != nil {
		v = verdict{Kind: errdef.KindOf(err), Text: err.Error()}
		errors.As(err, &v.Errno)
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// work locks this process in before it reads what it is to do.
func (t Trade) work(args []string) error {
	var n [3]int // folders, all descriptors, bytes of memory
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(args[i]); err != nil {
			return fmt.Errorf("jail: %w", err)
		}
	}
	if err := enter(n[0], n[1], int64(n[2])); err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	var o order
	if err := json.NewDecoder(io.LimitReader(os.Stdin, mostOrder)).Decode(&o); err != nil {
		return fmt.Errorf("jail: read the task: %w", err)
	}
	if len(o.Names) != n[1] {
		return fmt.Errorf("jail: %d descriptors, %d names", n[1], len(o.Names))
	}
	all := make([]*os.File, n[1])
	for i := range all {
		all[i] = os.NewFile(uintptr(firstFD+i), o.Names[i])
	}
	return t.Do(Work{Task: o.Task, Folders: all[:n[0]], Files: all[n[0]:]})
}
