package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dhow-containers/dhow/internal/testkit/disk"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
)

// TestForms runs testdata/forms/core.txtar with engines that keep layers in each form.
func TestForms(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("running containers needs root")
	}
	dhow := filepath.Join(harness.Programs(t), "dhow")
	for form, driver := range map[string]string{"erofs": "erofs", "erofs-loop": "erofs", "dir": "overlayfs", "btrfs": "btrfs", "vfs": "vfs"} {
		t.Run(form, func(t *testing.T) {
			flags := []string{"--layers", form}
			if form == "btrfs" {
				flags = append(flags, "--data-root", disk.Mounted(t, "btrfs", 2048)+"/data")
			}
			w := full(t, flags...)
			script(t, w, "testdata/forms/core.txtar", dhow, "FORM="+form, "DRIVER="+driver)
		})
	}
}
