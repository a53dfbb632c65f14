package oci

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func TestUpdateSchemata(t *testing.T) {
	var c Container
	if err := UpdateSchemata(&c, "L3:0=f"); !errdef.Is(err, errdef.InvalidArgument) {
		t.Errorf("without a class of service: %v, want InvalidArgument", err)
	}
	c.State.Resctrl = []string{t.TempDir()}
	file := filepath.Join(c.State.Resctrl[0], "schemata")
	if err := UpdateSchemata(&c, "L3:0=f"); err == nil {
		t.Error("a class of service that is gone: no error")
	}
	check(t, os.WriteFile(file, nil, 0o644))
	for _, bad := range []string{"", "L3:0=f\nL3:1=f"} {
		if err := UpdateSchemata(&c, bad); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%q: %v, want InvalidArgument", bad, err)
		}
	}
	check(t, UpdateSchemata(&c, "L3:0=f"))
	if got := content(t, file); got != "L3:0=f" {
		t.Errorf("schemata %q", got)
	}
}
