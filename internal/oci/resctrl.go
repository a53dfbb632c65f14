package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// UpdateSchemata changes the schemata of the container's class of service (Intel RDT, Documentation/filesystems/resctrl.rst): one line each,
// like L3:0=f. A container that was made without a class cannot get one.
func UpdateSchemata(c *Container, lines ...string) error {
	if len(c.State.Resctrl) == 0 {
		return errdef.New(errdef.InvalidArgument, "updating a non-existent Intel RDT configuration is not supported: container %q was made without linux.intelRdt", c.State.ID)
	}
	for _, l := range lines {
		if l == "" || strings.ContainsAny(l, "\n\x00") {
			return errdef.New(errdef.InvalidArgument, "schema %q is not one line", l)
		}
		f, err := os.OpenFile(filepath.Join(c.State.Resctrl[0], "schemata"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("update schemata: %w", err)
		}
		_, err = f.WriteString(l + "\n") // a write is a change: the kernel takes none by halves
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("update schemata %q: %w", l, err)
		}
	}
	return nil
}
