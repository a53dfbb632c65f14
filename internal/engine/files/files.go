// Package files owns what others see and change of the files in containers: which differ from the image, and copies in and out.
//
// It promises that a path which a container controls is resolved inside of it, whatever the container does meanwhile, and that mounts
// made for that are seen by nobody and gone when the call ends. It must never run anything found there.
package files

import (
	"context"
	"os"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Service implements api.Files.
type Service struct {
	Containers Containers
	Snapshots  Snapshots
	Spool      string // a folder for nameless files: tars that come in, until they are whole
	Jail       bool   // what is copied in is written by a process that is locked in: this program gives Layer to jail.Main
}

// Containers finds containers and opens their files: their root as seen inside, with volumes and binds.
type Containers interface {
	Record(ref string) (*api.Container, error)
	// Look opens them for reading; the container goes on.
	Look(ctx context.Context, ref string, f func(*api.Container, *os.File) error) error
	// Change opens them for writing, by mounts of their own on which nothing acts (mount.Inert); nothing else is done with the container meanwhile.
	Change(ctx context.Context, ref string, f func(*api.Container, *os.File) error) error
	// Event tells that files were copied in or out.
	Event(rec *api.Container, in bool, path string)
}

// Snapshots tells what a container's writable layer holds, by the container's ID.
type Snapshots interface {
	Changes(ctx context.Context, id string, f func(upper.Change) error) error
}
