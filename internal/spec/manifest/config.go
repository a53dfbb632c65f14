package manifest

import (
	"fmt"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// DecodeConfig reads an image config. Its rootfs has one strict digest per layer; strings that become arguments or environment
// of a process hold no NUL. Everything else in it is data that whoever uses it must still judge.
func DecodeConfig(raw []byte) (dockerspec.DockerOCIImage, error) {
	var c dockerspec.DockerOCIImage
	if len(raw) > MaxSize {
		return c, badConfig("larger than %d bytes", MaxSize)
	}
	if _, err := decodeStrict(raw, &c); err != nil {
		return c, badConfig("%w", err)
	}
	return c, CheckConfig(c)
}

// CheckConfig applies DecodeConfig's rules to a config that was made rather than read.
func CheckConfig(c dockerspec.DockerOCIImage) error {
	if t := c.RootFS.Type; t != "layers" {
		return badConfig("rootfs.type is %q, want \"layers\"", clip(t))
	}
	if n := len(c.RootFS.DiffIDs); n > MaxLayers {
		return badConfig("%d layers, at most %d are allowed", n, MaxLayers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if _, err := ref.ParseDigest(d.String()); err != nil {
			return badConfig("rootfs.diff_ids[%d]: %w", i, err)
		}
	}
	for field, list := range map[string][]string{
		"User": {c.Config.User}, "WorkingDir": {c.Config.WorkingDir}, "StopSignal": {c.Config.StopSignal}, "os": {c.OS},
		"architecture": {c.Architecture}, "variant": {c.Variant},
		"Env": c.Config.Env, "Entrypoint": c.Config.Entrypoint, "Cmd": c.Config.Cmd, "Shell": c.Config.Shell,
	} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return badConfig("%s holds a NUL byte", field)
			}
		}
	}
	return nil
}

func badConfig(format string, args ...any) error {
	return errdef.As(errdef.DataLoss, fmt.Errorf("bad image config: "+format, args...))
}
