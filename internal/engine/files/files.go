// Package files owns what others see and change of the files in containers: which differ from the image, and copies in and out.
//
// It promises that a path which a container controls is resolved inside of it, whatever the container does meanwhile, and that mounts
// made for that are seen by nobody and gone when the call ends. It must never run anything found there.
package files

import (
	"context"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Service implements api.Files.
type Service struct {
	Containers Containers
	Snapshots  Snapshots
}

// Containers finds containers.
type Containers interface {
	Record(ref string) (*api.Container, error)
}

// Snapshots tells what a container's writable layer holds, by the container's ID.
type Snapshots interface {
	Changes(ctx context.Context, id string, f func(upper.Change) error) error
}
