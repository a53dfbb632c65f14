// Package bundle owns what is promised to a container: the OCI config.json and, beside it, how its root file system is put together.
//
// It promises that what Load returns has been bounded and checked for shape (field by field checks belong to the compiler).
// It must never touch the kernel objects that a bundle describes.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Spec is the OCI runtime configuration (runtime-spec 1.3, config.md).
type Spec = specs.Spec

// Names of the files of a bundle.
const (
	ConfigFile  = "config.json"
	RootfsFile  = "rootfs.json"
	ProgramFile = "program.txt"
)

// MaxConfig bounds config.json and rootfs.json, in bytes.
const MaxConfig = 4 << 20

// Rootfs says how the root file system is mounted inside the container's own mount namespace. A bundle without one (nil) uses
// Spec.Root.Path as it is, which is all that OCI knows.
type Rootfs struct {
	// Folder, where set, is the whole root file system, writable, that no other container uses (copies and btrfs snapshots); Lower, Upper and
	// Work are empty then.
	Folder string `json:"folder,omitempty"`
	// Lower holds the read-only layers, topmost first.
	Lower []Layer `json:"lower"`
	// Upper and Work are the writable layer and overlayfs' scratch folder; both empty makes the root read-only.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Scratch is an empty folder under which the layers are attached, in the container's mount namespace only.
	Scratch string `json:"scratch"`
	// Volatile skips overlayfs' syncs (the writable layer dies with the container).
	Volatile bool `json:"volatile,omitempty"`
}

// Layer is one read-only layer.
type Layer struct {
	// Type is "dir" (Source is a folder) or "erofs" (Source is an EROFS image, Devices its extra devices in order).
	Type    string   `json:"type"`
	Source  string   `json:"source"`
	Devices []string `json:"devices,omitempty"`
	// Loop asks for loop devices over Source and Devices, where EROFS is mounted from no plain file (kernels before 6.12).
	Loop bool `json:"loop,omitempty"`
	// Mounted, where set, is the path of a descriptor of the layer's root, which other containers use, too: it is mounted already. It needs overlayfs
	// over detached layers (Linux 6.15); before, the layer is mounted from Source.
	Mounted string `json:"mounted,omitempty"`
}

// linuxSpec is the part of Spec that concerns Linux. encoding/json studies every type it may meet before it decodes the first byte; the
// other platforms' types would take half of that time, which a runtime spends at every start.
type linuxSpec struct {
	Version     string            `json:"ociVersion"`
	Process     *specs.Process    `json:"process"`
	Root        *specs.Root       `json:"root"`
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname"`
	Mounts      []specs.Mount     `json:"mounts"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations"`
	Linux       *specs.Linux      `json:"linux"`
}

// Load reads config.json and, where there is one, rootfs.json from dir. The parts of the config for other platforms are left out.
func Load(dir string) (*Spec, *Rootfs, error) {
	s, r, _, err := LoadRaw(dir)
	return s, r, err
}

// LoadRaw is Load, and returns the bytes of config.json as well.
func LoadRaw(dir string) (*Spec, *Rootfs, []byte, error) {
	file := filepath.Join(dir, ConfigFile)
	raw, err := read(file)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := decode(raw)
	if err != nil {
		return nil, nil, nil, errdef.New(errdef.InvalidArgument, "parse %s: %w", file, err)
	}
	file = filepath.Join(dir, RootfsFile)
	text, err := read(file)
	if errdef.Is(err, errdef.NotFound) {
		return s, nil, raw, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	r, err := decodeRootfs(text)
	if err != nil {
		return nil, nil, nil, errdef.New(errdef.InvalidArgument, "parse %s: %w", file, err)
	}
	return s, r, raw, nil
}

// Save writes both files into dir, atomically each; r may be nil.
func Save(dir string, s *Spec, r *Rootfs) error {
	if err := writeJSON(filepath.Join(dir, ConfigFile), s); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	return writeJSON(filepath.Join(dir, RootfsFile), r)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return atomicfile.WriteVolatile(path, append(b, '\n'), 0o600, false)
}

func read(path string) ([]byte, error) {
	b, err := atomicfile.Read(path, MaxConfig)
	switch {
	case errors.Is(err, atomicfile.ErrTooLarge):
		return nil, errdef.As(errdef.InvalidArgument, err)
	case os.IsNotExist(err):
		return nil, errdef.As(errdef.NotFound, err)
	}
	return b, err

}
