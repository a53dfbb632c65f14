package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// folderLock is a container's folder of runtime state, opened and locked (flock(2)): by who makes the container, until it is made, and by who
// deletes it. The lock ends with its process.
type folderLock struct {
	dir string
	fd  int
}

// lockFolder locks a folder that is there; EWOULDBLOCK: somebody else has it, ENOENT: there is none.
func lockFolder(dir string) (folderLock, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return folderLock{}, err
	}
	l := folderLock{dir, fd}
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil && l.gone() {
		err = unix.ENOENT
	}
	if err != nil {
		unix.Close(fd)
	}
	return l, err
}

// gone tells whether the folder was removed since it was opened; one of that name may be another container's.
func (l folderLock) gone() bool {
	var st unix.Stat_t
	return unix.Fstat(l.fd, &st) != nil || st.Nlink == 0
}

// release lets go of the lock, with remove after the folder was removed.
func (l folderLock) release(remove bool) {
	if remove && !l.gone() {
		removeFolder(l.dir)
	}
	unix.Close(l.fd)
}

// newFolder makes the container's folder of runtime state, by which its ID is taken.
func newFolder(o *CreateOptions) (string, folderLock, error) {
	if err := state.ValidID(o.ID); err != nil {
		return "", folderLock{}, err
	}
	dir := filepath.Join(o.Root, o.ID)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrNotExist) { // the first container
		if err = os.MkdirAll(o.Root, 0o700); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if os.IsExist(err) {
		return "", folderLock{}, errdef.New(errdef.Conflict, "container with given ID already exists: %q; delete it or choose another ID", o.ID)
	}
	if err == nil {
		var l folderLock
		if l, err = lockFolder(dir); err == nil {
			return dir, l, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.ENOENT) {
			return "", l, errdef.New(errdef.Conflict, "create container %s: it was deleted meanwhile", o.ID)
		}
		unix.Rmdir(dir)
	}
	return "", folderLock{}, fmt.Errorf("create container %s: %w", o.ID, err)
}

// The time that who makes a container has to notice that its child was killed, and who removes one to do so.
const (
	creatorHas = 2 * time.Second
	removerHas = 10 * time.Second
)

// claim locks the folder of a container that shall be removed, and reads its state again; gone: another process has removed it, be there
// one of the same name by now or not. Of one that was not made to its end the child is killed, with force: who still makes it takes back what
// it made, or does not notice (a hook takes its time) and will find it removed. Without force that is an error.
func claim(c *Container, force bool) (lock folderLock, gone bool, err error) {
	creating, has := c.State.Pid == 0, removerHas
	if creating {
		has = creatorHas
	}
	for end := time.Now().Add(has); ; time.Sleep(10 * time.Millisecond) {
		lock, err = lockFolder(c.dir())
		switch {
		case errors.Is(err, unix.ENOENT):
			return lock, true, nil
		case err == nil:
			s, err := state.Load(c.root, c.State.ID)
			switch {
			case errdef.Is(err, errdef.NotFound):
				lock.release(true)
				return lock, true, nil
			case err != nil || !s.Created.Equal(c.State.Created):
				lock.release(false)
				return lock, err == nil, err
			}
			c.State = *s
			return lock, false, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return lock, false, fmt.Errorf("lock container %s: %w", c.State.ID, err)
		case creating && !force:
			return lock, false, errdef.New(errdef.Conflict, "cannot delete container %s that is not stopped: it is being created", c.State.ID)
		}
		late := time.Now().After(end)
		if late && !creating {
			return lock, false, errdef.New(errdef.Conflict, "cannot delete container %s: another process is deleting it", c.State.ID)
		}
		if creating {
			if err := killAll(c); err != nil || late {
				return folderLock{c.dir(), -1}, false, err
			}
		}
	}
}

// removeState removes the state folder: what every container has there by name, the state itself last, and what else there is by looking.
func removeState(dir string) error {
	for _, name := range []string{state.Program, bundle.ConfigFile, state.File} {
		unix.Unlink(filepath.Join(dir, name))
	}
	if unix.Rmdir(dir) == nil {
		return nil
	}
	return removeFolder(dir)
}

// Discard removes what a creation or removal that was cut off left of a container without a state. What is not there, or being made just now,
// is no error.
func Discard(root, id string) error {
	if err := state.ValidID(id); err != nil {
		return err
	}
	dir := filepath.Join(root, id)
	l, err := lockFolder(dir)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	defer l.release(false)
	if _, err := os.Lstat(filepath.Join(dir, state.File)); !errors.Is(err, fs.ErrNotExist) {
		return nil // it was made meanwhile
	}
	return removeFolder(dir)
}

// removeFolder removes a state folder and lets go of the mounts that it may hold.
func removeFolder(dir string) error {
	for range 2 { // mostly there is nothing; else what holds a mount namespace, and what that lies on
		if unix.Unmount(filepath.Join(dir, state.Mounts), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			break
		}
	}
	return os.RemoveAll(dir)
}
